//! Users, sessions, guests and keys, as the gateway uses them: through tonic, over a real store, with a clock that is moved.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use auth::{Principal, Subject};
use client::{Channel, Outgoing};
use contract::Role;
use contracts::identity::v1 as proto;
use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use identity::{Config, Hashing, Limit, OPERATOR_EMAIL, Secret};
use jiff::Timestamp;
use server::{Context, Storage, Task, status};
use store::Clock;
use tempfile::TempDir;
use tonic::{Code, Request, Status};
use uuid::Uuid;

const PASSWORD: &str = "correct horse";
const OPERATOR_PASSWORD: &str = "battery staple";

struct Shop {
    context: Context,
    client: IdentityServiceClient<Channel>,
    tasks: Vec<Task>,
}

fn config() -> Config {
    Config {
        operator_password: Some(Secret::from(OPERATOR_PASSWORD.to_owned())),
        account_limit: Limit { failures: 3, window: Duration::from_secs(900) },
        source_limit: Limit { failures: 5, window: Duration::from_secs(900) },
        hashing: Hashing { memory_kib: 64, passes: 1, lanes: 1, parallel: 2, waiting: 64 },
        ..Config::default()
    }
}

async fn open(storage: Storage, clock: Clock, config: Config) -> (Shop, Option<Secret>) {
    let mut context = Context::new(storage, std::env::temp_dir(), contracts::METHODS, &[7; 32]);
    context.clock = clock;
    let built = loop {
        match identity::build(config.clone(), &context).await {
            // The store's own thread may hold its last handle for a moment after it was let go here.
            Err(identity::Error::Log(log::Error::Store(store::Error::Locked { .. }))) => tokio::task::yield_now().await,
            built => break built.unwrap(),
        }
    };
    let (_, tasks) = context.mount(built.component);
    let client = IdentityServiceClient::new(context.clients.as_caller("gateway").channel("identity"));
    (Shop { context, client, tasks }, built.operator_password)
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_second(1_800_000_000).unwrap())
}

async fn shop() -> Shop {
    open(Storage::of_test(), clock(), config()).await.0
}

fn id() -> String {
    Uuid::new_v4().to_string()
}

fn as_person<T>(message: T, subject: &Subject) -> Request<T> {
    let outgoing = Outgoing { principal: Principal::User(subject.clone()), ..Outgoing::default() };
    outgoing.request(message)
}

fn reason(status: &Status) -> String {
    status::reason(status).unwrap_or_default()
}

impl Shop {
    async fn sign_up(&self, email: &str) -> proto::User {
        self.try_sign_up(email, &id()).await.unwrap()
    }

    async fn try_sign_up(&self, email: &str, request_id: &str) -> Result<proto::User, Status> {
        let request = proto::CreateUserRequest {
            email: email.to_owned(),
            password: PASSWORD.to_owned(),
            display_name: "Ada".to_owned(),
            request_id: request_id.to_owned(),
        };
        self.client.clone().create_user(request).await.map(tonic::Response::into_inner)
    }

    async fn sign_in(&self, email: &str, password: &str) -> Result<proto::SignInResponse, Status> {
        self.sign_in_from(email, password, None).await
    }

    async fn sign_in_from(
        &self,
        email: &str,
        password: &str,
        source: Option<&'static str>,
    ) -> Result<proto::SignInResponse, Status> {
        let message = proto::SignInRequest { email: email.to_owned(), password: password.to_owned() };
        let mut request = Request::new(message);
        if let Some(source) = source {
            request.metadata_mut().insert("stoa-client-address", source.parse().unwrap());
        }
        self.client.clone().sign_in(request).await.map(tonic::Response::into_inner)
    }

    async fn operator(&self) -> Subject {
        let signed_in = self.sign_in(OPERATOR_EMAIL, OPERATOR_PASSWORD).await.unwrap();
        self.subject(&signed_in.access_token)
    }

    async fn refresh(&self, token: &str) -> Result<proto::RefreshSessionResponse, Status> {
        let request = proto::RefreshSessionRequest { refresh_token: token.to_owned() };
        self.client.clone().refresh_session(request).await.map(tonic::Response::into_inner)
    }

    async fn guest(&self) -> proto::CreateGuestTokenResponse {
        self.client.clone().create_guest_token(proto::CreateGuestTokenRequest {}).await.unwrap().into_inner()
    }

    async fn get_user(&self, name: &str, by: &Subject) -> Result<proto::User, Status> {
        let request = as_person(proto::GetUserRequest { name: name.to_owned() }, by);
        self.client.clone().get_user(request).await.map(tonic::Response::into_inner)
    }

    async fn sessions(&self, parent: &str, by: &Subject) -> Result<Vec<proto::Session>, Status> {
        let request = proto::ListSessionsRequest { parent: parent.to_owned(), ..Default::default() };
        let reply = self.client.clone().list_sessions(as_person(request, by)).await?;
        Ok(reply.into_inner().sessions)
    }

    async fn revoke(&self, name: &str, by: &Subject) -> Result<proto::Session, Status> {
        let request = proto::RevokeSessionRequest { name: name.to_owned(), request_id: String::new() };
        let reply = self.client.clone().revoke_session(as_person(request, by)).await?;
        Ok(reply.into_inner().session.unwrap())
    }

    async fn jwks(&self) -> Vec<proto::Jwk> {
        self.client.clone().get_jwks(proto::GetJwksRequest {}).await.unwrap().into_inner().keys
    }

    fn subject(&self, access_token: &str) -> Subject {
        self.context.verifier.verify(access_token, self.context.clock.now()).unwrap()
    }

    fn later(&self, seconds: u64) {
        self.context.clock.advance(Duration::from_secs(seconds));
    }

    /// How many events the service has recorded.
    async fn events(&self) -> u64 {
        self.context.hub.source("identity").unwrap().heads().await.unwrap().iter().sum()
    }
}

#[tokio::test]
async fn a_user_signs_up_and_in_and_is_who_the_token_says() {
    let shop = shop().await;
    let user = shop.sign_up("Ada@Example.com").await;
    assert_eq!((user.email.as_str(), user.display_name.as_str()), ("Ada@Example.com", "Ada"));
    assert_eq!(user.role(), proto::Role::Customer);

    let signed_in = shop.sign_in("ada@example.COM", PASSWORD).await.unwrap();
    let subject = shop.subject(&signed_in.access_token);
    assert_eq!((subject.id.as_str(), subject.role), (user.name.as_str(), Role::Customer));
    assert_eq!(subject.session, signed_in.session);
    let expires = Timestamp::try_from(signed_in.expire_time.unwrap()).unwrap();
    assert!(expires.duration_since(shop.context.clock.now()).as_secs() <= 300);
    assert_eq!(shop.get_user(&user.name, &subject).await.unwrap().email, "Ada@Example.com");
}

#[tokio::test]
async fn a_taken_address_is_refused_whatever_the_case_of_its_letters() {
    let shop = shop().await;
    shop.sign_up("ada@example.com").await;
    for email in ["ada@example.com", "ADA@example.com", OPERATOR_EMAIL, "Operator@STOA.local"] {
        let refused = shop.try_sign_up(email, &id()).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "EMAIL_TAKEN"));
        assert!(!refused.message().contains('@'));
    }
}

#[tokio::test]
async fn a_repeated_sign_up_has_one_effect_and_its_stored_answer_holds_nothing_personal() {
    let folder = TempDir::new().unwrap();
    let (shop, _) = open(Storage::Folder(folder.path().to_owned()), clock(), config()).await;
    let request_id = id();
    let first = shop.try_sign_up("ada@example.com", &request_id).await.unwrap();
    assert_eq!(shop.try_sign_up("ada@example.com", &request_id).await.unwrap(), first);
    let reused = shop.try_sign_up("eve@example.com", &request_id).await.unwrap_err();
    assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
    drop(shop);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        // What a closing store removes meanwhile is of no interest.
        let Ok(bytes) = std::fs::read(entry.unwrap().path()) else { continue };
        for secret in ["ada@example.com", "correct horse", "Ada"] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is readable in the store");
        }
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_are_answered_alike() {
    let shop = shop().await;
    shop.sign_up("ada@example.com").await;
    let wrong = shop.sign_in("ada@example.com", "wrong horse").await.unwrap_err();
    let unknown = shop.sign_in("eve@example.com", "wrong horse").await.unwrap_err();
    assert_eq!((wrong.code(), reason(&wrong).as_str()), (Code::Unauthenticated, "INVALID_CREDENTIALS"));
    assert_eq!(wrong.message(), unknown.message());
    assert_eq!(wrong.details(), unknown.details());
}

#[tokio::test]
async fn guesses_are_limited_per_account_and_the_limit_says_when_to_come_back() {
    use tonic_types::StatusExt as _;
    let shop = shop().await;
    shop.sign_up("ada@example.com").await;
    for email in ["ada@example.com", "nobody@example.com"] {
        for _ in 0..3 {
            assert_eq!(shop.sign_in(email, "guess").await.unwrap_err().code(), Code::Unauthenticated);
        }
        let limited = shop.sign_in(email, PASSWORD).await.unwrap_err();
        assert_eq!((limited.code(), reason(&limited).as_str()), (Code::ResourceExhausted, "TOO_MANY_ATTEMPTS"));
        let pause = limited.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert_eq!(pause, Duration::from_secs(300));
    }
    shop.later(300);
    shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    // A right password costs nothing, however often.
    for _ in 0..10 {
        shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    }
}

#[tokio::test]
async fn guesses_are_limited_per_source_over_all_accounts() {
    let shop = shop().await;
    shop.sign_up("ada@example.com").await;
    for guess in 0..5 {
        let email = format!("user{guess}@example.com");
        let failed = shop.sign_in_from(&email, "guess", Some("203.0.113.7")).await.unwrap_err();
        assert_eq!(failed.code(), Code::Unauthenticated);
    }
    let limited = shop.sign_in_from("ada@example.com", PASSWORD, Some("203.0.113.7")).await.unwrap_err();
    assert_eq!(limited.code(), Code::ResourceExhausted);
    shop.sign_in_from("ada@example.com", PASSWORD, Some("203.0.113.8")).await.unwrap();
}

#[tokio::test]
async fn each_refresh_token_is_good_once() {
    let shop = shop().await;
    shop.sign_up("ada@example.com").await;
    let first = shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let mut token = first.refresh_token;
    for _ in 0..3 {
        shop.later(60);
        let refreshed = shop.refresh(&token).await.unwrap();
        assert_ne!(refreshed.refresh_token, token);
        assert_eq!(refreshed.session, first.session);
        assert_eq!(shop.subject(&refreshed.access_token).session, first.session);
        assert_eq!(refreshed.user.unwrap().email, "ada@example.com");
        token = refreshed.refresh_token;
    }
}

#[tokio::test]
async fn a_spent_refresh_token_ends_the_session_for_everybody() {
    let shop = shop().await;
    shop.sign_up("ada@example.com").await;
    let stolen = shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let refreshed = shop.refresh(&stolen.refresh_token).await.unwrap();
    shop.later(11);
    for token in [&stolen.refresh_token, &refreshed.refresh_token] {
        let refused = shop.refresh(token).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "SESSION_REVOKED"));
    }
    let subject = shop.subject(&shop.sign_in("ada@example.com", PASSWORD).await.unwrap().access_token);
    let sessions = shop.sessions(&subject.id, &subject).await.unwrap();
    let revoked = sessions.iter().find(|session| session.name == stolen.session).unwrap();
    assert_eq!(revoked.state(), proto::SessionState::Revoked);
    assert_eq!(revoked.revoke_reason(), proto::RevokeReason::TokenReused);
}

#[tokio::test]
async fn a_lost_answer_is_given_again_for_ten_seconds_until_its_token_is_used() {
    let shop = shop().await;
    shop.sign_up("ada@example.com").await;
    let first = shop.sign_in("ada@example.com", PASSWORD).await.unwrap().refresh_token;
    let lost = shop.refresh(&first).await.unwrap();
    shop.later(10);
    let again = shop.refresh(&first).await.unwrap();
    assert_eq!(again.refresh_token, lost.refresh_token);
    assert_eq!(again.refresh_expire_time, lost.refresh_expire_time);
    shop.refresh(&lost.refresh_token).await.unwrap();
    let refused = shop.refresh(&first).await.unwrap_err();
    assert_eq!(reason(&refused), "SESSION_REVOKED");
}

#[tokio::test]
async fn a_hundred_refreshes_at_once_give_one_successor() {
    let shop = shop().await;
    shop.sign_up("ada@example.com").await;
    let token = shop.sign_in("ada@example.com", PASSWORD).await.unwrap().refresh_token;
    let all = futures_util::future::join_all((0..100).map(|_| shop.refresh(&token))).await;
    let successors: std::collections::BTreeSet<String> =
        all.into_iter().map(|refreshed| refreshed.unwrap().refresh_token).collect();
    assert_eq!(successors.len(), 1);
}

#[tokio::test]
async fn what_never_was_a_token_ends_no_session() {
    let shop = shop().await;
    shop.sign_up("ada@example.com").await;
    let good = shop.sign_in("ada@example.com", PASSWORD).await.unwrap().refresh_token;
    let mut forged = good.clone().into_bytes();
    forged[100] = if forged[100] == b'A' { b'B' } else { b'A' };
    for token in [String::from_utf8(forged).unwrap(), "x".to_owned(), "A".repeat(256)] {
        let refused = shop.refresh(&token).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "INVALID_CREDENTIALS"));
    }
    shop.refresh(&good).await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_not_refreshed_expires() {
    let shop = shop().await;
    shop.sign_up("ada@example.com").await;
    let signed_in = shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    shop.later(31 * 24 * 60 * 60);
    let refused = shop.refresh(&signed_in.refresh_token).await.unwrap_err();
    assert_eq!(reason(&refused), "SESSION_EXPIRED");
    let subject = shop.subject(&shop.sign_in("ada@example.com", PASSWORD).await.unwrap().access_token);
    let states: Vec<_> = shop.sessions(&subject.id, &subject).await.unwrap().iter().map(|s| s.state()).collect();
    assert_eq!(states, [proto::SessionState::Active, proto::SessionState::Expired]);
}

#[tokio::test]
async fn a_revoked_session_stays_revoked_over_a_restart() {
    let folder = TempDir::new().unwrap();
    let storage = Storage::of_test_in(folder.path());
    let (shop, _) = open(storage.clone(), clock(), config()).await;
    shop.sign_up("ada@example.com").await;
    let ended = shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let kept = shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let subject = shop.subject(&ended.access_token);
    let session = shop.revoke(&ended.session, &subject).await.unwrap();
    assert_eq!(session.state(), proto::SessionState::Revoked);
    assert_eq!(shop.revoke(&ended.session, &subject).await.unwrap(), session);
    let clock = shop.context.clock.clone();
    drop(shop);

    let (shop, made_up) = open(storage, clock, config()).await;
    assert!(made_up.is_none());
    assert_eq!(reason(&shop.refresh(&ended.refresh_token).await.unwrap_err()), "SESSION_REVOKED");
    shop.refresh(&kept.refresh_token).await.unwrap();
    // Tokens signed before the restart are still believed.
    assert_eq!(shop.subject(&kept.access_token).session, kept.session);
}

#[tokio::test]
async fn other_peoples_users_and_sessions_do_not_exist() {
    let shop = shop().await;
    let ada = shop.sign_up("ada@example.com").await;
    let signed_in = shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    shop.sign_up("eve@example.com").await;
    let eve = shop.subject(&shop.sign_in("eve@example.com", PASSWORD).await.unwrap().access_token);
    let operator = shop.operator().await;

    let theirs = shop.get_user(&ada.name, &eve).await.unwrap_err();
    assert_eq!(theirs.code(), Code::NotFound);
    let missing = shop.get_user(&format!("users/{}", id()), &operator).await.unwrap_err();
    assert_eq!((missing.code(), reason(&missing)), (theirs.code(), reason(&theirs)));
    assert_eq!(shop.sessions(&ada.name, &eve).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(shop.revoke(&signed_in.session, &eve).await.unwrap_err().code(), Code::NotFound);

    assert_eq!(shop.get_user(&ada.name, &operator).await.unwrap().email, "ada@example.com");
    assert_eq!(shop.sessions(&ada.name, &operator).await.unwrap().len(), 1);
    shop.revoke(&signed_in.session, &operator).await.unwrap();
}

#[tokio::test]
async fn sessions_are_listed_newest_first_page_by_page() {
    let shop = shop().await;
    let ada = shop.sign_up("ada@example.com").await;
    let mut expected = vec![];
    let mut subject = None;
    for _ in 0..5 {
        shop.later(1);
        let signed_in = shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
        subject = Some(shop.subject(&signed_in.access_token));
        expected.insert(0, signed_in.session);
    }
    let (mut found, mut page_token) = (vec![], String::new());
    loop {
        let request = proto::ListSessionsRequest { parent: ada.name.clone(), page_size: 2, page_token };
        let request = as_person(request, subject.as_ref().unwrap());
        let reply = shop.client.clone().list_sessions(request).await.unwrap().into_inner();
        found.extend(reply.sessions.into_iter().map(|session| session.name));
        page_token = reply.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, expected);
}

#[tokio::test]
async fn guests_cost_no_commit_and_may_go_on() {
    let shop = shop().await;
    let before = shop.events().await;
    let guests = futures_util::future::join_all((0..200).map(|_| shop.guest())).await;
    let names: std::collections::BTreeSet<_> = guests.iter().map(|guest| guest.user.clone().unwrap().name).collect();
    assert_eq!(names.len(), 200);
    assert_eq!(shop.events().await, before);

    let guest = &guests[0];
    let subject = shop.subject(&guest.access_token);
    assert_eq!((subject.id.clone(), subject.role), (guest.user.clone().unwrap().name, Role::Guest));
    shop.later(240);
    let refreshed = shop.refresh(&guest.refresh_token).await.unwrap();
    assert_eq!(shop.subject(&refreshed.access_token), subject);
    let again = shop.refresh(&guest.refresh_token).await.unwrap();
    assert_eq!(again.refresh_token, refreshed.refresh_token);
    let next = shop.refresh(&refreshed.refresh_token).await.unwrap();
    assert_eq!(reason(&shop.refresh(&guest.refresh_token).await.unwrap_err()), "SESSION_REVOKED");
    assert_eq!(reason(&shop.refresh(&next.refresh_token).await.unwrap_err()), "SESSION_REVOKED");

    shop.later(8 * 24 * 60 * 60);
    assert_eq!(reason(&shop.refresh(&guests[1].refresh_token).await.unwrap_err()), "SESSION_EXPIRED");
}

#[tokio::test]
async fn imported_users_are_created_once_and_cannot_sign_in() {
    let shop = shop().await;
    let operator = shop.operator().await;
    let users = |ids: &[&str]| {
        let user = |id: &&str| proto::ImportedUser {
            external_id: (*id).to_owned(),
            display_name: format!("Customer {id}"),
            country_code: "GB".to_owned(),
        };
        ids.iter().map(user).collect::<Vec<_>>()
    };
    let import = async |ids: &[&str], request_id: String| {
        let request = proto::ImportUsersRequest { users: users(ids), request_id };
        shop.client.clone().import_users(as_person(request, &operator)).await.unwrap().into_inner()
    };
    let request_id = id();
    let first = import(&["17850", "13047", "17850"], request_id.clone()).await;
    assert_eq!(first.created_count, 2);
    assert_eq!(first.users[0], first.users[2]);
    assert_eq!(
        (first.users[0].external_id.as_str(), first.users[0].display_name.as_str()),
        ("17850", "Customer 17850")
    );
    assert_eq!(import(&["17850", "13047", "17850"], request_id).await, first);
    let second = import(&["13047", "12583"], id()).await;
    assert_eq!((second.created_count, &second.users[0]), (1, &first.users[1]));

    let request = proto::ImportUsersRequest { users: users(&["1"]), request_id: id() };
    let denied = shop.client.clone().import_users(request).await.unwrap_err();
    assert_eq!(denied.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn an_erased_user_is_unreadable_signed_out_and_frees_the_address() {
    let shop = shop().await;
    let ada = shop.sign_up("ada@example.com").await;
    let signed_in = shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let subject = shop.subject(&signed_in.access_token);
    let erase = proto::EraseUserRequest { name: ada.name.clone(), request_id: String::new() };
    for _ in 0..2 {
        let reply = shop.client.clone().erase_user(as_person(erase.clone(), &subject)).await.unwrap().into_inner();
        let erased = reply.user.unwrap();
        assert_eq!(erased.state(), proto::UserState::Erased);
        assert_eq!((erased.email.as_str(), erased.display_name.as_str()), ("", ""));
    }
    assert_eq!(reason(&shop.refresh(&signed_in.refresh_token).await.unwrap_err()), "SESSION_REVOKED");
    assert_eq!(reason(&shop.sign_in("ada@example.com", PASSWORD).await.unwrap_err()), "INVALID_CREDENTIALS");
    let source = shop.context.hub.source("identity").unwrap();
    let events = source.read_stream(&ada.name, 1, 10).await.unwrap();
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["stoa.identity.v1.UserCreated", "stoa.identity.v1.UserErased"]);
    let created: proto::Event = events[0].decode().unwrap();
    assert!(matches!(created, proto::Event::UserCreated(created) if created.email.is_empty()));
    assert_ne!(shop.sign_up("ada@example.com").await.name, ada.name);
}

#[tokio::test]
async fn a_new_signing_key_is_published_before_it_signs_and_the_old_one_until_its_tokens_end() {
    let mut shop = shop().await;
    let operator = shop.operator().await;
    let (tasks, context) = (std::mem::take(&mut shop.tasks), shop.context.clone());
    let keeper = tokio::spawn(async move { server::supervise(tasks, &context).await });
    let old = shop.jwks().await[0].kid.clone();
    let rotate = |validate_only| proto::RotateSigningKeyRequest { request_id: id(), validate_only };
    shop.client.clone().rotate_signing_key(as_person(rotate(true), &operator)).await.unwrap();
    assert_eq!(shop.jwks().await.len(), 1);
    let reply = shop.client.clone().rotate_signing_key(as_person(rotate(false), &operator)).await.unwrap();
    let new = reply.into_inner().signing_key.unwrap();
    let kids = || async { shop.jwks().await.into_iter().map(|key| key.kid).collect::<Vec<_>>() };
    assert_eq!(kids().await, [new.kid.clone(), old.clone()]);
    let pending = shop.client.clone().rotate_signing_key(as_person(rotate(false), &operator)).await.unwrap_err();
    assert_eq!(reason(&pending), "ROTATION_PENDING");

    shop.later(599);
    let by_old = shop.guest().await.access_token;
    shop.later(1);
    let by_new = shop.guest().await.access_token;
    assert_ne!(header(&by_old), header(&by_new));
    shop.subject(&by_old);
    shop.subject(&by_new);
    // The old key goes once the longest-lived token it signed is over.
    let only_new = async || {
        shop.later(30);
        kids().await == [new.kid.clone()]
    };
    until(only_new).await;
    shop.context.shutdown.cancel();
    keeper.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_first_start_makes_an_operator_and_hands_back_its_password_once() {
    let folder = TempDir::new().unwrap();
    let storage = Storage::of_test_in(folder.path());
    let unset = Config { operator_password: None, ..config() };
    let (shop, made_up) = open(storage.clone(), clock(), unset.clone()).await;
    let made_up = made_up.unwrap();
    assert_eq!(format!("{made_up:?}"), "Secret");
    let signed_in = shop.sign_in(OPERATOR_EMAIL, made_up.expose()).await.unwrap();
    assert_eq!(shop.subject(&signed_in.access_token).role, Role::Operator);
    drop(shop);
    assert!(open(storage, clock(), unset).await.1.is_none());
}

/// The part of a token that names its key.
fn header(token: &str) -> &str {
    token.split('.').next().unwrap()
}

/// Waits for a condition that other tasks bring about.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "it never came about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Shop {
    async fn standing(&self, session: &str) -> cache::Standing {
        self.context.cache.marks().standing(session).await.unwrap()
    }

    async fn check(&self, session: &str) -> bool {
        let request = proto::CheckSessionRequest { name: session.to_owned() };
        self.client.clone().check_session(request).await.unwrap().into_inner().revoked
    }
}

#[tokio::test]
async fn doors_know_that_a_session_ended_before_its_end_is_answered_and_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let storage = Storage::of_test_in(folder.path());
    let (shop, _) = open(storage.clone(), clock(), config()).await;
    shop.sign_up("ada@example.com").await;
    let signed_out = shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let reused = shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    let kept = shop.sign_in("ada@example.com", PASSWORD).await.unwrap();
    shop.sign_up("eve@example.com").await;
    let erased = shop.sign_in("eve@example.com", PASSWORD).await.unwrap();
    assert_eq!(shop.standing(&signed_out.session).await, cache::Standing::Good);

    shop.revoke(&signed_out.session, &shop.subject(&signed_out.access_token)).await.unwrap();
    assert_eq!(shop.standing(&signed_out.session).await, cache::Standing::Revoked);

    shop.refresh(&reused.refresh_token).await.unwrap();
    shop.later(11);
    shop.refresh(&reused.refresh_token).await.unwrap_err();
    assert_eq!(shop.standing(&reused.session).await, cache::Standing::Revoked);

    let eve = shop.subject(&erased.access_token);
    let erase = proto::EraseUserRequest { name: eve.id.clone(), request_id: String::new() };
    shop.client.clone().erase_user(as_person(erase, &eve)).await.unwrap();
    assert_eq!(shop.standing(&erased.session).await, cache::Standing::Revoked);

    let clock = shop.context.clock.clone();
    drop(shop);
    let (shop, _) = open(storage.clone(), clock.clone(), config()).await;
    for ended in [&signed_out.session, &reused.session, &erased.session] {
        assert_eq!(shop.standing(ended).await, cache::Standing::Revoked);
        assert!(shop.check(ended).await);
    }
    assert_eq!(shop.standing(&kept.session).await, cache::Standing::Good);
    assert!(!shop.check(&kept.session).await);
    assert!(!shop.check(&format!("guests/{}/sessions/{}", id(), id())).await);
    drop(shop);

    // Nobody can show a token of it any more: it needs no mark.
    clock.advance(Duration::from_secs(10 * 60));
    let (shop, _) = open(storage, clock, config()).await;
    assert_eq!(shop.standing(&signed_out.session).await, cache::Standing::Good);
    assert!(shop.check(&signed_out.session).await);
}
