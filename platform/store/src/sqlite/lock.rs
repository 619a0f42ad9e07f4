//! The lock that keeps a second process from a store's file.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::Error;

/// How long a holder that is ending is waited for: a process that drains, or a body on a reader's thread that held this
/// process's last handle.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Held by every thread of the store; the last one to end lets go. The kernel lets go for a killed process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Blocks for up to `patience` while another opener holds it.
    pub(crate) fn take(service: &'static str, store: &Path, patience: Duration) -> Result<Self, Error> {
        let mut name = store.as_os_str().to_owned();
        name.push(".lock");
        let refuse =
            |error: std::io::Error| Error::Open { service, detail: format!("{}: {error}", Path::new(&name).display()) };
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&name).map_err(refuse)?;
        match try_for(patience, &file) {
            Ok(()) => {
                // The holder's number is for people; the lock itself is the kernel's.
                let written =
                    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
                written.map_err(refuse)?;
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known { format!("process {}", holder.trim()) } else { "another process".to_owned() };
                Err(Error::Locked { path: store.to_owned(), holder })
            }
            Err(TryLockError::Error(error)) => Err(refuse(error)),
        }
    }
}

fn try_for(patience: Duration, file: &File) -> Result<(), TryLockError> {
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if started.elapsed() < patience => thread::park_timeout(PAUSE),
            tried => return tried,
        }
    }
}
