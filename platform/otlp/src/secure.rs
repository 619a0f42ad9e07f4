//! The way to a collector: plain TCP, or TLS against who vouches for it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::Error;

/// From the first to the last byte of a new connection.
const CONNECT: Duration = Duration::from_secs(3);

/// A connection that is made by the first call, and again after it broke.
pub(crate) fn channel(endpoint: Endpoint, certificate: Option<&Path>) -> Result<Channel, Error> {
    let endpoint = endpoint.connect_timeout(CONNECT).tcp_nodelay(true);
    match endpoint.uri().scheme_str() {
        Some("http") => Ok(endpoint.connect_lazy()),
        Some("https") => {
            let tls = tls(certificate)?;
            Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| open(uri, tls.clone()))))
        }
        _ => Err(Error::of(&endpoint.uri().to_string(), &"is neither http:// nor https://")),
    }
}

fn tls(certificate: Option<&Path>) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    match certificate {
        Some(file) => {
            let wrong = |error: &dyn std::fmt::Display| Error::of(&file.display().to_string(), error);
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
                roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() {
        return Err(Error::of("TLS", &"there is no certificate of an authority"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut client =
        client.map_err(|error| Error::of("TLS", &error))?.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(client)))
}

/// A connection whose other end proved its name.
async fn open(
    uri: Uri,
    tls: TlsConnector,
) -> io::Result<TokioIo<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    Ok(TokioIo::new(tls.connect(name, tcp).await?))
}
