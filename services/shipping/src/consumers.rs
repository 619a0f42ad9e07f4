//! What shipping listens to: persons who are erased.
//!
//! At least once: the inbox drops what was applied, and an erasure applied twice changes nothing more.

use bus::{Failure, Handler, Message};
use contracts::identity::v1 as identity;
use contracts::shipping::v1::{Event as StoredEvent, SubjectErased};
use log::{LocalBoxFuture, Log};
use store::Tx;

/// Follows identity: where an erased person's parcels went becomes unreadable.
pub(crate) struct Persons {
    pub(crate) log: Log<StoredEvent>,
}

impl Handler for Persons {
    fn wants(&self, name: &str) -> bool {
        name == "stoa.identity.v1.UserErased"
    }

    fn knows(&self, name: &str) -> bool {
        bus::listed(name, identity::EVENTS)
    }

    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let identity::Event::UserErased(erased) = message.decode::<identity::Event>()? else { return Ok(()) };
            let subject = erased.user;
            let stream = format!("subjects/{}", subject.replace('/', "-"));
            let event = StoredEvent::SubjectErased(SubjectErased { subject: subject.clone() });
            self.log.append_next(tx, &stream, &message.meta(), None, vec![event]).await?;
            log::personal::forget(tx, &subject).await?;
            Ok(())
        })
    }
}
