//! One service's certificate and key, and who it believes; replaced as a whole when the files have changed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig, version};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::name::{self, Name};
use crate::stream::Stream;
use crate::trust::{Error, Files};
use crate::verify::{Callee, Callers, chain};

/// What is spoken between processes.
const PROTOCOL: &[u8] = b"h2";

/// What one service proves itself with, as it was last read. A cheap handle.
#[derive(Clone, Debug)]
pub struct Credentials {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    files: Files,
    service: String,
    current: ArcSwap<Current>,
    /// What was read last and could not be used, so that it is told of once.
    unfit: Mutex<Option<Read>>,
}

/// One reading that fits together.
#[derive(Debug)]
struct Current {
    read: Read,
    generation: u64,
    provider: Arc<CryptoProvider>,
    domain: Arc<str>,
    roots: Arc<RootCertStore>,
    own: Arc<SingleCertAndKey>,
    server: Arc<ServerConfig>,
}

/// What the files held.
#[derive(Clone, PartialEq, Eq)]
struct Read {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Read(..)")
    }
}

impl Credentials {
    pub(crate) fn open(files: Files, service: &str) -> Result<Self, Error> {
        let current = Current::new(Read::of(&files)?, &files, service, 0)?;
        let current = ArcSwap::from_pointee(current);
        Ok(Credentials {
            inner: Arc::new(Inner { files, service: service.to_owned(), current, unfit: Mutex::default() }),
        })
    }

    /// How often the files were exchanged: a connection that was made under a lower number is one of yesterday.
    pub fn generation(&self) -> u64 {
        self.inner.current.load().generation
    }

    /// Reads the files again and takes them if they have changed and fit together.
    pub(crate) fn look(&self) {
        let Inner { files, service, current, unfit } = &*self.inner;
        let before = current.load();
        let read = match Read::of(files) {
            Ok(read) if read == before.read => return,
            Ok(read) => read,
            Err(error) => return tracing::warn!(service, %error, "the certificates of before stay"),
        };
        let mut unfit = unfit.lock().unwrap_or_else(PoisonError::into_inner);
        if unfit.as_ref() == Some(&read) {
            return;
        }
        match Current::new(read.clone(), files, service, before.generation + 1) {
            Ok(next) => {
                current.store(Arc::new(next));
                *unfit = None;
                tracing::info!(service, "new certificates");
            }
            Err(error) => {
                // Whoever writes several files is seen between two of them; the next look sees all.
                tracing::warn!(service, %error, "new certificates do not fit; those of before stay");
                *unfit = Some(read);
            }
        }
    }

    /// The server's side of a new connection; hands back who is at the other end.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<(Stream, Name)> {
        let current = self.inner.current.load_full();
        let tls = TlsAcceptor::from(Arc::clone(&current.server)).accept(tcp).await.map_err(said)?;
        let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let shown = shown.ok_or_else(|| io::Error::other("no certificate was shown"))?;
        let name = name::of(shown, &current.domain).map_err(io::Error::other)?;
        Ok((Stream::Secure(Box::new(tls.into())), name))
    }

    /// The client's side of a new connection, to this service and to nobody else; to any process of the domain where none is
    /// named.
    pub async fn connect(&self, tcp: TcpStream, callee: Option<&str>) -> io::Result<Stream> {
        let client = self.inner.current.load().client(callee).map_err(io::Error::other)?;
        // Not sent: who is meant is judged by the certificate.
        let address = ServerName::from(tcp.peer_addr()?.ip());
        let connected = TlsConnector::from(Arc::new(client)).connect(address, tcp).await;
        Ok(Stream::Secure(Box::new(connected.map_err(said)?.into())))
    }
}

/// An error that says what our own rule says, where one refused.
fn said(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(own))) => {
            io::Error::new(error.kind(), own.clone())
        }
        Some(_) | None => error,
    }
}

impl Read {
    fn of(files: &Files) -> Result<Self, Error> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source });
        Ok(Read { authority: read(&files.authority)?, certificate: read(&files.certificate)?, key: read(&files.key)? })
    }
}

impl Current {
    fn new(read: Read, files: &Files, service: &str, generation: u64) -> Result<Self, Error> {
        let unfit = |path: &Path, problem: String| Error::Unfit { path: path.to_owned(), problem };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&read.authority, &files.authority)? {
            roots.add(certificate).map_err(|error| unfit(&files.authority, error.to_string()))?;
        }
        let of_certificate = |problem: String| unfit(&files.certificate, problem);
        let shown = certificates(&read.certificate, &files.certificate)?;
        name::expect(&shown[0], &files.domain, service).map_err(|error| {
            of_certificate(format!("{error}: its only URI has to be {}", name::id(&files.domain, service)))
        })?;
        chain(&shown[0], &shown[1..], &roots, &provider, UnixTime::now()).map_err(|error| {
            let authority = files.authority.display();
            of_certificate(format!("{error}, asked of {authority}; `stoa ca issue` makes a new one"))
        })?;
        let key = PrivateKeyDer::from_pem_slice(&read.key)
            .map_err(|error| unfit(&files.key, format!("no private key in PEM: {error}")))?;
        let own = CertifiedKey::from_der(shown, key, &provider).map_err(|error| {
            unfit(&files.key, format!("is not the key of {}: {error}", files.certificate.display()))
        })?;
        let (own, roots) = (Arc::new(SingleCertAndKey::from(own)), Arc::new(roots));
        let domain: Arc<str> = files.domain.as_str().into();
        let callers = Callers::new(Arc::clone(&roots), Arc::clone(&domain), Arc::clone(&provider))
            .map_err(|error| unfit(&files.authority, error.to_string()))?;
        let server = server(callers, &provider, Arc::clone(&own)).map_err(|error| of_certificate(error.to_string()))?;
        Ok(Current { read, generation, provider, domain, roots, own, server })
    }

    /// How a callee is spoken to. Made for each connection: those are few, and nothing is remembered between two.
    fn client(&self, callee: Option<&str>) -> Result<ClientConfig, rustls::Error> {
        let verifier = Callee {
            roots: Arc::clone(&self.roots),
            provider: Arc::clone(&self.provider),
            domain: Arc::clone(&self.domain),
            wanted: callee.map(str::to_owned),
        };
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&self.own) as Arc<_>);
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(client)
    }
}

fn server(
    callers: Callers,
    provider: &Arc<CryptoProvider>,
    own: Arc<SingleCertAndKey>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::new(callers))
        .with_cert_resolver(own);
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A resumed session would be judged by the certificate of its first connection.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Arc::new(server))
}

/// The certificates of a PEM file, at least one.
fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unfit = |problem: String| Error::Unfit { path: path.to_owned(), problem };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| unfit(format!("no certificates in PEM: {error}")))?;
    if found.is_empty() { Err(unfit("holds no certificate".to_owned())) } else { Ok(found) }
}
