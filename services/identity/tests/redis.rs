//! Copies of identity that share a Redis: one limit, and doors that know what ended, whatever became of the Redis.
#![cfg(feature = "fleet")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use auth::{Principal, Subject};
use cache::{Address, Cache, Standing, conformance};
use client::{Channel, Outgoing};
use contracts::identity::v1 as proto;
use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use identity::{Config, Hashing, Limit, OPERATOR_EMAIL, Secret};
use server::{Context, Storage};
use tempfile::TempDir;
use tonic::{Code, Request, Status};

const PASSWORD: &str = "battery staple";

fn address() -> Address {
    let address = conformance::address_of_test().expect("CACHE_TEST_REDIS names no server");
    Address { lease: Duration::from_secs(2), ..address }
}

/// A copy of identity with its tasks running; it ends when it is dropped.
struct Copy {
    context: Context,
    client: IdentityServiceClient<Channel>,
}

impl Copy {
    async fn start(storage: Storage, address: &Address) -> Self {
        let mut context = Context::new(storage, std::env::temp_dir(), contracts::METHODS, &[7; 32]);
        context.cache = Cache::shared(address).unwrap();
        let config = Config {
            operator_password: Some(Secret::from(PASSWORD.to_owned())),
            source_limit: Limit { failures: 5, window: Duration::from_secs(3600) },
            hashing: Hashing { memory_kib: 64, passes: 1, lanes: 1, parallel: 2, waiting: 64 },
            ..Config::default()
        };
        let built = loop {
            match identity::build(config.clone(), &context).await {
                // The store's own thread may hold its last handle for a moment after it was let go here.
                Err(identity::Error::Log(log::Error::Store(store::Error::Locked { .. }))) => {
                    tokio::task::yield_now().await
                }
                built => break built.unwrap(),
            }
        };
        let (_, tasks) = context.mount(built.component);
        tokio::spawn({
            let context = context.clone();
            async move { server::supervise(tasks, &context).await }
        });
        let client = IdentityServiceClient::new(context.clients.as_caller("gateway").channel("identity"));
        Copy { context, client }
    }

    async fn sign_in(&self, password: &str, source: &'static str) -> Result<proto::SignInResponse, Status> {
        let message = proto::SignInRequest { email: OPERATOR_EMAIL.to_owned(), password: password.to_owned() };
        let mut request = Request::new(message);
        request.metadata_mut().insert("stoa-client-address", source.parse().unwrap());
        self.client.clone().sign_in(request).await.map(tonic::Response::into_inner)
    }

    fn subject(&self, access_token: &str) -> Subject {
        self.context.verifier.verify(access_token, self.context.clock.now()).unwrap()
    }

    async fn revoke(&self, session: &str, by: Subject) -> Result<(), Status> {
        let outgoing = Outgoing { principal: Principal::User(by), ..Outgoing::default() };
        let message = proto::RevokeSessionRequest { name: session.to_owned(), request_id: String::new() };
        self.client.clone().revoke_session(outgoing.request(message)).await.map(drop)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.context.shutdown.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis server"]
async fn two_copies_share_the_limit_of_a_source() {
    let address = address();
    let copies = [Copy::start(Storage::Temporary, &address).await, Copy::start(Storage::Temporary, &address).await];
    for guess in 0..5 {
        let failed = copies[guess % 2].sign_in("guess", "203.0.113.7").await.unwrap_err();
        assert_eq!(failed.code(), Code::Unauthenticated);
    }
    for copy in &copies {
        let limited = copy.sign_in(PASSWORD, "203.0.113.7").await.unwrap_err();
        assert_eq!(limited.code(), Code::ResourceExhausted);
        // A right password costs nothing, however often.
        for _ in 0..10 {
            copy.sign_in(PASSWORD, "203.0.113.8").await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis server"]
async fn a_door_elsewhere_refuses_a_session_as_soon_as_its_end_is_answered() {
    let address = address();
    let door = Cache::shared(&address).unwrap().marks().clone();
    let copy = Copy::start(Storage::Temporary, &address).await;
    let signed_in = copy.sign_in(PASSWORD, "203.0.113.7").await.unwrap();
    conformance::becomes(&*door, &signed_in.session, Standing::Good).await;
    copy.revoke(&signed_in.session, copy.subject(&signed_in.access_token)).await.unwrap();
    assert_eq!(door.standing(&signed_in.session).await, Ok(Standing::Revoked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis server"]
async fn an_end_that_nobody_was_told_of_before_a_crash_is_told_after_it() {
    let folder = TempDir::new().unwrap();
    let storage = Storage::Folder(folder.path().to_owned());
    let address = address();
    let door = Cache::shared(&address).unwrap().marks().clone();
    let session = {
        // Its Redis is nowhere: what it ends is committed, and no mark is written.
        let nowhere = Address {
            url: "redis://127.0.0.1:1".to_owned(),
            authority: None,
            patience: Duration::from_millis(50),
            lease: Duration::from_millis(200),
            ..address.clone()
        };
        let copy = Copy::start(storage.clone(), &nowhere).await;
        let signed_in = copy.sign_in(PASSWORD, "203.0.113.7").await.unwrap();
        copy.revoke(&signed_in.session, copy.subject(&signed_in.access_token)).await.unwrap();
        signed_in.session
    };
    assert_eq!(door.standing(&session).await, Ok(Standing::Unknown));
    let _copy = Copy::start(storage, &address).await;
    conformance::becomes(&*door, "users/1/sessions/1", Standing::Good).await;
    assert_eq!(door.standing(&session).await, Ok(Standing::Revoked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis server"]
async fn an_end_in_another_place_is_vouched_for_by_whoever_fills_again() {
    let folder = TempDir::new().unwrap();
    let storage = Storage::Folder(folder.path().to_owned());
    let before = address();
    let copy = Copy::start(storage.clone(), &before).await;
    let signed_in = copy.sign_in(PASSWORD, "203.0.113.7").await.unwrap();
    copy.revoke(&signed_in.session, copy.subject(&signed_in.access_token)).await.unwrap();
    drop(copy);
    // An empty Redis, as after a loss of everything.
    let after = address();
    let door = Cache::shared(&after).unwrap().marks().clone();
    assert_eq!(door.standing(&signed_in.session).await, Ok(Standing::Unknown));
    let _copy = Copy::start(storage, &after).await;
    conformance::becomes(&*door, "users/1/sessions/1", Standing::Good).await;
    assert_eq!(door.standing(&signed_in.session).await, Ok(Standing::Revoked));
}
