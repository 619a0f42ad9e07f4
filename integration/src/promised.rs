//! What the contracts promise, as a stranger reads it: who may call a method, and which may be sent again.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use prost_reflect::{DescriptorPool, MethodDescriptor, Value};

/// They speak for people, and may do what any person may.
const FOR_PEOPLE: [&str; 2] = ["gateway", "operator"];
/// Reads logs.
const AUDIT: &str = "audit";
/// Number of `ACCESS_INTERNAL`: closed to people.
const INTERNAL: i32 = 5;
/// Numbers of `NO_SIDE_EFFECTS` and `IDEMPOTENT`.
const AGAIN: [i32; 2] = [1, 2];

/// All methods of all services.
#[derive(Debug)]
pub struct Contracts {
    methods: Vec<Method>,
    /// Whose log is followed by everybody who may read one.
    readers: BTreeSet<String>,
}

/// One of them.
#[derive(Debug)]
pub struct Method {
    owner: String,
    service: String,
    name: String,
    internal: bool,
    callers: BTreeSet<String>,
    /// Whether a second call changes nothing more, and it is one message that can be kept.
    pub may_be_sent_again: bool,
}

impl Method {
    /// Whether a process may call it.
    pub fn admits(&self, caller: &str) -> bool {
        self.callers.contains(caller) || (!self.internal && FOR_PEOPLE.contains(&caller))
    }

    fn read(method: &MethodDescriptor, pool: &DescriptorPool) -> Option<Self> {
        let policy = pool.get_extension_by_name("stoa.contract.v1.policy")?;
        let options = method.options();
        let policy = options.get_extension(&policy).as_message()?.clone();
        let callers = policy.get_field_by_name("callers")?;
        let callers = callers.as_list()?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let level = options.get_field_by_name("idempotency_level")?.as_enum_number()?;
        let package = method.parent_service().package_name().to_owned();
        Some(Self {
            owner: package.strip_prefix("stoa.")?.strip_suffix(".v1")?.to_owned(),
            service: method.parent_service().full_name().to_owned(),
            name: method.name().to_owned(),
            internal: policy.get_field_by_name("access")?.as_enum_number()? == INTERNAL,
            callers,
            may_be_sent_again: AGAIN.contains(&level) && !method.is_client_streaming(),
        })
    }
}

impl Contracts {
    /// Reads them from descriptors.
    pub fn read(pool: &DescriptorPool) -> Result<Self> {
        let all = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let methods: Vec<Method> = all.filter_map(|method| Method::read(&method, pool)).collect();
        let log = methods.iter().find(|method| method.name == "ReadLog").context("nobody reads a log")?;
        let readers = log.callers.iter().filter(|reader| *reader != AUDIT).cloned().collect();
        ensure!(methods.iter().any(|method| method.may_be_sent_again), "nothing may be sent again");
        Ok(Self { methods, readers })
    }

    /// Everybody who may call a service.
    pub fn callers(&self, service: &str) -> BTreeSet<String> {
        let own = self.methods.iter().filter(|method| method.owner == service);
        let own = own.flat_map(|method| method.callers.iter().cloned());
        let readers = self.readers.iter().filter(|reader| service == "identity" && *reader != service).cloned();
        own.chain(readers).chain(FOR_PEOPLE.map(str::to_owned)).chain([AUDIT.to_owned()]).collect()
    }

    /// Patterns that fit the paths of these methods and no other, one for each gRPC service that has some.
    pub fn patterns(&self, owner: &str, which: impl Fn(&Method) -> bool) -> Vec<String> {
        let mut by_service: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for method in self.methods.iter().filter(|method| method.owner == owner && which(method)) {
            by_service.entry(&method.service).or_default().push(&method.name);
        }
        let pattern =
            |(service, names): (&str, Vec<&str>)| format!("/{}/({})", service.replace('.', "[.]"), names.join("|"));
        by_service.into_iter().map(pattern).collect()
    }
}
