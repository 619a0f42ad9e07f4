//! From wire to command to log and back.
//!
//! No stored reply holds personal fields or secrets: `once` keeps names, and what the caller is shown is read after it.

use auth::Subject;
use cache::{Cache, Limiter};
use contract::{Guard, Role};
use contracts::identity::v1 as proto;
use contracts::identity::v1::identity_service_server::IdentityService;
use contracts::wkt;
use jiff::Timestamp;
use log::{Log, Meta};
use server::{Call, status};
use store::{Site, Tx, site};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::config::Config;
use crate::error::{Error, Rejection};
use crate::grants::{Granted, Lifetimes, Refreshed};
use crate::keys::Keys;
use crate::password::Hasher;
use crate::revocations::Revocations;
use crate::session::{State, Windows};
use crate::token::{self, Kind, Mint, Ticket};
use crate::{OPERATOR_EMAIL, later, random, store as rows, wire};

const DEFAULT_PAGE: u32 = 50;

/// The metadata in which the gateway says where a call comes from. A client cannot set it: the gateway drops what it sent.
const SOURCE: &str = "stoa-client-address";

/// The handlers. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    pub(crate) log: Log<proto::Event>,
    keys: Keys,
    hasher: Hasher,
    pub(crate) mint: Mint,
    email_key: [u8; 32],
    accounts: Limiter,
    sources: Limiter,
    revocations: Revocations,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) windows: Windows,
}

/// What a grant and a fresh access token are to their client.
struct Tokens {
    access_token: String,
    expire_time: Option<wkt::Timestamp>,
    refresh_token: String,
    refresh_expire_time: Option<wkt::Timestamp>,
    user: Option<proto::User>,
    session: String,
}

impl Rpc {
    pub(crate) async fn open(
        log: Log<proto::Event>,
        config: &Config,
        keys: Keys,
        cache: &Cache,
        revocations: Revocations,
    ) -> Result<Self, Error> {
        let (email, refresh) = (random()?, random()?);
        let secrets = log.store().write(site!("identity.secrets"), async move |tx: &mut Tx| {
            // One of the copies that start first makes them.
            tx.take_stream("secrets").await?;
            Ok::<_, Error>((rows::secret(tx, "email", &email).await?, rows::secret(tx, "refresh", &refresh).await?))
        });
        let (email_key, refresh_key) = secrets.await?;
        Ok(Rpc {
            hasher: Hasher::new(&config.hashing)?,
            mint: Mint::new(refresh_key),
            email_key,
            accounts: cache.limiter("sign-in.account", config.account_limit.into()),
            sources: cache.limiter("sign-in.source", config.source_limit.into()),
            revocations,
            lifetimes: Lifetimes { user: config.session_lifetime, guest: config.guest_lifetime },
            windows: Windows { guest: config.guest_lifetime, replay: config.replay_window },
            log,
            keys,
        })
    }

    /// Creates an operator with a password.
    pub(crate) async fn create_operator(&self, site: &'static Site, email: &str, password: &str) -> Result<(), Error> {
        let password_hash = self.hasher.hash(password.to_owned()).await?;
        let created = proto::UserCreated {
            user: format!("users/{}", Uuid::now_v7()),
            email: email.to_owned(),
            display_name: "Operator".to_owned(),
            role: proto::Role::Operator.into(),
            ..Default::default()
        };
        let (log, email_hash) = (self.log.clone(), self.email_hash(email));
        self.log
            .store()
            .write(site, async move |tx: &mut Tx| {
                let meta = Meta { causation: site.name().to_owned(), ..Meta::default() };
                create(&log, tx, &meta, &created, Some((&email_hash, &password_hash))).await
            })
            .await
    }

    /// What stands for an address where it must not be readable; the case of its letters does not count.
    fn email_hash(&self, email: &str) -> [u8; 32] {
        token::mac(&self.email_key, email.to_lowercase().as_bytes())
    }

    /// A user as its owner sees it.
    async fn user(&self, name: String) -> Result<proto::User, Error> {
        let found = self.users(vec![name]).await?;
        found.into_iter().next().ok_or_else(|| Rejection::Missing(String::new()).into())
    }

    async fn users(&self, names: Vec<String>) -> Result<Vec<proto::User>, Error> {
        self.log
            .store()
            .read(async move |tx: &mut Tx| {
                let mut found = vec![];
                for name in &names {
                    let missing = || Rejection::Missing(name.clone());
                    let user = rows::get_user(tx, name).await?.ok_or_else(missing)?;
                    found.push(wire::user(tx, &user).await?);
                }
                Ok(found)
            })
            .await
    }

    /// A signed access token beside what was granted.
    fn tokens(&self, granted: Granted) -> Result<Tokens, Error> {
        let Granted { refresh_token, refresh_expire_time, user, role, session } = granted;
        let issued = self.keys.issue(&Subject { id: user.name.clone(), role, session: session.clone() })?;
        Ok(Tokens {
            access_token: issued.token,
            expire_time: Some(issued.expire_time.into()),
            refresh_token,
            refresh_expire_time: Some(refresh_expire_time.into()),
            user: Some(user),
            session,
        })
    }

    /// The user whom address and password name. Nobody's address costs the same hash.
    async fn authenticate(&self, email_hash: [u8; 32], password: String) -> Result<rows::Credential, Error> {
        let store = self.log.store();
        let credential = store.read(async move |tx: &mut Tx| rows::get_credential(tx, &email_hash).await).await?;
        let hash = credential.as_ref().map(|credential| credential.password_hash.clone());
        let fits = self.hasher.verify(password, hash).await?;
        credential.filter(|_| fits).ok_or_else(|| Rejection::Credentials.into())
    }
}

/// Appends a new user, with its credential if it has one.
async fn create(
    log: &Log<proto::Event>,
    tx: &mut Tx,
    meta: &Meta,
    created: &proto::UserCreated,
    credential: Option<(&[u8; 32], &str)>,
) -> Result<(), Error> {
    if let Some((email_hash, password_hash)) = credential
        && !rows::add_credential(tx, email_hash, &created.user, password_hash).await?
    {
        return Err(Rejection::EmailTaken.into());
    }
    let event = proto::Event::UserCreated(created.clone());
    log.append(tx, &created.user, 0, meta, Some(&created.user), vec![event]).await?;
    Ok(())
}

/// Ends a session in `tx`.
async fn revoke(
    log: &Log<proto::Event>,
    tx: &mut Tx,
    meta: &Meta,
    session: &crate::session::Session,
    reason: proto::RevokeReason,
    actor: &str,
) -> Result<(), Error> {
    let event = wire::revoked(&session.name, reason, actor);
    log.append(tx, &session.name, session.version, meta, None, vec![event]).await?;
    Ok(rows::drop_family(tx, &session.name).await?)
}

/// Makes a user's personal fields unreadable in `tx` and ends its sessions.
async fn erase(log: &Log<proto::Event>, tx: &mut Tx, meta: &Meta, name: &str, actor: &str) -> Result<(), Error> {
    let missing = || Rejection::Missing(name.to_owned());
    let user = rows::get_user(tx, name).await?.ok_or_else(missing)?;
    if user.erased {
        return Ok(());
    }
    for session in rows::active_sessions(tx, name).await? {
        revoke(log, tx, meta, &session, proto::RevokeReason::UserErased, actor).await?;
    }
    let erased = proto::UserErased { user: name.to_owned(), actor: actor.to_owned() };
    log.append(tx, name, user.version, meta, Some(name), vec![proto::Event::UserErased(erased)]).await?;
    rows::drop_credential(tx, name).await?;
    Ok(log::personal::forget(tx, name).await?)
}

#[tonic::async_trait]
impl IdentityService for Rpc {
    async fn create_user(&self, request: Request<proto::CreateUserRequest>) -> Result<Response<proto::User>, Status> {
        let call = Call::of(&request)?;
        let mut create_user = request.into_inner();
        // Taken out first, so that it is in no fingerprint: a fast hash of it would undo the slow one.
        let password = std::mem::take(&mut create_user.password);
        let key = call.request(&create_user, &create_user.request_id);
        if create_user.email.eq_ignore_ascii_case(OPERATOR_EMAIL) {
            return Err(Error::from(Rejection::EmailTaken).into());
        }
        let password_hash = self.hasher.hash(password).await.map_err(Error::from)?;
        let (rpc, meta) = (self.clone(), call.meta());
        let email_hash = self.email_hash(&create_user.email);
        let created = proto::UserCreated {
            user: format!("users/{}", Uuid::now_v7()),
            email: create_user.email,
            display_name: create_user.display_name,
            role: proto::Role::Customer.into(),
            ..Default::default()
        };
        call.detached(async move {
            let log = rpc.log.clone();
            let stored: proto::User = rpc
                .log
                .once(site!("identity.create_user"), key, async move |tx: &mut Tx| {
                    create(&log, tx, &meta, &created, Some((&email_hash, &password_hash))).await?;
                    Ok::<_, Error>(proto::User { name: created.user.clone(), ..Default::default() })
                })
                .await?;
            Ok(Response::new(rpc.user(stored.name).await?))
        })
        .await
    }

    async fn get_user(&self, request: Request<proto::GetUserRequest>) -> Result<Response<proto::User>, Status> {
        let call = Call::of(&request)?;
        let name = request.into_inner().name;
        if !call.owns(&name) {
            return Err(status::not_found(&name));
        }
        Ok(Response::new(self.user(name).await?))
    }

    async fn import_users(
        &self,
        request: Request<proto::ImportUsersRequest>,
    ) -> Result<Response<proto::ImportUsersResponse>, Status> {
        let call = Call::of(&request)?;
        let import = request.into_inner();
        let key = call.request(&import, &import.request_id);
        let named: Vec<_> = import.users.into_iter().map(|user| (format!("users/{}", Uuid::now_v7()), user)).collect();
        let (rpc, meta) = (self.clone(), call.meta());
        call.detached(async move {
            let log = rpc.log.clone();
            let stored: proto::ImportUsersResponse = rpc
                .log
                .once(site!("identity.import_users"), key, async move |tx: &mut Tx| {
                    let mut reply = proto::ImportUsersResponse::default();
                    for (name, imported) in &named {
                        let name = match rows::find_imported(tx, &imported.external_id).await? {
                            Some(known) => known.name,
                            None => {
                                let created = proto::UserCreated {
                                    user: name.clone(),
                                    email: String::new(),
                                    display_name: imported.display_name.clone(),
                                    role: proto::Role::Customer.into(),
                                    external_id: imported.external_id.clone(),
                                    country_code: imported.country_code.clone(),
                                };
                                create(&log, tx, &meta, &created, None).await?;
                                reply.created_count += 1;
                                name.clone()
                            }
                        };
                        reply.users.push(proto::User { name, ..Default::default() });
                    }
                    Ok::<_, Error>(reply)
                })
                .await?;
            let names = stored.users.into_iter().map(|user| user.name).collect();
            let users = rpc.users(names).await?;
            Ok(Response::new(proto::ImportUsersResponse { users, created_count: stored.created_count }))
        })
        .await
    }

    async fn erase_user(
        &self,
        request: Request<proto::EraseUserRequest>,
    ) -> Result<Response<proto::EraseUserResponse>, Status> {
        let call = Call::of(&request)?;
        let message = request.into_inner();
        if !call.owns(&message.name) {
            return Err(status::not_found(&message.name));
        }
        let key = call.request(&message, &message.request_id);
        let (rpc, meta, actor, name) = (self.clone(), call.meta(), call.principal(), message.name);
        call.detached(async move {
            let log = rpc.log.clone();
            let stored: proto::User = rpc
                .log
                .once(site!("identity.erase_user"), key, async move |tx: &mut Tx| {
                    erase(&log, tx, &meta, &name, &actor).await?;
                    Ok::<_, Error>(proto::User { name: name.clone(), ..Default::default() })
                })
                .await?;
            rpc.revocations.told().await;
            Ok(Response::new(proto::EraseUserResponse { user: Some(rpc.user(stored.name).await?) }))
        })
        .await
    }

    async fn sign_in(&self, request: Request<proto::SignInRequest>) -> Result<Response<proto::SignInResponse>, Status> {
        let call = Call::of(&request)?;
        let source = source_of(&request);
        let proto::SignInRequest { email, password } = request.into_inner();
        let (email_hash, now) = (self.email_hash(&email), self.log.store().clock().now());
        let limited = |wait| Error::Limited { wait };
        let counted = Guard::Guesses.stands();
        let by_source = match &source {
            Some(source) if counted => Some(self.sources.take(source.as_bytes(), now).await.map_err(limited)?),
            Some(_) | None => None,
        };
        let by_account = match counted {
            true => Some(self.accounts.take(&email_hash, now).await.map_err(limited)?),
            false => None,
        };
        let proven = match self.authenticate(email_hash, password).await {
            Err(error @ Error::Rejected(_)) => {
                tracing::warn!(target: "audit", source = source.as_deref().unwrap_or(""), "a sign-in failed");
                return Err(error.into());
            }
            // Right, or not looked at for a reason of ours: neither counts.
            outcome => {
                if let Some(charge) = by_account {
                    self.accounts.give_back(&email_hash, charge).await;
                }
                if let (Some(source), Some(charge)) = (&source, by_source) {
                    self.sources.give_back(source.as_bytes(), charge).await;
                }
                outcome?
            }
        };
        let ticket = self.first_ticket(Kind::User, &proven.user)?;
        let (rpc, meta) = (self.clone(), call.meta());
        let tokens = call
            .detached(async move {
                let starter = rpc.clone();
                let started = rpc.log.store().write(site!("identity.sign_in"), async move |tx: &mut Tx| {
                    starter.start(tx, &meta, &email_hash, &proven, ticket).await
                });
                Ok(rpc.tokens(started.await?)?)
            })
            .await?;
        Ok(Response::new(proto::SignInResponse {
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            expire_time: tokens.expire_time,
            refresh_expire_time: tokens.refresh_expire_time,
            user: tokens.user,
            session: tokens.session,
        }))
    }

    async fn refresh_session(
        &self,
        request: Request<proto::RefreshSessionRequest>,
    ) -> Result<Response<proto::RefreshSessionResponse>, Status> {
        let call = Call::of(&request)?;
        let shown = request.into_inner().refresh_token;
        let nonce = random().map_err(Error::from)?;
        if self.mint.read(&shown).is_none() {
            // Not worth a turn of the writer.
            return Err(Error::from(Rejection::Credentials).into());
        }
        let (rpc, meta) = (self.clone(), call.meta());
        let tokens = call
            .detached(async move {
                let refresher = rpc.clone();
                let refreshed = rpc.log.store().write(site!("identity.refresh_session"), async move |tx: &mut Tx| {
                    refresher.refresh(tx, &meta, &shown, nonce).await
                });
                match refreshed.await? {
                    Refreshed::Granted(granted) => Ok(rpc.tokens(*granted)?),
                    Refreshed::Refused(rejection) => Err(Error::from(rejection).into()),
                    Refreshed::Ended(rejection) => {
                        rpc.revocations.told().await;
                        Err(Error::from(rejection).into())
                    }
                }
            })
            .await?;
        Ok(Response::new(proto::RefreshSessionResponse {
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            expire_time: tokens.expire_time,
            refresh_expire_time: tokens.refresh_expire_time,
            user: tokens.user,
            session: tokens.session,
        }))
    }

    async fn create_guest_token(
        &self,
        request: Request<proto::CreateGuestTokenRequest>,
    ) -> Result<Response<proto::CreateGuestTokenResponse>, Status> {
        Call::of(&request)?;
        let now = self.log.store().clock().now();
        let principal = format!("guests/{}", Uuid::now_v7());
        let ticket = Ticket { issue_time: now, ..self.first_ticket(Kind::Guest, &principal)? };
        let tokens = self.tokens(Granted {
            refresh_token: self.mint.token(&ticket),
            refresh_expire_time: later(now, self.lifetimes.guest),
            user: wire::guest(&principal),
            role: Role::Guest,
            session: ticket.session_name(),
        })?;
        Ok(Response::new(proto::CreateGuestTokenResponse {
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            expire_time: tokens.expire_time,
            refresh_expire_time: tokens.refresh_expire_time,
            user: tokens.user,
            session: tokens.session,
        }))
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        let call = Call::of(&request)?;
        let list = request.into_inner();
        if !call.owns(&list.parent) {
            return Err(status::not_found(&list.parent));
        }
        let after = call.cursor(&list.parent, &list.page_token)?.and_then(|cursor| session_after(&cursor));
        let limit = page_size(list.page_size);
        let (parent, now) = (list.parent.clone(), self.log.store().clock().now());
        let mut sessions = self
            .log
            .store()
            .read(async move |tx: &mut Tx| {
                let user = rows::get_user(tx, &parent).await?;
                user.ok_or_else(|| Rejection::Missing(parent.clone()))?;
                let after = after.as_ref().map(|(time, name)| (*time, name.as_str()));
                Ok::<_, Error>(rows::list_sessions(tx, &parent, after, limit + 1).await?)
            })
            .await?;
        let more = sessions.len() > limit as usize;
        sessions.truncate(limit as usize);
        let cursor = sessions.last().filter(|_| more);
        let cursor = cursor.map(|last| format!("{}\n{}", last.create_time.as_microsecond(), last.name));
        Ok(Response::new(proto::ListSessionsResponse {
            sessions: sessions.iter().map(|session| wire::session(session, now)).collect(),
            next_page_token: call.page_token(&list.parent, cursor.as_deref()),
        }))
    }

    async fn revoke_session(
        &self,
        request: Request<proto::RevokeSessionRequest>,
    ) -> Result<Response<proto::RevokeSessionResponse>, Status> {
        let call = Call::of(&request)?;
        let message = request.into_inner();
        let owner = message.name.split_once("/sessions/").map_or("", |(owner, _)| owner);
        if !call.owns(owner) {
            return Err(status::not_found(&message.name));
        }
        let key = call.request(&message, &message.request_id);
        let (log, meta, actor, name) = (self.log.clone(), call.meta(), call.principal(), message.name);
        let revocations = self.revocations.clone();
        call.detached(async move {
            let reply = log
                .clone()
                .once(site!("identity.revoke_session"), key, async move |tx: &mut Tx| {
                    let missing = || Rejection::Missing(name.clone());
                    let found = rows::get_session(tx, &name).await?.ok_or_else(missing)?;
                    if found.state == State::Active {
                        revoke(&log, tx, &meta, &found, proto::RevokeReason::SignedOut, &actor).await?;
                    }
                    let session = rows::get_session(tx, &name).await?.ok_or_else(missing)?;
                    let session = Some(wire::session(&session, tx.now()));
                    Ok::<_, Error>(proto::RevokeSessionResponse { session })
                })
                .await?;
            revocations.told().await;
            Ok(Response::new(reply))
        })
        .await
    }

    async fn check_session(
        &self,
        request: Request<proto::CheckSessionRequest>,
    ) -> Result<Response<proto::CheckSessionResponse>, Status> {
        Call::of(&request)?;
        let name = request.into_inner().name;
        let found = self.log.store().read(async move |tx: &mut Tx| rows::get_session(tx, &name).await);
        let found = found.await.map_err(log::Error::from).map_err(Error::from)?;
        let revoked = found.is_some_and(|session| session.state == State::Revoked);
        Ok(Response::new(proto::CheckSessionResponse { revoked }))
    }

    async fn get_jwks(&self, _: Request<proto::GetJwksRequest>) -> Result<Response<proto::GetJwksResponse>, Status> {
        let keys = self.keys.published().iter().map(wire::jwk).collect();
        Ok(Response::new(proto::GetJwksResponse { keys }))
    }

    async fn rotate_signing_key(
        &self,
        request: Request<proto::RotateSigningKeyRequest>,
    ) -> Result<Response<proto::RotateSigningKeyResponse>, Status> {
        let call = Call::of(&request)?;
        let message = request.into_inner();
        let seed = random().map_err(Error::from)?;
        if message.validate_only {
            let now = self.log.store().clock().now();
            if self.keys.published().iter().any(|key| key.activate_time > now) {
                return Err(Error::from(Rejection::RotationPending).into());
            }
            let signing_key = Some(wire::signing_key(&self.keys.planned(&seed, now)));
            return Ok(Response::new(proto::RotateSigningKeyResponse { signing_key }));
        }
        let key = call.request(&message, &message.request_id);
        let (log, keys, meta) = (self.log.clone(), self.keys.clone(), call.meta());
        call.detached(async move {
            let rotating = keys.clone();
            let reply = log
                .once(site!("identity.rotate_signing_key"), key, async move |tx: &mut Tx| {
                    let planned = rotating.rotate(tx, &meta, &seed).await?;
                    let signing_key = Some(wire::signing_key(&planned));
                    Ok::<_, Error>(proto::RotateSigningKeyResponse { signing_key })
                })
                .await?;
            keys.reload().await?;
            Ok(Response::new(reply))
        })
        .await
    }
}

impl Rpc {
    /// The first ticket of a new session; its issue time is the transaction's.
    fn first_ticket(&self, kind: Kind, principal: &str) -> Result<Ticket, Error> {
        let id = principal.split_once('/').and_then(|(_, id)| Uuid::try_parse(id).ok());
        Ok(Ticket {
            kind,
            principal: id.ok_or_else(|| Rejection::Missing(principal.to_owned()))?,
            session: Uuid::now_v7(),
            generation: 0,
            issue_time: Timestamp::UNIX_EPOCH,
            nonce: random()?,
        })
    }
}

/// Where a call comes from, if the gateway says so.
fn source_of<T>(request: &Request<T>) -> Option<String> {
    let source = request.metadata().get(SOURCE)?.to_str().ok()?;
    (!source.is_empty() && source.len() <= 64).then(|| source.to_owned())
}

fn session_after(cursor: &str) -> Option<(Timestamp, String)> {
    let (micros, name) = cursor.split_once('\n')?;
    Some((Timestamp::from_microsecond(micros.parse().ok()?).ok()?, name.to_owned()))
}

fn page_size(asked: i32) -> u32 {
    match u32::try_from(asked) {
        Ok(0) | Err(_) => DEFAULT_PAGE,
        Ok(size) => size,
    }
}
