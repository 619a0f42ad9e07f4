//! Where a call goes: to the service that owns the method, or, for operations, to the service named in the request.

use std::collections::HashMap;

use auth::Principal;
use client::{Caller as Clients, Channel, Outgoing};
use contract::Table;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use prost_reflect::DescriptorPool;
use telemetry::Trace;
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower::Service as _;

use crate::transcode::{Call, Upstream, wire};

/// The owner of methods that every service answers.
const OPERATIONS: &str = "operations";

/// Who sent a request and in which story, as the door found out; an extension of the request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    pub(crate) trace: Trace,
}

/// The channels to all services, made once.
pub(crate) struct Services {
    methods: Table,
    channels: HashMap<&'static str, Channel>,
    /// For each method of operations, the numbers of the fields that may hold `services/{service}/...`.
    named_by: HashMap<String, Vec<u32>>,
}

impl Services {
    pub(crate) fn new(pool: &DescriptorPool, methods: Table, clients: &Clients) -> Self {
        let mut channels = HashMap::new();
        let mut named_by = HashMap::new();
        for method in methods.iter() {
            if method.owner == OPERATIONS {
                let input = pool.get_message_by_name(method.input);
                let fields = ["name", "parent"]
                    .iter()
                    .filter_map(|field| Some(input.as_ref()?.get_field_by_name(field)?.number()));
                named_by.insert(method.path.to_owned(), fields.collect());
            } else {
                channels.entry(method.owner).or_insert_with(|| clients.channel(method.owner));
            }
        }
        // Beside the services, the process of the gateway itself can be asked for what it did.
        channels.entry(auth::GATEWAY).or_insert_with(|| clients.channel(auth::GATEWAY));
        Services { methods, channels, named_by }
    }

    /// True if the first message must be seen before it is known where the call goes.
    pub(crate) fn needs_first_message(&self, path: &str) -> bool {
        self.named_by.contains_key(path)
    }

    /// The channel for a call.
    pub(crate) fn channel(&self, path: &str, first: Option<&[u8]>) -> Result<Channel, Status> {
        let owner = match self.named_by.get(path) {
            Some(fields) => {
                let name = first
                    .and_then(|message| fields.iter().find_map(|field| wire::find_text(message, &[*field])))
                    .unwrap_or_default();
                service_in(name).ok_or_else(|| {
                    server::status::invalid_argument("name", "is not of the form services/{service}/...")
                })?
            }
            None => self
                .methods
                .by_path(path)
                .map(|method| method.owner)
                .ok_or_else(|| Status::unimplemented("no such method"))?,
        };
        self.channels.get(owner).cloned().ok_or_else(|| server::status::not_found(&format!("services/{owner}")))
    }
}

fn service_in(name: &str) -> Option<&str> {
    let service = name.strip_prefix("services/")?.split('/').next()?;
    (!service.is_empty()).then_some(service)
}

/// Turns what the door found out into what the channel takes.
pub(crate) fn address(request: &mut Request<Body>, deadline: Option<Instant>) {
    let caller = request.extensions_mut().remove::<Caller>();
    let (principal, trace) =
        caller.map_or_else(|| (Principal::Anonymous, Trace::new_root()), |caller| (caller.principal, caller.trace));
    request.extensions_mut().insert(Outgoing { principal, trace, deadline });
}

impl Upstream for Services {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Response<Body>, Status>> {
        match self.channel(&call.method.path, call.first.as_deref()) {
            Ok(mut channel) => {
                let mut request = call.request;
                address(&mut request, Some(call.deadline));
                channel.call(request)
            }
            Err(status) => Box::pin(std::future::ready(Err(status))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_the_second_part_of_an_operations_name() {
        assert_eq!(service_in("services/ordering/sagas/1"), Some("ordering"));
        assert_eq!(service_in("services/ordering"), Some("ordering"));
        for bad in ["", "services", "services/", "orders/1", "services//sagas/1"] {
            assert_eq!(service_in(bad), None, "{bad:?}");
        }
    }
}
