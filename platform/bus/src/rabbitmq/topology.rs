//! The exchanges and queues, declared, and thereby read back: a broker refuses a declaration that differs from what is there.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ErrorKind, ExchangeKind};

use super::fault::Fault;
use super::link::{Open, within};

/// A message that ends a process comes again as often as the process starts; parking and giving up are its consumer's
/// business. There is no way to say "without limit" to all versions; some have a limit of 20 if nothing is said.
const DELIVERY_LIMIT: i64 = 1_000_000_000;

/// The broker writes down that a quorum queue exists within half a second of its declaration, and not before it is declared.
/// Killed in that time it forgets the queue's log with everything it confirmed, so nothing is let in until then.
const REGISTERED: Duration = Duration::from_secs(1);

/// What could not be delivered all the same lies here for an operator to look at, the newest 64 MiB of it.
const DEAD_BYTES: i64 = 64 << 20;

/// What things are called in the broker.
#[derive(Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(super) fn exchange(&self, producer: &str) -> String {
        format!("{}.{producer}", self.prefix)
    }

    pub(super) fn queue(&self, producer: &str, consumer: &str, number: u32) -> String {
        format!("{}.{producer}.{consumer}.{number}", self.prefix)
    }

    fn dead(&self) -> String {
        // No service has such a name.
        format!("{}.-dead", self.prefix)
    }

    /// The sign that somebody wants the events of a producer.
    fn sign(&self, producer: &str) -> String {
        format!("{}.{producer}.-wanted", self.prefix)
    }

    pub(super) async fn want(&self, open: &Open, producer: &str) -> Result<(), Fault> {
        declare_exchange(&channel(open).await?, &self.sign(producer), ExchangeKind::Fanout).await
    }

    pub(super) async fn are_wanted(&self, open: &Open, producer: &str) -> Result<bool, Fault> {
        let channel = channel(open).await?;
        let sign = self.sign(producer);
        let options = ExchangeDeclareOptions { passive: true, durable: true, ..Default::default() };
        let asking = channel.exchange_declare(sign.into(), ExchangeKind::Fanout, options, FieldTable::default());
        found(within("look for an exchange", asking).await)
    }

    /// The exchange of a producer, and where dead letters go.
    pub(super) async fn declare(&self, open: &Open, producer: &str) -> Result<(), Fault> {
        let channel = channel(open).await?;
        declare_exchange(&channel, &self.exchange(producer), ExchangeKind::Direct).await?;
        let dead = self.dead();
        declare_exchange(&channel, &dead, ExchangeKind::Fanout).await?;
        let arguments = [
            ("x-queue-type", AMQPValue::LongString("quorum".into())),
            ("x-max-length-bytes", AMQPValue::LongLongInt(DEAD_BYTES)),
            ("x-overflow", AMQPValue::LongString("drop-head".into())),
        ];
        declare_queue(&channel, &dead, arguments).await?;
        bind(&channel, &dead, &dead, "").await
    }
}

/// A queue of a group of consumers.
pub(super) struct Queue<'a> {
    pub(super) name: &'a str,
    pub(super) exchange: &'a str,
    /// The shards it takes.
    pub(super) shards: &'a [u32],
}

impl Queue<'_> {
    pub(super) async fn declare(&self, open: &Open, names: &Names) -> Result<(), Fault> {
        let is_new = !exists(open, self.name).await?;
        let channel = channel(open).await?;
        let arguments = [
            ("x-queue-type", AMQPValue::LongString("quorum".into())),
            ("x-single-active-consumer", AMQPValue::Boolean(true)),
            ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
            ("x-dead-letter-exchange", AMQPValue::LongString(names.dead().into())),
            ("x-dead-letter-strategy", AMQPValue::LongString("at-most-once".into())),
        ];
        declare_queue(&channel, self.name, arguments).await?;
        if is_new {
            tokio::time::sleep(REGISTERED).await;
        }
        for shard in self.shards {
            bind(&channel, self.name, self.exchange, &shard.to_string()).await?;
        }
        Ok(())
    }

    /// Makes it anew, empty.
    pub(super) async fn replace(&self, open: &Open, names: &Names) -> Result<(), Fault> {
        let channel = channel(open).await?;
        let deleting = channel.queue_delete(self.name.into(), QueueDeleteOptions::default());
        within("delete a queue", deleting).await?;
        self.declare(open, names).await
    }
}

async fn exists(open: &Open, queue: &str) -> Result<bool, Fault> {
    // A channel of its own: the answer "no" closes it.
    let channel = channel(open).await?;
    let options = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
    let asking = channel.queue_declare(queue.into(), options, FieldTable::default());
    found(within("look for a queue", asking).await)
}

fn found<T>(answer: Result<T, Fault>) -> Result<bool, Fault> {
    match answer {
        Ok(_) => Ok(true),
        Err(Fault::Protocol(error)) if is(&error, AMQPSoftError::NOTFOUND) => Ok(false),
        Err(fault) => Err(fault),
    }
}

fn is(error: &lapin::Error, wanted: AMQPSoftError) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if *error.kind() == AMQPErrorKind::Soft(wanted))
}

async fn channel(open: &Open) -> Result<Channel, Fault> {
    within("open a channel", open.connection().create_channel()).await
}

async fn declare_exchange(channel: &Channel, name: &str, kind: ExchangeKind) -> Result<(), Fault> {
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let declaring = channel.exchange_declare(name.into(), kind, options, FieldTable::default());
    let declared = within("declare an exchange", declaring).await;
    declared.map_err(|fault| explained(fault, "exchange", name))
}

async fn declare_queue<const N: usize>(
    channel: &Channel,
    name: &str,
    arguments: [(&str, AMQPValue); N],
) -> Result<(), Fault> {
    let mut table = FieldTable::default();
    for (argument, value) in arguments {
        table.insert(argument.into(), value);
    }
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    let declared = within("declare a queue", channel.queue_declare(name.into(), options, table)).await;
    declared.map(drop).map_err(|fault| explained(fault, "queue", name))
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), Fault> {
    let options = QueueBindOptions::default();
    let binding = channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default());
    within("bind a queue", binding).await
}

/// A declaration that was refused because there is something else of that name.
fn explained(fault: Fault, what: &str, name: &str) -> Fault {
    match &fault {
        Fault::Protocol(error) if is(error, AMQPSoftError::PRECONDITIONFAILED) => Fault::Differs {
            what: format!("the {what} {name}"),
            found: format!("another one ({error})"),
            wanted: "what this version declares".to_owned(),
        },
        _ => fault,
    }
}
