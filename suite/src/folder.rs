//! The data folder: who may use it, what it is sealed with, who runs on it.
//!
//! One process at a time holds the folder's lock, which the system lets go of when that process dies. What it says about
//! itself for other commands (`running.json`, readable by its owner alone) is believed only while the lock is held.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A folder that this process alone uses.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

/// Another process uses the folder.
#[derive(Debug, thiserror::Error)]
#[error("the data folder {} is in use by {holder}: its lock is held", path.display())]
pub(crate) struct InUse {
    path: PathBuf,
    holder: String,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// By somebody else.
    #[error(transparent)]
    InUse(#[from] InUse),
    /// The system said no.
    #[error("the data folder {} cannot be used", path.display())]
    Io {
        /// The folder or a file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is not what it was left as.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// What a running process tells the commands of the same user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Where the shop listens.
    pub(crate) address: SocketAddr,
    /// Where it takes commands; on the loopback interface alone.
    pub(crate) control: SocketAddr,
    /// Proof that who commands may read the folder.
    pub(crate) token: String,
}

const LOCK: &str = "stoa.lock";
const SECRET: &str = "secret";
const RUNNING: &str = "running.json";
const PROVIDER: &str = "provider.url";
const SAMPLE: &str = "sample.txt";

/// Whether the sample catalogue is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sample {
    /// Nobody began.
    Absent,
    /// It was begun and not finished.
    Begun,
    /// All of it.
    Loaded,
}

impl Folder {
    /// Makes the folder where there is none, and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        create_private(path)?;
        let lock_path = path.join(LOCK);
        let failed = |source| Error::Io { path: lock_path.clone(), source };
        let mut lock = private().read(true).truncate(false).open(&lock_path).map_err(failed)?;
        match patiently(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = lock.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known { format!("process {}", holder.trim()) } else { "another process".to_owned() };
                return Err(InUse { path: path.to_owned(), holder }.into());
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).map_err(failed)?;
        let folder = Self { path: path.to_owned(), _lock: lock };
        // Left by a process that was killed.
        folder.stopped()?;
        Ok(folder)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether no shop was ever opened in it.
    pub(crate) fn is_new(&self) -> bool {
        !self.path.join(SECRET).exists()
    }

    /// The secret of this shop, made by the first start.
    pub(crate) fn secret(&self) -> Result<[u8; 32], Error> {
        let path = self.path.join(SECRET);
        match fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|_| Error::Damaged { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secret = random().map_err(|source| Error::Io { path, source })?;
                self.replace(SECRET, &secret)?;
                Ok(secret)
            }
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// Tells other commands where this process is.
    pub(crate) fn running(&self, running: &Running) -> Result<(), Error> {
        let text = serde_json::to_vec(running).unwrap_or_default();
        self.replace(RUNNING, &text)
    }

    /// No process can be asked any more.
    pub(crate) fn stopped(&self) -> Result<(), Error> {
        let path = self.path.join(RUNNING);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Io { path, source: error }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Where the provider was when the shop ran last, if it was elsewhere.
    pub(crate) fn provider(&self) -> Option<String> {
        fs::read_to_string(self.path.join(PROVIDER)).ok().filter(|url| !url.is_empty())
    }

    /// Keeps where the provider is, for commands that open the folder later.
    pub(crate) fn set_provider(&self, url: Option<&str>) -> Result<(), Error> {
        if self.provider().as_deref() == url { Ok(()) } else { self.replace(PROVIDER, url.unwrap_or("").as_bytes()) }
    }

    /// Whether the sample catalogue is in.
    pub(crate) fn sample(&self) -> Sample {
        match fs::read_to_string(self.path.join(SAMPLE)).as_deref() {
            Ok("loaded") => Sample::Loaded,
            Ok(_) => Sample::Begun,
            Err(_) => Sample::Absent,
        }
    }

    /// Keeps how far the sample catalogue is.
    pub(crate) fn set_sample(&self, loaded: bool) -> Result<(), Error> {
        self.replace(SAMPLE, if loaded { b"loaded" } else { b"begun" })
    }

    /// Writes a file whole or not at all, readable by its owner alone.
    fn replace(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let (path, draft) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let written = || {
            let mut file = private().truncate(true).open(&draft)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.path)?.sync_all()
        };
        written().map_err(|source| Error::Io { path: path.clone(), source })
    }
}

/// Who runs on the folder, if somebody does and can be asked.
pub(crate) fn running(path: &Path) -> Option<Running> {
    let lock = File::open(path.join(LOCK)).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => serde_json::from_slice(&fs::read(path.join(RUNNING)).ok()?).ok(),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

/// Takes the lock, waiting out a command that only looks whether it is held.
#[expect(clippy::disallowed_methods, reason = "before anything runs that a sleep could hold up, and at most 50 ms")]
fn patiently(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..5 {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(std::time::Duration::from_millis(10)),
            taken => return taken,
        }
    }
    lock.try_lock()
}

/// 256 random bits.
pub(crate) fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

fn create_private(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(failed)
}

fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("shop");
        (parent, path)
    }

    #[test]
    fn a_second_user_of_a_folder_is_refused_with_the_first_ones_number() {
        let (_parent, path) = folder();
        let first = Folder::open(&path).unwrap();
        let refused = Folder::open(&path).err().unwrap().to_string();
        assert!(refused.contains("in use") && refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn who_runs_is_known_while_the_lock_is_held() {
        let (_parent, path) = folder();
        let here = Folder::open(&path).unwrap();
        assert!(running(&path).is_none());
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        here.running(&Running { address, control: address, token: "t".to_owned() }).unwrap();
        assert_eq!(running(&path).unwrap().token, "t");
        drop(here);
        assert!(running(&path).is_none(), "a file left behind is not believed");
    }

    #[test]
    fn the_secret_is_kept_and_a_damaged_one_is_not_used() {
        let (_parent, path) = folder();
        let here = Folder::open(&path).unwrap();
        let secret = here.secret().unwrap();
        assert_eq!(here.secret().unwrap(), secret);
        fs::write(path.join(SECRET), b"short").unwrap();
        assert!(here.secret().is_err());
    }

    #[test]
    #[cfg(unix)]
    fn what_is_kept_is_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_parent, path) = folder();
        let here = Folder::open(&path).unwrap();
        here.secret().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(SECRET)), mode(&path.join(LOCK))), (0o700, 0o600, 0o600));
    }
}
