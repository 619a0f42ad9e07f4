//! The rules of `google.api.http`, read from descriptors and compiled into a router.
//!
//! Invariant: a rule that is in the table can be followed: its template parses, its variables and its body are fields of
//! the method's input, and no other rule answers the same requests. What cannot be followed fails when it is loaded.

use http::Method;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};

use crate::{
    Binding, BindingError, Codec, Schema,
    route::{Collision, Router},
    template::{Template, TemplateError},
};

/// What a route leads to.
#[derive(Debug, Clone)]
pub struct Target {
    /// The path of the call, `/shop.v1.Orders/GetOrder`.
    pub grpc_path: String,
    /// The request is a stream of messages.
    pub client_streaming: bool,
    /// The answer is a stream of messages.
    pub server_streaming: bool,
    /// The method of HTTP; none is any.
    pub verb: Option<Method>,
    /// The fields that the path names, as the template writes them.
    pub variables: Vec<String>,
    /// The field of the input that is the body; a star for all of it, empty for none.
    pub body: String,
    /// How a request becomes the input.
    pub binding: Binding,
    /// The codec of the input.
    pub input: Codec,
    /// The codec of the output.
    pub output: Codec,
    /// The field of the output that is the body of the answer; empty for all of it.
    pub response_body: String,
}

/// A rule that cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{method}: {reason}")]
pub struct RuleError {
    /// The method's full name.
    pub method: String,
    /// What is wrong with its rule.
    pub reason: Reason,
}

/// Why a rule cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The template does not parse.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A variable or the body is no fit field.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// Another rule answers the same requests.
    #[error(transparent)]
    Collision(#[from] Collision),
    /// The rule has no pattern, or a custom one whose kind is no method of HTTP.
    #[error("the rule has no method or path")]
    Pattern,
    /// A GET whose rule has a body.
    #[error("a GET has no body")]
    GetBody,
    /// The output has no such field.
    #[error("the output has no field `{0}` to answer with")]
    ResponseBody(String),
}

impl Target {
    /// True if the body of the answer is bytes of any media type: a `google.api.HttpBody`.
    pub(crate) fn bytes_out(&self) -> bool {
        let name = match &*self.response_body {
            "" => Some(self.output.name()),
            field => self.output.message_in(field),
        };
        name == Some("google.api.HttpBody")
    }
}

/// Compiles the rules of all methods in a pool; methods without one have no route.
pub fn router(schema: &Schema, pool: &DescriptorPool) -> Result<Router<Target>, RuleError> {
    router_of(schema, pool, &|_| true)
}

/// Compiles the rules of the services that are wanted, by their full names.
pub(crate) fn router_of(
    schema: &Schema,
    pool: &DescriptorPool,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Router<Target>, RuleError> {
    let mut router = Router::default();
    let Some(extension) = pool.get_extension_by_name("google.api.http") else { return Ok(router) };
    let services = pool.services().filter(|service| wanted(service.full_name()));
    for method in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let options = method.options();
        if !options.has_extension(&extension) {
            continue;
        }
        let found = options.get_extension(&extension);
        let Some(rule) = found.as_message() else { continue };
        let further = rule.get_field_by_name("additional_bindings");
        let further = further.as_deref().and_then(Value::as_list).unwrap_or_default();
        for rule in std::iter::once(rule).chain(further.iter().filter_map(Value::as_message)) {
            add(&mut router, schema, &method, rule)
                .map_err(|reason| RuleError { method: method.full_name().to_owned(), reason })?;
        }
    }
    Ok(router)
}

fn add(
    router: &mut Router<Target>,
    schema: &Schema,
    method: &MethodDescriptor,
    rule: &DynamicMessage,
) -> Result<(), Reason> {
    let (verb, path) = pattern(rule).ok_or(Reason::Pattern)?;
    let template = Template::parse(&path)?;
    let input = method.input();
    let output = method.output();
    let response_body = text(rule, "response_body");
    let known = output.get_field_by_name(&response_body).is_some() || response_body.is_empty();
    let codecs = schema.codec(input.full_name()).zip(schema.codec(output.full_name()));
    // A pool is complete, so this can only be a schema of another pool.
    let (input, output) = codecs.ok_or(Reason::Pattern)?;
    if !known {
        return Err(Reason::ResponseBody(response_body));
    }
    let body = text(rule, "body");
    if verb == Some(Method::GET) && !body.is_empty() {
        return Err(Reason::GetBody);
    }
    let variables: Vec<&str> = template.variables.iter().map(|variable| variable.path.as_str()).collect();
    let target = Target {
        grpc_path: format!("/{}/{}", method.parent_service().full_name(), method.name()),
        client_streaming: method.is_client_streaming(),
        server_streaming: method.is_server_streaming(),
        binding: Binding::new(&input, &variables, &body)?,
        verb: verb.clone(),
        variables: variables.into_iter().map(str::to_owned).collect(),
        body,
        input,
        output,
        response_body,
    };
    Ok(router.insert(verb, template, target)?)
}

/// The method, none for any, and the template of a rule.
fn pattern(rule: &DynamicMessage) -> Option<(Option<Method>, String)> {
    let plain = [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ];
    for (field, method) in plain {
        if rule.has_field_by_name(field) {
            return Some((Some(method), text(rule, field)));
        }
    }
    let custom = rule.get_field_by_name("custom")?;
    let custom = custom.as_message()?;
    let kind = text(custom, "kind");
    let method = if kind == "*" { None } else { Some(Method::from_bytes(kind.as_bytes()).ok()?) };
    Some((method, text(custom, "path")))
}

fn text(message: &DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field);
    value.as_deref().and_then(Value::as_str).unwrap_or_default().to_owned()
}
