//! What a service in another process keeps of what it told others, as an operator lists it over the network.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use auth::{Principal, Role, Subject};
use client::{Channel, Outgoing};
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use contracts::operations::v1::{
    Answer, AnswerOutcome, DeadLetter, InboxEntry, ListAnswersRequest, ListDeadLettersResponse, ListInboxRequest,
};
use log::Log;
use log::conformance::toy::{self, Event};
use operations::Desk;
use server::{Component, Context, Storage};
use store::{Clock, Config, Store, Tx, site};
use tokio::net::TcpListener;
use tonic::{Code, Request};

struct Elsewhere {
    log: Log<Event>,
    client: OperationsServiceClient<Channel>,
}

/// The toy service in what could be another process: only its port is known here.
async fn elsewhere() -> Elsewhere {
    let sets = [log::MIGRATIONS, log::conformance::MIGRATIONS];
    let store = Store::open(Config::new("toy", store::conformance::engine().await).migrations(sets)).await.unwrap();
    let log = toy::log(store);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let desk = Desk::new(&log);
    tokio::spawn(async move {
        let component = Component::new("toy", contracts::METHODS, tonic::service::Routes::default());
        server::serve(listener, desk.serve(component), &surroundings()).await.unwrap();
    });
    let here = surroundings();
    here.clients.connect("toy", &address).unwrap();
    let client = OperationsServiceClient::new(here.clients.as_caller(auth::GATEWAY).channel("toy"));
    Elsewhere { log, client }
}

fn surroundings() -> Context {
    Context::in_fleet(Storage::Temporary, std::env::temp_dir(), contracts::METHODS, &[7; 32], Clock::system())
}

fn by<T>(role: Role, message: T) -> Request<T> {
    let subject = Subject { id: "users/boss".to_owned(), role, session: String::new() };
    Outgoing { principal: Principal::User(subject), ..Outgoing::default() }.request(message)
}

/// An answer with resources by name, and with a text that is a person's.
fn reply(names: &[&str]) -> ListDeadLettersResponse {
    let letter = |name: &&str| DeadLetter {
        name: (*name).to_owned(),
        error: "Ada Lovelace, 12 St James's Square".to_owned(),
        ..DeadLetter::default()
    };
    ListDeadLettersResponse { dead_letters: names.iter().map(letter).collect(), ..Default::default() }
}

impl Elsewhere {
    async fn answer(&self, key: &str, names: &[&str]) {
        let (request, reply) = (toy::request("users/1", key, "5"), reply(names));
        let body = async move |_: &mut Tx| Ok::<_, log::Error>(reply.clone());
        self.log.once(site!("test.answer"), Some(request), body).await.unwrap();
    }

    async fn deal_with(&self, stream: &'static str, version: u64) {
        let record = async move |tx: &mut Tx| log::inbox::record(tx, "views", "other", stream, version).await;
        self.log.store().write(site!("test.deal_with"), record).await.unwrap();
    }

    /// The pages of answers, to the last one.
    async fn answers(&mut self, page_size: i32) -> Vec<Vec<Answer>> {
        let mut asked = ListAnswersRequest { parent: "services/toy".to_owned(), page_size, ..Default::default() };
        let mut pages = Vec::new();
        loop {
            let page = self.client.list_answers(by(Role::Operator, asked.clone())).await.unwrap().into_inner();
            pages.push(page.answers);
            asked.page_token = page.next_page_token;
            if asked.page_token.is_empty() {
                return pages;
            }
        }
    }

    async fn inbox(&mut self, page_size: i32) -> Vec<InboxEntry> {
        let mut asked = ListInboxRequest { parent: "services/toy".to_owned(), page_size, ..Default::default() };
        let mut entries = Vec::new();
        loop {
            let page = self.client.list_inbox(by(Role::Operator, asked.clone())).await.unwrap().into_inner();
            entries.extend(page.entries);
            asked.page_token = page.next_page_token;
            if asked.page_token.is_empty() {
                return entries;
            }
        }
    }
}

#[tokio::test]
async fn answers_are_told_by_their_names_alone_and_one_that_is_gone_or_damaged_is_seen() {
    let mut there = elsewhere().await;
    for (key, names) in
        [("k1", &["orders/a"][..]), ("k2", &["orders/b", "orders/c"]), ("k3", &[]), ("k4", &["orders/d"])]
    {
        there.answer(key, names).await;
    }
    let listed: Vec<Answer> = there.answers(3).await.into_iter().flatten().collect();
    let seen: Vec<_> = listed.iter().map(|it| (&*it.request_id, it.outcome(), it.resources.len())).collect();
    let done = AnswerOutcome::Done;
    assert_eq!(seen, [("k1", done, 1), ("k2", done, 2), ("k3", done, 0), ("k4", done, 1)]);
    assert_eq!((&*listed[0].principal, &*listed[0].method), ("users/1", "/stoa.toy.v1.Toy/Move"));
    assert_eq!(listed[1].resources, ["orders/b", "orders/c"]);
    assert!(!format!("{listed:?}").contains("Ada"), "a person's text left the service: {listed:?}");

    toy::execute(there.log.store(), "DELETE FROM requests WHERE key = 'k1'").await;
    toy::execute(there.log.store(), "UPDATE requests SET state = 'CLAIMED' WHERE key = 'k2'").await;
    toy::execute(there.log.store(), "UPDATE requests SET body = fingerprint WHERE key = 'k4'").await;
    let listed: Vec<Answer> = there.answers(3).await.into_iter().flatten().collect();
    let seen: Vec<_> = listed.iter().map(|it| (&*it.request_id, it.outcome())).collect();
    assert_eq!(seen, [("k2", AnswerOutcome::Claimed), ("k3", done), ("k4", AnswerOutcome::Unreadable)]);
}

#[tokio::test]
async fn a_page_ends_early_where_answers_name_very_much_and_none_is_left_out() {
    let mut there = elsewhere().await;
    let names: Vec<String> = (0..70).map(|number| format!("orders/{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for number in 0..130 {
        there.answer(&format!("k{number}"), &names).await;
    }
    let pages = there.answers(1000).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 2]);
    let keys: BTreeSet<&str> = pages.iter().flatten().map(|it| &*it.request_id).collect();
    assert_eq!(keys.len(), 130);
}

#[tokio::test]
async fn what_consumers_have_dealt_with_is_listed_and_a_line_that_is_gone_is_missed() {
    let mut there = elsewhere().await;
    for (stream, version) in [("orders/a", 3), ("orders/b", 1), ("orders/c", 7)] {
        there.deal_with(stream, version).await;
    }
    let entry = |stream: &str, version| InboxEntry {
        consumer: "views".to_owned(),
        producer: "other".to_owned(),
        stream: stream.to_owned(),
        version,
    };
    assert_eq!(there.inbox(2).await, [entry("orders/a", 3), entry("orders/b", 1), entry("orders/c", 7)]);
    toy::execute(there.log.store(), "DELETE FROM inbox WHERE stream = 'orders/b'").await;
    assert_eq!(there.inbox(2).await, [entry("orders/a", 3), entry("orders/c", 7)]);
}

#[tokio::test]
async fn nobody_but_an_operator_is_told() {
    let mut there = elsewhere().await;
    let parent = "services/toy".to_owned();
    for role in [Role::Guest, Role::Customer] {
        let asked = ListAnswersRequest { parent: parent.clone(), ..Default::default() };
        let refused = there.client.list_answers(by(role, asked)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let asked = ListInboxRequest { parent: parent.clone(), ..Default::default() };
        let refused = there.client.list_inbox(by(role, asked)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    let asked = ListInboxRequest { parent: "services/other".to_owned(), ..Default::default() };
    let refused = there.client.list_inbox(by(Role::Operator, asked)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}
