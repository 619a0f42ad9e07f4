//! Calls between processes that have certificates: who is let in, who is believed, and what becomes of both when the files
//! are exchanged.

#![allow(clippy::unwrap_used)]

mod echo;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::{Identity, Role};
use client::Outgoing;
use echo::{ask, component, outgoing, person, who};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use server::{Context, Failed, Gauge, Limits, Listener, Storage, accept};
use store::Clock;
use tempfile::TempDir;
use tls::authority::{Authority, leaf};
use tls::{Files, Trust, id};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

const DOMAIN: &str = "stoa.test";
const SECRET: [u8; 32] = [5; 32];
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A folder with an authority and certificates of these names.
fn folder(names: &[&str]) -> (TempDir, Authority) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(&folder.path().join("ca"), DOMAIN, DAY).unwrap();
    for name in names {
        authority.issue(name, DAY).unwrap();
    }
    (folder, authority)
}

fn trust(folder: &Path) -> Trust {
    let ca = folder.join("ca");
    trust_with(&ca.join("authority.pem"), &ca, DOMAIN)
}

fn trust_with(authority: &Path, own: &Path, domain: &str) -> Trust {
    Trust::new(Files {
        authority: authority.to_owned(),
        certificate: own.join("{service}.pem"),
        key: own.join("{service}.key"),
        domain: domain.to_owned(),
    })
    .unwrap()
}

fn context(trust: &Trust) -> Context {
    Context::in_fleet(Storage::Temporary, std::env::temp_dir(), echo::TABLE, &SECRET, Clock::system())
        .trusting(trust.clone())
}

struct Running {
    context: Context,
    address: SocketAddr,
    process: JoinHandle<Result<(), Failed>>,
}

/// The service of the tests, with a certificate.
async fn running(trust: &Trust) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let context = context(trust);
    let serving = context.clone();
    let process = tokio::spawn(async move { server::serve(listener, component(who()), &serving).await });
    Running { context, address, process }
}

impl Running {
    fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Calls it as another process that has these certificates and the fleet's key.
    async fn answer(&self, trust: &Trust, caller: &'static str, method: &str) -> Result<String, Code> {
        let elsewhere = context(trust);
        elsewhere.clients.connect("echo", &self.uri()).unwrap();
        let nobody = Outgoing::default();
        ask(&elsewhere.clients.as_caller(caller).channel("echo"), method, &nobody).await.map_err(|it| it.code())
    }

    async fn stop(self) {
        self.context.shutdown.cancel();
        self.process.await.unwrap().unwrap();
    }
}

/// Opens a connection as this client, and asks whether the other end keeps it: a refusal comes after the client's own
/// handshake, so it is seen by reading.
async fn is_kept(address: SocketAddr, certificate: &str, key: &str, authority: &Path) -> bool {
    let roots = pem(&std::fs::read_to_string(authority).unwrap());
    let mut store = rustls::RootCertStore::empty();
    roots.into_iter().for_each(|root| store.add(root).unwrap());
    let client = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let client = if certificate.is_empty() {
        client.with_no_client_auth()
    } else {
        let key = rustls::pki_types::pem::PemObject::from_pem_slice(key.as_bytes()).unwrap();
        client.with_client_auth_cert(pem(certificate), key).unwrap()
    };
    let mut client = client;
    client.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::from(address.ip());
    let connected = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, tcp).await;
    let Ok(mut connection) = connected else { return false };
    let mut answer = [0; 9];
    // The first frame of HTTP/2 is settings.
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.is_ok()
        && connection.read_exact(&mut answer).await.is_ok()
        && answer[3] == 4
}

fn pem(text: &str) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().unwrap()
}

/// A client that believes everybody, to see what the server does.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let provider = rustls::crypto::ring::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn two_processes_with_certificates_call_each_other_and_the_policy_holds() {
    let (folder, _) = folder(&["echo", "ordering", "gateway", "shipping"]);
    let trust = trust(folder.path());
    let server = running(&trust).await;
    assert_eq!(server.answer(&trust, "ordering", "Internal").await.unwrap(), "ordering - hello");
    assert_eq!(server.answer(&trust, "gateway", "Internal").await, Err(Code::PermissionDenied));
    assert_eq!(server.answer(&trust, "shipping", "Public").await, Err(Code::PermissionDenied));
    // Whose certificate is nowhere calls nobody.
    assert_eq!(server.answer(&trust, "payment", "Public").await, Err(Code::Unavailable));
    server.stop().await;
}

#[tokio::test]
async fn a_connection_is_kept_by_one_good_certificate_alone() {
    let (folder, authority) = folder(&["echo"]);
    let ca = folder.path().join("ca/authority.pem");
    let foreign = tempfile::tempdir().unwrap();
    let foreign = Authority::init(&foreign.path().join("ca"), DOMAIN, DAY).unwrap();
    let server = running(&trust(folder.path())).await;
    let key = KeyPair::generate().unwrap();
    let made = |by: &Authority, change: &dyn Fn(&mut CertificateParams)| {
        let mut params = leaf(DOMAIN, "ordering", DAY).unwrap();
        change(&mut params);
        params.signed_by(&key, by.issuer()).unwrap().pem()
    };
    let uri = |text: String| SanType::URI(text.try_into().unwrap());
    let past = rcgen::date_time_ymd(2020, 1, 1);
    let refused = [
        ("no certificate", String::new()),
        ("another authority's", made(&foreign, &|_| {})),
        ("its own", leaf(DOMAIN, "ordering", DAY).unwrap().self_signed(&key).unwrap().pem()),
        ("one that has ended", made(&authority, &|it| (it.not_before, it.not_after) = (past, past + DAY))),
        ("one of later", made(&authority, &|it| it.not_before = it.not_after)),
        ("one of an authority", made(&authority, &|it| it.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)))),
        ("one with two URIs", made(&authority, &|it| it.subject_alt_names.push(uri(id(DOMAIN, "echo"))))),
        (
            "one with a second URI that is no SPIFFE id",
            made(&authority, &|it| it.subject_alt_names.push(uri("https://ordering.example".to_owned()))),
        ),
        ("one without a URI", made(&authority, &|it| it.subject_alt_names.clear())),
        (
            "one with a name of DNS alone",
            made(&authority, &|it| it.subject_alt_names = vec![SanType::DnsName("ordering".try_into().unwrap())]),
        ),
        ("another domain's", made(&authority, &|it| it.subject_alt_names = vec![uri(id("stoa.example", "ordering"))])),
        (
            "one whose domain begins alike",
            made(&authority, &|it| it.subject_alt_names = vec![uri(id("stoa.test.example", "ordering"))]),
        ),
        ("one with a longer path", made(&authority, &|it| it.subject_alt_names = vec![uri(id(DOMAIN, "ordering/1"))])),
        (
            "a server's alone",
            made(&authority, &|it| it.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]),
        ),
    ];
    for (what, certificate) in refused {
        assert!(!is_kept(server.address, &certificate, &key.serialize_pem(), &ca).await, "{what}");
    }
    assert!(is_kept(server.address, &made(&authority, &|_| {}), &key.serialize_pem(), &ca).await);
    server.stop().await;
}

#[tokio::test]
async fn whoever_speaks_no_tls_hears_nothing() {
    let (folder, _) = folder(&["echo"]);
    let server = running(&trust(folder.path())).await;
    let plain = Endpoint::from_shared(server.uri()).unwrap().connect_lazy();
    let status = echo::call(plain, "Public", Request::new("hello".to_owned())).await.unwrap_err();
    assert!(status.code() != Code::Unauthenticated, "not even an answer of gRPC: {status:?}");
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut heard = vec![];
    // An alert of TLS at most, or a reset.
    let _ = tcp.read_to_end(&mut heard).await;
    assert!(heard.len() <= 7 && !heard.starts_with(b"HTTP"), "{heard:?}");
    server.stop().await;
}

/// What was said to the audit while a test ran.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl io::Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_stolen_key_of_the_fleet_or_a_certificate_alone_opens_nothing_and_leaves_one_record() {
    let heard = Heard::default();
    let write = heard.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("off,audit=info")
        .with_ansi(false)
        .with_writer(move || write.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (folder, _) = folder(&["echo", "ordering", "orderview"]);
    let trust = trust(folder.path());
    let server = running(&trust).await;
    let credentials = trust.of("orderview").unwrap();
    let channel =
        client::certified(Endpoint::from_shared(server.uri()).unwrap(), "orderview", credentials, Some("echo")).await;
    let channel = channel.unwrap();
    let call = async |actor: Option<&'static str>, method: &str| {
        let mut request = Request::new("hello".to_owned());
        if let Some(actor) = actor {
            let identity = Identity { caller: actor.into(), principal: person("users/1", Role::Operator) };
            let token = auth::Fleet::from_seed(&SECRET).sign(&identity, "echo", Clock::system().now()).unwrap();
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let code = echo::call(channel.clone(), method, request).await.map_err(|status| status.code());
        let said = String::from_utf8(std::mem::take(&mut *heard.0.lock().unwrap())).unwrap();
        (code, said)
    };
    // The key of the fleet signs whatever is wanted; the connection says who it is.
    for actor in ["ordering", "gateway", "operator"] {
        for method in ["Internal", "Operator", "Public"] {
            let (code, said) = call(Some(actor), method).await;
            assert_eq!(code, Err(Code::PermissionDenied), "{actor} {method}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains("the certificate is another process's: orderview") && said.contains(actor), "{said}");
        }
    }
    // Its own name is true, and opens what the contract says.
    assert_eq!(call(Some("orderview"), "Internal").await.0, Err(Code::PermissionDenied));
    // A certificate is no token.
    let (code, said) = call(None, "Internal").await;
    assert_eq!(code, Err(Code::Unauthenticated));
    assert_eq!(said.lines().count(), 1, "{said}");
    server.stop().await;
}

#[tokio::test]
async fn a_callee_has_to_be_the_one_that_was_meant() {
    let (folder, authority) = folder(&["echo", "ordering"]);
    let good = trust(folder.path());
    // It has the address, a certificate of our authority, and the name of another service.
    let elsewhere = tempfile::tempdir().unwrap();
    authority.issue("payment", DAY).unwrap();
    let ca = folder.path().join("ca");
    for (from, to) in [("payment.pem", "echo.pem"), ("payment.key", "echo.key")] {
        std::fs::copy(ca.join(from), elsewhere.path().join(to)).unwrap();
    }
    assert!(trust_with(&ca.join("authority.pem"), elsewhere.path(), DOMAIN).of("echo").is_err(), "told at its start");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let listener = Listener::certified(listener, good.of("payment").unwrap());
    let counted = Arc::clone(&served);
    let answering = tower::service_fn(move |_: http::Request<server::Arriving>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, std::convert::Infallible>(http::Response::new(tonic::body::Body::empty())) }
    });
    let shutdown = CancellationToken::new();
    let limits = Limits { drain: Duration::from_millis(100), ..Limits::default() };
    let process = tokio::spawn(accept::run(listener, answering, limits, Gauge::default(), shutdown.clone()));
    let caller = context(&good);
    caller.clients.connect("echo", &format!("http://{address}")).unwrap();
    let status = ask(&caller.clients.as_caller("ordering").channel("echo"), "Public", &Outgoing::default()).await;
    assert_eq!(status.unwrap_err().code(), Code::Unavailable);
    assert_eq!(served.load(Ordering::Relaxed), 0, "it has not heard the call");
    // Another authority's is not believed either.
    let (stranger, _) = self::folder(&["echo"]);
    let strange = running(&trust(stranger.path())).await;
    assert_eq!(strange.answer(&good, "ordering", "Public").await, Err(Code::Unavailable));
    strange.stop().await;
    shutdown.cancel();
    process.await.unwrap();
}

#[tokio::test]
async fn slow_handshakes_end_and_do_not_keep_others_out() {
    let (folder, _) = folder(&["echo", "ordering"]);
    let trust = trust(folder.path());
    let context = context(&trust);
    let (service, _) = context.mount(component(who()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { handshakes: 2, handshake: Duration::from_millis(500), ..Limits::default() };
    let listener = context.listener(listener, "echo").unwrap();
    let gauge = Gauge::default();
    let process = tokio::spawn(accept::run(listener, service, limits, gauge.clone(), context.shutdown.clone()));
    let mut slow = vec![];
    for _ in 0..2 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        // The first bytes of a hello, and no more.
        tcp.write_all(&[0x16, 3, 1]).await.unwrap();
        slow.push(tcp);
    }
    let elsewhere = self::context(&trust);
    elsewhere.clients.connect("echo", &format!("http://{address}")).unwrap();
    let channel = elsewhere.clients.as_caller("ordering").channel("echo");
    // It may have to wait until they are sent away, which is within what its own connection may take.
    let served = async {
        while ask(&channel, "Read", &Outgoing::default()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), served).await.unwrap();
    for mut tcp in slow {
        let mut rest = vec![];
        let _ = tokio::time::timeout(Duration::from_secs(30), tcp.read_to_end(&mut rest)).await.unwrap();
    }
    context.shutdown.cancel();
    process.await.unwrap();
}

/// Two copies under calls that may not be repeated, while every file is exchanged: first both authorities are believed, then
/// every certificate is the new one's, then the old one is believed no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authority_are_exchanged_under_load_and_no_call_fails() {
    const NAMES: [&str; 2] = ["echo", "ordering"];
    let (folder, _) = folder(&NAMES);
    let (fresh, _) = self::folder(&NAMES);
    let (old, new) = (folder.path().join("ca"), fresh.path().join("ca"));
    let read = |folder: &Path, file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let before = NAMES.map(|name| [format!("{name}.pem"), format!("{name}.key")].map(|file| read(&old, &file)));
    let (serving, calling) = (trust(folder.path()), trust(folder.path()));
    let copies = [running(&serving).await, running(&serving).await];
    let caller = context(&calling);
    caller.clients.locate("echo", &copies.each_ref().map(Running::uri)).unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let enough = CancellationToken::new();
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let channel = caller.clients.as_caller("ordering").channel("echo");
        let (done, enough) = (Arc::clone(&done), enough.clone());
        callers.spawn(async move {
            while !enough.is_cancelled() {
                ask(&channel, "Public", &Outgoing::default()).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let progress = async || {
        let goal = done.load(Ordering::Relaxed) + 300;
        while done.load(Ordering::Relaxed) < goal {
            tokio::task::yield_now().await;
            assert!(!callers.is_empty());
        }
    };
    let generations = || [&serving, &calling].map(|it| it.of("echo").unwrap().generation());
    let look = || {
        serving.look();
        calling.look();
    };
    calling.of("echo").unwrap();
    progress().await;
    let both = format!("{}{}", read(&old, "authority.pem"), read(&new, "authority.pem"));
    let replace = |file: &str, text: &str| {
        std::fs::write(old.join("draft"), text).unwrap();
        std::fs::rename(old.join("draft"), old.join(file)).unwrap();
    };
    replace("authority.pem", &both);
    look();
    assert_eq!(generations(), [1, 1]);
    progress().await;
    for name in NAMES {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        replace(&certificate, &read(&new, &certificate));
        // Seen between two files: what was there before stays.
        look();
        assert_eq!(generations()[0], if name == "echo" { 1 } else { 2 }, "a certificate without its key is none");
        progress().await;
        replace(&key, &read(&new, &key));
        look();
        progress().await;
    }
    // Made anew by calls alone: whoever came by the old certificate is spoken to by the new one.
    replace("authority.pem", &read(&new, "authority.pem"));
    look();
    assert_eq!(generations(), [3, 3]);
    progress().await;
    enough.cancel();
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    // What the old authority signed is believed by nobody now.
    let ca = new.join("authority.pem");
    let [certificate, key] = &before[1];
    assert!(!is_kept(copies[0].address, certificate, key, &ca).await);
    assert!(is_kept(copies[0].address, &read(&new, "ordering.pem"), &read(&new, "ordering.key"), &ca).await);
    for copy in copies {
        copy.stop().await;
    }
}

#[tokio::test]
async fn an_old_connection_takes_no_more_calls_and_its_last_ones_end() {
    let (folder, _) = folder(&["echo", "ordering"]);
    let trust = trust(folder.path());
    let context = context(&trust);
    let (service, _) = context.mount(component(who()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { age: Duration::from_millis(50), ..Limits::default() };
    let listener = context.listener(listener, "echo").unwrap();
    let gauge = Gauge::default();
    let process = tokio::spawn(accept::run(listener, service, limits, gauge.clone(), context.shutdown.clone()));
    let credentials = trust.of("ordering").unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let stream = credentials.connect(tcp, Some("echo")).await.unwrap();
    let (_send, connection) = h2::client::handshake(stream).await.unwrap();
    // It is told to go, and goes: nothing else of this test ends it.
    let ended = tokio::time::timeout(Duration::from_secs(30), connection).await.expect("the connection grows old");
    assert!(ended.is_ok() || ended.is_err_and(|error| error.is_go_away() || error.is_io()));
    // And the calls of our own client never fail by it: they go by a new connection.
    let elsewhere = self::context(&trust);
    elsewhere.clients.connect("echo", &format!("http://{address}")).unwrap();
    let channel = elsewhere.clients.as_caller("ordering").channel("echo");
    let customer = outgoing(person("users/1", Role::Customer));
    for _ in 0..20 {
        let answered = ask(&channel, "Read", &customer).await;
        assert_eq!(answered.unwrap(), "ordering users/1 hello");
    }
    context.shutdown.cancel();
    process.await.unwrap();
}

/// A folder of certificates is for its owner alone.
#[test]
fn keys_are_readable_by_their_owner_alone_and_an_authority_is_made_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, authority) = folder(&["echo"]);
    let ca = folder.path().join("ca");
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(ca.clone()), 0o700);
    for file in ["authority.pem", "authority.key", "echo.pem", "echo.key"] {
        assert_eq!(mode(ca.join(file)), 0o600, "{file}");
    }
    let again = Authority::init(&ca, DOMAIN, DAY).unwrap_err().to_string();
    assert!(again.contains("stoa ca issue"), "{again}");
    let missing = Authority::open(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("stoa ca init"), "{missing}");
    for name in ["", "authority", "../echo", "Echo", "a/b", "{service}"] {
        assert!(authority.issue(name, DAY).is_err(), "{name}");
    }
    // The authority of before signs on.
    Authority::open(&ca).unwrap().issue("ordering", DAY).unwrap();
    assert!(trust(folder.path()).of("ordering").is_ok());
    assert_eq!(Authority::open(&ca).unwrap().domain(), DOMAIN);
}
