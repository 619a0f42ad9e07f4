//! Passwords: Argon2id on threads of its own, as many at once as the configuration says.
//!
//! A sign-in of nobody takes the same path as one of a user: it is compared with a hash that no password has.

use std::sync::Arc;

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};
use argon2::{Argon2, Params};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tokio::sync::Semaphore;

use crate::config::Hashing;

/// Why there is no hash, or no comparison.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The parameters are out of the range of Argon2.
    #[error("these parameters of Argon2 are not possible: {0}")]
    Parameters(String),
    /// As many as may wait are waiting.
    #[error("too many passwords are being checked")]
    Busy,
    /// The hash failed.
    #[error("a password could not be hashed: {0}")]
    Failed(String),
}

/// Computes hashes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Hasher {
    argon2: Argon2<'static>,
    nobodys: Arc<str>,
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Hasher {
    pub(crate) fn new(hashing: &Hashing) -> Result<Self, Error> {
        let Hashing { memory_kib, passes, lanes, parallel, waiting } = *hashing;
        let params = Params::new(memory_kib, passes, lanes, None).map_err(|e| Error::Parameters(e.to_string()))?;
        let mut random = [0u8; 48];
        getrandom::fill(&mut random).map_err(|e| Error::Failed(e.to_string()))?;
        let (salt, output) = random.split_at(16);
        let nobodys = format!(
            "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${}${}",
            STANDARD_NO_PAD.encode(salt),
            STANDARD_NO_PAD.encode(output)
        );
        Ok(Hasher {
            argon2: Argon2::from(params),
            nobodys: nobodys.into(),
            admitted: Arc::new(Semaphore::new(parallel + waiting)),
            running: Arc::new(Semaphore::new(parallel)),
        })
    }

    /// The hash of a password with a fresh salt, as a PHC string.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Error> {
        let argon2 = self.argon2.clone();
        self.run(move || {
            let hash: PasswordHash =
                argon2.hash_password(password.as_bytes()).map_err(|e| Error::Failed(e.to_string()))?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether `password` is the one of this hash. Without a hash the answer is no, after the same work.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, Error> {
        let argon2 = self.argon2.clone();
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobodys.as_ref().to_owned());
        self.run(move || {
            let parsed = PasswordHash::new(&hash).map_err(|e| Error::Failed(e.to_string()))?;
            Ok(argon2.verify_password(password.as_bytes(), &parsed).is_ok() && known)
        })
        .await
    }

    async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: FnOnce() -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let _admitted = self.admitted.try_acquire().map_err(|_| Error::Busy)?;
        let running = self.running.clone().acquire_owned().await.map_err(|e| Error::Failed(e.to_string()))?;
        // The permit goes along: work whose caller has vanished still counts.
        let done = tokio::task::spawn_blocking(move || {
            let _running = running;
            work()
        });
        done.await.map_err(|e| Error::Failed(e.to_string()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Hashing {
        Hashing { memory_kib: 64, passes: 1, lanes: 1, parallel: 1, waiting: 1 }
    }

    #[tokio::test]
    async fn a_password_fits_its_own_hash_alone() {
        let hasher = Hasher::new(&cheap()).unwrap();
        let hash = hasher.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
        assert!(hasher.verify("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!hasher.verify("wrong horse".to_owned(), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn nobodys_hash_is_a_real_one_and_fits_no_password() {
        let hasher = Hasher::new(&cheap()).unwrap();
        let nobodys = PasswordHash::new(&hasher.nobodys).unwrap();
        assert_eq!(nobodys.algorithm.as_str(), "argon2id");
        assert!(nobodys.hash.is_some());
        assert!(!hasher.verify(String::new(), None).await.unwrap());
        assert!(!hasher.verify("anything".to_owned(), None).await.unwrap());
    }

    #[tokio::test]
    async fn more_than_may_wait_are_turned_away() {
        let hasher = Hasher::new(&Hashing { parallel: 1, waiting: 0, ..cheap() }).unwrap();
        let _held = hasher.admitted.try_acquire().unwrap();
        assert!(matches!(hasher.hash("x".to_owned()).await, Err(Error::Busy)));
    }
}
