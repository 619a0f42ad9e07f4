//! The connections to one copy: one for everybody, or, where processes know each other by certificates, one for each caller.
//!
//! A connection with a certificate is exchanged when the files have changed, and now and then: new calls take a new one, and
//! the old one ends with its last call. So nobody has to end it under a call, and what was revoked leaves.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tls::{Credentials, Stream, Trust};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};

/// From the first to the last byte of a new connection.
const CONNECT: Duration = Duration::from_secs(3);

/// How long a connection with a certificate takes new calls. Half of what a callee lets it live, so that it is always we who
/// leave.
const AGE: Duration = Duration::from_secs(5 * 60);

/// How a copy is spoken to.
pub(crate) enum Way {
    /// By whoever knows where it is.
    Open(Channel),
    /// By certificates.
    Certified(Box<Certified>),
}

pub(crate) struct Certified {
    endpoint: Endpoint,
    callee: &'static str,
    trust: Trust,
    made: Mutex<Vec<Made>>,
}

/// A caller's connection; a process has few callers.
struct Made {
    caller: &'static str,
    generation: u64,
    since: Instant,
    channel: Channel,
}

impl Way {
    /// The way to a copy of the callee at this address; connections are made by the first calls.
    pub(crate) fn new(callee: &'static str, uri: &str, trust: Option<Trust>) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(uri.to_owned())?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5));
        Ok(match trust {
            None => Way::Open(endpoint.connect_lazy()),
            Some(trust) => Way::Certified(Box::new(Certified { endpoint, callee, trust, made: Mutex::default() })),
        })
    }

    /// The connection of this caller.
    pub(crate) fn of(&self, caller: &'static str) -> Result<Channel, tls::Error> {
        match self {
            Way::Open(channel) => Ok(channel.clone()),
            Way::Certified(certified) => certified.of(caller),
        }
    }
}

impl Certified {
    fn of(&self, caller: &'static str) -> Result<Channel, tls::Error> {
        let credentials = self.trust.of(caller)?;
        let (generation, now) = (credentials.generation(), Instant::now());
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.iter().find(|it| it.caller == caller)
            && known.generation == generation
            && now.saturating_duration_since(known.since) < AGE
        {
            return Ok(known.channel.clone());
        }
        let channel = self.endpoint.connect_with_connector_lazy(connector(caller, credentials, Some(self.callee)));
        made.retain(|it| it.caller != caller);
        made.push(Made { caller, generation, since: now, channel: channel.clone() });
        Ok(channel)
    }
}

/// A connection of its own with certificates on both sides, for whoever asks once: to this callee, or to any process of the
/// trust domain where none is named.
pub async fn certified(
    endpoint: Endpoint,
    caller: &'static str,
    credentials: Credentials,
    callee: Option<&'static str>,
) -> Result<Channel, tonic::transport::Error> {
    endpoint.connect_with_connector(connector(caller, credentials, callee)).await
}

/// Opens connections that are believed.
fn connector(
    caller: &'static str,
    credentials: Credentials,
    callee: Option<&'static str>,
) -> impl tower::Service<Uri, Response = TokioIo<Stream>, Error = io::Error, Future = impl Send> + Send + 'static {
    tower::service_fn(move |uri: Uri| {
        let credentials = credentials.clone();
        async move {
            let tcp = TcpStream::connect(address(&uri)?).await?;
            tcp.set_nodelay(true)?;
            let connected = credentials.connect(tcp, callee).await;
            if let Err(error) = &connected {
                tracing::warn!(callee, caller, %uri, %error, "no connection that is believed");
            }
            connected.map(TokioIo::new)
        }
    })
}

fn address(uri: &Uri) -> io::Result<(String, u16)> {
    let host = uri.host().map(|host| host.trim_matches(['[', ']']).to_owned());
    match (host, uri.port_u16()) {
        (Some(host), Some(port)) => Ok((host, port)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} has no host and port"))),
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Open(_) => "Open",
            Way::Certified(_) => "Certified",
        })
    }
}
