//! The rows of users, sessions and signing keys, and the secrets beside them: every SQL statement of this service.
//!
//! `Rows` is the inline projection that makes the first three from events. Secrets (keys, hashes) are primary: no event holds
//! them, no rebuild touches them, and they change in the transaction of the event they belong to.

use contract::Role;
use contracts::identity::v1::Event;
use jiff::Timestamp;
use log::{At, LocalBoxFuture, Projection};
use store::{Error, Migration, MigrationSet, Row, Tx, params};

use crate::session::{Family, Session, State};
use crate::wire;

/// The tables of this service.
pub const MIGRATIONS: MigrationSet = MigrationSet::new(
    "identity",
    &[
        Migration::new(1, "identity", include_str!("../migrations/0001_identity.sql")),
        Migration::new(2, "revoked sessions", include_str!("../migrations/0002_revoked_sessions.sql")),
    ],
);

/// A user as stored, personal fields sealed.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) display_name: String,
    pub(crate) role: Role,
    pub(crate) erased: bool,
    pub(crate) external_id: String,
    pub(crate) country_code: String,
    pub(crate) version: u64,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
}

/// A signing key that is still published, with its secret.
#[derive(Clone)]
pub(crate) struct StoredKey {
    pub(crate) seed: [u8; 32],
    pub(crate) create_time: Timestamp,
    pub(crate) activate_time: Timestamp,
    pub(crate) retire_time: Option<Timestamp>,
    pub(crate) remove_time: Option<Timestamp>,
}

/// How a user proves to be one.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) user: String,
    pub(crate) password_hash: String,
}

/// The inline projection of users, sessions and signing keys.
#[derive(Debug)]
pub(crate) struct Rows;

impl Projection<Event> for Rows {
    fn name(&self) -> &'static str {
        "accounts"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["users", "sessions", "signing_keys"]
    }

    fn apply<'a>(&'a self, tx: &'a mut Tx, at: &'a At, event: &'a Event) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match event {
                Event::UserCreated(created) => {
                    tx.execute(
                        "INSERT INTO users (name, email, display_name, role, state, external_id, country_code, version,
                                            create_time, update_time)
                         VALUES ($1, $2, $3, $4, 'ACTIVE', $5, $6, $7, $8, $8)",
                        params![
                            created.user.as_str(),
                            created.email.as_str(),
                            created.display_name.as_str(),
                            wire::role_text(created.role()),
                            created.external_id.as_str(),
                            created.country_code.as_str(),
                            at.version,
                            at.occur_time
                        ],
                    )
                    .await?;
                }
                Event::UserErased(erased) => {
                    tx.execute(
                        "UPDATE users SET email = '', display_name = '', state = 'ERASED', version = $2, update_time = $3
                         WHERE name = $1",
                        params![erased.user.as_str(), at.version, at.occur_time],
                    )
                    .await?;
                }
                Event::SessionStarted(started) => {
                    tx.execute(
                        "INSERT INTO sessions (name, principal, role, state, revoke_reason, generation, version,
                                               create_time, refresh_time, expire_time)
                         VALUES ($1, $2, $3, 'ACTIVE', '', 0, $4, $5, $5, $6)",
                        params![
                            started.session.as_str(),
                            started.principal.as_str(),
                            wire::role_text(started.role()),
                            at.version,
                            at.occur_time,
                            wire::time(started.expire_time)
                        ],
                    )
                    .await?;
                }
                Event::SessionRefreshed(refreshed) => {
                    tx.execute(
                        "UPDATE sessions SET generation = $2, version = $3, refresh_time = $4, expire_time = $5
                         WHERE name = $1",
                        params![
                            refreshed.session.as_str(),
                            refreshed.generation,
                            at.version,
                            at.occur_time,
                            wire::time(refreshed.expire_time)
                        ],
                    )
                    .await?;
                }
                Event::SessionRevoked(revoked) => {
                    tx.execute(
                        "UPDATE sessions SET state = 'REVOKED', revoke_reason = $2, version = $3 WHERE name = $1",
                        params![revoked.session.as_str(), revoked.reason().as_str_name(), at.version],
                    )
                    .await?;
                }
                Event::SigningKeyPublished(published) => {
                    tx.execute(
                        "INSERT INTO signing_keys (kid, algorithm, public_key, create_time, activate_time)
                         VALUES ($1, $2, $3, $4, $5)",
                        params![
                            published.kid.as_str(),
                            published.algorithm.as_str(),
                            &published.public_key,
                            at.occur_time,
                            wire::time(published.activate_time)
                        ],
                    )
                    .await?;
                }
                Event::SigningKeyRetired(retired) => {
                    tx.execute(
                        "UPDATE signing_keys SET retire_time = $2, remove_time = $3 WHERE kid = $1",
                        params![retired.kid.as_str(), at.occur_time, wire::time(retired.remove_time)],
                    )
                    .await?;
                }
            }
            Ok(())
        })
    }
}

const USER: &str =
    "SELECT name, email, display_name, role, state, external_id, country_code, version, create_time, update_time
                    FROM users";

/// One user.
pub(crate) async fn get_user(tx: &mut Tx, name: &str) -> Result<Option<User>, Error> {
    let row = tx.query_opt(&format!("{USER} WHERE name = $1"), params![name]).await?;
    row.as_ref().map(user).transpose()
}

/// The user imported with this id.
pub(crate) async fn find_imported(tx: &mut Tx, external_id: &str) -> Result<Option<User>, Error> {
    let row =
        tx.query_opt(&format!("{USER} WHERE external_id = $1 AND external_id <> ''"), params![external_id]).await?;
    row.as_ref().map(user).transpose()
}

/// Whether nothing is derived: no key and no user.
pub(crate) async fn is_empty(tx: &mut Tx) -> Result<bool, Error> {
    let rows = tx.query("SELECT kid FROM signing_keys UNION ALL SELECT name FROM users LIMIT 1", &[]).await?;
    Ok(rows.is_empty())
}

/// Whether anybody can run the shop.
pub(crate) async fn has_operator(tx: &mut Tx) -> Result<bool, Error> {
    let rows = tx.query("SELECT name FROM users WHERE role = 'operator' AND state = 'ACTIVE' LIMIT 1", &[]).await?;
    Ok(!rows.is_empty())
}

/// The credential of an address.
pub(crate) async fn get_credential(tx: &mut Tx, email_hash: &[u8; 32]) -> Result<Option<Credential>, Error> {
    let row = tx
        .query_opt("SELECT user_name, password_hash FROM credentials WHERE email_hash = $1", params![email_hash])
        .await?;
    row.map(|row| Ok(Credential { user: row.get("user_name")?, password_hash: row.get("password_hash")? })).transpose()
}

/// Keeps a user's credential; false if somebody else has the address.
pub(crate) async fn add_credential(
    tx: &mut Tx,
    email_hash: &[u8; 32],
    user: &str,
    password_hash: &str,
) -> Result<bool, Error> {
    let now = tx.now();
    let added = tx
        .execute(
            "INSERT INTO credentials (email_hash, user_name, password_hash, create_time) VALUES ($1, $2, $3, $4)
             ON CONFLICT (email_hash) DO NOTHING",
            params![email_hash, user, password_hash, now],
        )
        .await?;
    Ok(added == 1)
}

/// Drops a user's credential.
pub(crate) async fn drop_credential(tx: &mut Tx, user: &str) -> Result<(), Error> {
    tx.execute("DELETE FROM credentials WHERE user_name = $1", params![user]).await?;
    Ok(())
}

const SESSION: &str =
    "SELECT name, principal, role, state, revoke_reason, version, create_time, refresh_time, expire_time
                       FROM sessions";

/// One session.
pub(crate) async fn get_session(tx: &mut Tx, name: &str) -> Result<Option<Session>, Error> {
    let row = tx.query_opt(&format!("{SESSION} WHERE name = $1"), params![name]).await?;
    row.as_ref().map(session).transpose()
}

/// Sessions of a principal, newest first, after (time, name).
pub(crate) async fn list_sessions(
    tx: &mut Tx,
    principal: &str,
    after: Option<(Timestamp, &str)>,
    limit: u32,
) -> Result<Vec<Session>, Error> {
    let (time, name) = after.unwrap_or((Timestamp::MAX, ""));
    let rows = tx
        .query(
            &format!(
                "{SESSION} WHERE principal = $1
                   AND (create_time < CAST($2 AS BIGINT) OR (create_time = CAST($2 AS BIGINT) AND name > $3))
                 ORDER BY create_time DESC, name LIMIT CAST($4 AS BIGINT)"
            ),
            params![principal, time, name, limit],
        )
        .await?;
    rows.iter().map(session).collect()
}

/// Sessions of a principal whose tokens are good.
pub(crate) async fn active_sessions(tx: &mut Tx, principal: &str) -> Result<Vec<Session>, Error> {
    let now = tx.now();
    let rows = tx
        .query(
            &format!("{SESSION} WHERE principal = $1 AND state = 'ACTIVE' AND expire_time > $2 ORDER BY name"),
            params![principal, now],
        )
        .await?;
    rows.iter().map(session).collect()
}

/// The sessions that were ended and had been started or refreshed since then, with that time.
pub(crate) async fn ended_sessions(tx: &mut Tx, since: Timestamp) -> Result<Vec<(String, Timestamp)>, Error> {
    let rows = tx
        .query("SELECT name, refresh_time FROM sessions WHERE state = 'REVOKED' AND refresh_time > $1", params![since])
        .await?;
    rows.iter().map(|row| Ok((row.get("name")?, row.get("refresh_time")?))).collect()
}

/// What is kept of a session's tokens, and the masked successor.
pub(crate) async fn get_family(tx: &mut Tx, session: &str) -> Result<Option<(Family, Option<[u8; 32]>)>, Error> {
    let row = tx
        .query_opt(
            "SELECT generation, token_hash, spent_hash, successor, rotate_time FROM refresh_tokens WHERE session = $1",
            params![session],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let family = Family {
        generation: row.get("generation")?,
        token_hash: row.get("token_hash")?,
        spent_hash: optional(&row, "spent_hash")?,
        rotate_time: row.get("rotate_time")?,
    };
    Ok(Some((family, optional(&row, "successor")?)))
}

/// The first good token of a session.
pub(crate) async fn start_family(tx: &mut Tx, session: &str, token_hash: &[u8; 32]) -> Result<(), Error> {
    let now = tx.now();
    tx.execute(
        "INSERT INTO refresh_tokens (session, generation, token_hash, spent_hash, successor, rotate_time)
         VALUES ($1, 0, $2, $3, $3, $4)",
        params![session, token_hash, Vec::<u8>::new(), now],
    )
    .await?;
    Ok(())
}

/// Puts a token in place of the one that is good; false if that has been replaced already.
pub(crate) async fn rotate_family(
    tx: &mut Tx,
    session: &str,
    spent_hash: &[u8; 32],
    token_hash: &[u8; 32],
    successor: &[u8; 32],
) -> Result<bool, Error> {
    let now = tx.now();
    let rotated = tx
        .execute(
            "UPDATE refresh_tokens
             SET generation = generation + 1, token_hash = $3, spent_hash = $2, successor = $4, rotate_time = $5
             WHERE session = $1 AND token_hash = $2",
            params![session, spent_hash, token_hash, successor, now],
        )
        .await?;
    Ok(rotated == 1)
}

/// Forgets the tokens of a session.
pub(crate) async fn drop_family(tx: &mut Tx, session: &str) -> Result<(), Error> {
    tx.execute("DELETE FROM refresh_tokens WHERE session = $1", params![session]).await?;
    Ok(())
}

/// Sessions that have expired and whose tokens are still kept, at most `limit`.
pub(crate) async fn expired_families(tx: &mut Tx, now: Timestamp, limit: u32) -> Result<Vec<String>, Error> {
    let rows = tx
        .query(
            "SELECT t.session FROM refresh_tokens t JOIN sessions s ON s.name = t.session
             WHERE s.expire_time < $1 LIMIT CAST($2 AS BIGINT)",
            params![now, limit],
        )
        .await?;
    rows.iter().map(|row| row.get("session")).collect()
}

/// The service's own key of this name, made at its first use.
pub(crate) async fn secret(tx: &mut Tx, name: &str, fresh: &[u8; 32]) -> Result<[u8; 32], Error> {
    tx.execute(
        "INSERT INTO secrets (name, secret) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        params![name, fresh],
    )
    .await?;
    let row = tx.query_opt("SELECT secret FROM secrets WHERE name = $1", params![name]).await?;
    row.map_or(Ok(*fresh), |row| row.get("secret"))
}

/// Keeps the private half of a signing key.
pub(crate) async fn add_seed(tx: &mut Tx, kid: &str, seed: &[u8; 32]) -> Result<(), Error> {
    tx.execute("INSERT INTO signing_secrets (kid, seed) VALUES ($1, $2)", params![kid, seed]).await?;
    Ok(())
}

/// Destroys the private halves of keys that sign no more.
pub(crate) async fn drop_seed(tx: &mut Tx, kid: &str) -> Result<(), Error> {
    tx.execute("DELETE FROM signing_secrets WHERE kid = $1", params![kid]).await?;
    Ok(())
}

/// The keys that are published at `now`, the newest first.
pub(crate) async fn signing_keys(tx: &mut Tx, now: Timestamp) -> Result<Vec<StoredKey>, Error> {
    let rows = tx
        .query(
            "SELECT s.seed, k.create_time, k.activate_time, k.retire_time, k.remove_time
             FROM signing_keys k JOIN signing_secrets s ON s.kid = k.kid
             WHERE k.remove_time IS NULL OR k.remove_time > $1
             ORDER BY k.activate_time DESC, k.kid",
            params![now],
        )
        .await?;
    let key = |row: &Row| {
        Ok(StoredKey {
            seed: row.get("seed")?,
            create_time: row.get("create_time")?,
            activate_time: row.get("activate_time")?,
            retire_time: row.get("retire_time")?,
            remove_time: row.get("remove_time")?,
        })
    };
    rows.iter().map(key).collect()
}

/// Names of the keys whose private half is of no use any more.
pub(crate) async fn removed_keys(tx: &mut Tx, now: Timestamp) -> Result<Vec<String>, Error> {
    let rows = tx
        .query(
            "SELECT k.kid FROM signing_keys k JOIN signing_secrets s ON s.kid = k.kid WHERE k.remove_time <= $1",
            params![now],
        )
        .await?;
    rows.iter().map(|row| row.get("kid")).collect()
}

fn user(row: &Row) -> Result<User, Error> {
    let state: String = row.get("state")?;
    Ok(User {
        name: row.get("name")?,
        email: row.get("email")?,
        display_name: row.get("display_name")?,
        role: role(row)?,
        erased: state == "ERASED",
        external_id: row.get("external_id")?,
        country_code: row.get("country_code")?,
        version: row.get("version")?,
        create_time: row.get("create_time")?,
        update_time: row.get("update_time")?,
    })
}

fn session(row: &Row) -> Result<Session, Error> {
    let state: String = row.get("state")?;
    Ok(Session {
        name: row.get("name")?,
        principal: row.get("principal")?,
        role: role(row)?,
        state: if state == "ACTIVE" { State::Active } else { State::Revoked },
        revoke_reason: row.get("revoke_reason")?,
        version: row.get("version")?,
        create_time: row.get("create_time")?,
        refresh_time: row.get("refresh_time")?,
        expire_time: row.get("expire_time")?,
    })
}

fn role(row: &Row) -> Result<Role, Error> {
    let text: String = row.get("role")?;
    Role::parse(&text).ok_or_else(|| Error::Mismatch { column: "role".to_owned(), expected: "a role", found: text })
}

/// A hash or mask, which is empty where there is none.
fn optional(row: &Row, column: &str) -> Result<Option<[u8; 32]>, Error> {
    let bytes: Vec<u8> = row.get(column)?;
    Ok(bytes.try_into().ok())
}
