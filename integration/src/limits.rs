//! The limits of this process, raised as far as they go: every simulated buyer has a connection.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of files this process (and what it starts) may open to the hard limit; says how
/// many that is.
pub fn raise_open_files() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: now.maximum, maximum: now.maximum };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => now.maximum.unwrap_or(u64::MAX),
        Err(_) => now.current.unwrap_or(u64::MAX),
    }
}
