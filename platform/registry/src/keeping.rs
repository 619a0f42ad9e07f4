//! A copy keeps itself in the list: a lease, a key, signs of life, and a farewell.
//!
//! A sign of life is given three times a time to live. With each the key is looked for, because a lease can outlive what was
//! put under it (somebody deleted it, or put something else there). A lease that is no more, since etcd was away or the
//! process slept for too long, or because etcd lost its memory, is followed by a new one under a new id at once.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::wire::Lease;
use crate::{Copy, FAREWELL, Pauses, Registry, folder};

/// Why a copy is not in the list any more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("etcd says: {0}")]
    Etcd(#[from] Status),
    #[error("the lease has run out")]
    RunOut,
    #[error("{0} belongs to somebody else")]
    Taken(String),
}

impl Registry {
    /// Keeps these copies, all of one process, in the list until told to leave; they are off it when this returns, or their
    /// lease runs out by itself.
    pub async fn keep(&self, copies: &[Copy], leave: CancellationToken) {
        let mut held = None;
        let mut pauses = Pauses::new();
        loop {
            let lost = tokio::select! {
                () = leave.cancelled() => break,
                Err(lost) = self.hold(copies, &mut held, &mut pauses) => lost,
            };
            match pauses.fresh {
                true => tracing::warn!(error = %lost, "this copy may not be in the registry; it registers again"),
                false => tracing::debug!(error = %lost, "it does not yet"),
            }
            match lost {
                // The lease is as good as etcd says when it is back.
                Lost::Etcd(_) => {}
                Lost::RunOut => held = None,
                Lost::Taken(_) => self.revoke(held.take()).await,
            }
            tokio::select! {
                () = leave.cancelled() => break,
                () = pauses.pause() => {}
            }
        }
        self.revoke(held).await;
    }

    /// Registers under a new lease where there is none, and holds it until it is lost.
    async fn hold(&self, copies: &[Copy], held: &mut Option<Lease>, pauses: &mut Pauses) -> Result<Infallible, Lost> {
        loop {
            // Known before anything is put under it, so that whoever ends meanwhile revokes it.
            let lease = match held {
                Some(lease) => lease.clone(),
                None => held.insert(self.link.grant(self.ttl).await?).clone(),
            };
            self.refresh(copies, lease.id).await?;
            *pauses = Pauses::new();
            // etcd has a least time to live of its own, and says so.
            sleep(Duration::from_secs(u64::try_from(lease.ttl).unwrap_or(1).max(1)) / 3).await;
        }
    }

    async fn revoke(&self, held: Option<Lease>) {
        let Some(lease) = held else { return };
        match timeout(FAREWELL, self.link.revoke(lease.id)).await {
            Ok(Ok(())) => tracing::info!("this copy has left the registry"),
            Ok(Err(error)) => tracing::warn!(%error, "this copy's lease could not be revoked; it runs out"),
            Err(_) => tracing::warn!("this copy's lease could not be revoked in time; it runs out"),
        }
    }

    /// A sign of life, and a look whether the keys are there.
    async fn refresh(&self, copies: &[Copy], lease: i64) -> Result<(), Lost> {
        if !self.link.keep_alive(lease).await? {
            return Err(Lost::RunOut);
        }
        for copy in copies {
            match self.link.lease_of(&key_of(copy, lease)).await? {
                Some(holder) if holder == lease => {}
                Some(_) => return Err(Lost::Taken(key_of(copy, lease))),
                None => self.put(copy, lease).await?,
            }
        }
        Ok(())
    }

    /// Puts the key of a copy, which must not be there yet: an id is nobody else's.
    async fn put(&self, copy: &Copy, lease: i64) -> Result<(), Lost> {
        let key = key_of(copy, lease);
        let done = match self.link.put_absent(&key, copy.address.to_string(), lease).await {
            Err(status) if status.code() == Code::NotFound => return Err(Lost::RunOut),
            done => done?,
        };
        // The answer to an attempt that had its effect may have been lost; then the key is there and ours.
        if !done && self.link.lease_of(&key).await? != Some(lease) {
            return Err(Lost::Taken(key));
        }
        tracing::info!(key, address = %copy.address, "registered");
        Ok(())
    }
}

fn key_of(copy: &Copy, lease: i64) -> String {
    format!("{}{}", folder(&copy.prefix, &copy.service), name_of(lease))
}

/// A lease as an id, the way etcd's own tools write it.
fn name_of(lease: i64) -> String {
    format!("{lease:016x}")
}
