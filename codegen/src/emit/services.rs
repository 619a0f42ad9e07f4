//! Clients and servers by tonic: a client decodes plainly, a server checks the field rules before its handler runs.

use proc_macro2::TokenStream;
use prost_reflect::{MessageDescriptor, ServiceDescriptor};

use crate::names;
use crate::tree::{Package, Tree};

pub(crate) fn emit(tree: &Tree, package: &Package, source: &mut String) {
    let mut builder = tonic_build::CodeGenBuilder::new();
    builder.build_transport(false);
    for service in &package.services {
        let client = Service::new(tree, service, Side::Client);
        let server = Service::new(tree, service, Side::Server);
        source.push_str(&in_lines(builder.generate_client(&client, "")));
        source.push_str(&in_lines(builder.generate_server(&server, "")));
    }
}

/// In lines, because rustc quotes the line of a trait when a service forgets one of its methods.
fn in_lines(tokens: TokenStream) -> String {
    match syn::parse2(tokens.clone()) {
        Ok(file) => prettyplease::unparse(&file),
        Err(_) => format!("{tokens}\n"),
    }
}

#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

struct Service {
    name: String,
    identifier: String,
    package: String,
    comment: Vec<String>,
    methods: Vec<Method>,
}

struct Method {
    name: String,
    identifier: String,
    codec: &'static str,
    client_streaming: bool,
    server_streaming: bool,
    comment: Vec<String>,
    request: TokenStream,
    reply: TokenStream,
}

impl Service {
    fn new(tree: &Tree, service: &ServiceDescriptor, side: Side) -> Self {
        let file = service.parent_file();
        let methods = service.methods().map(|method| Method {
            name: names::snake(method.name()),
            identifier: method.name().to_owned(),
            codec: match side {
                // A type from outside has no rules of ours.
                Side::Server if names::is_own(tree, &method.input()) => "crate::codec::Validating",
                Side::Server | Side::Client => "::tonic_prost::ProstCodec",
            },
            client_streaming: method.is_client_streaming(),
            server_streaming: method.is_server_streaming(),
            comment: tree.comment(file.name(), method.path()),
            request: tokens(&method.input()),
            reply: tokens(&method.output()),
        });
        Self {
            name: names::camel(service.name()),
            identifier: service.name().to_owned(),
            package: service.package_name().to_owned(),
            comment: tree.comment(file.name(), service.path()),
            methods: methods.collect(),
        }
    }
}

fn tokens(message: &MessageDescriptor) -> TokenStream {
    // A path of identifiers always lexes.
    names::message(message).parse().unwrap_or_default()
}

impl tonic_build::Service for Service {
    type Comment = String;
    type Method = Method;

    fn name(&self) -> &str {
        &self.name
    }

    fn package(&self) -> &str {
        &self.package
    }

    fn identifier(&self) -> &str {
        &self.identifier
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn comment(&self) -> &[String] {
        &self.comment
    }
}

impl tonic_build::Method for Method {
    type Comment = String;

    fn name(&self) -> &str {
        &self.name
    }

    fn identifier(&self) -> &str {
        &self.identifier
    }

    fn codec_path(&self) -> &str {
        self.codec
    }

    fn client_streaming(&self) -> bool {
        self.client_streaming
    }

    fn server_streaming(&self) -> bool {
        self.server_streaming
    }

    fn comment(&self) -> &[String] {
        &self.comment
    }

    fn request_response_name(&self, _proto_path: &str, _compile_well_known_types: bool) -> (TokenStream, TokenStream) {
        (self.request.clone(), self.reply.clone())
    }
}
