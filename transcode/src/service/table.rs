//! Descriptors compiled into what a request needs: methods with their codecs and limits, and routes to them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::Uri;
use prost_reflect::{DescriptorPool, MethodDescriptor};

use super::fill::Fill;
use crate::{
    Codec, Schema,
    route::Router,
    rule::{self, Reason, RuleError, Target},
};

/// What a call may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The total time of a call, streams included; a client may ask for less.
    pub deadline: Duration,
    /// The longest request message on the wire; its JSON may be [`JSON_FACTOR`] times as long.
    pub max_request_bytes: usize,
}

impl Default for Limits {
    /// A minute and 4 MiB.
    fn default() -> Self {
        Limits { deadline: Duration::from_secs(60), max_request_bytes: 4 << 20 }
    }
}

/// How much longer than its wire form a JSON text may be.
pub const JSON_FACTOR: usize = 4;

/// One method.
#[derive(Debug)]
pub struct Method {
    /// The path of a call, `/shop.v1.Orders/GetOrder`.
    pub path: String,
    /// The request message.
    pub input: Codec,
    /// The answer message.
    pub output: Codec,
    /// The client sends many messages.
    pub client_streaming: bool,
    /// The server sends many messages.
    pub server_streaming: bool,
    /// The method has no side effects: its `idempotency_level` says so.
    pub safe: bool,
    /// Time and size.
    pub limits: Limits,
    pub(crate) uri: Uri,
}

/// A rule of a method.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) target: Target,
    pub(crate) method: Arc<Method>,
    pub(crate) fill: Fill,
    /// The answer is a `google.api.HttpBody`.
    pub(crate) bytes_out: bool,
    /// The field that holds it, if it is not the whole answer.
    pub(crate) bytes_in: Option<u32>,
    /// The answer's field that is its `ETag`.
    pub(crate) etag_out: Option<u32>,
}

/// All methods and routes.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) methods: HashMap<String, Arc<Method>>,
    pub(crate) routes: Router<Arc<Route>>,
}

impl Table {
    /// Compiles those services of the pool that are wanted.
    pub(crate) fn new(
        schema: &Schema,
        pool: &DescriptorPool,
        wanted: &dyn Fn(&str) -> bool,
        limits: &dyn Fn(&str) -> Limits,
    ) -> Result<Self, RuleError> {
        let descriptors = pool
            .services()
            .filter(|service| wanted(service.full_name()))
            .flat_map(|service| service.methods().collect::<Vec<_>>());
        let mut found = HashMap::new();
        for descriptor in descriptors {
            // A pool is complete, so this can only be a schema of another pool.
            let method = Method::new(schema, &descriptor, limits)
                .ok_or_else(|| RuleError { method: descriptor.full_name().to_owned(), reason: Reason::Pattern })?;
            found.insert(method.path.clone(), (Arc::new(method), descriptor));
        }
        let routes = rule::router_of(schema, pool, wanted)?;
        let routes = routes.map(|target| {
            let (method, descriptor) = &found[&target.grpc_path];
            Arc::new(Route::new(target, method, descriptor))
        });
        let methods = found.into_iter().map(|(path, (method, _))| (path, method)).collect();
        Ok(Table { methods, routes })
    }
}

impl Route {
    fn new(target: Target, method: &Arc<Method>, descriptor: &MethodDescriptor) -> Self {
        let whole = target.response_body.is_empty() && !method.server_streaming;
        let field = descriptor.output().get_field_by_name(&target.response_body);
        Route {
            fill: Fill::new(&target, descriptor),
            method: method.clone(),
            bytes_out: target.bytes_out(),
            bytes_in: field.map(|field| field.number()),
            etag_out: if whole { target.output.string_field("etag") } else { None },
            target,
        }
    }
}

impl Method {
    fn new(schema: &Schema, descriptor: &MethodDescriptor, limits: &dyn Fn(&str) -> Limits) -> Option<Self> {
        /// `NO_SIDE_EFFECTS` of `google.protobuf.MethodOptions.IdempotencyLevel`.
        const NO_SIDE_EFFECTS: i32 = 1;
        let path = format!("/{}/{}", descriptor.parent_service().full_name(), descriptor.name());
        let level =
            descriptor.options().get_field_by_name("idempotency_level").and_then(|level| level.as_enum_number());
        Some(Method {
            input: schema.codec(descriptor.input().full_name())?,
            output: schema.codec(descriptor.output().full_name())?,
            client_streaming: descriptor.is_client_streaming(),
            server_streaming: descriptor.is_server_streaming(),
            safe: level == Some(NO_SIDE_EFFECTS),
            limits: limits(&path),
            // A path made of two identifiers always parses.
            uri: path.parse().unwrap_or_default(),
            path,
        })
    }
}
