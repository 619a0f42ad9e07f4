//! The fleet's map: where each service is, on which engines they stand, and what their processes prove themselves with.
//!
//! One file for all processes. A process listens where the map puts the services it was told to serve, or where it was told
//! itself, and calls the others where the map says they are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Why the map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    #[error("{} says nothing of {service}: add it under [services]", path.display())]
    Missing {
        /// The map.
        path: PathBuf,
        /// The service.
        service: &'static str,
    },
    /// There are several copies, or their addresses are found elsewhere.
    #[error("{} does not say where this copy of {service} listens: tell it with --bind", path.display())]
    Unbound {
        /// The map.
        path: PathBuf,
        /// The service.
        service: &'static str,
    },
    /// A service is said to be in a registry that is not named.
    #[error("{} finds {service} by etcd and names none: add [discovery.etcd]", path.display())]
    NoRegistry {
        /// The map.
        path: PathBuf,
        /// The service.
        service: String,
    },
    /// What is not encrypted would leave the machine, and nobody said that it may.
    #[error(
        "{} has no [tls] and puts {service} where others on the network read along: let the processes carry certificates, \
         name the address of a sidecar on loopback that does, or say how far what is `plain` goes",
        path.display()
    )]
    Exposed {
        /// The map.
        path: PathBuf,
        /// The service.
        service: String,
    },
    /// It has certificates and says how far what is not encrypted goes.
    #[error("{} has [tls] and says `plain`: nothing is plain between processes that have certificates", path.display())]
    Both {
        /// The map.
        path: PathBuf,
    },
    /// The map asks for an engine that is not in this build.
    #[error("{} names `{engine}`, an engine this build is without", path.display())]
    Engine {
        /// The map.
        path: PathBuf,
        /// The engine.
        engine: &'static str,
    },
}

/// The map as read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// File with the fleet's key, 64 hexadecimal digits; relative to the map.
    secret_file: PathBuf,
    /// `postgres://user:password@host/database` with `{service}` where the service's name belongs; without it every process
    /// keeps its services' files in its data folder.
    pub database: Option<String>,
    /// The same as the role that owns the tables. With it, services may append events and not change any; a copy that is
    /// started without it finds its tables up to date or does not start.
    pub database_owner: Option<String>,
    /// File with the certificates (PEM) of who vouches for the database servers, relative to the map; with it every
    /// connection to them has TLS.
    database_authority_file: Option<PathBuf>,
    /// The broker of events; without one, consumers read the logs of the producers.
    pub bus: Option<Bus>,
    /// `rediss://user@host:port/0`, where the copies share limits and doors look which sessions ended.
    pub redis: Option<String>,
    /// File with the password of Redis' user; relative to the map.
    pub redis_password_file: Option<PathBuf>,
    /// File with the certificate of the authority that signed Redis' own, PEM; relative to the map. The system's where none is
    /// named.
    pub redis_authority_file: Option<PathBuf>,
    /// `mongodb://user:password@host/database`, where the catalogue is.
    pub mongodb: Option<String>,
    /// The certificates of calls between processes; without them calls are signed and not encrypted.
    tls: Option<Tls>,
    /// How far calls go without them.
    plain: Option<Plain>,
    /// How names are looked up.
    #[serde(default)]
    pub discovery: Discovery,
    /// Where each service is, by its short name.
    #[serde(default)]
    services: BTreeMap<String, Place>,
    #[serde(skip)]
    path: PathBuf,
}

/// A broker of events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Bus {
    /// The addresses of some brokers of a Kafka cluster, `host:port,host:port`; behind a slash, where several fleets share
    /// one, what the names of this one's topics begin with.
    Kafka(String),
    /// `amqp://user:password@host:port/vhost`; several fleets that share a RabbitMQ have a virtual host each.
    RabbitMq(String),
}

/// What processes prove themselves with to each other. Files are relative to the map.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    /// File with the certificates (PEM) of who signed those of all processes.
    authority_file: PathBuf,
    /// File with the certificate (PEM) of a process, `{service}` standing for its name.
    certificate_file: PathBuf,
    /// File with its key, named likewise.
    key_file: PathBuf,
    /// What the names in all certificates begin with, `spiffe://DOMAIN/`.
    trust_domain: String,
}

/// How far calls between processes go that have no certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Plain {
    /// Over loopback alone, in and out: to processes of this machine, or to a sidecar that has the certificates.
    #[default]
    Loopback,
    /// In over loopback alone; what goes out is handed to a sidecar on its way, whatever its address (Istio does so).
    Redirected,
    /// Anywhere: the network is nobody else's.
    Network,
}

/// Where the copies of a service are: `"ADDR:PORT"`, a list of them, `"dns://HOST:PORT"`, `"srv://NAME"` or `"etcd://PREFIX"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum Place {
    /// At these addresses.
    Listed(Vec<SocketAddr>),
    /// At the addresses of a host, all at one port.
    Dns {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// At the hosts and ports of a service record.
    Srv(String),
    /// Where they say themselves, in etcd under `PREFIX/SERVICE/`.
    Etcd(String),
}

impl Place {
    /// Whether the copies are found by a name that DNS answers.
    pub fn is_looked_up(&self) -> bool {
        matches!(self, Place::Dns { .. } | Place::Srv(_))
    }

    /// The copies that the map lists, each as it is called; none where a name has to be looked up.
    pub(crate) fn listed(&self) -> Vec<String> {
        match self {
            Place::Listed(addresses) => addresses.iter().map(|address| format!("http://{address}")).collect(),
            Place::Dns { .. } | Place::Srv(_) | Place::Etcd(_) => Vec::new(),
        }
    }

    /// Whether nothing that is sent there leaves the machine.
    fn is_loopback(&self) -> bool {
        match self {
            Place::Listed(addresses) => addresses.iter().all(|address| address.ip().is_loopback()),
            Place::Dns { .. } | Place::Srv(_) | Place::Etcd(_) => false,
        }
    }

    /// Whether the copies are found in etcd.
    pub fn is_registered(&self) -> bool {
        matches!(self, Place::Etcd(_))
    }
}

/// A place as the map writes it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Several(Vec<SocketAddr>),
}

impl TryFrom<Written> for Place {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let text = match written {
            Written::Several(addresses) if addresses.is_empty() => return Err("a service is somewhere".to_owned()),
            Written::Several(addresses) => return Ok(Place::Listed(addresses)),
            Written::One(text) => text,
        };
        let wrong = || format!("`{text}` is neither ADDR:PORT, dns://HOST:PORT, srv://NAME nor etcd://PREFIX");
        if let Some(prefix) = text.strip_prefix("etcd://") {
            let prefix = prefix.trim_end_matches('/');
            return if prefix.is_empty() { Err(wrong()) } else { Ok(Place::Etcd(prefix.to_owned())) };
        }
        if let Some(name) = text.strip_prefix("srv://") {
            return if name.is_empty() { Err(wrong()) } else { Ok(Place::Srv(name.to_owned())) };
        }
        if let Some((host, port)) = text.strip_prefix("dns://").and_then(|rest| rest.rsplit_once(':')) {
            let port = port.parse().map_err(|_| wrong())?;
            return if host.is_empty() { Err(wrong()) } else { Ok(Place::Dns { host: host.to_owned(), port }) };
        }
        Ok(Place::Listed(vec![text.parse().map_err(|_| wrong())?]))
    }
}

/// How places are found that the map does not list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discovery {
    /// The DNS server to ask, `ADDR:PORT`, for example an agent of Consul; without it the system's.
    pub dns: Option<SocketAddr>,
    /// The registry where copies say where they are.
    pub etcd: Option<Etcd>,
}

/// How etcd is reached. Files are relative to the map.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Etcd {
    /// Some of its members, `http://host:port` or `https://host:port`.
    pub members: Vec<String>,
    /// Who asks, where etcd wants to know.
    pub user: Option<String>,
    /// File with that user's password.
    pub password_file: Option<PathBuf>,
    /// File with the certificates (PEM) of who vouches for the members; `https` needs it.
    pub authority_file: Option<PathBuf>,
    /// Files with the certificate and the key (PEM) to show, where the members want to see one.
    pub certificate_file: Option<PathBuf>,
    /// See `certificate_file`.
    pub key_file: Option<PathBuf>,
    /// From the last sign of life of a copy until it is off the list.
    #[serde(default = "Etcd::ttl_s")]
    pub ttl_s: u64,
}

impl Etcd {
    fn ttl_s() -> u64 {
        10
    }
}

impl Map {
    /// Reads the map, and checks that this build has what it asks for.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let map: Map = toml::from_str(&text).map_err(|source| Error::Parse { path: path.to_owned(), source })?;
        let map = Map { path: path.to_owned(), ..map };
        // Whoever names an engine does not want what looks like it.
        let named = [
            ("database", map.database.is_some() && cfg!(not(feature = "fleet"))),
            ("bus.kafka", matches!(map.bus, Some(Bus::Kafka(_))) && cfg!(not(feature = "fleet"))),
            ("bus.rabbitmq", matches!(map.bus, Some(Bus::RabbitMq(_))) && cfg!(not(feature = "fleet"))),
            ("redis", map.redis.is_some() && cfg!(not(feature = "fleet"))),
            ("mongodb", map.mongodb.is_some() && cfg!(not(feature = "fleet"))),
            ("dns", map.services.values().any(Place::is_looked_up) && cfg!(not(feature = "fleet"))),
            ("etcd", map.services.values().any(Place::is_registered) && cfg!(not(feature = "fleet"))),
        ];
        let registered = map.services.iter().find(|(_, place)| place.is_registered());
        if let (Some((service, _)), None) = (registered, &map.discovery.etcd) {
            return Err(Error::NoRegistry { service: service.clone(), path: map.path });
        }
        if let Some(engine) = named.into_iter().find_map(|(engine, absent)| absent.then_some(engine)) {
            return Err(Error::Engine { path: map.path, engine });
        }
        if map.tls.is_some() && map.plain.is_some() {
            return Err(Error::Both { path: map.path });
        }
        let outside = map.services.iter().find(|(_, place)| !place.is_loopback());
        match outside {
            Some((service, _)) if map.plain() == Some(Plain::Loopback) => {
                Err(Error::Exposed { service: service.clone(), path: map.path })
            }
            Some(_) | None => Ok(map),
        }
    }

    /// How far calls go that are not encrypted; none are where processes have certificates.
    pub(crate) fn plain(&self) -> Option<Plain> {
        if self.tls.is_some() { None } else { Some(self.plain.unwrap_or_default()) }
    }

    /// Whether calls of other processes may be taken at this address.
    pub(crate) fn may_listen(&self, address: SocketAddr) -> bool {
        match self.plain() {
            None | Some(Plain::Network) => true,
            Some(Plain::Loopback | Plain::Redirected) => address.ip().is_loopback(),
        }
    }

    /// Where a service is.
    pub fn place(&self, service: &'static str) -> Result<&Place, Error> {
        self.services.get(service).ok_or_else(|| Error::Missing { path: self.path.clone(), service })
    }

    /// Where the only copy of a service listens.
    pub fn address(&self, service: &'static str) -> Result<SocketAddr, Error> {
        match self.place(service)? {
            Place::Listed(addresses) if addresses.len() == 1 => Ok(addresses[0]),
            Place::Listed(_) | Place::Dns { .. } | Place::Srv(_) | Place::Etcd(_) => {
                Err(Error::Unbound { path: self.path.clone(), service })
            }
        }
    }

    /// Who vouches for the database servers, if they are to be asked for it.
    pub fn database_authority(&self) -> Option<PathBuf> {
        self.database_authority_file.as_deref().map(|file| self.beside(file))
    }

    /// Where the copies share what they can lose; none where the map names no Redis.
    #[cfg(feature = "fleet")]
    pub fn cache(&self) -> Result<Option<cache::Address>, Error> {
        let Some(url) = &self.redis else { return Ok(None) };
        let read = |file: &Option<PathBuf>| file.as_ref().map(|file| self.read(file)).transpose();
        let mut address = cache::Address::new(url);
        address.password = read(&self.redis_password_file)?.map(|(text, _)| text.trim().to_owned());
        address.authority = read(&self.redis_authority_file)?.map(|(text, _)| text.into_bytes());
        Ok(Some(address))
    }

    /// How the registry is reached; none where no service is in it.
    #[cfg(feature = "fleet")]
    pub(crate) fn registry(&self) -> Result<Option<registry::Config>, Error> {
        let Some(etcd) = &self.discovery.etcd else { return Ok(None) };
        if !self.services.values().any(Place::is_registered) {
            return Ok(None);
        }
        let read = |file: &Option<PathBuf>| file.as_ref().map(|file| self.read(file)).transpose();
        let bytes = |file| Ok::<_, Error>(read(file)?.map(|(text, _)| text.into_bytes()));
        let password = read(&etcd.password_file)?.map(|(text, _)| text.trim().to_owned()).unwrap_or_default();
        Ok(Some(registry::Config {
            user: etcd.user.clone().map(|user| (user, password)),
            authority: bytes(&etcd.authority_file)?,
            identity: bytes(&etcd.certificate_file)?.zip(bytes(&etcd.key_file)?),
            ttl: std::time::Duration::from_secs(etcd.ttl_s),
            ..registry::Config::at(&etcd.members)
        }))
    }

    /// The certificates of calls between processes; none where the map names none.
    pub fn trust(&self) -> Result<Option<tls::Trust>, tls::Error> {
        let Some(tls) = &self.tls else { return Ok(None) };
        let files = tls::Files {
            authority: self.beside(&tls.authority_file),
            certificate: self.beside(&tls.certificate_file),
            key: self.beside(&tls.key_file),
            domain: tls.trust_domain.clone(),
        };
        tls::Trust::new(files).map(Some)
    }

    /// The key of calls between processes.
    pub fn secret(&self) -> Result<[u8; 32], Error> {
        let (text, path) = self.read(&self.secret_file)?;
        blake3::Hash::from_hex(text.trim()).map(|hash| *hash.as_bytes()).map_err(|_| Error::Secret { path })
    }

    /// A file that the map names.
    fn beside(&self, file: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    /// What it holds, and where it is.
    fn read(&self, file: &Path) -> Result<(String, PathBuf), Error> {
        let path = self.beside(file);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok((text, path)),
            Err(source) => Err(Error::Read { path, source }),
        }
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
    fn certificates_are_named_by_service_and_lie_beside_the_map() {
        let tls = |domain: &str| {
            format!(
                "secret_file = \"key\"\n[tls]\nauthority_file = \"tls/authority.pem\"\n\
                 certificate_file = \"tls/{{service}}.pem\"\nkey_file = \"tls/{{service}}.key\"\n\
                 trust_domain = {domain:?}\n"
            )
        };
        let (folder, path) = written(&tls("stoa.local"), "");
        let trust = Map::load(&path).unwrap().trust().unwrap().unwrap();
        assert!(trust.of("cart").unwrap_err().to_string().contains("stoa ca issue"));
        let authority = std::time::Duration::from_secs(3600);
        let authority = tls::authority::Authority::init(&folder.path().join("tls"), "stoa.local", authority).unwrap();
        authority.issue("cart", std::time::Duration::from_secs(60)).unwrap();
        assert!(trust.of("cart").is_ok() && trust.of("ordering").is_err());
        let (_folder, path) = written(&tls("Stoa/Local"), "");
        assert!(Map::load(&path).unwrap().trust().is_err());
        let (_folder, path) = written("secret_file = \"key\"\n", "");
        assert!(Map::load(&path).unwrap().trust().unwrap().is_none());
    }

    #[test]
    fn what_is_not_encrypted_stays_on_the_machine_unless_somebody_says_otherwise() {
        let tls = "[tls]\nauthority_file = \"a\"\ncertificate_file = \"b\"\nkey_file = \"c\"\ntrust_domain = \"d\"\n";
        let load = |plain: &str, cart: &str, tls: &str| {
            let (_folder, path) =
                written(&format!("secret_file = \"key\"\n{plain}[services]\ncart = {cart}\n{tls}"), "");
            Map::load(&path)
        };
        let (here, there) = ("\"127.0.0.1:7104\"", "[\"[::1]:7104\", \"192.0.2.7:7104\"]");
        let near: SocketAddr = "127.0.0.1:7104".parse().unwrap();
        let far: SocketAddr = "0.0.0.0:7104".parse().unwrap();
        let listens = |map: Map| (map.may_listen(near), map.may_listen(far));
        assert_eq!(listens(load("", here, "").unwrap()), (true, false));
        assert!(matches!(load("", there, ""), Err(Error::Exposed { service, .. }) if service == "cart"));
        assert!(matches!(load("plain = \"loopback\"\n", there, ""), Err(Error::Exposed { .. })));
        assert_eq!(listens(load("plain = \"redirected\"\n", there, "").unwrap()), (true, false));
        assert_eq!(listens(load("plain = \"network\"\n", there, "").unwrap()), (true, true));
        assert_eq!(listens(load("", there, tls).unwrap()), (true, true));
        assert!(matches!(load("plain = \"network\"\n", here, tls), Err(Error::Both { .. })));
        assert!(matches!(load("plain = \"everywhere\"\n", here, ""), Err(Error::Parse { .. })));
    }

    #[cfg(feature = "fleet")]
    #[test]
    fn a_place_that_is_looked_up_is_outside() {
        for place in ["dns://cart:7104", "srv://_grpc._tcp.cart"] {
            let (_folder, path) = written(&format!("secret_file = \"key\"\n[services]\ncart = {place:?}\n"), "");
            assert!(matches!(Map::load(&path), Err(Error::Exposed { .. })), "{place}");
        }
    }

    #[test]
    fn a_copy_among_several_is_told_where_it_listens() {
        let (_folder, path) =
            written("secret_file = \"key\"\n[services]\ncart = [\"127.0.0.1:7003\", \"127.0.0.1:7013\"]\n", "");
        let map = Map::load(&path).unwrap();
        assert!(matches!(map.place("cart").unwrap(), Place::Listed(addresses) if addresses.len() == 2));
        assert!(matches!(map.address("cart"), Err(Error::Unbound { service: "cart", .. })));
    }

    #[cfg(feature = "fleet")]
    #[test]
    fn a_map_says_how_redis_is_reached_and_its_password_lies_in_a_file() {
        let named = "redis_password_file = \"key\"\nredis_authority_file = \"key\"\n";
        let (_folder, path) = written(
            &format!("secret_file = \"key\"\nredis = \"rediss://stoa@127.0.0.1:6380/0\"\n{named}[services]\n"),
            "word\n",
        );
        let address = Map::load(&path).unwrap().cache().unwrap().unwrap();
        assert_eq!(address.url, "rediss://stoa@127.0.0.1:6380/0");
        assert_eq!(address.password.as_deref(), Some("word"));
        assert_eq!(address.authority.as_deref(), Some(&b"word\n"[..]));
        std::fs::remove_file(path.with_file_name("key")).unwrap();
        assert!(matches!(Map::load(&path).unwrap().cache(), Err(Error::Read { .. })));
        let (_folder, path) = written("secret_file = \"key\"\n[services]\n", "");
        assert!(Map::load(&path).unwrap().cache().unwrap().is_none());
    }

    #[cfg(feature = "fleet")]
    #[test]
    fn a_map_says_how_etcd_is_reached_and_its_secrets_lie_in_files() {
        let cart = "[services]\ncart = \"etcd://shop\"\n";
        let with = |etcd: &str| written(&format!("secret_file = \"key\"\nplain = \"network\"\n{etcd}{cart}"), "word\n");
        let (_folder, path) = with("[discovery.etcd]\nmembers = [\"http://127.0.0.1:2379\"]\n");
        let plain = Map::load(&path).unwrap().registry().unwrap().unwrap();
        assert_eq!((plain.user, plain.ttl.as_secs()), (None, 10));
        let named = "user = \"shop\"\npassword_file = \"key\"\nauthority_file = \"key\"\nttl_s = 30\n";
        let (_folder, path) = with(&format!("[discovery.etcd]\nmembers = [\"https://etcd:2379\"]\n{named}"));
        let full = Map::load(&path).unwrap().registry().unwrap().unwrap();
        assert_eq!(full.user, Some(("shop".to_owned(), "word".to_owned())));
        assert_eq!((full.authority.as_deref(), full.ttl.as_secs()), (Some(&b"word\n"[..]), 30));
        std::fs::remove_file(path.with_file_name("key")).unwrap();
        assert!(matches!(Map::load(&path).unwrap().registry(), Err(Error::Read { .. })));
        let (_folder, path) = with("");
        assert!(matches!(Map::load(&path), Err(Error::NoRegistry { service, .. }) if service == "cart"));
    }

    #[test]
    fn a_place_is_an_address_or_a_name_that_is_looked_up() {
        let place = |text: &str| Place::try_from(Written::One(text.to_owned()));
        assert_eq!(place("[::1]:7003"), Ok(Place::Listed(vec!["[::1]:7003".parse().unwrap()])));
        assert_eq!(place("dns://cart.shop:7003"), Ok(Place::Dns { host: "cart.shop".to_owned(), port: 7003 }));
        assert_eq!(place("srv://_grpc._tcp.cart"), Ok(Place::Srv("_grpc._tcp.cart".to_owned())));
        assert_eq!(place("etcd://shops/one/"), Ok(Place::Etcd("shops/one".to_owned())));
        for wrong in
            ["etcd://", "etcd:///", "cart:7003", "dns://cart", "dns://:1", "dns://cart:http", "srv://", "http://cart:1"]
        {
            assert!(place(wrong).is_err(), "{wrong}");
        }
        assert!(Place::try_from(Written::Several(vec![])).is_err());
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
