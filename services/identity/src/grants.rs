//! What a sign-in and a refresh do in their transaction: events, and the tokens that are good after it.

use std::time::Duration;

use contract::{Guard, Role};
use contracts::identity::v1 as proto;
use jiff::Timestamp;
use log::Meta;
use store::Tx;

use crate::error::{Error, Rejection};
use crate::rpc::Rpc;
use crate::session::{Shown, Verdict, judge};
use crate::token::{self, Kind, Ticket};
use crate::{later, store as rows, wire};

/// How long sessions live without being refreshed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    pub(crate) user: Duration,
    pub(crate) guest: Duration,
}

/// What a session is given: a token and whose it is.
pub(crate) struct Granted {
    pub(crate) refresh_token: String,
    pub(crate) refresh_expire_time: Timestamp,
    pub(crate) user: proto::User,
    pub(crate) role: Role,
    pub(crate) session: String,
}

/// A refresh as its transaction leaves it: a refusal may have had an effect that must be kept.
pub(crate) enum Refreshed {
    Granted(Box<Granted>),
    Refused(Rejection),
    /// The refusal, and the session was ended with it.
    Ended(Rejection),
}

impl Rpc {
    /// Starts a session of a user in `tx`.
    pub(crate) async fn start(
        &self,
        tx: &mut Tx,
        meta: &Meta,
        email_hash: &[u8; 32],
        proven: &rows::Credential,
        ticket: Ticket,
    ) -> Result<Granted, Error> {
        // Erased, or its password changed, since it was looked at.
        let current = rows::get_credential(tx, email_hash).await?;
        let still = current.is_some_and(|current| current.password_hash == proven.password_hash);
        let user = rows::get_user(tx, &proven.user).await?.filter(|user| still && !user.erased);
        let user = user.ok_or(Rejection::Credentials)?;
        let ticket = Ticket { issue_time: tx.now(), ..ticket };
        let (session, refresh_token) = (ticket.session_name(), self.mint.token(&ticket));
        let expire_time = later(tx.now(), self.lifetimes.user);
        let event = wire::started(&session, &user.name, user.role, expire_time);
        self.log.append(tx, &session, 0, meta, None, vec![event]).await?;
        rows::start_family(tx, &session, &token::hash(&refresh_token)).await?;
        Ok(Granted {
            refresh_token,
            refresh_expire_time: expire_time,
            role: user.role,
            user: wire::user(tx, &user).await?,
            session,
        })
    }

    /// Trades a token in `tx`. `nonce` becomes the successor's.
    pub(crate) async fn refresh(
        &self,
        tx: &mut Tx,
        meta: &Meta,
        shown: &str,
        nonce: [u8; 32],
    ) -> Result<Refreshed, Error> {
        let Some(ticket) = self.mint.read(shown) else { return Ok(Refreshed::Refused(Rejection::Credentials)) };
        let (now, name, principal) = (tx.now(), ticket.session_name(), ticket.principal_name());
        let (role, lifetime) = match ticket.kind {
            Kind::User => (Role::Customer, self.lifetimes.user),
            Kind::Guest => (Role::Guest, self.lifetimes.guest),
        };
        tx.take_stream(&name).await?;
        let session = rows::get_session(tx, &name).await?;
        let kept = rows::get_family(tx, &name).await?;
        let seen = Shown {
            generation: ticket.generation,
            hash: token::hash(shown),
            issue_time: ticket.issue_time,
            guest: ticket.kind == Kind::Guest,
        };
        let family = kept.as_ref().map(|(family, _)| family);
        let verdict = judge(session.as_ref(), family, &seen, now, &self.windows);
        let version = session.as_ref().map_or(0, |session| session.version);
        let role = session.as_ref().map_or(role, |session| session.role);
        let next = Ticket { generation: ticket.generation.saturating_add(1), issue_time: now, nonce, ..ticket };
        let expire_time = later(now, lifetime);
        let (next, expire_time) = match verdict {
            Verdict::Revoked => return Ok(Refreshed::Refused(Rejection::SessionRevoked)),
            Verdict::Expired => return Ok(Refreshed::Refused(Rejection::SessionExpired)),
            Verdict::Reused if !Guard::SpentToken.stands() => return Ok(Refreshed::Refused(Rejection::SessionRevoked)),
            Verdict::Reused => {
                tracing::warn!(target: "audit", session = name, "a spent refresh token was shown; the session is ended");
                let event = wire::revoked(&name, proto::RevokeReason::TokenReused, "");
                self.log.append(tx, &name, version, meta, None, vec![event]).await?;
                rows::drop_family(tx, &name).await?;
                return Ok(Refreshed::Ended(Rejection::SessionRevoked));
            }
            Verdict::First => {
                let started = wire::started(&name, &principal, role, expire_time);
                let refreshed = wire::refreshed(&name, next.generation, expire_time);
                self.log.append(tx, &name, 0, meta, None, vec![started, refreshed]).await?;
                rows::start_family(tx, &name, &seen.hash).await?;
                (next, expire_time)
            }
            Verdict::Rotate => {
                let refreshed = wire::refreshed(&name, next.generation, expire_time);
                self.log.append(tx, &name, version, meta, None, vec![refreshed]).await?;
                (next, expire_time)
            }
            Verdict::Again => {
                let Some((family, Some(masked))) = &kept else {
                    return Ok(Refreshed::Refused(Rejection::SessionRevoked));
                };
                let again = Ticket { issue_time: family.rotate_time, nonce: token::masked(shown, *masked), ..next };
                (again, session.as_ref().map_or(expire_time, |session| session.expire_time))
            }
        };
        let refresh_token = self.mint.token(&next);
        if verdict != Verdict::Again {
            let successor = token::masked(shown, next.nonce);
            let hash = token::hash(&refresh_token);
            if !rows::rotate_family(tx, &name, &seen.hash, &hash, &successor).await? {
                return Err(log::Error::Conflict { stream: name, expected: version, actual: version + 1 }.into());
            }
        }
        let user = match ticket.kind {
            Kind::Guest => wire::guest(&principal),
            Kind::User => match rows::get_user(tx, &principal).await?.filter(|user| !user.erased) {
                Some(user) => wire::user(tx, &user).await?,
                None => return Err(Rejection::SessionRevoked.into()),
            },
        };
        let granted = Granted { refresh_token, refresh_expire_time: expire_time, user, role, session: name };
        Ok(Refreshed::Granted(Box::new(granted)))
    }
}
