//! Descriptors compiled into what a request needs: routes with their bindings, methods with their limits.
//!
//! Invariant: what loads can be served; a template that does not parse, a variable or body that is no fitting field, and two
//! routes that collide are errors of loading and name the method.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::Method as HttpMethod;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ReflectMessage as _, Value,
};

use super::{
    route::{Collision, Router},
    template::{Template, TemplateError},
};

/// What the contract allows a call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The total time.
    pub deadline: Duration,
    /// The largest request message on the wire; JSON may be [`JSON_FACTOR`] times as long.
    pub max_request_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { deadline: Duration::from_secs(10), max_request_bytes: 256 << 10 }
    }
}

/// How much longer than its wire form a JSON text may be.
pub const JSON_FACTOR: usize = 4;

/// One RPC method.
#[derive(Debug)]
pub struct Method {
    /// `/package.Service/Name`, the path of a gRPC call.
    pub path: String,
    /// The full name of the service.
    pub service: String,
    /// The request message.
    pub input: MessageDescriptor,
    /// The answer message.
    pub output: MessageDescriptor,
    /// True if the client sends many messages.
    pub client_streaming: bool,
    /// True if the server sends many messages.
    pub server_streaming: bool,
    /// Time and size.
    pub limits: Limits,
    /// The number of the string field `request_id`.
    pub(crate) request_id: Option<u32>,
    /// The only `google.protobuf.FieldMask` field.
    pub(crate) mask: Option<FieldDescriptor>,
}

/// One HTTP binding of a method.
#[derive(Debug)]
pub struct Route {
    /// The method that is called.
    pub method: Arc<Method>,
    /// True for PATCH, whose field mask may be left to the gateway.
    pub(crate) patch: bool,
    pub(crate) body: Body,
    /// The answer's field that becomes the body, if not the whole answer.
    pub(crate) answer: Option<FieldDescriptor>,
    /// The field each variable of the template binds, outermost first.
    pub(crate) variables: Vec<Vec<FieldDescriptor>>,
    /// The field `If-Match` fills.
    pub(crate) etag_in: Option<Vec<u32>>,
    /// The answer's field that is its `ETag`.
    pub(crate) etag_out: Option<u32>,
}

/// Where the request body goes.
#[derive(Debug)]
pub(crate) enum Body {
    None,
    Whole,
    Field(FieldDescriptor),
}

/// Why descriptors cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The set itself is broken.
    #[error("the descriptor set cannot be read: {0}")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    /// A path template does not parse.
    #[error("{method}: {source}")]
    Template {
        /// The full name of the method.
        method: String,
        /// Where and why.
        source: TemplateError,
    },
    /// A variable or body names no fitting field.
    #[error("{method}: {reason}")]
    Binding {
        /// The full name of the method.
        method: String,
        /// What does not fit.
        reason: String,
    },
    /// Two routes answer the same requests.
    #[error("{method}: {source}")]
    Collision {
        /// The full name of the second method.
        method: String,
        /// Which requests.
        source: Collision,
    },
}

/// All routes and methods of a descriptor set.
#[derive(Debug)]
pub struct Table {
    /// The routes by path and HTTP method.
    pub routes: Router<Arc<Route>>,
    /// The methods by gRPC path.
    pub methods: HashMap<String, Arc<Method>>,
}

impl Table {
    /// Compiles every service of the pool.
    pub fn load(pool: &DescriptorPool, limits: &dyn Fn(&str) -> Limits) -> Result<Self, LoadError> {
        let extension = pool.get_extension_by_name("google.api.http");
        let mut table = Table { routes: Router::default(), methods: HashMap::new() };
        for descriptor in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let method = Arc::new(Method::load(&descriptor, limits));
            table.methods.insert(method.path.clone(), method.clone());
            let options = descriptor.options();
            let Some(extension) = extension.as_ref().filter(|extension| options.has_extension(extension)) else {
                continue;
            };
            let value = options.get_extension(extension);
            if let Value::Message(rule) = value.as_ref() {
                table.add(&method, rule)?;
                for binding in messages(rule, "additional_bindings") {
                    table.add(&method, &binding)?;
                }
            }
        }
        Ok(table)
    }

    fn add(&mut self, method: &Arc<Method>, rule: &DynamicMessage) -> Result<(), LoadError> {
        let fail = |reason: String| LoadError::Binding { method: method.path.clone(), reason };
        let (verb, path) = pattern(rule).ok_or_else(|| fail("the HTTP rule has no path".to_owned()))?;
        let template =
            Template::parse(&path).map_err(|source| LoadError::Template { method: method.path.clone(), source })?;
        let verb = match verb.as_str() {
            "*" => None,
            name => {
                Some(HttpMethod::from_bytes(name.as_bytes()).map_err(|_| fail(format!("{name:?} is no HTTP method")))?)
            }
        };
        let variables = template
            .variables
            .iter()
            .map(|variable| variable_fields(&method.input, &variable.path))
            .collect::<Result<Vec<_>, _>>()
            .map_err(fail)?;
        let body = match text(rule, "body").as_str() {
            "" => Body::None,
            _ if matches!(verb, Some(HttpMethod::GET | HttpMethod::HEAD)) => {
                return Err(fail("a GET has no body".to_owned()));
            }
            "*" => Body::Whole,
            name => Body::Field(
                method
                    .input
                    .get_field_by_name(name)
                    .ok_or_else(|| fail(format!("body `{name}` is no field of {}", method.input.full_name())))?,
            ),
        };
        let answer =
            match text(rule, "response_body").as_str() {
                "" => None,
                name => Some(method.output.get_field_by_name(name).ok_or_else(|| {
                    fail(format!("response_body `{name}` is no field of {}", method.output.full_name()))
                })?),
            };
        let etag_in = string_field(&method.input, "etag").map(|number| vec![number]).or_else(|| match &body {
            Body::Field(field) => {
                message_of(field).and_then(|inner| Some(vec![field.number(), string_field(&inner, "etag")?]))
            }
            Body::None | Body::Whole => None,
        });
        let etag_out =
            if answer.is_none() && !method.server_streaming { string_field(&method.output, "etag") } else { None };
        let route = Route {
            method: method.clone(),
            patch: verb == Some(HttpMethod::PATCH),
            body,
            answer,
            variables,
            etag_in,
            etag_out,
        };
        self.routes
            .insert(verb, template, Arc::new(route))
            .map_err(|source| LoadError::Collision { method: method.path.clone(), source })
    }
}

impl Method {
    fn load(descriptor: &MethodDescriptor, limits: &dyn Fn(&str) -> Limits) -> Self {
        let service = descriptor.parent_service().full_name().to_owned();
        let path = format!("/{service}/{}", descriptor.name());
        let input = descriptor.input();
        let masks: Vec<FieldDescriptor> =
            input.fields().filter(|field| !field.is_list() && is_message(field, "google.protobuf.FieldMask")).collect();
        Method {
            limits: limits(&path),
            path,
            service,
            output: descriptor.output(),
            client_streaming: descriptor.is_client_streaming(),
            server_streaming: descriptor.is_server_streaming(),
            request_id: string_field(&input, "request_id"),
            mask: <[_; 1]>::try_from(masks).ok().map(|[mask]| mask),
            input,
        }
    }
}

/// The message type of a singular or repeated message field.
pub(crate) fn message_of(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    field.kind().as_message().cloned()
}

/// True for a field of the message type with this name.
pub(crate) fn is_message(field: &FieldDescriptor, name: &str) -> bool {
    field.kind().as_message().is_some_and(|message| message.full_name() == name)
}

/// True for `google.api.HttpBody`, which stands for bytes that are no JSON.
pub(crate) fn is_raw(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.api.HttpBody"
}

fn string_field(message: &MessageDescriptor, name: &str) -> Option<u32> {
    let field = message.get_field_by_name(name)?;
    (field.kind() == Kind::String && field.cardinality() != Cardinality::Repeated).then(|| field.number())
}

fn variable_fields(input: &MessageDescriptor, path: &str) -> Result<Vec<FieldDescriptor>, String> {
    let mut fields: Vec<FieldDescriptor> = Vec::new();
    let mut message = Some(input.clone());
    for part in path.split('.') {
        let parent = message.ok_or_else(|| format!("variable `{path}` goes into a field that is no message"))?;
        let field = parent
            .get_field_by_name(part)
            .ok_or_else(|| format!("variable `{path}`: {} has no field `{part}`", parent.full_name()))?;
        if field.cardinality() == Cardinality::Repeated {
            return Err(format!("variable `{path}` is repeated"));
        }
        message = message_of(&field);
        fields.push(field);
    }
    if message.is_some() { Err(format!("variable `{path}` is a message")) } else { Ok(fields) }
}

fn pattern(rule: &DynamicMessage) -> Option<(String, String)> {
    for name in ["get", "put", "post", "delete", "patch"] {
        let path = text(rule, name);
        if !path.is_empty() {
            return Some((name.to_ascii_uppercase(), path));
        }
    }
    let field = rule.descriptor().get_field_by_name("custom")?;
    let value = rule.get_field(&field);
    let custom = value.as_message()?;
    Some((text(custom, "kind"), text(custom, "path"))).filter(|(kind, path)| !kind.is_empty() && !path.is_empty())
}

fn text(message: &DynamicMessage, name: &str) -> String {
    message.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn messages(message: &DynamicMessage, name: &str) -> Vec<DynamicMessage> {
    let value = message.get_field_by_name(name);
    let list = value.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
    list.iter().filter_map(|value| value.as_message().cloned()).collect()
}
