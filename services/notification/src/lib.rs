//! Notification: messages to customers, each once, mostly from what other services' events say.
//!
//! Owns recipients and messages. Invariants: that a message is to be sent is committed before it is sent, in the transaction
//! that consumes its cause; one cause makes one message; a mail is handed over *at least once*, each time with the same
//! Message-ID; addresses and texts are sealed, and nothing is sent to somebody who is erased. Emits the events of
//! `stoa.notification.v1`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod consumers;
mod error;
mod filter;
mod intent;
pub mod mail;
mod rpc;
mod sender;
mod store;
mod transport;
mod wire;

use std::sync::Arc;

use contracts::notification::v1::METHODS;
use contracts::notification::v1::notification_service_server::NotificationServiceServer;
use lettre::message::Mailbox;
use log::Log;
use server::{Component, Context, Task};
use tonic::service::Routes;

pub use config::{Config, Flags, Transport};
pub use error::Error;
pub use store::MIGRATIONS;

/// The service over its own store: routes, the consumer of identity and ordering, the sender unless mail is off, its log as a
/// source.
pub async fn build(config: Config, context: &Context) -> Result<Component, Error> {
    let from: Mailbox =
        config.from.parse().map_err(|_| Error::Configuration(format!("{} is no address", config.from)))?;
    let transport = transport::Transport::open(&config.transport, &context.data)?;
    let house = intent::House { domain: from.email.domain().to_owned(), sends: transport.is_some() };
    let store = context.open("notification", &[MIGRATIONS]).await?;
    let log = Log::new(store.clone(), vec![Arc::new(store::Rows)]);
    let events = Arc::new(consumers::Events { log: log.clone(), house: house.clone() });
    let consumer = bus::Consumer::new("notification", store, context.hub.clone(), &["identity", "ordering"], events);
    let routes = Routes::new(NotificationServiceServer::new(rpc::Rpc { log: log.clone(), house }));
    let desk = operations::Desk::new(&log).consumers([&consumer]);
    let consuming = consumer.run(context.shutdown.clone().cancelled_owned());
    let mut component = Component::new("notification", contract::Table(METHODS), routes)
        .task(Task::endless("notification.consumer", consuming))
        .source(bus::source(log.clone()));
    if let Some(transport) = transport {
        let sender = sender::Sender { log, transport, from, config };
        component = component.task(Task::endless("notification.sender", sender.run(context.clone())));
    }
    Ok(desk.serve(component))
}
