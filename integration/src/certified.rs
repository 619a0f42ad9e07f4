//! Connections to a process that wants to see a certificate, as somebody who is let in or somebody who is not.
//!
//! The stranger believes whoever answers and keeps what was shown: what the *server* does is what is looked at.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::await_until::until;

/// Who somebody says to be: the certificate and the key of a process, or nobody.
#[derive(Clone)]
pub struct Dialer(TlsConnector);

impl Dialer {
    /// One that shows nothing.
    pub fn nobody() -> Result<Self> {
        Ok(Self::with(builder()?.with_no_client_auth()))
    }

    /// One that shows `NAME.pem` of this folder, and has `NAME.key`.
    pub fn named(folder: &Path, name: &str) -> Result<Self> {
        let read = |end: &str| std::fs::read(folder.join(format!("{name}.{end}"))).context(name.to_owned());
        let chain = CertificateDer::pem_slice_iter(&read("pem")?).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::with(builder()?.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&read("key")?)?)?))
    }

    fn with(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// A connection as far as this side can tell; a refusal is seen by whoever reads.
    pub async fn dial(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await?;
        self.0.connect(ServerName::from(address.ip()), tcp).await
    }

    /// Whether the other end speaks HTTP/2 with this one.
    pub async fn is_kept(&self, address: SocketAddr) -> bool {
        let Ok(mut connection) = self.dial(address).await else { return false };
        let mut frame = [0; 9];
        connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.is_ok()
            && connection.read_exact(&mut frame).await.is_ok()
            && frame[3] == 4
    }

    /// The certificate that a process shows on a new connection.
    pub async fn shown(&self, address: SocketAddr) -> Result<Vec<u8>> {
        let connection = self.dial(address).await?;
        let shown = connection.get_ref().1.peer_certificates().and_then(<[_]>::first);
        Ok(shown.context("no certificate was shown")?.to_vec())
    }

    /// The same for calls.
    pub async fn channel(&self, address: SocketAddr) -> Result<Channel> {
        let dialer = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let dialer = dialer.clone();
            async move { dialer.dial(address).await.map(TokioIo::new) }
        });
        Ok(Endpoint::from_shared(format!("http://{address}"))?.connect_with_connector(connector).await?)
    }
}

/// Waits until these processes show, on new connections of one that they let in, the certificates that are in this folder.
pub async fn taken_up(folder: &Path, one: &str, processes: &[(&str, SocketAddr)], limit: Duration) -> Result<()> {
    let dialer = Dialer::named(folder, one)?;
    for (name, address) in processes {
        let written = CertificateDer::from_pem_file(folder.join(format!("{name}.pem")))?.to_vec();
        let shown =
            until(limit, "the new certificate", async || Ok((dialer.shown(*address).await? == written).then_some(())));
        shown.await.with_context(|| (*name).to_owned())?;
    }
    Ok(())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)))
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
