//! Descriptors from the server itself: gRPC server reflection, in the version it has.
//!
//! The stream stays open after everything was told; when it ends, the server has gone or restarted, and is asked again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::{DescriptorPool, prost_types::FileDescriptorProto};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};
use transcode::service::BoxError;

use super::Maker;

/// The versions, which differ in their name alone.
const VERSIONS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it takes from one try to reach the server to the next.
const AGAIN: Duration = Duration::from_millis(250);

/// How often a server that stays is asked whether it has become another, behind a balancer for example.
const LOOK: Duration = Duration::from_secs(30);

/// The most files, and bytes of all of them, that are taken.
const MAX_FILES: usize = 10_000;
const MAX_BYTES: usize = 64 << 20;

/// How long it may take to reach the server.
const CONNECT: Duration = Duration::from_secs(5);

/// The server at `host:port`, reached when it is asked.
pub(super) fn reach(address: &str) -> Result<Channel, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(CONNECT).connect_lazy())
}

/// Keeps the maker up with what the server says of itself.
pub(super) async fn follow(maker: Maker, upstream: Channel) {
    let mut held = Vec::new();
    let mut problem = String::new();
    loop {
        match described(&maker, &upstream).await {
            Ok((set, mut session)) => {
                problem.clear();
                if set != held {
                    if let Err(error) = maker.tell(&set) {
                        tracing::warn!(error = &*error, "what the server says of itself is not taken");
                    }
                    held = set;
                }
                // Nobody asked, so an answer can only be the end.
                let _ = timeout(LOOK, session.answers.message()).await;
            }
            Err(error) => {
                // A server that is away is told once, not four times a second.
                let said = error.to_string();
                if said != problem {
                    tracing::warn!(error = said, "the server does not say what it serves");
                    problem = said;
                }
                sleep(AGAIN).await;
            }
        }
    }
}

async fn described(maker: &Maker, upstream: &Channel) -> Result<(Vec<u8>, Session), BoxError> {
    let mut refused = None;
    for version in VERSIONS {
        match Session::open(upstream.clone(), version).await {
            Ok(mut session) => {
                let set = session.descriptor_set(&maker.settings.services).await?;
                return Ok((set, session));
            }
            Err(status) if status.code() == Code::Unimplemented => refused = Some(status),
            Err(status) => return Err(status.into()),
        }
    }
    Err(refused.map_or_else(|| "no reflection".into(), Into::into))
}

struct Session {
    questions: mpsc::Sender<ServerReflectionRequest>,
    answers: Streaming<ServerReflectionResponse>,
    /// What the first question brought: the names of the services.
    services: Vec<String>,
}

impl Session {
    /// Opens the stream, and asks what there is: only then a server says that it does not know the version.
    async fn open(upstream: Channel, version: &'static str) -> Result<Self, Status> {
        let (questions, asked) = mpsc::channel(1);
        let asked = futures_util::stream::unfold(asked, |mut asked| async move { Some((asked.recv().await?, asked)) });
        let opened = async {
            let mut client = tonic::client::Grpc::new(upstream).max_decoding_message_size(MAX_BYTES);
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
            let first = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            // Some servers answer with headers only when something was asked.
            questions.send(first).await.map_err(|_| Status::unavailable("the stream has ended"))?;
            client.streaming(Request::new(asked), PathAndQuery::from_static(version), codec).await
        };
        let late = |_| Status::deadline_exceeded("the server takes too long");
        let answers = timeout(PATIENCE, opened).await.map_err(late)??.into_inner();
        let mut session = Session { questions, answers, services: Vec::new() };
        match session.answer().await? {
            MessageResponse::ListServicesResponse(list) => {
                session.services = list.service.into_iter().map(|service| service.name).collect();
                Ok(session)
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn answer(&mut self) -> Result<MessageResponse, Status> {
        let late = |_| Status::deadline_exceeded("the server takes too long");
        let answer = timeout(PATIENCE, self.answers.message()).await.map_err(late)??;
        let answer = answer.and_then(|answer| answer.message_response);
        answer.ok_or_else(|| Status::unavailable("the server ended its reflection"))
    }

    async fn files(&mut self, question: MessageRequest) -> Result<Vec<Vec<u8>>, Status> {
        let question = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let sent = self.questions.send(question).await;
        sent.map_err(|_| Status::unavailable("the server ended its reflection"))?;
        match self.answer().await? {
            MessageResponse::FileDescriptorResponse(files) => Ok(files.file_descriptor_proto),
            other => Err(unexpected(&other)),
        }
    }

    /// The encoded descriptor set of the services that are wanted, or of all.
    async fn descriptor_set(&mut self, wanted: &[String]) -> Result<Vec<u8>, BoxError> {
        let names = if wanted.is_empty() { std::mem::take(&mut self.services) } else { wanted.to_vec() };
        let mut files = Files::default();
        for name in names {
            files.add(self.files(MessageRequest::FileContainingSymbol(name)).await?)?;
        }
        while let Some(name) = files.missing() {
            match self.files(MessageRequest::FileByFilename(name.clone())).await {
                Ok(found) => files.add(found)?,
                Err(status) => files.add_known(&name).ok_or(status)?,
            }
            if !files.encoded.contains_key(&name) {
                return Err(format!("the server does not have its file {name}").into());
            }
        }
        Ok(files.set())
    }
}

fn unexpected(answer: &MessageResponse) -> Status {
    match answer {
        MessageResponse::ErrorResponse(error) => {
            Status::new(Code::from_i32(error.error_code), error.error_message.clone())
        }
        MessageResponse::FileDescriptorResponse(_)
        | MessageResponse::AllExtensionNumbersResponse(_)
        | MessageResponse::ListServicesResponse(_) => Status::internal("the server answers what was not asked"),
    }
}

/// The files that were told, by name. They are kept as bytes: decoded ones would lose the options that are extensions.
#[derive(Default)]
struct Files {
    encoded: BTreeMap<String, (Vec<u8>, Vec<String>)>,
    bytes: usize,
}

impl Files {
    fn add(&mut self, files: Vec<Vec<u8>>) -> Result<(), BoxError> {
        for file in files {
            let decoded = FileDescriptorProto::decode(&*file)?;
            self.bytes += file.len();
            if self.encoded.len() >= MAX_FILES || self.bytes > MAX_BYTES {
                return Err("the server has more descriptors than are taken".into());
            }
            self.encoded.insert(decoded.name().to_owned(), (file, decoded.dependency));
        }
        Ok(())
    }

    /// A file of the well-known types, which a server may leave out.
    fn add_known(&mut self, name: &str) -> Option<()> {
        let file = DescriptorPool::global().get_file_by_name(name)?;
        self.add(vec![file.file_descriptor_proto().encode_to_vec()]).ok()
    }

    /// A file that another one imports and that was not told.
    fn missing(&self) -> Option<String> {
        let imports = self.encoded.values().flat_map(|(_, imports)| imports);
        imports.into_iter().find(|name| !self.encoded.contains_key(*name)).cloned()
    }

    /// All of them as a set, each behind what it imports.
    fn set(&self) -> Vec<u8> {
        let mut set = Vec::with_capacity(self.bytes);
        let mut written = BTreeSet::new();
        for first in self.encoded.keys() {
            // Depth first, with a stack of its own: an import may be as deep as the server says.
            let mut open = vec![(first, false)];
            while let Some((name, imported)) = open.pop() {
                let Some((file, imports)) = self.encoded.get(name) else { continue };
                if imported {
                    prost::encoding::bytes::encode(1, file, &mut set);
                } else if written.insert(name) {
                    open.push((name, true));
                    open.extend(imports.iter().map(|import| (import, false)));
                }
            }
        }
        set
    }
}
