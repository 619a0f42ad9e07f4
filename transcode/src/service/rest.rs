//! REST and JSON as rules of `google.api.http` say: a request bound to messages, an answer written as JSON.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, header};
use tokio::time::{Instant, timeout_at};

use super::{
    Shared,
    body::{self, Body},
    call::{Begun, Call, Failed},
    download,
    fill::Given,
    metadata::Passing,
    negotiate::{self, Content, Format, not_acceptable, unsupported},
    problem::Problem,
    status::Code,
    table::{JSON_FACTOR, Route},
    upload,
};
use crate::{Around, wire::find_bytes};

/// Answers shorter than this, in bytes, are not worth packing.
const MIN_GZIP: usize = 1 << 10;

/// Serves a request along a route.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    route: &Arc<Route>,
    captures: &[String],
    request: Request<Body>,
) -> Response<Body> {
    let head_only = request.method() == HttpMethod::HEAD;
    let mut response = match exchange(shared, route, captures, request).await {
        Ok(response) => response,
        Err(problem) => shared.scribe.answer(&problem),
    };
    if head_only {
        // The length of what a GET would have sent stays in the headers.
        *response.body_mut() = body::empty();
    }
    response
}

async fn exchange(
    shared: &Arc<Shared>,
    route: &Arc<Route>,
    captures: &[String],
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let method = &route.method;
    let format = match (route.bytes_out, method.server_streaming) {
        (true, _) => Some(Format::Json),
        (false, true) => negotiate::stream(request.headers()),
        (false, false) => negotiate::unary(request.headers()),
    };
    let format = format.ok_or_else(not_acceptable)?;
    let coding = negotiate::coding(request.headers()).ok_or_else(|| unsupported("Content-Encoding"))?;
    let binder = Binder::new(shared, route, captures, request.uri().query(), request.headers())?;
    let mut call = Call::new(method, request.headers())?;
    let deadline = call.deadline;
    let metadata = shared.forward.inward(request.headers())?;
    let (mut parts, body) = request.into_parts();
    let (outgoing, failure) = if method.client_streaming {
        if !binder.takes_bytes() && negotiate::content(&parts.headers) == Content::Other {
            return Err(unsupported("Content-Type"));
        }
        let max_line = method.limits.max_request_bytes.saturating_mul(JSON_FACTOR).min(upload::MAX_LINE);
        let (outgoing, failure) = upload::messages(body, coding, binder, max_line);
        (outgoing, Some(failure))
    } else {
        let message = read(&binder, &parts.headers, body, coding, deadline).await?;
        call.message = Some(message.slice(body::PREFIX..));
        (body::full(message), None)
    };
    let request = call.request(metadata, std::mem::take(&mut parts.extensions), outgoing);
    let begun = shared.begin(request, method.server_streaming, deadline).await;
    if let Some(problem) = failure.as_ref().and_then(upload::Failure::take) {
        return Err(problem);
    }
    let begun = begun.map_err(|failed| refused(shared, failed))?;
    respond(shared, route, &parts, format, begun, deadline)
}

/// An error of the service behind, with the metadata that is shown.
fn refused(shared: &Shared, failed: Box<Failed>) -> Problem {
    let mut problem = Problem::from(failed.status);
    for metadata in [&failed.head, &failed.trailers] {
        let shown = shared.expose.outward(metadata, &shared.status_key);
        problem.headers.extend(shown.map(|(name, value)| (name.clone(), value.clone())));
    }
    problem
}

/// Reads the one message of a request, with its prefix.
async fn read(
    binder: &Binder,
    headers: &HeaderMap,
    body: Body,
    coding: negotiate::Coding,
    deadline: Instant,
) -> Result<Bytes, Problem> {
    let most = binder.route.method.limits.max_request_bytes;
    let limit = if binder.takes_bytes() { most } else { most.saturating_mul(JSON_FACTOR) };
    let late = |_| {
        Problem::new(Code::DeadlineExceeded, "the request body took too long").with_http(StatusCode::REQUEST_TIMEOUT)
    };
    let data = timeout_at(deadline, body::read(body, coding, limit)).await.map_err(late)??;
    if binder.takes_bytes() {
        return binder.bytes(&data);
    }
    if !data.is_empty() && negotiate::content(headers) != Content::Json {
        return Err(unsupported("Content-Type"));
    }
    binder.json(&data)
}

/// Makes messages of bodies; what path, query and headers say is bound once, before a body is read.
pub(super) struct Binder {
    shared: Arc<Shared>,
    route: Arc<Route>,
    around: Around,
    given: Given,
    content_type: String,
}

impl Binder {
    fn new(
        shared: &Arc<Shared>,
        route: &Arc<Route>,
        captures: &[String],
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let around = route.target.binding.around(captures, query, &shared.parse);
        let around = around.map_err(|errors| Problem::texts(&errors))?;
        let given = route.fill.given(headers)?;
        let takes_bytes = route.target.binding.takes_bytes();
        let content_type = if takes_bytes { negotiate::content_type(headers).to_owned() } else { String::new() };
        Ok(Binder { shared: shared.clone(), route: route.clone(), around, given, content_type })
    }

    pub(super) fn takes_bytes(&self) -> bool {
        self.route.target.binding.takes_bytes()
    }

    /// The message of a JSON body, with its prefix.
    pub(super) fn json(&self, body: &[u8]) -> Result<Bytes, Problem> {
        let mut out = body::room(body.len());
        let binding = &self.route.target.binding;
        binding.message(&self.around, body, &self.shared.parse, &mut out).map_err(|error| Problem::text(&error))?;
        self.route.fill.fill(&self.given, body, body::PREFIX, &mut out)?;
        let limit = self.route.method.limits.max_request_bytes;
        if out.len() - body::PREFIX > limit { Err(Problem::too_large(limit)) } else { Ok(body::framed(out)) }
    }

    /// The message of a body that is bytes, with its prefix.
    pub(super) fn bytes(&self, data: &[u8]) -> Result<Bytes, Problem> {
        let mut out = body::room(data.len() + self.content_type.len() + 32);
        self.route.target.binding.bytes(&self.around, &self.content_type, data, &mut out);
        self.route.fill.fill(&self.given, b"", body::PREFIX, &mut out)?;
        Ok(body::framed(out))
    }
}

/// Appends the JSON of an answer's message, or of the one field the rule names.
pub(super) fn write(shared: &Shared, route: &Route, message: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let target = &route.target;
    let written = match &*target.response_body {
        "" => target.output.wire_to_json(message, &shared.print, out),
        field => target.output.field_to_json(field, message, &shared.print, out),
    };
    written.map_err(|error| unreadable(target.output.name(), &error))
}

/// An answer that does not fit its descriptor is the service's fault; what is wrong with it is for the log.
pub(super) fn unreadable(message: &str, error: &crate::Error) -> Problem {
    tracing::error!(message, %error, "an answer does not fit its descriptor");
    Problem::new(Code::Internal, "the service's answer could not be read")
}

fn respond(
    shared: &Arc<Shared>,
    route: &Arc<Route>,
    parts: &http::request::Parts,
    format: Format,
    begun: Begun,
    deadline: Instant,
) -> Result<Response<Body>, Problem> {
    let status = chosen_status(begun.messages.head(), &shared.status_key);
    let mut shown = HeaderMap::new();
    for metadata in [begun.messages.head(), begun.messages.trailers()] {
        show(&shared.expose, metadata, &shared.status_key, &mut shown);
    }
    let mut response = if route.bytes_out {
        respond_bytes(route, &parts.headers, begun, deadline)?
    } else if route.method.server_streaming {
        let mut response = Response::new(download::frames(shared.clone(), route.clone(), format, begun, deadline));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    } else {
        respond_json(shared, route, parts, &begun.first.unwrap_or_default())?
    };
    if response.status() == StatusCode::OK {
        *response.status_mut() = status;
    }
    response.headers_mut().extend(shown);
    Ok(response)
}

/// Metadata as headers.
pub(super) fn show(expose: &Passing, metadata: &HeaderMap, but: &HeaderName, headers: &mut HeaderMap) {
    for (name, value) in expose.outward(metadata, but) {
        headers.append(name.clone(), value.clone());
    }
}

fn respond_json(
    shared: &Shared,
    route: &Route,
    parts: &http::request::Parts,
    message: &[u8],
) -> Result<Response<Body>, Problem> {
    let etag = route
        .etag_out
        .and_then(|number| find_bytes(message, &[number]))
        .filter(|etag| !etag.is_empty())
        .and_then(|etag| HeaderValue::from_bytes(&[b"\"", etag, b"\""].concat()).ok());
    let is_read = matches!(parts.method, HttpMethod::GET | HttpMethod::HEAD);
    if let Some(etag) = etag.as_ref().filter(|etag| is_read && is_known(&parts.headers, etag)) {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().insert(header::ETAG, etag.clone());
        return Ok(response);
    }
    let mut text = Vec::with_capacity(message.len() * 2 + 16);
    write(shared, route, message, &mut text)?;
    let mut response = full(text, &parts.headers);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(etag) = etag {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}

/// A whole body, packed if the client takes that and it is worth it.
pub(super) fn full(text: Vec<u8>, asked: &HeaderMap) -> Response<Body> {
    let packed = text.len() > MIN_GZIP && negotiate::takes_gzip(asked);
    let text = if packed { body::gzip(&text) } else { text };
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(body::full(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// `google.api.HttpBody`: the bytes and the media type the service chose.
fn respond_bytes(
    route: &Route,
    headers: &HeaderMap,
    begun: Begun,
    deadline: Instant,
) -> Result<Response<Body>, Problem> {
    let first = begun.first.as_ref().map(|message| http_body(message, route.bytes_in));
    let (media, data) = first.unwrap_or_default();
    let media = if media.is_empty() { Bytes::from_static(b"application/octet-stream") } else { media };
    if !std::str::from_utf8(&media).is_ok_and(|media| negotiate::accepts(headers, media)) {
        return Err(not_acceptable());
    }
    let mut response = if route.method.server_streaming {
        Response::new(download::bytes(begun, route.bytes_in, deadline))
    } else {
        let length = HeaderValue::from(data.len());
        let mut response = Response::new(body::full(data));
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
        response
    };
    if let Ok(media) = HeaderValue::from_maybe_shared(media) {
        response.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    Ok(response)
}

/// Media type and bytes of a `google.api.HttpBody`, which is the message or its field `inside`.
pub(super) fn http_body(message: &Bytes, inside: Option<u32>) -> (Bytes, Bytes) {
    let part = |number: u32| {
        let (one, two) = ([number], [inside.unwrap_or_default(), number]);
        match find_bytes(message, if inside.is_some() { &two } else { &one }) {
            Some(bytes) if !bytes.is_empty() => message.slice_ref(bytes),
            Some(_) | None => Bytes::new(),
        }
    };
    (part(1), part(2))
}

fn chosen_status(metadata: &HeaderMap, key: &HeaderName) -> StatusCode {
    let chosen = metadata.get(key).and_then(|value| StatusCode::from_bytes(value.as_bytes()).ok());
    chosen.filter(|status| (200..400).contains(&status.as_u16())).unwrap_or(StatusCode::OK)
}

fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut given = given.flat_map(|value| value.split(',')).map(str::trim);
    given.any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given).as_bytes() == etag.as_bytes())
}
