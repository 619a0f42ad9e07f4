//! What happens here when identity erases somebody: their carts become nobody's, and their key is destroyed.
//!
//! The event goes into the stream of each of their carts, not into one of its own, so that the rows of a cart follow from the
//! cart's stream alone. Delivered twice it does nothing: no cart is theirs any more.

use bus::{Failure, Handler, LocalBoxFuture, Message};
use contracts::cart::v1::Event;
use contracts::identity::v1::Event as Identity;
use log::Log;
use store::Tx;

use crate::cart::Event as CartEvent;
use crate::{store as rows, wire};

/// The consumer's handler.
#[derive(Debug)]
pub(crate) struct Erasure {
    pub(crate) log: Log<Event>,
}

impl Handler for Erasure {
    fn wants(&self, name: &str) -> bool {
        name == "stoa.identity.v1.UserErased"
    }

    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let Identity::UserErased(erased) = message.decode::<Identity>()? else { return Ok(()) };
            for cart in rows::carts_of(tx, &erased.user).await? {
                let event = wire::to_stored(&cart, &erased.user, &CartEvent::Erased);
                self.log.append_next(tx, &cart, &message.meta(), None, vec![event]).await?;
            }
            log::personal::forget(tx, &erased.user).await?;
            Ok(())
        })
    }
}
