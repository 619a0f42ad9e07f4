//! What a contract must keep, and what is read from it on the way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use crate::errors::{Errors, Problem};
use crate::names;
use crate::options::{self, Http};
use crate::routes::Template;
use crate::rules::{self, Exclusive, FieldRules};
use crate::tree::Tree;

/// A caller that answers no methods of its own.
const GATEWAY: &str = "gateway";

/// Caller that is neither: the operator's audit of a fleet.
const AUDIT: &str = "audit";

/// Seconds that a call may take when its contract does not say: long for a stream, which ends when its reader goes.
const DEFAULT_DEADLINE_SECONDS: i64 = 5;
const DEFAULT_STREAM_DEADLINE_SECONDS: i64 = 3600;
const DEFAULT_MAX_REQUEST_BYTES: u32 = 256 * 1024;

/// A tree that has passed every check.
pub(crate) struct Contract {
    /// Sorted by path.
    pub(crate) methods: Vec<Method>,
    /// By full name of the field; fields without rules are absent.
    pub(crate) rules: HashMap<String, FieldRules>,
    /// By full name of the message.
    pub(crate) exclusive: HashMap<String, Vec<Exclusive>>,
    /// By package: each event with the version of its schema.
    pub(crate) events: BTreeMap<String, Vec<(MessageDescriptor, u32)>>,
}

pub(crate) struct Method {
    pub(crate) descriptor: MethodDescriptor,
    pub(crate) path: String,
    /// The variant of `contract::Access`.
    pub(crate) access: String,
    pub(crate) owner_checked: bool,
    pub(crate) callers: Vec<String>,
    /// The variant of `contract::Idempotency`.
    pub(crate) idempotency: &'static str,
    pub(crate) deadline: (i64, i32),
    pub(crate) request_id: bool,
    pub(crate) secret_reply: bool,
    pub(crate) max_request_bytes: u32,
    pub(crate) stale_for: (i64, i32),
    pub(crate) http: Vec<Http>,
}

pub(crate) fn check(tree: &Tree) -> Result<Contract, Errors> {
    let mut problems = Vec::new();
    let contract = Contract {
        methods: methods(tree, &mut problems),
        events: events(tree, &mut problems),
        exclusive: HashMap::new(),
        rules: HashMap::new(),
    };
    let contract = fields(tree, contract, &mut problems);
    Errors::unless_empty(problems)?;
    Ok(contract)
}

fn methods(tree: &Tree, problems: &mut Vec<Problem>) -> Vec<Method> {
    let services = || tree.packages.values().flat_map(|package| &package.services);
    let mut known: BTreeSet<&str> = services().map(|service| names::owner(service.package_name())).collect();
    known.extend([GATEWAY, AUDIT]);
    // Verb and shape of every route seen so far, with the method that has it.
    let mut routes: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut methods = Vec::new();
    for descriptor in services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let mut faults = Vec::new();
        methods.push(method(tree, &descriptor, &known, &mut routes, &mut faults));
        let problem = |text| Problem {
            file: descriptor.parent_file().name().to_owned(),
            subject: descriptor.full_name().to_owned(),
            text,
        };
        problems.extend(faults.into_iter().map(problem));
    }
    methods.sort_by(|a, b| a.path.cmp(&b.path));
    methods
}

fn method(
    tree: &Tree,
    descriptor: &MethodDescriptor,
    known: &BTreeSet<&str>,
    routes: &mut BTreeMap<(String, String), String>,
    faults: &mut Vec<String>,
) -> Method {
    let policy = options::policy(tree, descriptor);
    let http = options::http(tree, descriptor);
    match &policy {
        None => faults.push("has no policy: say who may call it with (stoa.contract.v1.policy)".to_owned()),
        Some(policy) => {
            if policy.access.is_empty() {
                faults.push("has a policy without access".to_owned());
            }
            if policy.access == "ACCESS_INTERNAL" && policy.callers.is_empty() {
                faults.push("is internal and names no callers".to_owned());
            }
            if policy.access == "ACCESS_INTERNAL" && !http.is_empty() {
                faults.push("is internal and has an HTTP binding".to_owned());
            }
            for caller in policy.callers.iter().filter(|caller| !known.contains(caller.as_str())) {
                faults.push(format!("may be called by {caller:?}, which is no service"));
            }
        }
    }

    let input = descriptor.input();
    let request_id =
        input.get_field_by_name("request_id").is_some_and(|field| field.kind() == Kind::String && !field.is_list());
    let secret_reply = options::secret_reply(tree, descriptor);
    let idempotency =
        match descriptor.method_descriptor_proto().options.as_ref().map(|options| options.idempotency_level()) {
            Some(prost_types::method_options::IdempotencyLevel::NoSideEffects) => "NoSideEffects",
            Some(prost_types::method_options::IdempotencyLevel::Idempotent) => "Idempotent",
            Some(prost_types::method_options::IdempotencyLevel::IdempotencyUnknown) | None => "Unknown",
        };
    if idempotency == "Unknown" && !request_id && !secret_reply {
        faults.push(format!(
            "has effects, and can be repeated neither by idempotency_level nor by a request_id in {}",
            input.full_name()
        ));
    }
    let deadline = options::deadline(tree, descriptor);
    if deadline.is_some_and(|deadline| deadline <= (0, 0)) {
        faults.push("has a deadline that is not positive".to_owned());
    }
    let stale_for = options::stale_for(tree, descriptor);
    let streaming = descriptor.is_client_streaming() || descriptor.is_server_streaming();
    if let Some(stale_for) = stale_for {
        let public = policy.as_ref().is_some_and(|policy| policy.access == "ACCESS_PUBLIC");
        if stale_for <= (0, 0) {
            faults.push("has a stale_for that is not positive".to_owned());
        } else if !public || streaming || idempotency != "NoSideEffects" {
            faults.push("has stale_for, and is not a public unary method without side effects".to_owned());
        }
    }
    for rule in &http {
        binding(descriptor, rule, routes, faults);
    }

    let default_deadline = if streaming { DEFAULT_STREAM_DEADLINE_SECONDS } else { DEFAULT_DEADLINE_SECONDS };
    let policy = policy.unwrap_or(options::Policy { access: String::new(), owner: false, callers: Vec::new() });
    Method {
        path: format!("/{}/{}", descriptor.parent_service().full_name(), descriptor.name()),
        access: names::camel(policy.access.trim_start_matches("ACCESS_")),
        owner_checked: policy.owner,
        callers: policy.callers,
        idempotency,
        deadline: deadline.unwrap_or((default_deadline, 0)),
        request_id,
        secret_reply,
        max_request_bytes: options::max_request_bytes(tree, descriptor).unwrap_or(DEFAULT_MAX_REQUEST_BYTES),
        stale_for: stale_for.unwrap_or((0, 0)),
        http,
        descriptor: descriptor.clone(),
    }
}

fn binding(
    method: &MethodDescriptor,
    rule: &Http,
    routes: &mut BTreeMap<(String, String), String>,
    faults: &mut Vec<String>,
) {
    let input = method.input();
    let verb = rule.verb.to_uppercase();
    if rule.verb.is_empty() || rule.verb == "custom" {
        faults.push("has an HTTP binding that is none of get, post, put, patch, delete".to_owned());
        return;
    }
    let template = match Template::parse(&rule.template) {
        Ok(template) => template,
        Err(fault) => return faults.push(fault),
    };
    for variable in &template.variables {
        match field_at(&input, variable) {
            None => {
                faults.push(format!("binds the path variable {variable:?}, which is no field of {}", input.full_name()))
            }
            Some(field) if field.is_list() || field.is_map() || !is_path_kind(&field.kind()) => {
                faults.push(format!(
                    "binds the path variable {variable:?}, which is not a single string, number, bool or enum"
                ));
            }
            Some(_) => {}
        }
    }
    if verb == "GET" && !rule.body.is_empty() {
        faults.push("has a body on GET".to_owned());
    } else if !rule.body.is_empty() && rule.body != "*" && input.get_field_by_name(&rule.body).is_none() {
        faults.push(format!("binds the body to {:?}, which is no field of {}", rule.body, input.full_name()));
    } else if template.variables.contains(&rule.body) {
        faults.push(format!("binds {:?} both to the path and to the body", rule.body));
    }
    let output = method.output();
    if !rule.response_body.is_empty() && output.get_field_by_name(&rule.response_body).is_none() {
        faults.push(format!("answers with {:?}, which is no field of {}", rule.response_body, output.full_name()));
    }
    let shape = template.shape();
    if let Some(other) = routes.insert((verb.clone(), shape), method.full_name().to_owned()) {
        faults.push(format!("has the route {verb} {}, which collides with that of {other}", rule.template));
    }
}

fn is_path_kind(kind: &Kind) -> bool {
    !matches!(kind, Kind::Message(_) | Kind::Bytes | Kind::Double | Kind::Float)
}

/// The field at a dotted path below a message.
fn field_at(message: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let field = message.get_field_by_name(first)?;
    match rest {
        None => Some(field),
        Some(_) if field.is_list() || field.is_map() => None,
        Some(rest) => field_at(field.kind().as_message()?, rest),
    }
}

fn events(tree: &Tree, problems: &mut Vec<Problem>) -> BTreeMap<String, Vec<(MessageDescriptor, u32)>> {
    let mut events: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (name, package) in &tree.packages {
        let mut list = Vec::new();
        for message in &package.messages {
            let Some(schema) = options::event_schema(tree, message) else {
                continue;
            };
            let mut fault = |text: &str| {
                problems.push(Problem {
                    file: message.parent_file().name().to_owned(),
                    subject: message.full_name().to_owned(),
                    text: text.to_owned(),
                })
            };
            if schema == 0 {
                fault("is an event without a schema version");
            }
            if message.parent_message().is_some() {
                fault("is an event inside another message");
            }
            list.push((message.clone(), schema));
        }
        let taken = package
            .messages
            .iter()
            .find(|message| message.parent_message().is_none() && names::camel(message.name()) == "Event");
        if let Some(message) = taken.filter(|_| !list.is_empty()) {
            let text = "has the name of the package's set of events".to_owned();
            problems.push(Problem {
                file: message.parent_file().name().to_owned(),
                subject: message.full_name().to_owned(),
                text,
            });
        }
        if !list.is_empty() {
            list.sort_by(|(a, _), (b, _)| a.name().cmp(b.name()));
            events.insert(name.clone(), list);
        }
    }
    events
}

fn fields(tree: &Tree, mut contract: Contract, problems: &mut Vec<Problem>) -> Contract {
    for message in tree.packages.values().flat_map(|package| &package.messages) {
        let file = message.parent_file().name().to_owned();
        let mut faults = Vec::new();
        let exclusive = rules::exclusive(tree, message, &mut faults);
        if !exclusive.is_empty() {
            contract.exclusive.insert(message.full_name().to_owned(), exclusive);
        }
        problems.extend(faults.into_iter().map(|text| Problem {
            file: file.clone(),
            subject: message.full_name().to_owned(),
            text,
        }));
        for field in message.fields() {
            let mut faults = Vec::new();
            let rules = rules::of_field(tree, &field, &mut faults);
            if options::personal(tree, &field) && !may_be_personal(&field) {
                faults.push("is marked personal and is no text: mark the text fields below it".to_owned());
            }
            problems.extend(faults.into_iter().map(|text| Problem {
                file: file.clone(),
                subject: field.full_name().to_owned(),
                text,
            }));
            if !rules.is_empty() || rules.ignore {
                contract.rules.insert(field.full_name().to_owned(), rules);
            }
        }
    }
    contract
}

fn may_be_personal(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind() == Kind::String,
        kind => kind == Kind::String,
    }
}
