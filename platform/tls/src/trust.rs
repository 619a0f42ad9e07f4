//! The files of a process: where its certificates are, and when they are read again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::credentials::Credentials;
use crate::name;

/// Between two looks whether the files have changed.
pub const LOOK: Duration = Duration::from_secs(5);

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not there, or may not be read.
    #[error("{} cannot be read; `stoa ca issue` makes certificates", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else, or does not go with the others.
    #[error("{}: {problem}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A trust domain cannot be called so.
    #[error("{0:?} is no trust domain: lower case letters, digits, dots, dashes and underscores, such as `stoa.local`")]
    Domain(String),
    /// A process cannot be called so.
    #[error("{0:?} is no name of a process: lower case letters, digits and dashes, such as `ordering`")]
    Name(String),
}

/// Where the certificates are; in the paths of the last two `{service}` stands for the service's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificates (PEM) of who signed all others; several while one authority follows another.
    pub authority: PathBuf,
    /// The certificate (PEM) of a service, then those between it and the authority, if there are any.
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// What all ids begin with, `spiffe://DOMAIN/`.
    pub domain: String,
}

impl Files {
    /// Those of one service.
    pub(crate) fn of(&self, service: &str) -> Self {
        let named = |path: &Path| PathBuf::from(path.to_string_lossy().replace("{service}", service));
        Files { certificate: named(&self.certificate), key: named(&self.key), ..self.clone() }
    }
}

/// What a process of a fleet proves itself with, and knows others by. A cheap handle.
#[derive(Clone, Debug)]
pub struct Trust {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    files: Files,
    opened: Mutex<BTreeMap<String, Credentials>>,
}

impl Trust {
    /// Trust by these files; they are read when a service asks for its own.
    pub fn new(files: Files) -> Result<Self, Error> {
        if !name::is_domain(&files.domain) {
            return Err(Error::Domain(files.domain));
        }
        Ok(Trust { inner: Arc::new(Inner { files, opened: Mutex::default() }) })
    }

    /// The credentials of one service.
    pub fn of(&self, service: &str) -> Result<Credentials, Error> {
        let mut opened = self.inner.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credentials) = opened.get(service) {
            return Ok(credentials.clone());
        }
        if !name::is_name(service) {
            return Err(Error::Name(service.to_owned()));
        }
        let credentials = Credentials::open(self.inner.files.of(service), service)?;
        opened.insert(service.to_owned(), credentials.clone());
        Ok(credentials)
    }

    /// Reads again whatever has changed. What cannot be used is told of, and what was read before stays.
    pub fn look(&self) {
        let opened: Vec<Credentials> = {
            let opened = self.inner.opened.lock().unwrap_or_else(PoisonError::into_inner);
            opened.values().cloned().collect()
        };
        opened.iter().for_each(Credentials::look);
    }

    /// Looks every [`LOOK`], for ever.
    pub async fn follow(self) {
        let mut turns = tokio::time::interval(LOOK);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let this = self.clone();
            // Files may lie on a volume that is slow to answer.
            if let Err(error) = tokio::task::spawn_blocking(move || this.look()).await {
                tracing::error!(%error, "the certificates are not looked at any more");
                return;
            }
        }
    }
}
