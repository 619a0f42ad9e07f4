//! A gRPC client that has no proto files: it asks the server what it speaks, by reflection, and turns
//! JSON into messages and back.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Buf;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::calls::Calls;
use crate::file_set::FileSet;

/// The largest answer taken.
const ANSWER: usize = 64 * 1024 * 1024;

/// A connection, what the server said it speaks, and the token sent with every call.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    pool: DescriptorPool,
    token: Option<String>,
    traceparent: Option<String>,
    calls: Calls,
}

impl Client {
    /// Connects and learns every service by reflection.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5))
            .connect()
            .await?;
        let pool = reflect(channel.clone()).await.context("reflection")?;
        Ok(Self { channel, pool, token: None, traceparent: None, calls: Calls::default() })
    }

    /// The same client with a token.
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// The same client, whose calls are part of a trace.
    pub fn in_trace(&self, traceparent: impl Into<String>) -> Self {
        Self { traceparent: Some(traceparent.into()), ..self.clone() }
    }

    /// From now on its calls of one message are counted here.
    pub fn counted_by(mut self, calls: &Calls) -> Self {
        self.calls = calls.clone();
        self
    }

    /// A new connection with the same knowledge, without a token.
    pub async fn again(&self, address: SocketAddr) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
        Ok(Self { channel, pool: self.pool.clone(), token: None, traceparent: None, calls: self.calls.clone() })
    }

    /// Everything the server told.
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// A method by `package.Service/Method`.
    pub fn method(&self, name: &str) -> Result<MethodDescriptor> {
        let (service, method) = name.split_once('/').context("no / in the method's name")?;
        self.pool
            .get_service_by_name(service)
            .and_then(|service| service.methods().find(|found| found.name() == method))
            .with_context(|| format!("the server knows no {name}"))
    }

    /// One call, JSON in and out; the status of a refusal is the inner error.
    pub async fn call(&self, name: &str, body: &Value) -> Result<Result<Value, Status>> {
        let method = self.method(name)?;
        let message = DynamicMessage::deserialize(method.input(), body)
            .with_context(|| format!("no {}: {body}", method.input().full_name()))?;
        Ok(match self.send(&method, message).await {
            Ok(answer) => {
                let options = SerializeOptions::new();
                let json = answer.serialize_with_options(serde_json::value::Serializer, &options)?;
                Ok(json)
            }
            Err(status) => Err(status),
        })
    }

    /// One call with a stream of messages, JSON in and out.
    pub async fn call_with_stream(&self, name: &str, bodies: &[Value]) -> Result<Result<Value, Status>> {
        let method = self.method(name)?;
        let messages = bodies
            .iter()
            .map(|body| DynamicMessage::deserialize(method.input(), body))
            .collect::<Result<Vec<_>, _>>()?;
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        if let Err(error) = grpc.ready().await {
            return Ok(Err(Status::unavailable(error.to_string())));
        }
        let path = path_of(&method).parse()?;
        let mut request = Request::new(futures_util::stream::iter(messages));
        self.authorize(request.metadata_mut())?;
        let codec = Dynamic { answer: method.output() };
        Ok(match grpc.client_streaming(request, path, codec).await {
            Ok(answer) => Ok(serde_json::to_value(answer.into_inner())?),
            Err(status) => Err(status),
        })
    }

    fn authorize(&self, metadata: &mut MetadataMap) -> Result<(), Status> {
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse();
            let value = value.map_err(|_| Status::internal("no token"))?;
            metadata.insert("authorization", value);
        }
        if let Some(traceparent) = &self.traceparent {
            let value = traceparent.parse().map_err(|_| Status::internal("no traceparent"))?;
            metadata.insert("traceparent", value);
        }
        Ok(())
    }

    /// Calls a method of any kind with one message, reads at most one answer, and tells the code.
    pub async fn probe(&self, method: &MethodDescriptor, body: &Value) -> Result<Code> {
        let message = DynamicMessage::deserialize(method.input(), body)
            .with_context(|| format!("no {}: {body}", method.input().full_name()))?;
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let path = path_of(method).parse()?;
        let mut request = Request::new(futures_util::stream::iter([message]));
        self.authorize(request.metadata_mut())?;
        let codec = Dynamic { answer: method.output() };
        // On the wire every kind of call looks the same, so one way to call serves all.
        let answered = async {
            let answers = grpc.streaming(request, path, codec).await;
            answers?.into_inner().message().await
        };
        let outcome = tokio::time::timeout(Duration::from_secs(20), answered).await?;
        Ok(outcome.map_or_else(|status| status.code(), |_| Code::Ok))
    }

    /// One unary call with a message made beforehand.
    pub async fn send(&self, method: &MethodDescriptor, message: DynamicMessage) -> Result<DynamicMessage, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = path_of(method).parse();
        let path = path.map_err(|_| Status::internal("no path"))?;
        let mut request = Request::new(message);
        self.authorize(request.metadata_mut())?;
        let codec = Dynamic { answer: method.output() };
        let _open = self.calls.begin();
        Ok(grpc.unary(request, path, codec).await?.into_inner())
    }
}

fn path_of(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// Collects the files behind every service the server lists.
async fn reflect(channel: Channel) -> Result<DescriptorPool> {
    let mut client = ServerReflectionClient::new(channel).max_decoding_message_size(ANSWER);
    let mut services = Vec::new();
    for answer in ask(&mut client, vec![MessageRequest::ListServices(String::new())]).await? {
        if let MessageResponse::ListServicesResponse(list) = answer {
            services.extend(list.service.into_iter().map(|service| service.name));
        }
    }
    let questions = services.into_iter().map(MessageRequest::FileContainingSymbol).collect();
    let mut set = FileSet::default();
    for answer in ask(&mut client, questions).await? {
        match answer {
            MessageResponse::FileDescriptorResponse(files) => {
                for file in files.file_descriptor_proto {
                    set.add(file)?;
                }
            }
            MessageResponse::ErrorResponse(error) => {
                return Err(anyhow!("{}", error.error_message));
            }
            MessageResponse::AllExtensionNumbersResponse(_) | MessageResponse::ListServicesResponse(_) => {}
        }
    }
    // A server may send each file without the files it imports: they are asked for by name.
    loop {
        let missing = set.missing();
        if missing.is_empty() {
            break;
        }
        let questions = missing.into_iter().map(MessageRequest::FileByFilename).collect();
        for answer in ask(&mut client, questions).await? {
            match answer {
                MessageResponse::FileDescriptorResponse(files) => {
                    for file in files.file_descriptor_proto {
                        set.add(file)?;
                    }
                }
                other => return Err(anyhow!("an import is not to be had: {other:?}")),
            }
        }
    }
    set.pool()
}

async fn ask(
    client: &mut ServerReflectionClient<Channel>,
    questions: Vec<MessageRequest>,
) -> Result<Vec<MessageResponse>> {
    let requests = questions
        .into_iter()
        .map(|question| ServerReflectionRequest { host: String::new(), message_request: Some(question) });
    let stream = futures_util::stream::iter(requests.collect::<Vec<_>>());
    let mut answers = client.server_reflection_info(stream).await?.into_inner();
    let mut found = Vec::new();
    while let Some(answer) = answers.message().await? {
        found.extend(answer.message_response);
    }
    Ok(found)
}

/// Messages of any type: the type of the answer is known from the method.
struct Dynamic {
    answer: MessageDescriptor,
}

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        Self { answer: self.answer.clone() }
    }

    fn decoder(&mut self) -> Self::Decoder {
        Self { answer: self.answer.clone() }
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        DynamicMessage::decode(self.answer.clone(), bytes)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
