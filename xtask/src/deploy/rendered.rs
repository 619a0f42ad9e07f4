//! What a rendered chart must hold.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{Arrows, COMPONENT, SERVICES, at};

/// The documents of a chart.
pub(crate) struct Rendered {
    documents: Vec<Value>,
}

impl Rendered {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let documents = serde_yaml_ng::Deserializer::from_str(text)
            .map(|document| Value::deserialize(document).context("Helm rendered no YAML"))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { documents: documents.into_iter().filter(|document| !document.is_null()).collect() })
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.documents.iter().filter(move |document| at(document, &["kind"]) == kind)
    }

    /// How many documents there are.
    pub(crate) fn count(&self) -> usize {
        self.documents.len()
    }

    /// What the documents of a kind are called.
    pub(crate) fn names<'a>(&'a self, kind: &'a str) -> BTreeSet<&'a str> {
        self.of_kind(kind).filter_map(|document| at(document, &["metadata", "name"]).as_str()).collect()
    }

    /// The only document of this kind for a component.
    fn only<'a>(&'a self, kind: &'a str, component: &str) -> Result<&'a Value, String> {
        let mut found =
            self.of_kind(kind).filter(|document| at(document, &["metadata", "labels", COMPONENT]) == component);
        match (found.next(), found.next()) {
            (Some(document), None) => Ok(document),
            (None, _) => Err(format!("{component} has no {kind}")),
            (Some(_), Some(_)) => Err(format!("{component} has more than one {kind}")),
        }
    }

    /// What is wrong; `arrows` says who may reach each service.
    pub(crate) fn problems(&self, arrows: &Arrows) -> Vec<String> {
        let mut problems: Vec<String> =
            SERVICES.into_iter().chain(["gateway"]).filter_map(|name| self.component(name).err()).flatten().collect();
        problems.extend(self.policies(arrows));
        problems.extend(self.maps());
        for document in &self.documents {
            let pods = ["Deployment", "CronJob"].iter().any(|kind| at(document, &["kind"]) == kind);
            if pods {
                problems.extend(hardened(document));
            }
        }
        problems
    }

    /// Whether a component has all that makes it survive a cluster.
    fn component(&self, name: &str) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        let mut need = |holds: bool, what: &str| {
            if !holds {
                problems.push(format!("{name}: {what}"));
            }
        };
        let one = |problem: String| vec![problem];
        let deployment = self.only("Deployment", name).map_err(one)?;
        let labels = at(deployment, &["spec", "selector", "matchLabels"]);
        let pod = at(deployment, &["spec", "template"]);
        need(selects(labels, at(pod, &["metadata", "labels"])), "its Deployment does not select its own pods");
        let container = at(pod, &["spec", "containers"]).get(0).unwrap_or(&Value::Null);
        let port = at(container, &["ports"]).get(0).map_or(&Value::Null, |port| at(port, &["containerPort"]));
        need(port.is_u64(), "it has no port");
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let asked = at(container, &[probe, "grpc", "port"]);
            need(
                !asked.is_null() && asked == port,
                &format!("its {probe} does not ask the health service at its port"),
            );
        }
        for resource in ["/resources/requests/cpu", "/resources/requests/memory", "/resources/limits/memory"] {
            need(container.pointer(resource).is_some(), &format!("no {resource}"));
        }
        need(at(container, &["args"]) == &json!(["serve", name]), "it is another role");

        let account = self.only("ServiceAccount", name).map_err(one)?;
        need(
            at(pod, &["spec", "serviceAccountName"]) == at(account, &["metadata", "name"]),
            "its pods run as another account",
        );
        let service = self.only("Service", name).map_err(one)?;
        need(at(service, &["spec", "selector"]) == labels, "its Service selects other pods");
        let headless = at(service, &["spec", "clusterIP"]) == "None";
        let balanced = listens_on_loopback(container);
        need(
            headless == (name != "gateway" && !balanced),
            "a service is headless unless a sidecar balances, and the gateway is not",
        );

        let budget = self.only("PodDisruptionBudget", name).map_err(one)?;
        need(at(budget, &["spec", "selector", "matchLabels"]) == labels, "its PodDisruptionBudget is for other pods");

        let scaled = at(deployment, &["spec", "replicas"]).is_null();
        match self.only("HorizontalPodAutoscaler", name) {
            Ok(scaler) => {
                need(scaled, "it is scaled and has a fixed size");
                let target = at(scaler, &["spec", "scaleTargetRef", "name"]);
                need(target == at(deployment, &["metadata", "name"]), "its autoscaler scales something else");
                let metrics = at(scaler, &["spec", "metrics"]).as_array().cloned().unwrap_or_default();
                let has = |kind: &str| metrics.iter().any(|metric| at(metric, &["type"]) == kind);
                need(has("Resource"), "it is not scaled by CPU");
                need(name != "gateway" || has("Pods"), "it is not scaled by requests in flight");
            }
            Err(_) => need(!scaled, "it has neither an autoscaler nor a size"),
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Whether the network lets through exactly the arrows.
    fn policies(&self, arrows: &Arrows) -> Vec<String> {
        let mut problems = Vec::new();
        let mut sent: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let denies = self.of_kind("NetworkPolicy").any(|policy| {
            let spec = at(policy, &["spec"]);
            at(spec, &["podSelector", "matchLabels", COMPONENT]).is_null()
                && at(spec, &["policyTypes"]) == &json!(["Ingress", "Egress"])
                && at(spec, &["ingress"]).is_null()
                && at(spec, &["egress"]).is_null()
        });
        if !denies {
            problems.push("nothing denies what no policy allows".to_owned());
        }
        for name in SERVICES.into_iter().chain(["gateway", "audit"]) {
            let policy = match self.only("NetworkPolicy", name) {
                Ok(policy) => at(policy, &["spec"]),
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            for callee in peers(at(policy, &["egress"]), "to") {
                sent.entry(callee).or_default().insert(name.to_owned());
            }
            let Some(wanted) = arrows.get(name) else { continue };
            let received = peers(at(policy, &["ingress"]), "from");
            if received != *wanted {
                problems.push(format!("{name} may be reached by {received:?}, not by {wanted:?}"));
            }
            // A rule without peers lets everybody in.
            let rules = at(policy, &["ingress"]).as_array().map_or(0, Vec::len);
            if rules != 1 {
                problems.push(format!("{name} is reached by {rules} rules"));
            }
        }
        if sent != *arrows {
            problems.push(format!("what may be sent ({sent:?}) is not what may be received"));
        }
        problems
    }

    /// Whether each process has a map of all services and the passwords of none but its own.
    fn maps(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut passwords: BTreeMap<String, String> = BTreeMap::new();
        for secret in self.of_kind("Secret") {
            let Some(packed) = at(secret, &["data", "fleet.toml"]).as_str() else { continue };
            let name = at(secret, &["metadata", "labels", COMPONENT]).as_str().unwrap_or_default().to_owned();
            let text = BASE64.decode(packed).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
            let map: toml::Table = match text.parse() {
                Ok(map) => map,
                Err(error) => {
                    problems.push(format!("the map of {name} is no TOML: {error}"));
                    continue;
                }
            };
            let deployment = self.only("Deployment", &name).map_or(&Value::Null, |deployment| deployment);
            let container = at(deployment, &["spec", "template", "spec", "containers"]).get(0).unwrap_or(&Value::Null);
            let plain = map.get("plain").and_then(toml::Value::as_str);
            let wanted = if listens_on_loopback(container) { "redirected" } else { "network" };
            if name != "gateway" && !deployment.is_null() && plain != Some(wanted) {
                problems
                    .push(format!("the map of {name} says plain = {plain:?}, and it listens as if it were {wanted}"));
            }
            let places = map.get("services").and_then(toml::Value::as_table);
            let missing: Vec<&str> = SERVICES
                .into_iter()
                .filter(|service| {
                    let place = places.and_then(|places| places.get(*service)).and_then(toml::Value::as_str);
                    !place.is_some_and(|place| place.starts_with("dns://"))
                })
                .collect();
            if !missing.is_empty() {
                problems.push(format!("the map of {name} has no place for {missing:?}"));
            }
            let database = map.get("database").and_then(toml::Value::as_str).unwrap_or_default();
            let password = database.split('@').next().and_then(|user| user.rsplit_once(':')).map_or("", |it| it.1);
            if !password.is_empty() {
                passwords.insert(name, password.to_owned());
            }
        }
        let different: BTreeSet<&String> = passwords.values().collect();
        if different.len() < passwords.len() {
            problems.push("two services have one password".to_owned());
        }
        problems
    }
}

/// Whether nobody reaches a container but what is in its pod.
fn listens_on_loopback(container: &Value) -> bool {
    let variables = at(container, &["env"]).as_array().into_iter().flatten();
    let bind = variables.filter(|variable| at(variable, &["name"]) == "STOA_BIND");
    bind.filter_map(|variable| at(variable, &["value"]).as_str()).any(|value| value.starts_with("127.0.0.1:"))
}

/// Whether these labels are among those.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().filter(|wanted| !wanted.is_empty());
    wanted.is_some_and(|wanted| wanted.iter().all(|(name, value)| labels.get(name) == Some(value)))
}

/// The components that the rules of a policy name.
fn peers(rules: &Value, side: &str) -> BTreeSet<String> {
    let rules = rules.as_array().into_iter().flatten();
    rules
        .flat_map(|rule| at(rule, &[side]).as_array().into_iter().flatten())
        .filter_map(|peer| at(peer, &["podSelector", "matchLabels", COMPONENT]).as_str().map(str::to_owned))
        .collect()
}

/// What a pod is not locked down for.
fn hardened(document: &Value) -> Vec<String> {
    let name = at(document, &["metadata", "name"]).as_str().unwrap_or_default();
    let template = match at(document, &["kind"]).as_str() {
        Some("CronJob") => at(document, &["spec", "jobTemplate", "spec", "template", "spec"]),
        _ => at(document, &["spec", "template", "spec"]),
    };
    let container = at(template, &["containers"]).get(0).unwrap_or(&Value::Null);
    let rules = [
        ("runs as root", at(template, &["securityContext", "runAsNonRoot"]) == &json!(true)),
        ("may use any system call", at(template, &["securityContext", "seccompProfile", "type"]) == "RuntimeDefault"),
        ("may write its image", at(container, &["securityContext", "readOnlyRootFilesystem"]) == &json!(true)),
        ("may gain rights", at(container, &["securityContext", "allowPrivilegeEscalation"]) == &json!(false)),
        ("has capabilities", at(container, &["securityContext", "capabilities", "drop"]) == &json!(["ALL"])),
        ("has a token of the cluster", at(template, &["automountServiceAccountToken"]) == &json!(false)),
    ];
    rules.into_iter().filter(|(_, holds)| !holds).map(|(problem, _)| format!("{name} {problem}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_lets_one_more_in_is_found() {
        let policy = |from: &[&str]| {
            let peers: Vec<Value> =
                from.iter().map(|name| json!({ "podSelector": { "matchLabels": { COMPONENT: name } } })).collect();
            json!({ "kind": "NetworkPolicy", "metadata": { "labels": { COMPONENT: "cart" } },
                    "spec": { "ingress": [{ "from": peers }] } })
        };
        let arrows = Arrows::from([("cart".to_owned(), BTreeSet::from(["gateway".to_owned()]))]);
        let found = |from: &[&str]| {
            let rendered = Rendered { documents: vec![policy(from)] };
            rendered.policies(&arrows).iter().any(|problem| problem.starts_with("cart may be reached"))
        };
        assert!(!found(&["gateway"]));
        assert!(found(&["gateway", "payment"]));
        assert!(found(&[]));
    }

    #[test]
    fn a_pod_that_runs_as_root_is_found() {
        let pod = json!({ "kind": "Deployment", "metadata": { "name": "x" }, "spec": { "template": { "spec": {
            "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } } } } } });
        assert!(hardened(&pod).contains(&"x runs as root".to_owned()));
    }

    #[test]
    fn a_service_without_a_deployment_is_found() {
        let rendered = Rendered::parse("kind: Service\n---\n").unwrap();
        assert_eq!(rendered.component("cart").unwrap_err(), ["cart has no Deployment"]);
    }
}
