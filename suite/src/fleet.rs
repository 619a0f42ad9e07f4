//! The fleet's map: which service answers where, and what its processes prove themselves with.
//!
//! One file for all processes. A process listens at the addresses of the services it was told to serve, and calls the
//! others at theirs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Why the map cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not the TOML that is wanted.
    #[error("{} is no map of a fleet", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: toml::de::Error,
    },
    /// The secret is not 32 bytes as hexadecimal digits.
    #[error("{} does not hold 64 hexadecimal digits", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
    },
    /// A service is not in the map.
    #[error("{path} says nothing of {service}: add it under [services]", path = path.display())]
    Missing {
        /// The map.
        path: PathBuf,
        /// The service.
        service: &'static str,
    },
}

/// The map as read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Map {
    /// File with the fleet's key, 64 hexadecimal digits; relative to the map.
    secret_file: PathBuf,
    /// `postgres://user:password@host/database` with `{service}` where the service's name belongs; without it every process
    /// keeps its services' files in its data folder.
    #[cfg(feature = "fleet")]
    pub(crate) database: Option<String>,
    /// Where each service answers, by its short name.
    services: BTreeMap<String, SocketAddr>,
    #[serde(skip)]
    path: PathBuf,
}

impl Map {
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let map: Map = toml::from_str(&text).map_err(|source| Error::Parse { path: path.to_owned(), source })?;
        Ok(Map { path: path.to_owned(), ..map })
    }

    /// Where a service answers.
    pub(crate) fn address(&self, service: &'static str) -> Result<SocketAddr, Error> {
        self.services.get(service).copied().ok_or_else(|| Error::Missing { path: self.path.clone(), service })
    }

    /// The key of calls between processes.
    pub(crate) fn secret(&self) -> Result<[u8; 32], Error> {
        let path = self.path.parent().unwrap_or(Path::new("")).join(&self.secret_file);
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        blake3::Hash::from_hex(text.trim()).map(|hash| *hash.as_bytes()).map_err(|_| Error::Secret { path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, secret: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), secret).unwrap();
        let path = folder.path().join("fleet.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_map_names_addresses_and_the_secret() {
        let (_folder, path) = written(
            "secret_file = \"key\"\n[services]\ncart = \"127.0.0.1:7003\"\n",
            &format!("{}\n", "07".repeat(32)),
        );
        let map = Map::load(&path).unwrap();
        assert_eq!(map.address("cart").unwrap().port(), 7003);
        assert_eq!(map.secret().unwrap(), [7; 32]);
        assert!(matches!(map.address("ordering"), Err(Error::Missing { service: "ordering", .. })));
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for text in ["", "secret_file = 1", "secret_file = \"key\"\n[services]\ncart = \"nowhere\"", "x = 1"] {
            let (_folder, path) = written(text, "");
            assert!(matches!(Map::load(&path), Err(Error::Parse { .. })), "{text}");
        }
        let (_folder, path) = written("secret_file = \"key\"\n[services]\n", "short");
        assert!(matches!(Map::load(&path).unwrap().secret(), Err(Error::Secret { .. })));
    }
}
