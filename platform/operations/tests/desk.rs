//! A service with a log, a saga and a projection, as an operator sees it through every layer.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use auth::{Principal, Role, Subject};
use client::{Channel, Outgoing};
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use contracts::operations::v1::{
    ForceCompensateRequest, GetSagaRequest, ListProjectionsRequest, ListSagasRequest, ReadLogRequest,
    RebuildProjectionRequest, RetrySagaStepRequest, Saga, SagaPhase, VerifyProjectionRequest,
};
use futures_util::future::BoxFuture;
use log::Log;
use log::conformance::toy;
use saga::{Attempt, Definition, Effect, Kind, OnDeadline, Outcome, Refusal, Runner, Start, Step};
use server::{Component, Context};
use store::{Tx, site};
use tonic::{Code, Request};

fn wait<'a>(_: &'a (), _: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async { Outcome::Wait { until: jiff::Timestamp::MAX, why: "the bank".to_owned(), effect: None } })
}

fn done<'a>(_: &'a (), _: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async { Outcome::done() })
}

fn nothing(_: &(), _: &Attempt, _: &Refusal) -> Effect {
    Box::new(async |_: &mut Tx| Ok(()))
}

const fn step(name: &'static str, kind: Kind, action: saga::Action<()>) -> Step<()> {
    Step {
        name,
        kind,
        action,
        compensation: Some(done),
        try_timeout: Duration::from_secs(1),
        deadline: Duration::from_secs(60),
        on_deadline: OnDeadline::Retry,
        milestone: false,
    }
}

static WAITING: Definition<()> = Definition {
    name: "waiting",
    version: 1,
    steps: &[step("reserve", Kind::Compensatable, done), step("pay", Kind::Pivot, wait)],
    unwound: nothing,
    stuck: nothing,
};

struct Rig {
    context: Context,
    log: Log<toy::Event>,
    runner: Runner<()>,
    client: OperationsServiceClient<Channel>,
}

async fn rig() -> Rig {
    let context = Context::temporary(contracts::METHODS);
    let store = context.open("toy", &[saga::MIGRATIONS, log::conformance::MIGRATIONS]).await.unwrap();
    let log = Log::new(store.clone(), vec![Arc::new(toy::Accounts)]);
    let runner = Runner::new(store, Arc::new(()), vec![&WAITING], saga::Config::default());
    let component = Component::new("toy", contracts::METHODS, tonic::service::Routes::default());
    context.mount(operations::Desk::new(&log).sagas(&runner).serve(component));
    tokio::spawn(runner.clone().run(context.shutdown.clone()));
    let client = OperationsServiceClient::new(context.clients.as_caller(auth::GATEWAY).channel("toy"));
    Rig { context, log, runner, client }
}

fn by_operator<T>(message: T) -> Request<T> {
    let subject = Subject { id: "users/boss".to_owned(), role: Role::Operator, session: String::new() };
    Outgoing { principal: Principal::User(subject), ..Outgoing::default() }.request(message)
}

fn uuid() -> String {
    uuid::Uuid::now_v7().to_string()
}

impl Rig {
    /// Starts sagas that wait at their second step.
    async fn sagas(&self, ids: &[&str]) {
        for id in ids {
            let start = Start {
                id: (*id).to_owned(),
                data: Vec::new(),
                correlation: "orders/1".to_owned(),
                traceparent: String::new(),
            };
            let store = self.runner.store();
            let enqueue = async move |tx: &mut Tx| saga::enqueue(tx, &WAITING, &start).await;
            assert!(store.write(site!("test.start"), enqueue).await.unwrap());
            self.runner.wake(id);
            self.until(id, |saga| saga.step == "pay" && saga.attempt_count > 0).await;
        }
    }

    async fn saga(&self, id: &str) -> Saga {
        let name = format!("services/toy/sagas/{id}");
        self.client.clone().get_saga(by_operator(GetSagaRequest { name })).await.unwrap().into_inner()
    }

    async fn until(&self, id: &str, condition: impl Fn(&Saga) -> bool) -> Saga {
        let found = async {
            loop {
                let saga = self.saga(id).await;
                if condition(&saga) {
                    return saga;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found).await.unwrap()
    }
}

#[tokio::test]
async fn sagas_are_listed_newest_first_page_by_page_and_shown_with_their_steps() {
    let mut rig = rig().await;
    rig.sagas(&["a", "b", "c"]).await;
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let parent = "services/toy".to_owned();
        let asked = ListSagasRequest { parent, page_size: 2, page_token, open_only: true, ..Default::default() };
        let page = rig.client.list_sagas(by_operator(asked)).await.unwrap().into_inner();
        seen.extend(page.sagas.into_iter().map(|saga| saga.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["services/toy/sagas/c", "services/toy/sagas/b", "services/toy/sagas/a"]);
    let saga = rig.saga("a").await;
    assert_eq!((saga.definition.as_str(), saga.phase(), saga.steps.len()), ("waiting", SagaPhase::Running, 2));
    assert_eq!(saga.steps[1].detail, "the bank");
}

#[tokio::test]
async fn a_saga_is_made_to_undo_what_it_did_and_a_dry_run_changes_nothing() {
    let mut rig = rig().await;
    rig.sagas(&["a"]).await;
    let asked = |validate_only| ForceCompensateRequest {
        name: "services/toy/sagas/a".to_owned(),
        reason: "the customer called".to_owned(),
        request_id: uuid(),
        validate_only,
    };
    rig.client.force_compensate(by_operator(asked(true))).await.unwrap();
    assert_eq!(rig.saga("a").await.phase(), SagaPhase::Running);
    rig.client.force_compensate(by_operator(asked(false))).await.unwrap();
    let undone = rig.until("a", |saga| saga.phase() == SagaPhase::Done).await;
    assert!(undone.last_error.starts_with("the customer called"), "{undone:?}");
    let refused = rig.client.force_compensate(by_operator(asked(false))).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
}

#[tokio::test]
async fn a_request_id_is_not_taken_twice_and_another_service_is_not_here() {
    let mut rig = rig().await;
    rig.sagas(&["a", "b"]).await;
    let request_id = uuid();
    let asked = |id: &str| RetrySagaStepRequest {
        name: format!("services/{id}"),
        request_id: request_id.clone(),
        validate_only: false,
    };
    rig.client.retry_saga_step(by_operator(asked("toy/sagas/a"))).await.unwrap();
    rig.client.retry_saga_step(by_operator(asked("toy/sagas/a"))).await.unwrap();
    let refused = rig.client.retry_saga_step(by_operator(asked("toy/sagas/b"))).await.unwrap_err();
    assert_eq!(server::status::reason(&refused).as_deref(), Some("REQUEST_ID_REUSED"));
    let missing = rig.client.retry_saga_step(by_operator(asked("ordering/sagas/a"))).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn a_damaged_projection_is_found_and_made_again() {
    let mut rig = rig().await;
    let events = vec![toy::opened("Ada"), toy::moved(5)];
    toy::append(&rig.log, "accounts/1", Some("users/1"), events).await.unwrap();
    let parent = "services/toy".to_owned();
    let listed = rig.client.list_projections(by_operator(ListProjectionsRequest { parent, ..Default::default() }));
    let projection = listed.await.unwrap().into_inner().projections.remove(0);
    assert_eq!(projection.row_count, 2);
    toy::execute(rig.log.store(), "DELETE FROM toy_entries").await;

    let name = projection.name;
    let verify = VerifyProjectionRequest { name: name.clone() };
    let found = rig.client.verify_projection(by_operator(verify.clone())).await.unwrap().into_inner();
    assert_eq!((found.difference_count, found.event_count), (1, 2));
    let rebuild = |validate_only| RebuildProjectionRequest { name: name.clone(), request_id: uuid(), validate_only };
    let dry = rig.client.rebuild_projection(by_operator(rebuild(true))).await.unwrap().into_inner();
    assert_eq!((dry.difference_count, dry.event_count), (1, 0));
    let rebuilt = rig.client.rebuild_projection(by_operator(rebuild(false))).await.unwrap().into_inner();
    assert_eq!((rebuilt.difference_count, rebuilt.event_count, rebuilt.row_count), (1, 2, 2));
    let clean = rig.client.verify_projection(by_operator(verify)).await.unwrap().into_inner();
    assert_eq!((clean.difference_count, clean.row_count), (0, 2));
}

#[tokio::test]
async fn a_service_follows_the_log_and_an_operator_does_not() {
    let rig = rig().await;
    toy::append(&rig.log, "accounts/1", Some("users/1"), vec![toy::opened("Ada")]).await.unwrap();
    let asked = ReadLogRequest { parent: "services/toy".to_owned(), follow: true, ..Default::default() };
    let refused = rig.client.clone().read_log(by_operator(asked.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut reader = OperationsServiceClient::new(rig.context.clients.as_caller("orderview").channel("toy"));
    let mut answers = reader.read_log(Outgoing::default().request(asked)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().records[0].position, 1);
    toy::append(&rig.log, "accounts/1", Some("users/1"), vec![toy::moved(2)]).await.unwrap();
    let next = answers.message().await.unwrap().unwrap();
    assert_eq!((next.records[0].version, next.head), (2, 2));
}
