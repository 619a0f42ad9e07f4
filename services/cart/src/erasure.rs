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

    fn knows(&self, name: &str) -> bool {
        bus::listed(name, contracts::identity::v1::EVENTS)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::{Currency, EventSet as _};
    use contracts::identity::v1::UserErased;
    use log::Meta;
    use server::Context;
    use store::site;

    use super::*;
    use crate::cart::{Added, Line};

    fn erased(user: &str) -> Message {
        let event = Identity::UserErased(UserErased { user: user.to_owned(), actor: "users/op".to_owned() });
        Message {
            service: "identity".to_owned(),
            shard: 0,
            position: 1,
            stream: user.to_owned(),
            version: 2,
            name: event.name().to_owned(),
            schema: event.schema(),
            occur_time: jiff::Timestamp::UNIX_EPOCH,
            causation: String::new(),
            correlation: String::new(),
            traceparent: String::new(),
            subject: None,
            payload: event.encode(),
        }
    }

    fn events(customer: &str) -> Vec<CartEvent> {
        let line = |id: u32| {
            let (sku, variant, title) = (format!("S-{id}"), String::new(), "Thing".to_owned());
            Added { line: Line { id, sku, variant, title, stocked: true, quantity: 5 }, added: 5 }
        };
        vec![
            CartEvent::Created { customer: customer.to_owned(), currency: Currency::EUR, actor: String::new() },
            CartEvent::Added((1..120).map(line).collect()),
            CartEvent::QuantitySet { line: 2, quantity: 7 },
            CartEvent::Removed { line: 3 },
            CartEvent::OrderedRemoved { order: "orders/1".to_owned(), remaining: vec![(1, 5), (2, 1)] },
            CartEvent::Added(vec![line(120), line(1)]),
            CartEvent::Closed { order: "orders/2".to_owned() },
        ]
    }

    #[tokio::test]
    async fn an_erased_customer_owns_no_cart_and_rows_are_still_the_logs() {
        let context = Context::temporary(contracts::METHODS);
        let store = context.open("cart", &[rows::MIGRATIONS]).await.unwrap();
        let log: Log<Event> = Log::new(store.clone(), vec![Arc::new(rows::Rows)]);
        let writer = log.clone();
        store
            .write(site!("test.carts"), async move |tx: &mut Tx| {
                for (cart, customer) in [("carts/a", "users/1"), ("carts/b", "users/1"), ("carts/c", "users/2")] {
                    let all = events(customer).iter().map(|event| wire::to_stored(cart, customer, event)).collect();
                    writer.append(tx, cart, 0, &Meta::default(), None, all).await?;
                }
                Ok::<_, log::Error>(())
            })
            .await
            .unwrap();

        for _ in 0..2 {
            let handler = Erasure { log: log.clone() };
            let outcome = store.write(site!("test.erase"), async move |tx: &mut Tx| {
                let outcome = handler.apply(tx, &erased("users/1")).await;
                assert_eq!(outcome, Ok(()));
                Ok::<_, store::Error>(())
            });
            outcome.await.unwrap();
        }

        let all = store.read(async move |tx: &mut Tx| {
            let mut all = vec![];
            for cart in ["carts/a", "carts/b", "carts/c"] {
                all.push(rows::load(tx, cart).await?.unwrap());
            }
            Ok::<_, store::Error>(all)
        });
        let all = all.await.unwrap();
        let owners: Vec<&str> = all.iter().map(|stored| stored.cart.customer.as_str()).collect();
        assert_eq!(owners, ["", "", "users/2"]);
        assert_eq!((all[0].version, all[0].lines_version, all[2].version), (8, 6, 7));

        // The rows are what the fold says, and what a rebuild makes.
        let fold = events("users/2").iter().fold(crate::cart::Cart::default(), |cart, event| cart.evolve(event));
        assert_eq!(all[2].cart.lines, fold.lines);
        assert_eq!((all[2].cart.next_line, all[2].cart.state), (fold.next_line, fold.state));
        assert_eq!(log.verify("carts").await.unwrap(), []);
        log.rebuild("carts").await.unwrap();
        assert_eq!(log.verify("carts").await.unwrap(), []);
    }

    #[tokio::test]
    async fn the_key_of_quotes_is_made_once() {
        let context = Context::temporary(contracts::METHODS);
        let store = context.open("cart", &[rows::MIGRATIONS]).await.unwrap();
        for fresh in [[1; 32], [2; 32]] {
            let keys = store.write(site!("test.keys"), async move |tx: &mut Tx| rows::quote_keys(tx, fresh).await);
            assert_eq!(keys.await.unwrap(), [(1, [1; 32])]);
        }
    }
}
