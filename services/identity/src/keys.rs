//! Signing keys: which one signs now, which are published, and the task that retires the old ones.
//!
//! Invariants: a key is in the keyring from its commit on and signs only after the notice is over; a key that stopped signing
//! stays in the keyring until its last token has expired. Which key signs follows from the clock alone, so no task has to run
//! for a rotation to take place; the task records what has happened and takes removed keys out of the keyring.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use auth::{Issued, Issuer, SigningKey, Subject};
use contracts::identity::v1 as proto;
use jiff::Timestamp;
use log::{Log, Meta};
use server::Context;
use store::{Tx, site};
use tokio::sync::Notify;

use crate::error::{Error, Rejection};
use crate::store as rows;
use crate::wire;

/// The stream of signing keys.
const STREAM: &str = "signingKeys";

/// How long after the last token of a key could expire it is still published, for clocks that differ: by [`auth::SKEW_S`], and
/// half of it more for what is late besides.
const SLACK: Duration = Duration::from_secs(auth::SKEW_S as u64 * 3 / 2);

/// A key as it is used.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    issuer: Issuer,
    pub(crate) public_bytes: [u8; 32],
    pub(crate) create_time: Timestamp,
    pub(crate) activate_time: Timestamp,
    pub(crate) retire_time: Option<Timestamp>,
    remove_time: Option<Timestamp>,
}

impl Key {
    pub(crate) fn kid(&self) -> &str {
        self.issuer.public_key().kid()
    }
}

/// The published keys. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log<proto::Event>,
    context: Context,
    lifetime: Duration,
    notice: Duration,
    held: RwLock<Arc<[Key]>>,
    changed: Notify,
}

impl Keys {
    /// The keys of the store, published into the context's keyring; the first start makes one.
    pub(crate) async fn open(
        log: Log<proto::Event>,
        context: &Context,
        lifetime: Duration,
        notice: Duration,
    ) -> Result<Self, Error> {
        // Not the ways to other services: they lead back here, and a store that holds itself is never closed.
        let mut surroundings = context.clone();
        surroundings.clients = client::Registry::new(contracts::METHODS);
        surroundings.hub = bus::Hub::default();
        let inner = Inner {
            log,
            context: surroundings,
            lifetime,
            notice,
            held: RwLock::new(Arc::from([])),
            changed: Notify::new(),
        };
        let keys = Keys { inner: Arc::new(inner) };
        let (log, seed) = (keys.inner.log.clone(), crate::random()?);
        let first = log.clone();
        log.store()
            .write(site!("identity.first_signing_key"), async move |tx: &mut Tx| {
                // Copies that start for the first time at the same time: one makes the key, the others find it.
                tx.take_stream(STREAM).await?;
                let now = tx.now();
                if rows::signing_keys(tx, now).await?.iter().any(|key| key.retire_time.is_none()) {
                    return Ok(());
                }
                let meta = Meta { causation: "identity.first_signing_key".to_owned(), ..Meta::default() };
                publish(&first, tx, &meta, &seed, now).await
            })
            .await?;
        keys.tidy().await?;
        Ok(keys)
    }

    /// Signs a token for this person.
    pub(crate) fn issue(&self, subject: &Subject) -> Result<Issued, Error> {
        let now = self.inner.context.clock.now();
        let held = self.held();
        let key = held.iter().find(|key| key.activate_time <= now).ok_or(Error::NoSigningKey)?;
        Ok(key.issuer.issue(subject, now)?)
    }

    /// The keys that verifiers must know, the newest first.
    pub(crate) fn published(&self) -> Arc<[Key]> {
        self.held()
    }

    /// What a key of this seed would be if it were published at `now`.
    pub(crate) fn planned(&self, seed: &[u8; 32], now: Timestamp) -> Key {
        let activate_time = crate::later(now, self.inner.notice);
        self.key(&rows::StoredKey {
            seed: *seed,
            create_time: now,
            activate_time,
            retire_time: None,
            remove_time: None,
        })
    }

    /// Publishes a key in `tx`; it signs once the notice is over. Call [`Keys::reload`] after the commit.
    pub(crate) async fn rotate(&self, tx: &mut Tx, meta: &Meta, seed: &[u8; 32]) -> Result<Key, Error> {
        let now = tx.now();
        if rows::signing_keys(tx, now).await?.iter().any(|key| key.activate_time > now) {
            return Err(Rejection::RotationPending.into());
        }
        let planned = self.planned(seed, now);
        publish(&self.inner.log, tx, meta, seed, planned.activate_time).await?;
        Ok(planned)
    }

    /// Takes the keys of the store into use.
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        let clock = self.inner.context.clock.clone();
        let store = self.inner.log.store();
        let stored = store.read(async move |tx: &mut Tx| rows::signing_keys(tx, clock.now()).await).await?;
        let keys: Arc<[Key]> = stored.iter().map(|key| self.key(key)).collect();
        let public = keys.iter().map(|key| key.issuer.public_key().clone()).collect();
        self.inner.context.keyring().publish(public);
        *self.inner.held.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.inner.changed.notify_one();
        Ok(())
    }

    /// Retires and removes keys when their time has come, until shutdown.
    pub(crate) async fn keep(self) {
        let clock = self.inner.context.clock.clone();
        loop {
            let due = next_change(&self.held());
            // What another copy has published is in no memory of this one.
            let others = async {
                match self.inner.context.storage.is_shared() {
                    true => tokio::time::sleep(self.inner.context.windows.sweep).await,
                    false => std::future::pending().await,
                }
            };
            let wait = async {
                match due {
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.inner.context.shutdown.cancelled() => return,
                () = self.inner.changed.notified() => continue,
                () = wait => {}
                () = others => {}
            }
            if let Err(error) = self.tidy().await {
                tracing::warn!(%error, "signing keys could not be looked after; tried again");
                tokio::time::sleep(self.inner.context.windows.sweep).await;
            }
        }
    }

    /// Records which keys have stopped signing, destroys those that are removed, and takes the rest into use.
    async fn tidy(&self) -> Result<(), Error> {
        let (log, linger) = (self.inner.log.clone(), self.inner.lifetime + SLACK);
        let writer = log.clone();
        let now = self.inner.context.clock.now();
        let idle = log
            .store()
            .read(async move |tx: &mut Tx| {
                let idle = superseded(&rows::signing_keys(tx, now).await?, now).is_empty();
                Ok::<_, Error>(idle && rows::removed_keys(tx, now).await?.is_empty())
            })
            .await?;
        if idle {
            return self.reload().await;
        }
        log.store()
            .write(site!("identity.retire_signing_keys"), async move |tx: &mut Tx| {
                let now = tx.now();
                let remove_time = crate::later(now, linger);
                let meta = Meta { causation: "identity.retire_signing_keys".to_owned(), ..Meta::default() };
                for kid in superseded(&rows::signing_keys(tx, now).await?, now) {
                    let retired = proto::SigningKeyRetired { kid, remove_time: Some(remove_time.into()) };
                    let event = proto::Event::SigningKeyRetired(retired);
                    writer.append_next(tx, STREAM, &meta, None, vec![event]).await?;
                }
                for kid in rows::removed_keys(tx, now).await? {
                    rows::drop_seed(tx, &kid).await?;
                }
                Ok::<_, Error>(())
            })
            .await?;
        self.reload().await
    }

    fn key(&self, stored: &rows::StoredKey) -> Key {
        Key {
            issuer: self.inner.context.issuer(SigningKey::from_seed(&stored.seed), self.inner.lifetime),
            public_bytes: public_bytes(&stored.seed),
            create_time: stored.create_time,
            activate_time: stored.activate_time,
            retire_time: stored.retire_time,
            remove_time: stored.remove_time,
        }
    }

    fn held(&self) -> Arc<[Key]> {
        self.inner.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn publish(
    log: &Log<proto::Event>,
    tx: &mut Tx,
    meta: &Meta,
    seed: &[u8; 32],
    activate_time: Timestamp,
) -> Result<(), Error> {
    let kid = SigningKey::from_seed(seed).public().kid().to_owned();
    rows::add_seed(tx, &kid, seed).await?;
    let published = proto::SigningKeyPublished {
        kid,
        algorithm: wire::ALGORITHM.to_owned(),
        public_key: public_bytes(seed).to_vec(),
        activate_time: Some(activate_time.into()),
    };
    log.append_next(tx, STREAM, meta, None, vec![proto::Event::SigningKeyPublished(published)]).await?;
    Ok(())
}

fn public_bytes(seed: &[u8; 32]) -> [u8; 32] {
    ed25519_dalek::SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

/// Names of the keys, the newest first, that a newer one has replaced and nobody has retired.
fn superseded(keys: &[rows::StoredKey], now: Timestamp) -> Vec<String> {
    let active = keys.iter().filter(|key| key.activate_time <= now);
    let replaced = active.skip(1).filter(|key| key.retire_time.is_none());
    replaced.map(|key| SigningKey::from_seed(&key.seed).public().kid().to_owned()).collect()
}

/// When something is to be recorded next: a key takes over, or one is removed.
fn next_change(keys: &[Key]) -> Option<Timestamp> {
    let unretired = keys.iter().filter(|key| key.retire_time.is_none()).count();
    let takeover = keys.first().filter(|_| unretired > 1).map(|newest| newest.activate_time);
    keys.iter().filter_map(|key| key.remove_time).chain(takeover).min()
}
