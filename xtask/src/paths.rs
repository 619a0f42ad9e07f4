//! Where things lie: the repository, the build folder, the private folder of tools.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo's build folder, wherever the user put it.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// The private folder of downloaded tools; deleting it only costs the time to fetch them again.
pub(crate) fn tools() -> PathBuf {
    match std::env::var_os("STOA_TOOLS") {
        Some(folder) => root().join(folder),
        None => target().join("tools"),
    }
}

/// Where each lane leaves its full output.
pub(crate) fn logs() -> PathBuf {
    target().join("lanes")
}

/// The executable of the name from the last release build.
pub(crate) fn release(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// True on the continuous integration, where a proof that is missing is a failure.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
