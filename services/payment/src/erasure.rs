//! What happens here when identity erases somebody: their key is destroyed, and with it the tokens of their payments. An
//! authorization in doubt is then only asked about, never repeated. Delivered twice it does nothing more.

use std::sync::Arc;

use bus::{Consumer, Failure, Handler, LocalBoxFuture, Message};
use contracts::identity::v1::Event as Identity;
use contracts::payment::v1 as proto;
use log::Log;
use server::Context;
use store::Tx;

/// The consumer that listens to identity.
pub(crate) fn consumer(log: &Log<proto::Event>, context: &Context) -> Consumer {
    let erasure = Arc::new(Erasure { log: log.clone() });
    Consumer::new("payment.identity", log.store().clone(), context.hub.clone(), &["identity"], erasure)
}

struct Erasure {
    log: Log<proto::Event>,
}

impl Handler for Erasure {
    fn wants(&self, name: &str) -> bool {
        name == "stoa.identity.v1.UserErased"
    }

    fn knows(&self, name: &str) -> bool {
        bus::listed(name, contracts::identity::v1::EVENTS)
    }

    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let Identity::UserErased(erased) = message.decode::<Identity>()? else { return Ok(()) };
            let event = proto::Event::SubjectErased(proto::SubjectErased { subject: erased.user.clone() });
            let stream = format!("subjects/{}", erased.user);
            self.log.append_next(tx, &stream, &message.meta(), None, vec![event]).await?;
            log::personal::forget(tx, &erased.user).await?;
            Ok(())
        })
    }
}
