//! Calls between the processes of a fleet, made by somebody who has what one process has: its certificate and the fleet's key.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::{Buf, BufMut, Bytes};
use ed25519_dalek::{Signer as _, SigningKey};
use http::uri::PathAndQuery;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::certified::Dialer;

/// The key that every process of a fleet has.
pub const SECRET: [u8; 32] = [0x5a; 32];

/// What a token between processes says.
#[derive(Clone, Debug)]
pub struct Claims(Value);

impl Claims {
    /// A call of this process to that one, for nobody, made now and good for a minute.
    pub fn of(caller: &str, callee: &str) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Self(json!({
            "iss": "stoa-fleet", "aud": callee, "sub": format!("services/{caller}"), "act": {"sub": caller},
            "exp": now + 60, "nbf": now, "iat": now,
        })))
    }

    /// The same for a person with this role.
    #[must_use]
    pub fn speaking_for(mut self, person: &str, role: &str) -> Self {
        self.0["sub"] = json!(person);
        self.0["role"] = json!(role);
        self.0["sid"] = json!(format!("{person}/sessions/1"));
        self
    }

    /// As the fleet's key signs it.
    pub fn signed(&self) -> String {
        let key = SigningKey::from_bytes(&SECRET);
        let x = BASE64.encode(key.verifying_key().to_bytes());
        // RFC 7638.
        let kid = BASE64.encode(Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)));
        let header = json!({"alg": "EdDSA", "typ": "stoa-call+jwt", "kid": kid}).to_string();
        let text = format!("{}.{}", BASE64.encode(header), BASE64.encode(self.0.to_string()));
        let signature = BASE64.encode(key.sign(text.as_bytes()).to_bytes());
        format!("{text}.{signature}")
    }
}

/// A connection to a process over which calls are made with an empty message.
#[derive(Clone)]
pub struct Caller(Channel);

impl Caller {
    /// Connects with what this dialer shows.
    pub async fn connect(dialer: &Dialer, address: SocketAddr) -> Result<Self> {
        Ok(Self(dialer.channel(address).await?))
    }

    /// Calls `/package.Service/Method` of any kind; the code of its answer, or of its first message.
    pub async fn call(&self, path: &str, token: Option<&str>) -> Result<Code> {
        Ok(self.status(path, token).await?.code())
    }

    /// As [`Caller::call`], with what the answer says besides.
    pub async fn status(&self, path: &str, token: Option<&str>) -> Result<Status> {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await?;
        let mut request = Request::new(futures_util::stream::iter([Bytes::new()]));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        }
        let path = PathAndQuery::try_from(path)?;
        // On the wire every kind of call looks the same, so one way to call serves all.
        let answered = async { grpc.streaming(request, path, Raw).await?.into_inner().message().await };
        Ok(answered.await.map_or_else(|status| status, |_: Option<Bytes>| Status::ok("")))
    }
}

/// Messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
