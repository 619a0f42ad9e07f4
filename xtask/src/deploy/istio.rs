//! What `deploy/istio` lets in, held against the contracts and the arrows of the chart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{Arrows, COMPONENT, Contracts, SERVICES, at};
use crate::paths;

/// What the names of service accounts begin with: the release `shop` in the namespace `shop`.
const ACCOUNT: &str = "cluster.local/ns/shop/sa/shop-stoa-";

/// The methods that each caller may call, by path.
type Allowed = BTreeMap<String, BTreeSet<String>>;

/// What is wrong with the folder.
pub(super) fn problems(arrows: &Arrows, contracts: &Contracts) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let policies = documents("authorization-policies.yaml")?;
    let denies = policies.iter().any(|policy| at(policy, &["spec"]) == &json!({}));
    if !denies {
        problems.push("nothing denies what no policy allows".to_owned());
    }
    for (service, callers) in arrows {
        let wanted: Allowed =
            callers.iter().map(|caller| (caller.clone(), contracts.open_to(service, caller))).collect();
        let found = allowed(&policies, service)?;
        for caller in wanted.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
            let none = BTreeSet::new();
            let (wanted, found) = (wanted.get(caller).unwrap_or(&none), found.get(caller).unwrap_or(&none));
            for method in wanted.symmetric_difference(found) {
                let which = if wanted.contains(method) { "may not call" } else { "may call" };
                problems.push(format!("{caller} {which} {method} of {service}, other than the contracts say"));
            }
        }
    }
    problems.extend(strict(&documents("peer-authentication.yaml")?));
    problems.extend(for_each("Sidecar", &documents("sidecars.yaml")?));
    let traffic = documents("traffic.yaml")?;
    problems.extend(["DestinationRule", "VirtualService"].iter().flat_map(|kind| for_each(kind, &traffic)));
    for route in traffic.iter().filter(|it| at(it, &["kind"]) == "VirtualService") {
        let http = at(route, &["spec", "http"]).get(0).unwrap_or(&Value::Null);
        if at(http, &["retries", "attempts"]) != 0 {
            problems.push(format!("{} is repeated by who does not know what may be", at(route, &["metadata", "name"])));
        }
    }
    Ok(problems)
}

fn documents(file: &str) -> Result<Vec<Value>> {
    let text = fs::read_to_string(paths::root().join("deploy/istio").join(file))?;
    let read = serde_yaml_ng::Deserializer::from_str(&text).map(Value::deserialize).collect::<Result<Vec<_>, _>>();
    let read = read.with_context(|| format!("{file} is no YAML"))?;
    ensure!(!read.is_empty(), "{file} is empty");
    Ok(read)
}

/// Who may call what of a service.
fn allowed(policies: &[Value], service: &str) -> Result<Allowed> {
    let of_service = |policy: &&Value| at(policy, &["spec", "selector", "matchLabels", COMPONENT]) == service;
    let mut allowed = Allowed::new();
    for rule in policies.iter().filter(of_service).flat_map(|policy| list(at(policy, &["spec", "rules"]))) {
        let methods: BTreeSet<String> =
            list(at(rule, &["to"])).flat_map(|to| texts(at(to, &["operation", "paths"]))).collect();
        ensure!(!methods.is_empty(), "a rule of {service} lets everything in");
        let callers = list(at(rule, &["from"])).flat_map(|from| texts(at(from, &["source", "principals"])));
        let callers: Vec<String> = callers.collect();
        ensure!(!callers.is_empty(), "a rule of {service} lets everybody in");
        for caller in callers {
            let name = caller.strip_prefix(ACCOUNT).with_context(|| format!("{caller} is nobody of the chart's"))?;
            allowed.entry(name.to_owned()).or_default().extend(methods.iter().cloned());
        }
    }
    Ok(allowed)
}

/// Whether nothing between services goes without certificates.
fn strict(documents: &[Value]) -> Option<String> {
    let everywhere = documents.iter().any(|it| {
        at(it, &["spec", "selector", "matchLabels", COMPONENT]).is_null()
            && at(it, &["spec", "mtls", "mode"]) == "STRICT"
    });
    let weaker = documents.iter().any(|it| {
        let component = at(it, &["spec", "selector", "matchLabels", COMPONENT]);
        component != "gateway" && !component.is_null()
    });
    (!everywhere || weaker).then(|| "calls between services may go without certificates".to_owned())
}

/// Which services a kind of document is missing for.
fn for_each(kind: &str, documents: &[Value]) -> Vec<String> {
    let there: BTreeSet<&str> = documents
        .iter()
        .filter(|it| at(it, &["kind"]) == kind)
        .filter_map(|it| at(it, &["metadata", "name"]).as_str()?.strip_prefix("stoa-"))
        .collect();
    let missing: Vec<&str> = SERVICES.into_iter().filter(|service| !there.contains(service)).collect();
    if missing.is_empty() { vec![] } else { vec![format!("there is no {kind} for {missing:?}")] }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts(value: &Value) -> impl Iterator<Item = String> {
    list(value).filter_map(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::{Drawn, contracts};
    use super::*;

    #[test]
    fn the_mesh_lets_in_what_the_contracts_allow_and_nothing_else() {
        let (arrows, mut contracts) = (Drawn::read().unwrap().callers(), contracts().unwrap());
        assert_eq!(problems(&arrows, &contracts).unwrap(), Vec::<String>::new());
        let method = contracts.methods.iter_mut().find(|method| method.path.ends_with("/HoldStock")).unwrap();
        method.callers.clear();
        let found = problems(&arrows, &contracts).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("ordering may call ") && found[0].contains("HoldStock"), "{found:?}");
    }
}
