//! Calls to etcd: one member at a time, the next when it does not answer, with a token where etcd asks who we are.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::Uri;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::wire::{
    AuthenticateRequest, AuthenticateResponse, Compare, Done, GrantRequest, KeyValue, Lease, LeaseRequest, PutRequest,
    RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchCreate, WatchRequest, WatchResponse, end_of,
};
use crate::{Config, Misconfigured, PATIENCE, secure};

/// The largest answer that is read: some ten thousand copies.
const LARGEST_ANSWER: usize = 4 << 20;

type Token = MetadataValue<Ascii>;

pub(crate) struct Link {
    members: Vec<Channel>,
    /// Whom the next call asks.
    current: AtomicUsize,
    user: Option<AuthenticateRequest>,
    /// What proves who we are, until etcd forgets it.
    token: Mutex<Option<Token>>,
}

impl Link {
    pub(crate) fn new(config: &Config) -> Result<Self, Misconfigured> {
        if config.members.is_empty() {
            return Err(Misconfigured("no member is named".to_owned()));
        }
        let members = config.members.iter().map(|member| channel(member, config)).collect::<Result<_, _>>()?;
        let user = config.user.clone().map(|(name, password)| AuthenticateRequest { name, password });
        Ok(Link { members, current: AtomicUsize::new(0), user, token: Mutex::default() })
    }

    /// All keys that begin with this, and the revision at which it is so.
    pub(crate) async fn read(&self, prefix: &str) -> Result<(Vec<KeyValue>, i64), Status> {
        let key = prefix.as_bytes().to_vec();
        let request = RangeRequest { range_end: end_of(&key), key };
        let found: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok((found.kvs, found.header.map_or(0, |header| header.revision)))
    }

    /// The lease of a key, 0 for none; nothing if the key is not there.
    pub(crate) async fn lease_of(&self, key: &str) -> Result<Option<i64>, Status> {
        let request = RangeRequest { key: key.as_bytes().to_vec(), range_end: vec![] };
        let found: RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(found.kvs.first().map(|kv| kv.lease))
    }

    /// Puts a key that is not there yet; whether it was not.
    pub(crate) async fn put_absent(&self, key: &str, value: String, lease: i64) -> Result<bool, Status> {
        let key = key.as_bytes().to_vec();
        let put = PutRequest { key: key.clone(), value: value.into_bytes(), lease };
        let request = TxnRequest { compare: vec![Compare::absent(key)], success: vec![RequestOp { put: Some(put) }] };
        let done: TxnResponse = self.call("/etcdserverpb.KV/Txn", request).await?;
        Ok(done.succeeded)
    }

    /// A new lease.
    pub(crate) async fn grant(&self, ttl: Duration) -> Result<Lease, Status> {
        let request = GrantRequest { ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX) };
        self.call("/etcdserverpb.Lease/LeaseGrant", request).await
    }

    /// Ends a lease, and with it its keys.
    pub(crate) async fn revoke(&self, id: i64) -> Result<(), Status> {
        let Done {} = self.call("/etcdserverpb.Lease/LeaseRevoke", LeaseRequest { id }).await?;
        Ok(())
    }

    /// Keeps a lease for another time to live; `false` if it is no more.
    pub(crate) async fn keep_alive(&self, id: i64) -> Result<bool, Status> {
        let lease: Lease = self
            .tried(|member, token| async move {
                // One question a stream: nothing is left to be held open between two signs of life.
                let asked = request(stream::iter([LeaseRequest { id }]), token);
                let mut answers = streaming(member, "/etcdserverpb.Lease/LeaseKeepAlive", asked).await?;
                answers.message().await?.ok_or_else(|| Status::unavailable("etcd did not answer"))
            })
            .await?;
        Ok(lease.ttl > 0)
    }

    /// What changes under the prefix from this revision on.
    pub(crate) async fn watch(&self, prefix: &str, from: i64) -> Result<Streaming<WatchResponse>, Status> {
        let key = prefix.as_bytes().to_vec();
        let create = WatchCreate { range_end: end_of(&key), key, start_revision: from };
        self.tried(|member, token| {
            // Open for as long as it is watched.
            let words = stream::iter([WatchRequest { create: Some(create.clone()) }]).chain(stream::pending());
            streaming(member, "/etcdserverpb.Watch/Watch", request(words, token))
        })
        .await
    }

    async fn call<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.tried(|member, token| unary(member, path, request(question.clone(), token))).await
    }

    /// Asks one member after the other until one answers; each once, and once more with a new token.
    async fn tried<A, F>(&self, ask: impl Fn(Channel, Option<Token>) -> F) -> Result<A, Status>
    where
        F: Future<Output = Result<A, Status>>,
    {
        let mut left = self.members.len();
        let mut renewed = self.user.is_none();
        loop {
            let current = self.current.load(Ordering::Relaxed);
            let member = self.members[current % self.members.len()].clone();
            let asked = async {
                let token = self.token(&member).await?;
                ask(member, token).await
            };
            let answer =
                timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(Status::unavailable("no answer in time")));
            let Err(status) = answer else { return answer };
            if is_stale_token(&status) && !renewed {
                renewed = true;
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
                continue;
            }
            if status.code() != Code::Unavailable {
                return Err(status);
            }
            // Whoever comes first moves on; the others find it moved.
            let next = current.wrapping_add(1);
            let _ = self.current.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed);
            left -= 1;
            if left == 0 {
                return Err(status);
            }
        }
    }

    /// What proves who we are; asked for when there is none.
    async fn token(&self, member: &Channel) -> Result<Option<Token>, Status> {
        let Some(user) = &self.user else { return Ok(None) };
        let known = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.is_some() {
            return Ok(known);
        }
        let asked = request(user.clone(), None);
        let given: AuthenticateResponse = unary(member.clone(), "/etcdserverpb.Auth/Authenticate", asked).await?;
        let token = given.token.parse().map_err(|_| Status::internal("the token is no header"))?;
        Ok(self.token.lock().unwrap_or_else(PoisonError::into_inner).insert(token).clone().into())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

fn request<Q>(question: Q, token: Option<Token>) -> Request<Q> {
    let mut request = Request::new(question);
    // A member that is cut off from the others says so at once, instead of going silent.
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    if let Some(token) = token {
        request.metadata_mut().insert("token", token);
    }
    request
}

/// etcd keeps tokens in memory and for minutes: one that is not known any more is no refusal.
fn is_stale_token(status: &Status) -> bool {
    status.code() == Code::Unauthenticated || status.message().contains("revision of auth store is old")
}

/// The way to a member; the connection is made by the first call, and made again when it broke.
fn channel(member: &str, config: &Config) -> Result<Channel, Misconfigured> {
    let wrong = |error: &dyn fmt::Display| Misconfigured(format!("{member:?}: {error}"));
    let uri: Uri = member.parse().map_err(|error| wrong(&error))?;
    let tls = match uri.scheme_str() {
        Some("http") => None,
        Some("https") => Some(secure::tls(config)?),
        _ => return Err(wrong(&"neither http:// nor https://")),
    };
    // The connector makes the connection secure; what is said on it is the same.
    let plain = format!("http://{}", uri.authority().map_or("", |authority| authority.as_str()));
    let endpoint = Endpoint::from_shared(plain)
        .map_err(|error| wrong(&error))?
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5));
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| secure::open(uri, tls.clone()))))
}

async fn unary<Q, A>(member: Channel, path: &'static str, request: Request<Q>) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = Grpc::new(member).max_decoding_message_size(LARGEST_ANSWER);
    ready(&mut grpc).await?;
    let codec = ProstCodec::<Q, A>::default();
    Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
}

async fn streaming<S, A>(member: Channel, path: &'static str, request: Request<S>) -> Result<Streaming<A>, Status>
where
    S: futures_util::Stream + Send + 'static,
    S::Item: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = Grpc::new(member).max_decoding_message_size(LARGEST_ANSWER);
    ready(&mut grpc).await?;
    let codec = ProstCodec::<S::Item, A>::default();
    Ok(grpc.streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner())
}

async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))
}
