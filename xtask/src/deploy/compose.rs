//! `deploy/compose.yaml` and the image it builds, as far as they can be judged without a container engine: read, and held
//! against the chart.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{SERVICES, at, chart};
use crate::paths;

/// What is wrong with the composition.
pub(crate) fn problems() -> Result<Vec<String>> {
    let file = paths::root().join("deploy/compose.yaml");
    let read: serde_yaml_ng::Value = serde_yaml_ng::from_str(&fs::read_to_string(&file)?)
        .and_then(|mut value: serde_yaml_ng::Value| value.apply_merge().map(|()| value))
        .with_context(|| format!("{} cannot be read", file.display()))?;
    let composed: Value = serde_json::to_value(read)?;
    let mut problems = Vec::new();
    let mut need = |holds: bool, what: String| {
        if !holds {
            problems.push(what);
        }
    };
    let ports = ports_of_the_chart()?;
    let map: toml::Table = interpolated(at(&composed, &["configs", "map", "content"]).as_str().unwrap_or_default())
        .parse()
        .context("the map of compose.yaml is no TOML")?;
    let script = at(&composed, &["configs", "databases", "content"]).as_str().unwrap_or_default();
    let databases: Vec<&str> = script
        .lines()
        .find_map(|line| line.trim().strip_prefix("for service in ")?.strip_suffix("; do"))
        .unwrap_or_default()
        .split(' ')
        .collect();
    need(databases == SERVICES, format!("databases are made for {databases:?}"));
    for service in SERVICES {
        let port = ports.get(service).copied().unwrap_or_default();
        let place = map.get("services").and_then(|it| it.get(service)).and_then(toml::Value::as_str);
        need(place == Some(&format!("dns://{service}:{port}")), format!("the map has {service} at {place:?}"));
        let bound = at(&composed, &["services", service, "environment", "STOA_BIND"]);
        need(bound == &format!("0.0.0.0:{port}"), format!("{service} listens at {bound}"));
    }
    for name in SERVICES.into_iter().chain(["gateway"]) {
        let process = at(&composed, &["services", name]);
        need(at(process, &["deploy", "replicas"]) == 2, format!("{name} has not two copies"));
        need(at(process, &["command"]) == &serde_json::json!(["serve", name]), format!("{name} is another role"));
        need(at(process, &["read_only"]) == true, format!("{name} may write its image"));
        need(at(process, &["cap_drop"]) == &serde_json::json!(["ALL"]), format!("{name} has capabilities"));
        need(at(process, &["healthcheck", "test"]).is_array(), format!("{name} is not asked for its health"));
        for engine in ["postgres", "mongodb"] {
            let awaited = at(process, &["depends_on", engine, "condition"]);
            need(awaited == "service_healthy", format!("{name} does not wait for {engine}"));
        }
        let open = at(process, &["ports"]);
        need(open.is_null() || name == "gateway", format!("{name} is open to the outside"));
    }
    for (name, process) in at(&composed, &["services"]).as_object().into_iter().flatten() {
        let image = at(process, &["image"]).as_str().unwrap_or_default();
        need(image.starts_with("stoa:") || !image.ends_with(":latest"), format!("{name} runs any version"));
    }
    Ok(problems)
}

/// What is wrong with the image: it must have neither a shell nor root, and the compiler of the workspace must build it.
pub(crate) fn image_problems() -> Result<Vec<String>> {
    let text = fs::read_to_string(paths::root().join("deploy/Dockerfile"))?;
    let mut problems = Vec::new();
    let stages: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    let last = stages.last().copied().unwrap_or_default();
    if !last.contains("distroless") || !last.ends_with(":nonroot") {
        problems.push(format!("the image is made from {last}"));
    }
    let user = text.lines().rev().find_map(|line| line.strip_prefix("USER ")).unwrap_or("root");
    if !user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)) {
        problems.push(format!("the image runs as {user}"));
    }
    let toolchain: toml::Table = fs::read_to_string(paths::root().join("rust-toolchain.toml"))?.parse()?;
    let version = toolchain.get("toolchain").and_then(|it| it.get("channel")).and_then(toml::Value::as_str);
    let version = version.context("rust-toolchain.toml has no channel")?;
    if !stages.first().is_some_and(|first| first.contains(&format!("/rust:{version}-"))) {
        problems.push(format!("the image is not built by Rust {version}"));
    }
    Ok(problems)
}

/// Where each service listens in a cluster.
fn ports_of_the_chart() -> Result<BTreeMap<String, u16>> {
    let helpers = fs::read_to_string(chart().join("templates/_helpers.tpl"))?;
    let line = helpers.lines().find(|line| line.starts_with("{\"identity\"")).context("the chart has no ports")?;
    Ok(serde_json::from_str(line)?)
}

/// A text with the defaults of its variables, and `x` where there is none.
fn interpolated(text: &str) -> String {
    let mut parts = text.split("${");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').unwrap_or((part, ""));
        whole.push_str(variable.split_once(":-").map_or("x", |(_, default)| default));
        whole.push_str(rest);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_their_defaults() {
        assert_eq!(interpolated("a ${B:-c} ${D} {e}\n${F:-}"), "a c x {e}\n");
    }
}
