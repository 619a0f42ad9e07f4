//! Every log read whole: its own order, and what it says of stock, orders and payments.

use std::collections::HashMap;

use bus::Message;
use contract::EventSet;

use super::acknowledged::Streams;
use super::findings::{Findings, Invariant};
use super::money::Payments;
use super::orders::Orders;
use super::stock::Stock;
use crate::shop::{SERVICES, Shop, Unreached};

/// Events read at a time.
const PAGE: u32 = 2048;

/// What the logs say, folded.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) stock: Stock,
    pub(crate) orders: Orders,
    pub(crate) payments: Payments,
    pub(crate) streams: Streams,
}

/// Reads the logs of all services.
pub(crate) async fn read(shop: &Shop, findings: &mut Findings) -> anyhow::Result<Books> {
    let mut books = Books::default();
    let (mut events, mut streams) = (0_u64, 0);
    for service in SERVICES {
        let Some(source) = shop.context.hub.source(service) else {
            findings.broken(Invariant::I12, service, "its log cannot be read");
            continue;
        };
        let mut versions: HashMap<String, u64> = HashMap::new();
        for (shard, head) in (0..).zip(source.heads().await.map_err(Unreached::or_failed)?) {
            let mut after = 0;
            while after < head {
                let page = match source.read(shard, after, PAGE).await {
                    Ok(page) => page,
                    Err(error @ bus::Error::Away { .. }) => return Err(Unreached::or_failed(error)),
                    Err(error) => {
                        findings.broken(Invariant::I12, service, chain(&error));
                        break;
                    }
                };
                let Some(last) = page.last().map(|message| message.position) else {
                    findings.broken(Invariant::I11, service, format!("shard {shard} ends at {after}, not at {head}"));
                    break;
                };
                for (expected, message) in (after + 1..).zip(&page) {
                    let found = message.position;
                    if found != expected {
                        findings.broken(Invariant::I11, service, format!("position {found} follows {}", expected - 1));
                    }
                    check(message, &mut versions, findings);
                    books.note(message, findings);
                }
                events += page.len() as u64;
                after = last;
            }
        }
        streams += versions.len();
        books.streams.keep(service, versions);
    }
    findings.checked(Invariant::I9, format!("{events} events, each with its cause"));
    findings.checked(Invariant::I10, format!("{streams} streams, each with versions from 1 on"));
    findings.checked(Invariant::I11, format!("{} logs without holes", SERVICES.len()));
    findings.checked(Invariant::I12, format!("{events} checksums"));
    Ok(books)
}

fn check(message: &Message, versions: &mut HashMap<String, u64>, findings: &mut Findings) {
    if message.causation.is_empty() {
        findings.broken(Invariant::I9, &message.stream, format!("{} has no cause", message.name));
    }
    let seen = match versions.get_mut(&message.stream) {
        Some(seen) => seen,
        None => versions.entry(message.stream.clone()).or_insert(0),
    };
    if message.version != *seen + 1 {
        findings.broken(Invariant::I10, &message.stream, format!("version {} follows {seen}", message.version));
    }
    *seen = message.version;
}

impl Books {
    fn note(&mut self, message: &Message, findings: &mut Findings) {
        self.streams.note(message);
        match message.service.as_str() {
            "inventory" => {
                if let Some(event) = decoded(message, findings) {
                    self.stock.note(message, &event);
                }
            }
            "ordering" => {
                if let Some(event) = decoded(message, findings) {
                    self.orders.note(message, &event);
                }
            }
            "payment" => {
                if let Some(event) = decoded(message, findings) {
                    self.payments.note(message, &event);
                }
            }
            _ => {}
        }
    }
}

fn decoded<E: EventSet>(message: &Message, findings: &mut Findings) -> Option<E> {
    let decoded = E::decode(&message.name, message.schema, &message.payload);
    decoded.map_err(|error| findings.broken(Invariant::I12, &message.stream, error.to_string())).ok()
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
