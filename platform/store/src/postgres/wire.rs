//! How the server is reached: plainly, or with TLS against the authority that was named.

use std::{path::Path, pin::Pin, sync::Arc};

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod, tokio_postgres};
use futures_util::{Stream, StreamExt as _, stream};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What a server says without being asked. It must be polled for its client to get answers, and ends with it.
pub(super) type Messages = Pin<Box<dyn Stream<Item = Result<AsyncMessage, tokio_postgres::Error>> + Send>>;

/// A server and how it is reached.
#[derive(Clone)]
pub(super) struct Wire {
    server: Config,
    tls: Option<MakeRustlsConnect>,
}

impl Wire {
    /// With an authority's certificates (PEM) no connection is made but to a server that one of them vouches for, under the
    /// name in the address.
    pub(super) fn new(mut server: Config, authority: Option<&Path>) -> Result<Self, String> {
        let tls = match authority {
            None => None,
            Some(path) => {
                let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
                let mut roots = rustls::RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                    roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
                }
                if roots.is_empty() {
                    return Err(wrong(&"no certificate in it"));
                }
                server.ssl_mode(SslMode::Require);
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = rustls::ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(|error| error.to_string())?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                Some(MakeRustlsConnect::new(config))
            }
        };
        Ok(Self { server, tls })
    }

    /// The same way to the same server with these settings of the session.
    pub(super) fn with_options(&self, options: String) -> Self {
        let mut wire = self.clone();
        wire.server.options(options);
        wire
    }

    pub(super) async fn open(&self) -> Result<(Client, Messages), tokio_postgres::Error> {
        match &self.tls {
            None => {
                let (client, mut connection) = self.server.connect(NoTls).await?;
                Ok((client, Box::pin(stream::poll_fn(move |context| connection.poll_message(context)))))
            }
            Some(tls) => {
                let (client, mut connection) = self.server.connect(tls.clone()).await?;
                Ok((client, Box::pin(stream::poll_fn(move |context| connection.poll_message(context)))))
            }
        }
    }

    /// A connection whose server has nothing to say but answers.
    pub(super) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, messages) = self.open().await?;
        tokio::spawn(messages.for_each(|_| std::future::ready(())));
        Ok(client)
    }

    /// What makes the connections of a pool.
    pub(super) fn manager(&self) -> Manager {
        // Every body ends its own transaction and a connection that could not is thrown away, so nothing is left to clean.
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        match &self.tls {
            None => Manager::from_config(self.server.clone(), NoTls, config),
            Some(tls) => Manager::from_config(self.server.clone(), tls.clone(), config),
        }
    }
}
