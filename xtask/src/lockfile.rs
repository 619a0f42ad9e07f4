//! Versions below which a library has a hole that an outsider can use, looked up in `Cargo.lock`.

use std::fs;

use anyhow::{Context, Result};
use cargo_metadata::semver::Version;
use serde::Deserialize;

use crate::paths;

/// The least version of each crate, wherever it comes from.
const LEAST: [(&str, Version); 9] = [
    ("h2", Version::new(0, 4, 18)),
    ("hyper", Version::new(1, 12, 0)),
    ("rustls", Version::new(0, 23, 18)),
    ("rustls-webpki", Version::new(0, 103, 13)),
    ("tokio-postgres", Version::new(0, 7, 18)),
    ("postgres-protocol", Version::new(0, 6, 12)),
    ("bytes", Version::new(1, 11, 1)),
    ("tracing-subscriber", Version::new(0, 3, 20)),
    ("time", Version::new(0, 3, 47)),
];

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: Version,
}

/// What is locked below its least version.
pub(crate) fn too_old() -> Result<Vec<String>> {
    let text = fs::read_to_string(paths::root().join("Cargo.lock")).context("no Cargo.lock")?;
    judge(&text)
}

fn judge(text: &str) -> Result<Vec<String>> {
    let lock: Lock = toml::from_str(text).context("Cargo.lock is not what we expect")?;
    Ok(lock
        .package
        .iter()
        .filter_map(|locked| {
            let (_, least) = LEAST.into_iter().find(|(name, _)| *name == locked.name)?;
            (locked.version < least)
                .then(|| format!("{} {} is locked, at least {least} is needed", locked.name, locked.version))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn an_old_version_is_named_even_beside_a_new_one() {
        let lock =
            "[[package]]\nname = \"h2\"\nversion = \"0.4.20\"\n[[package]]\nname = \"h2\"\nversion = \"0.3.26\"\n";
        let problems = judge(lock).unwrap();
        assert_eq!(problems, ["h2 0.3.26 is locked, at least 0.4.18 is needed"]);
    }
}
