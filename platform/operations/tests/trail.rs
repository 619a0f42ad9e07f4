//! The audit trail of a service, as an operator reads it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use auth::{Principal, Role, Subject};
use client::{Channel, Outgoing};
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use contracts::operations::v1::{
    AuditRecord, AuditVerdict, ListAuditRecordsRequest, ListInboxRequest, RebuildProjectionRequest,
};
use log::Log;
use log::conformance::toy;
use server::{Component, Context};
use tonic::{Code, Request};

const REBUILD: &str = "/stoa.operations.v1.OperationsService/RebuildProjection";
const LIST_INBOX: &str = "/stoa.operations.v1.OperationsService/ListInbox";
const SOON: Duration = Duration::from_secs(30);

struct Rig {
    log: Log<toy::Event>,
    client: OperationsServiceClient<Channel>,
}

async fn rig() -> Rig {
    let context = Context::temporary(contracts::METHODS);
    let store = context.open("toy", &[log::conformance::MIGRATIONS]).await.unwrap();
    let log = Log::new(store, vec![std::sync::Arc::new(toy::Accounts)]);
    let component = Component::new("toy", contracts::METHODS, tonic::service::Routes::default());
    context.mount(operations::Desk::new(&log).serve(component));
    let client = OperationsServiceClient::new(context.clients.as_caller(auth::GATEWAY).channel("toy"));
    Rig { log, client }
}

fn by<T>(id: &str, role: Role, message: T) -> Request<T> {
    let subject = Subject { id: id.to_owned(), role, session: String::new() };
    Outgoing { principal: Principal::User(subject), ..Outgoing::default() }.request(message)
}

fn toys() -> String {
    "services/toy".to_owned()
}

impl Rig {
    async fn list(&self, asked: ListAuditRecordsRequest) -> (Vec<AuditRecord>, String) {
        let asked = ListAuditRecordsRequest { parent: toys(), ..asked };
        let reply = self.client.clone().list_audit_records(by("users/boss", Role::Operator, asked)).await.unwrap();
        let reply = reply.into_inner();
        (reply.audit_records, reply.next_page_token)
    }

    async fn rebuild(&self) {
        let asked = RebuildProjectionRequest {
            name: "services/toy/projections/-".to_owned(),
            request_id: uuid::Uuid::now_v7().to_string(),
            ..Default::default()
        };
        self.client.clone().rebuild_projection(by("users/boss", Role::Operator, asked)).await.unwrap();
    }

    /// The refusals of a customer, once as many calls are told as there were.
    async fn refusals(&self, calls: i64) -> Vec<AuditRecord> {
        let verdict = AuditVerdict::Denied.into();
        let asked = ListAuditRecordsRequest { verdict, page_size: 1000, ..Default::default() };
        let told = async {
            loop {
                let (records, _) = self.list(asked.clone()).await;
                if records.iter().map(|it| it.call_count).sum::<i64>() >= calls {
                    return records;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, told).await.unwrap()
    }
}

#[tokio::test]
async fn a_change_is_told_before_and_after_by_whom_of_what_and_in_which_trace() {
    let rig = rig().await;
    rig.rebuild().await;

    let (records, _) = rig.list(ListAuditRecordsRequest { method: REBUILD.to_owned(), ..Default::default() }).await;
    let told: Vec<_> = records.iter().map(|it| (it.verdict(), it.resource.as_str())).collect();
    assert_eq!(told, [(AuditVerdict::Done, "services/toy/projections/-"), (AuditVerdict::Admitted, "")]);
    for record in &records {
        assert_eq!((record.principal.as_str(), record.caller.as_str()), ("users/boss", "gateway"));
        assert_eq!((record.trace_id.len(), record.call_count), (32, 1));
        assert!(record.name.starts_with("services/toy/auditRecords/") && record.create_time.is_some(), "{record:?}");
    }
    assert!(records[0].outcome.contains("rows"), "{:?}", records[0]);
}

#[tokio::test]
async fn what_is_refused_in_a_loop_is_few_rows_that_tell_of_every_call() {
    let rig = rig().await;
    for _ in 0..100 {
        let asked = ListInboxRequest { parent: toys(), ..Default::default() };
        let refused = rig.client.clone().list_inbox(by("users/1", Role::Customer, asked)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }

    let records = rig.refusals(100).await;
    assert_eq!(records.iter().map(|it| it.call_count).sum::<i64>(), 100);
    assert!(records.len() < 50, "{} rows", records.len());
    for record in &records {
        assert_eq!((record.method.as_str(), record.principal.as_str()), (LIST_INBOX, "users/1"));
        assert_eq!(record.reason, "the role Operator is needed");
    }
}

#[tokio::test]
async fn very_many_who_are_refused_at_once_are_counted_in_bounded_rows() {
    let rig = rig().await;
    for number in 0..1000 {
        let asked = ListInboxRequest { parent: toys(), ..Default::default() };
        let person = format!("guests/{number}");
        rig.client.clone().list_inbox(by(&person, Role::Guest, asked)).await.unwrap_err();
    }
    let records = rig.refusals(1000).await;
    assert_eq!(records.iter().map(|it| it.call_count).sum::<i64>(), 1000);
}

#[tokio::test]
async fn records_are_listed_newest_first_by_pages_and_by_what_is_asked() {
    let rig = rig().await;
    for _ in 0..3 {
        rig.rebuild().await;
    }
    let asked = |page_token| ListAuditRecordsRequest {
        method: REBUILD.to_owned(),
        page_size: 4,
        page_token,
        ..Default::default()
    };
    let (first, token) = rig.list(asked(String::new())).await;
    let (second, end) = rig.list(asked(token)).await;
    assert_eq!((first.len(), second.len(), end.as_str()), (4, 2, ""));
    let names: Vec<&str> = first.iter().chain(&second).map(|it| it.name.as_str()).collect();
    assert!(names.is_sorted_by(|one, next| one > next), "{names:?}");

    let nobody = ListAuditRecordsRequest { principal: "users/other".to_owned(), ..Default::default() };
    assert_eq!(rig.list(nobody).await.0, []);
    let resource = "services/toy/projections/-".to_owned();
    let about = ListAuditRecordsRequest { resource, ..Default::default() };
    assert_eq!(rig.list(about).await.0.len(), 3);
}

#[tokio::test]
async fn a_change_that_cannot_be_written_down_does_not_begin() {
    let rig = rig().await;
    toy::execute(rig.log.store(), "DROP TABLE audit_records").await;
    let asked = RebuildProjectionRequest { name: "services/toy/projections/-".to_owned(), ..Default::default() };
    let refused = rig.client.clone().rebuild_projection(by("users/boss", Role::Operator, asked)).await;
    assert_eq!(refused.unwrap_err().code(), Code::Internal);
}
