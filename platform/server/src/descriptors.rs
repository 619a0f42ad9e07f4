//! How many files and connections this process may have open, and what of that is left to connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for what a connection causes and for what the process has open beside them: stores, logs, connections to others.
const KEPT: u64 = 1024;

/// Raises the number of files the process may open to what it may raise it to: systems begin with 1,024 for old programs'
/// sake, and every connection is one.
pub fn raise() {
    let now = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }) {
        tracing::warn!(%error, files = now.current, "the process may open few files, and that cannot be changed");
    }
}

/// How many connections may be open at once, so that a flood of them leaves the stores the files they need.
pub fn left_to_connections() -> usize {
    usize::try_from(share(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))).unwrap_or(usize::MAX)
}

fn share(files: u64) -> u64 {
    files.saturating_sub(KEPT).max(files / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_flood_of_connections_leaves_files_to_the_stores() {
        assert_eq!(share(20_000), 18_976);
        assert_eq!(share(1_024), 256);
        assert_eq!(share(0), 1);
    }
}
