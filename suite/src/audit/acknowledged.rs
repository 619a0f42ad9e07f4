//! What was acknowledged, held against the logs: answers to callers, what consumers have dealt with, the causes of effects.
//!
//! A log alone cannot tell that its end is missing, for a shorter log is as whole as a longer one. Others can: who was
//! answered with a resource, who dealt with a version of its stream, and whose event it caused have all seen what must still
//! be there. The logs are read first; what seems to be missing is looked for once more, so a shop that goes on selling in
//! between is not told broken.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bus::Message;
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use contracts::operations::v1::{Answer, AnswerOutcome, InboxEntry, ListAnswersRequest, ListInboxRequest};
use jiff::Timestamp;
use tonic::Status;

use super::findings::{Findings, Invariant};
use super::logs::Books;
use crate::shop::{SERVICES, Shop, Unreached};

/// Answers and inbox rows asked for at a time.
const PAGE: i32 = 1000;

/// How long an answer is surely kept; older orders may have lost theirs.
const KEPT: Duration = bus::ANSWERS_KEPT;

/// Where orders are answered.
const PLACE_ORDER: &str = "/stoa.ordering.v1.OrderingService/PlaceOrder";

/// Collections of each service whose resources are streams of its log.
const COLLECTIONS: [(&str, &str); 7] = [
    ("identity", "users"),
    ("catalog", "products"),
    ("inventory", "reservations"),
    ("cart", "carts"),
    ("ordering", "orders"),
    ("payment", "payments"),
    ("shipping", "shipments"),
];

/// An event that somebody has seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    service: String,
    stream: String,
    version: u64,
    /// By whom.
    by: String,
}

/// The versions of all streams, by service, as far as the logs were read; and which of other services' events they name as
/// their cause.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    versions: HashMap<&'static str, HashMap<String, u64>>,
    /// The latest version of a stream that is named as a cause, and the stream that names it.
    causes: HashMap<(&'static str, String), (u64, String)>,
}

/// What the services have told others.
#[derive(Debug, Default)]
struct Told {
    answers: u64,
    rows: u64,
    /// Seen by somebody, and not in the logs as they were read.
    doubtful: BTreeSet<Seen>,
    /// Orders that a request was answered with; nothing where ordering's answers were not looked at.
    orders: Option<HashSet<String>>,
}

impl Streams {
    /// Keeps the versions of one service's streams.
    pub(crate) fn keep(&mut self, service: &'static str, versions: HashMap<String, u64>) {
        self.versions.insert(service, versions);
    }

    /// Keeps what an event says of its cause, if that is an event.
    pub(crate) fn note(&mut self, message: &Message) {
        let Some((service, rest)) = message.causation.split_once('/') else { return };
        let Some(service) = SERVICES.into_iter().find(|name| *name == service) else { return };
        let Some((stream, version)) = rest.rsplit_once('/') else { return };
        let Ok(version) = version.parse::<u64>() else { return };
        let cause = self.causes.entry((service, stream.to_owned())).or_default();
        if version > cause.0 {
            *cause = (version, message.stream.clone());
        }
    }

    fn hold(&self, service: &str, stream: &str, version: u64) -> bool {
        let last = self.versions.get(service).and_then(|streams| streams.get(stream));
        last.is_some_and(|last| version <= *last)
    }
}

/// Looks whether everything that was acknowledged is in the logs, and every request has one effect.
pub(crate) async fn judge(shop: &Shop, books: &Books, now: Timestamp, findings: &mut Findings) -> anyhow::Result<()> {
    let mut told = Told::default();
    for service in SERVICES {
        if let Err(status) = told.read(service, shop, &books.streams, findings).await {
            if server::status::unreached(&status) {
                return Err(Unreached::or_said(service, &status));
            }
            findings.broken(Invariant::I12, service, status.message());
        }
    }
    told.causes(&books.streams);
    let mut lost = Vec::new();
    for seen in std::mem::take(&mut told.doubtful) {
        let Some(source) = shop.context.hub.source(&seen.service) else { continue };
        match source.read_stream(&seen.stream, seen.version, 1).await {
            Ok(page) if page.is_empty() => lost.push(seen),
            Err(error @ bus::Error::Away { .. }) => return Err(Unreached::or_failed(error)),
            // What is there and cannot be read is told elsewhere.
            Ok(_) | Err(_) => {}
        }
    }
    tell(&lost, &told, books.streams.causes.len(), findings);
    one_effect(&told, books, now, findings);
    Ok(())
}

fn tell(lost: &[Seen], told: &Told, causes: usize, findings: &mut Findings) {
    for Seen { service, stream, version, by } in lost {
        findings.broken(Invariant::I8, stream, format!("version {version} is not in the log of {service}, but {by}"));
    }
    let Told { answers, rows, .. } = told;
    findings.checked(
        Invariant::I8,
        format!("what {answers} answers, {rows} streams of consumers and {causes} causes speak of is in the logs"),
    );
}

/// An order nobody was answered with is a second effect of somebody's request, or of none.
fn one_effect(told: &Told, books: &Books, now: Timestamp, findings: &mut Findings) {
    findings.checked(Invariant::I12, format!("{} stored answers can be read", told.answers));
    let Some(orders) = &told.orders else { return };
    let mut answered = 0;
    for (name, order) in &books.orders.by_name {
        if orders.contains(name) {
            answered += 1;
        } else if order.placed_within(KEPT, now) {
            findings.broken(Invariant::I7, name, "no request was answered with it");
        }
    }
    findings.checked(Invariant::I7, format!("{answered} orders answered under a request id"));
}

impl Told {
    async fn read(
        &mut self,
        service: &'static str,
        shop: &Shop,
        streams: &Streams,
        findings: &mut Findings,
    ) -> Result<(), Status> {
        if service == "ordering" {
            self.orders = Some(HashSet::new());
        }
        let mut client = OperationsServiceClient::new(shop.channel(service));
        let parent = format!("services/{service}");
        let mut asked = ListAnswersRequest { parent: parent.clone(), page_size: PAGE, page_token: String::new() };
        loop {
            let page = client.list_answers(Shop::by_operator(asked.clone())).await?.into_inner();
            for answer in &page.answers {
                self.answered(service, answer, streams, findings);
            }
            asked.page_token = page.next_page_token;
            if asked.page_token.is_empty() {
                break;
            }
        }
        let mut asked = ListInboxRequest { parent, page_size: PAGE, page_token: String::new() };
        loop {
            let page = client.list_inbox(Shop::by_operator(asked.clone())).await?.into_inner();
            for row in &page.entries {
                self.dealt_with(service, row, streams);
            }
            asked.page_token = page.next_page_token;
            if asked.page_token.is_empty() {
                return Ok(());
            }
        }
    }

    fn answered(&mut self, service: &'static str, answer: &Answer, streams: &Streams, findings: &mut Findings) {
        self.answers += 1;
        let Answer { principal, method, request_id, resources, .. } = answer;
        match answer.outcome() {
            AnswerOutcome::Refused => {}
            AnswerOutcome::Claimed => {
                let why = format!("{method} of {principal} was begun and has neither an effect nor an answer");
                findings.broken(Invariant::I7, &format!("{service} request {request_id}"), why);
            }
            AnswerOutcome::Done => {
                for name in resources {
                    self.named(service, method, name, streams);
                }
            }
            AnswerOutcome::Unreadable | AnswerOutcome::Unspecified => {
                let why = format!("the answer of {method} to {principal} cannot be read");
                findings.broken(Invariant::I12, &format!("{service} request {request_id}"), why);
            }
        }
    }

    fn named(&mut self, service: &'static str, method: &str, name: &str, streams: &Streams) {
        let Some(stream) = stream_of(service, name) else { return };
        if method == PLACE_ORDER {
            self.orders.get_or_insert_default().insert(stream.to_owned());
        }
        self.seen(service, stream, 1, streams, || format!("{method} was answered with it"));
    }

    fn dealt_with(&mut self, service: &'static str, row: &InboxEntry, streams: &Streams) {
        self.rows += 1;
        let InboxEntry { consumer, producer, stream, version } = row;
        let version = u64::try_from(*version).unwrap_or(0);
        self.seen(producer, stream, version, streams, || format!("{service}'s {consumer} has dealt with it"));
    }

    fn causes(&mut self, streams: &Streams) {
        for ((service, stream), (version, effect)) in &streams.causes {
            self.seen(service, stream, *version, streams, || format!("{effect} names it as its cause"));
        }
    }

    fn seen(&mut self, service: &str, stream: &str, version: u64, streams: &Streams, by: impl Fn() -> String) {
        if version > 0 && !streams.hold(service, stream, version) {
            let (service, stream) = (service.to_owned(), stream.to_owned());
            self.doubtful.insert(Seen { service, stream, version, by: by() });
        }
    }
}

/// The stream of a resource: its own, or that of the resource it is part of.
fn stream_of<'a>(service: &str, name: &'a str) -> Option<&'a str> {
    let (collection, rest) = name.split_once('/')?;
    if !COLLECTIONS.contains(&(service, collection)) {
        return None;
    }
    let id = rest.split('/').next().filter(|id| !id.is_empty())?;
    name.get(..collection.len() + 1 + id.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(known: &[(&'static str, &str, u64)]) -> Streams {
        let mut streams = Streams::default();
        for (service, stream, version) in known {
            streams.versions.entry(service).or_default().insert((*stream).to_owned(), *version);
        }
        streams
    }

    fn answer(method: &str, outcome: AnswerOutcome, names: &[&str]) -> Answer {
        let (principal, method, request_id) = ("users/u".to_owned(), method.to_owned(), "k".to_owned());
        let resources = names.iter().map(|&name| name.to_owned()).collect();
        Answer { principal, method, request_id, outcome: outcome.into(), resources }
    }

    #[test]
    fn an_answered_order_must_be_in_the_log() {
        let known = streams(&[("ordering", "orders/a", 3)]);
        let (mut told, mut findings) = (Told::default(), Findings::default());
        told.answered("ordering", &answer(PLACE_ORDER, AnswerOutcome::Done, &["orders/a"]), &known, &mut findings);
        assert!(told.doubtful.is_empty() && told.orders.as_ref().unwrap().contains("orders/a"));
        told.answered("ordering", &answer(PLACE_ORDER, AnswerOutcome::Done, &["orders/b"]), &known, &mut findings);
        assert_eq!(told.doubtful.first().map(|seen| seen.stream.as_str()), Some("orders/b"));
        assert!(findings.hold());
    }

    #[test]
    fn a_refusal_speaks_of_nothing_and_a_claim_without_an_answer_is_told() {
        let (mut told, mut findings) = (Told::default(), Findings::default());
        told.answered(
            "ordering",
            &answer(PLACE_ORDER, AnswerOutcome::Refused, &[]),
            &Streams::default(),
            &mut findings,
        );
        assert!(findings.hold() && told.doubtful.is_empty());
        told.answered(
            "ordering",
            &answer(PLACE_ORDER, AnswerOutcome::Claimed, &[]),
            &Streams::default(),
            &mut findings,
        );
        assert!(findings.lines().iter().any(|line| line.starts_with("I7 BROKEN ordering request k")));
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_told() {
        let (mut told, mut findings) = (Told::default(), Findings::default());
        told.answered("cart", &answer("/m", AnswerOutcome::Unreadable, &[]), &Streams::default(), &mut findings);
        assert!(findings.lines().iter().any(|line| line.starts_with("I12 BROKEN cart request k")));
    }

    #[test]
    fn what_a_consumer_has_dealt_with_must_be_in_the_log() {
        let known = streams(&[("ordering", "orders/a", 3)]);
        let mut told = Told::default();
        let mut row = InboxEntry {
            consumer: "views".to_owned(),
            producer: "ordering".to_owned(),
            stream: "orders/a".to_owned(),
            version: 3,
        };
        told.dealt_with("orderview", &row, &known);
        assert!(told.doubtful.is_empty());
        row.version = 4;
        told.dealt_with("orderview", &row, &known);
        assert_eq!(told.doubtful.first().map(|seen| seen.version), Some(4));
    }

    #[test]
    fn a_cause_must_be_in_the_log_where_it_is_an_event() {
        let mut known = streams(&[("ordering", "orders/a", 3)]);
        let mut message = Message {
            service: "notification".to_owned(),
            shard: 0,
            position: 1,
            stream: "notifications/n".to_owned(),
            version: 1,
            name: String::new(),
            schema: 1,
            occur_time: Timestamp::UNIX_EPOCH,
            causation: "ordering/orders/a/3".to_owned(),
            correlation: String::new(),
            traceparent: String::new(),
            subject: None,
            payload: Vec::new(),
        };
        known.note(&message);
        message.causation = format!("{}/00f067aa0ba902b7", PLACE_ORDER.trim_start_matches('/'));
        known.note(&message);
        let mut told = Told::default();
        told.causes(&known);
        assert!(told.doubtful.is_empty());
        message.causation = "ordering/orders/a/4".to_owned();
        known.note(&message);
        told.causes(&known);
        let seen = told.doubtful.first().unwrap();
        assert_eq!((seen.version, seen.by.as_str()), (4, "notifications/n names it as its cause"));
    }

    #[test]
    fn a_part_of_a_resource_is_in_the_stream_of_the_whole() {
        assert_eq!(stream_of("payment", "payments/p/attempts/1"), Some("payments/p"));
        assert_eq!(stream_of("ordering", "orders/o"), Some("orders/o"));
        assert_eq!(stream_of("ordering", "carts/c"), None, "ordering is no witness for its own copy of a name");
        assert_eq!(stream_of("ordering", "orders/"), None);
        assert_eq!(stream_of("inventory", "warehouses/w/stockItems/s"), None);
    }
}
