//! What orderview listens to: orders, which it folds into its views, and persons who are erased.
//!
//! At least once: the inbox drops what was applied, and a view drops events it has folded. It cannot skip a late commit,
//! because positions are dense and the consumer reads them one after the other.

use bus::{Failure, Handler, Message};
use contracts::identity::v1 as identity;
use contracts::ordering::v1 as ordering;
use contracts::orderview::v1::{Event as StoredEvent, SubjectErased};
use log::{LocalBoxFuture, Log};
use store::Tx;

use crate::store::{self as rows, Happened, Unfolded};

/// Folds ordering's events into the views.
pub(crate) struct Orders;

/// A message as the views fold it. One that cannot be decoded cannot be decoded later either.
pub(crate) fn happened(message: &Message) -> Result<Happened, Failure> {
    Ok(Happened {
        version: message.version,
        event_type: message.name.clone(),
        occur_time: message.occur_time,
        event: message.decode::<ordering::Event>()?,
    })
}

/// What it means that events could not be folded.
pub(crate) fn failure(error: Unfolded) -> Failure {
    match error {
        Unfolded::Log(error) => error.into(),
        Unfolded::Progress(..) => Failure::Permanent(error.to_string()),
    }
}

impl Handler for Orders {
    fn wants(&self, name: &str) -> bool {
        is_of_an_order(name)
    }

    fn knows(&self, name: &str) -> bool {
        bus::listed(name, ordering::EVENTS)
    }

    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { rows::fold(tx, &message.stream, &[happened(message)?]).await.map_err(failure) })
    }
}

/// Whether an event of ordering is about an order.
pub(crate) fn is_of_an_order(name: &str) -> bool {
    name != "stoa.ordering.v1.SubjectErased"
}

/// Follows identity: where an erased person is written to becomes unreadable.
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
