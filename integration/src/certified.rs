//! Connections to a process that wants to see a certificate, as somebody who is let in or somebody who is not.
//!
//! The stranger believes whoever answers and keeps what was shown: what the *server* does is what is looked at.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

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

    /// The certificate that the other end shows.
    pub async fn shown(&self, address: SocketAddr) -> Result<Vec<u8>> {
        let connection = self.dial(address).await?;
        let shown = connection.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|it| it.to_vec());
        shown.context("it shows no certificate")
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

/// The bytes of the first certificate of a PEM file.
pub fn pem(text: &str) -> Result<Vec<u8>> {
    Ok(CertificateDer::from_pem_slice(text.as_bytes())?.to_vec())
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
