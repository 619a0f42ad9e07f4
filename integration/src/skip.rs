//! Saying that something could not be proven: a failure on the continuous integration, a note elsewhere.

use std::io::Write;

/// Notes that the calling test proves nothing for lack of something; the caller returns.
///
/// # Panics
///
/// With `CI` set, where a proof that is missing is a failure.
pub fn not_proven(reason: &str) {
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!in_ci, "skipped, not proven: {reason}");
    eprintln!("skipped, not proven: {reason}");
    if let Some(path) = std::env::var_os("STOA_SKIPS") {
        let noted = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| writeln!(file, "{reason}"));
        if let Err(error) = noted {
            eprintln!("the skip cannot be noted: {error}");
        }
    }
}
