//! What a method promises: who may call it, how long it may take, whether it may be retried, how it looks over HTTP.

use std::time::Duration;

/// One RPC method with everything its `.proto` promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The full name of its service, `stoa.ordering.v1.OrderingService`.
    pub service: &'static str,
    /// The method's own name, `PlaceOrder`.
    pub name: &'static str,
    /// The path of its calls, `/stoa.ordering.v1.OrderingService/PlaceOrder`.
    pub path: &'static str,
    /// The short name of the service that answers it, `ordering`.
    pub owner: &'static str,
    /// The full name of the request message.
    pub input: &'static str,
    /// The full name of the reply message.
    pub output: &'static str,
    /// Whether the caller sends a stream of requests.
    pub client_streaming: bool,
    /// Whether the callee answers with a stream of replies.
    pub server_streaming: bool,
    /// Who may call it.
    pub policy: Policy,
    /// Whether it may be sent again.
    pub idempotency: Idempotency,
    /// How long a call may take when the caller names no shorter time.
    pub deadline: Duration,
    /// Whether the request carries a `request_id`.
    pub request_id: bool,
    /// Whether the reply is a secret, which no store may remember.
    pub secret_reply: bool,
    /// The largest request message accepted, in bytes.
    pub max_request_bytes: u32,
    /// How long after it was given an answer may stand in for one that its service cannot give; zero where it may not.
    pub stale_for: Duration,
    /// Its HTTP bindings, the first one being the principal one.
    pub http: &'static [HttpRule],
}

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The least a caller from outside must present.
    pub access: Access,
    /// Whether the owning service checks that the caller owns the resource.
    pub owner: bool,
    /// The services that may call it, by short name.
    pub callers: &'static [&'static str],
}

/// The least a caller must present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing at all.
    Public,
    /// Any token: of a guest, a customer or an operator.
    Guest,
    /// A token of a customer or an operator.
    Customer,
    /// A token of an operator.
    Operator,
    /// A call from one of the services listed as callers, and nobody else.
    Internal,
}

/// What a person is to the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Someone who has not signed in.
    Guest,
    /// Someone who has.
    Customer,
    /// Someone who runs the shop.
    Operator,
}

impl Role {
    /// The role's name in tokens and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Customer => "customer",
            Self::Operator => "operator",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Guest, Self::Customer, Self::Operator].into_iter().find(|role| role.as_str() == name)
    }
}

/// Whether a method may be sent again, as `idempotency_level` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// Only under the same `request_id`.
    Unknown,
    /// Always: it changes nothing.
    NoSideEffects,
    /// Always: a second call changes nothing more.
    Idempotent,
}

/// One HTTP binding of a method, as `google.api.http` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpRule {
    /// The HTTP method.
    pub verb: Verb,
    /// The path template, `/v1/{name=orders/*}:cancel`.
    pub template: &'static str,
    /// Empty for no body, `*` for the whole request, else the request's field.
    pub body: &'static str,
    /// Empty for the whole reply, else the reply's field.
    pub response_body: &'static str,
}

/// An HTTP method that a binding may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
}

impl Verb {
    /// The verb as HTTP writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A table of methods that is looked up by path.
///
/// The generated tables are sorted by path, which makes a lookup a binary search; a table in any other order is still
/// answered correctly, only slower.
#[derive(Clone, Copy, Debug)]
pub struct Table(pub &'static [Method]);

impl Table {
    /// The method called by this path.
    pub fn by_path(&self, path: &str) -> Option<&'static Method> {
        match self.0.binary_search_by(|method| method.path.cmp(path)) {
            Ok(index) => self.0.get(index),
            Err(_) => self.0.iter().find(|method| method.path == path),
        }
    }

    /// All methods, in the order of their paths.
    pub fn iter(&self) -> std::slice::Iter<'static, Method> {
        self.0.iter()
    }

    /// The methods that the service of this short name answers.
    pub fn owned_by<'a>(&self, owner: &'a str) -> impl Iterator<Item = &'static Method> + use<'a> {
        self.0.iter().filter(move |method| method.owner == owner)
    }
}

impl IntoIterator for Table {
    type Item = &'static Method;
    type IntoIter = std::slice::Iter<'static, Method>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn method(path: &'static str) -> Method {
        Method {
            service: "stoa.test.v1.TestService",
            name: "Test",
            path,
            owner: "test",
            input: "stoa.test.v1.TestRequest",
            output: "stoa.test.v1.TestResponse",
            client_streaming: false,
            server_streaming: false,
            policy: Policy { access: Access::Public, owner: false, callers: &[] },
            idempotency: Idempotency::Unknown,
            deadline: Duration::from_secs(1),
            request_id: false,
            secret_reply: false,
            max_request_bytes: 1024,
            stale_for: Duration::ZERO,
            http: &[],
        }
    }

    static SORTED: [Method; 3] = [method("/a/A"), method("/a/B"), method("/b/A")];
    static SHUFFLED: [Method; 3] = [method("/b/A"), method("/a/B"), method("/a/A")];

    #[test]
    fn every_method_is_found_by_its_path_in_any_order_of_the_table() {
        for table in [Table(&SORTED), Table(&SHUFFLED)] {
            for path in ["/a/A", "/a/B", "/b/A"] {
                assert_eq!(table.by_path(path).unwrap().path, path);
            }
            assert!(table.by_path("/a/C").is_none());
        }
    }

    #[test]
    fn a_role_is_read_back_from_its_name() {
        for role in [Role::Guest, Role::Customer, Role::Operator] {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("admin"), None);
    }
}
