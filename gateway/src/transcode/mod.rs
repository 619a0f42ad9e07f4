//! REST and JSON in front of gRPC: descriptors in, a service out; knows no message and no service of its own.
//!
//! A request is found in the route table, bound to one message as wire bytes, sent to an [`Upstream`] as a plain gRPC call,
//! and its answer written as JSON. The JSON codec is the only seam to message types (see [`codec`]).

mod answer;
mod bind;
mod body;
pub mod codec;
mod download;
pub mod json;
mod memo;
pub mod negotiate;
pub mod percent;
pub mod problem;
pub mod route;
pub mod table;
pub mod template;
mod upload;
mod value;
pub mod wire;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use prost_reflect::{DescriptorPool, FieldDescriptor};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status, body::Body};

use bind::Frame;
use body::Answers;
use codec::{Codec, Codecs};
use download::Writer;
use memo::Memo;
use negotiate::{Content, Format};
use problem::Problem;
use route::Miss;
use table::{JSON_FACTOR, Limits, LoadError, Method, Route, Table};
use upload::Pieces;

/// The longest request target.
pub const MAX_URL: usize = 8 << 10;

/// The longest line of an upload.
const MAX_LINE: usize = 4 << 20;

/// Answers shorter than this are not worth packing.
const MIN_GZIP: usize = 1 << 10;

/// The metadata key by which a service chooses another success status, 200 to 399.
const STATUS_KEY: &str = "stoa-http-status";

/// Where the calls go.
pub trait Upstream: Send + Sync + 'static {
    /// Sends one gRPC call and gives back the answer's head and body.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Response<Body>, Status>>;
}

/// One gRPC call on its way to an upstream.
#[derive(Debug)]
pub struct Call {
    /// What is called.
    pub method: Arc<Method>,
    /// The call itself, HTTP/2 shaped, with the extensions of the client's request.
    pub request: Request<Body>,
    /// The first message, where it is known before the call.
    pub first: Option<Bytes>,
    /// When the answer must be there.
    pub deadline: Instant,
}

/// What a [`Transcoder`] is made of.
pub struct Config {
    /// The messages and services.
    pub pool: DescriptorPool,
    /// Time and size of a method, by gRPC path.
    pub limits: Box<dyn Fn(&str) -> Limits + Send + Sync>,
    /// The JSON codec.
    pub codec: Arc<dyn Codec>,
    /// Where the calls go.
    pub upstream: Arc<dyn Upstream>,
    /// The request headers that become metadata; everything else stays here.
    pub forward: Vec<HeaderName>,
    /// The prefix of the metadata that becomes response headers.
    pub expose: &'static str,
}

/// The service: cheap to clone.
#[derive(Clone)]
pub struct Transcoder {
    inner: Arc<Inner>,
}

struct Inner {
    table: Table,
    codecs: Codecs,
    memo: Memo,
    upstream: Arc<dyn Upstream>,
    forward: Vec<HeaderName>,
    expose: &'static str,
}

/// A request whose route is known.
#[derive(Debug, Clone)]
pub struct Matched {
    route: Arc<Route>,
    captures: Vec<String>,
}

impl Matched {
    /// The method that will be called.
    pub fn method(&self) -> &Arc<Method> {
        &self.route.method
    }
}

impl Transcoder {
    /// Compiles the descriptors.
    pub fn new(config: Config) -> Result<Self, LoadError> {
        let table = Table::load(&config.pool, &config.limits)?;
        let codecs = Codecs::new(config.codec, config.pool);
        Ok(Transcoder {
            inner: Arc::new(Inner {
                table,
                codecs,
                memo: Memo::default(),
                upstream: config.upstream,
                forward: config.forward,
                expose: config.expose,
            }),
        })
    }

    /// The compiled table.
    pub fn table(&self) -> &Table {
        &self.inner.table
    }

    /// Finds the route of a request: the first thing to know, before a token or a body is looked at.
    pub fn find(&self, method: &HttpMethod, target: &http::Uri) -> Result<Matched, Problem> {
        if target.path_and_query().is_some_and(|target| target.as_str().len() > MAX_URL) {
            return Err(Problem::new(Code::InvalidArgument, format!("the URL is longer than {MAX_URL} bytes"))
                .with_status(StatusCode::URI_TOO_LONG));
        }
        match self.inner.table.routes.find(method, target.path()) {
            Ok(found) => Ok(Matched { route: found.value.clone(), captures: found.captures }),
            Err(Miss::NotFound) => Err(Problem::new(Code::NotFound, "no such path")),
            Err(Miss::BadPath(error)) => Err(Problem::field("path", error.to_string())),
            Err(Miss::MethodNotAllowed(allowed)) => {
                let allowed = allowed.join(", ");
                let problem = Problem::new(Code::Unimplemented, format!("this path answers {allowed}"))
                    .with_status(StatusCode::METHOD_NOT_ALLOWED);
                Err(match HeaderValue::from_str(&allowed) {
                    Ok(value) => problem.with_header(header::ALLOW, value),
                    Err(_) => problem,
                })
            }
        }
    }

    /// Serves a request whose route was found; extensions of the request reach the upstream.
    pub async fn serve(&self, matched: &Matched, request: Request<Body>) -> Response<Body> {
        let head_only = request.method() == HttpMethod::HEAD;
        let mut response = match self.inner.exchange(matched, request).await {
            Ok(response) => response,
            Err(problem) => self.problem(&problem),
        };
        if head_only {
            // The length of what a GET would have sent stays in the headers.
            *response.body_mut() = Body::empty();
        }
        response
    }

    /// Writes an error as an answer.
    pub fn problem(&self, problem: &Problem) -> Response<Body> {
        let mut response = full(problem.json_body(&self.inner.codecs).into());
        *response.status_mut() = problem.status;
        response.headers_mut().extend(problem.answer_headers());
        response
    }
}

impl Inner {
    async fn exchange(&self, matched: &Matched, request: Request<Body>) -> Result<Response<Body>, Problem> {
        let method = &matched.route.method;
        let deadline = Instant::now() + method.limits.deadline;
        let raw_answer = is_raw_answer(&matched.route);
        let format = match (raw_answer, method.server_streaming) {
            (true, _) => Some(Format::Json),
            (false, true) => negotiate::stream(request.headers()),
            (false, false) => negotiate::unary(request.headers()),
        };
        let format = format.ok_or_else(not_acceptable)?;
        let frame = Frame::new(&matched.route, &matched.captures, request.uri().query(), request.headers())?;
        let coding = negotiate::coding(request.headers()).ok_or_else(|| unsupported("Content-Encoding"))?;
        let (parts, body) = request.into_parts();
        let (outgoing, first, failure) = if method.client_streaming {
            let pieces = if bind::takes_raw(&matched.route) { Pieces::Raw } else { Pieces::Lines };
            if pieces == Pieces::Lines && negotiate::content(&parts.headers) == Content::Other {
                return Err(unsupported("Content-Type"));
            }
            let line_limit = (method.limits.max_request_bytes * JSON_FACTOR).min(MAX_LINE);
            let (outgoing, failure) = upload::messages(
                body,
                pieces,
                coding,
                content_type(&parts.headers),
                frame,
                self.codecs.clone(),
                line_limit,
            );
            (outgoing, None, Some(failure))
        } else {
            let message = self.read_message(&matched.route, &parts.headers, body, coding, &frame, deadline).await?;
            let framed = body::frame(&message);
            (Body::new(Full::new(framed)), Some(Bytes::from(message)), None)
        };
        let call = self.call(method, &parts, outgoing, first, deadline);
        let pending = async {
            let answers = Answers::new(self.upstream.call(call).await?)?;
            first_of(answers, method.server_streaming).await
        };
        let answered = timeout_at(deadline, pending).await;
        if let Some(problem) = failure.as_ref().and_then(upload::Failure::take) {
            return Err(problem);
        }
        let (first, answers) = match answered {
            Ok(Ok(answered)) => answered,
            Ok(Err(status)) => return Err(Problem::from_status(&status)),
            Err(_) => {
                return Err(Problem::new(Code::DeadlineExceeded, "the answer took too long"));
            }
        };
        self.respond(&matched.route, &parts, format, raw_answer, first, answers, deadline)
    }

    async fn read_message(
        &self,
        route: &Route,
        headers: &HeaderMap,
        body: Body,
        coding: negotiate::Coding,
        frame: &Frame,
        deadline: Instant,
    ) -> Result<Vec<u8>, Problem> {
        let raw = bind::takes_raw(route);
        let limit = if raw {
            route.method.limits.max_request_bytes
        } else {
            route.method.limits.max_request_bytes * JSON_FACTOR
        };
        let read = timeout_at(deadline, body::read(body, coding, limit)).await;
        let late = || {
            Problem::new(Code::DeadlineExceeded, "the request body took too long")
                .with_status(StatusCode::REQUEST_TIMEOUT)
        };
        let data = read.map_err(|_| late())??;
        if raw {
            return frame.raw(&content_type(headers), &data);
        }
        if !data.is_empty() && negotiate::content(headers) != Content::Json {
            return Err(unsupported("Content-Type"));
        }
        let message = frame.json(&self.codecs, &data)?;
        if message.len() > route.method.limits.max_request_bytes {
            return Err(Problem::too_large(route.method.limits.max_request_bytes));
        }
        Ok(message)
    }

    fn call(
        &self,
        method: &Arc<Method>,
        parts: &http::request::Parts,
        body: Body,
        first: Option<Bytes>,
        deadline: Instant,
    ) -> Call {
        let mut request = Request::new(body);
        *request.method_mut() = HttpMethod::POST;
        *request.version_mut() = Version::HTTP_2;
        // A path made of two identifiers always parses.
        *request.uri_mut() = method.path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        for name in &self.forward {
            for value in parts.headers.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        *request.extensions_mut() = parts.extensions.clone();
        Call { method: method.clone(), request, first, deadline }
    }

    #[allow(clippy::too_many_arguments)]
    fn respond(
        &self,
        route: &Route,
        parts: &http::request::Parts,
        format: Format,
        raw: bool,
        first: Option<Bytes>,
        answers: Answers,
        deadline: Instant,
    ) -> Result<Response<Body>, Problem> {
        let status = chosen_status(answers.head());
        let exposed = exposed_headers(answers.head(), self.expose);
        let mut response = if raw {
            self.raw_response(route, &parts.headers, first, answers, deadline)?
        } else if route.method.server_streaming {
            let writer = Writer {
                codecs: self.codecs.clone(),
                output: route.method.output.clone(),
                field: route.answer.clone(),
                format,
                deadline,
            };
            let mut response = Response::new(download::frames(writer, first, answers));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        } else {
            let message = first.unwrap_or_default();
            self.unary_response(route, parts, &message)?
        };
        if response.status() == StatusCode::OK {
            *response.status_mut() = status;
        }
        response.headers_mut().extend(exposed);
        Ok(response)
    }

    fn unary_response(
        &self,
        route: &Route,
        parts: &http::request::Parts,
        message: &Bytes,
    ) -> Result<Response<Body>, Problem> {
        let etag = route
            .etag_out
            .and_then(|number| wire::find_text(message, &[number]))
            .and_then(|etag| HeaderValue::from_str(&format!("\"{etag}\"")).ok());
        let read = matches!(parts.method, HttpMethod::GET | HttpMethod::HEAD);
        if let Some(etag) = etag.as_ref().filter(|etag| read && is_known(&parts.headers, etag)) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().insert(header::ETAG, etag.clone());
            return Ok(response);
        }
        let kind = (Arc::as_ptr(&route.method).addr(), route.answer.as_ref().map_or(0, FieldDescriptor::number));
        let write = || answer::json(&self.codecs, &route.method.output, route.answer.as_ref(), message);
        let text = self.memo.text(kind, message, write)?;
        let packed = text.len() > MIN_GZIP && negotiate::takes_gzip(&parts.headers);
        let mut response = full(if packed { body::gzip(&text).into() } else { text });
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if packed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Some(etag) = etag {
            headers.insert(header::ETAG, etag);
        }
        Ok(response)
    }

    /// `google.api.HttpBody`: the bytes and the media type the service chose.
    fn raw_response(
        &self,
        route: &Route,
        headers: &HeaderMap,
        first: Option<Bytes>,
        answers: Answers,
        deadline: Instant,
    ) -> Result<Response<Body>, Problem> {
        let first = first.map(|message| match &route.answer {
            Some(field) => Bytes::from(wire::find_message(&message, field.number()).unwrap_or_default()),
            None => message,
        });
        let media = first
            .as_ref()
            .and_then(|message| wire::find_text(message, &[1]))
            .unwrap_or("application/octet-stream")
            .to_owned();
        if !negotiate::accepts(headers, &media) {
            return Err(not_acceptable());
        }
        let mut response = if route.method.server_streaming {
            Response::new(download::raw(first, answers, deadline))
        } else {
            full(download::raw_data(&first.unwrap_or_default()).to_vec().into())
        };
        if let Ok(media) = HeaderValue::from_str(&media) {
            response.headers_mut().insert(header::CONTENT_TYPE, media);
        }
        Ok(response)
    }
}

/// Waits for the first message; a single answer also for its status, which may still be an error.
async fn first_of(mut answers: Answers, streaming: bool) -> Result<(Option<Bytes>, Answers), Status> {
    let first = answers.next().await?;
    if !streaming {
        if first.is_none() {
            return Err(Status::internal("the service answered without a message"));
        }
        if answers.next().await?.is_some() {
            return Err(Status::internal("the service answered twice"));
        }
    }
    Ok((first, answers))
}

fn is_raw_answer(route: &Route) -> bool {
    match &route.answer {
        Some(field) => table::is_message(field, "google.api.HttpBody"),
        None => table::is_raw(&route.method.output),
    }
}

fn full(body: Bytes) -> Response<Body> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Body::new(Full::new(body)));
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

fn chosen_status(metadata: &HeaderMap) -> StatusCode {
    let chosen = metadata.get(STATUS_KEY).and_then(|value| StatusCode::from_bytes(value.as_bytes()).ok());
    chosen.filter(|status| (200..400).contains(&status.as_u16())).unwrap_or(StatusCode::OK)
}

fn exposed_headers(metadata: &HeaderMap, prefix: &str) -> HeaderMap {
    let exposed = metadata.iter().filter(|(name, _)| {
        name.as_str().starts_with(prefix) && !name.as_str().ends_with("-bin") && *name != STATUS_KEY
    });
    exposed.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let given = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    given
        .map(str::trim)
        .any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given).as_bytes() == etag.as_bytes())
}

fn content_type(headers: &HeaderMap) -> String {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn not_acceptable() -> Problem {
    Problem::new(Code::InvalidArgument, "the answer has no form that the header Accept allows")
        .with_status(StatusCode::NOT_ACCEPTABLE)
}

fn unsupported(header: &str) -> Problem {
    Problem::new(
        Code::InvalidArgument,
        format!("the request body is in no form this method takes: see the header {header}"),
    )
    .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}
