//! The rules of the house that a tool can keep: which crate may use which, module docs, short mains,
//! no drawers, one short way into every service.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use cargo_metadata::Package;
use serde::Deserialize;

use crate::lane::{self, Outcome};
use crate::workspace::{Workspace, place, sources};
use crate::{lockfile, names, paths};

/// Longest `main.rs` of a service, in lines.
const MAIN_LINES: usize = 40;

/// Crates that the project promises to build on directly, not through somebody else's wrapper.
const DIRECT: [&str; 7] = ["tonic", "tonic-health", "tonic-reflection", "prost", "pbjson", "jsonwebtoken", "tokio"];

/// File and module names that say nothing about what is inside.
const DRAWERS: [&str; 9] = ["util", "utils", "common", "helper", "helpers", "misc", "shared", "core", "prelude"];

/// The checked-in list of allowed edges.
#[derive(Deserialize)]
struct Allowed {
    /// Crate to the workspace crates it may depend on.
    edges: BTreeMap<String, BTreeSet<String>>,
    /// Dependencies that are only named by generated code or needed for a feature of theirs.
    unnamed: BTreeMap<String, BTreeSet<String>>,
}

impl Allowed {
    /// True if the crate may declare a dependency that only generated code names.
    fn excuses(&self, package: &Package, dependency: &str) -> bool {
        self.unnamed.get(package.name.as_str()).is_some_and(|list| list.contains(dependency))
    }
}

/// Runs every structural check; each counts as one.
pub(crate) fn run(_: &lane::Context) -> Result<Outcome> {
    let workspace = Workspace::load()?;
    let allowed = allowed()?;
    let mut outcome = Outcome::default();
    outcome.check("crate edges are on the list", listed_edges(&workspace, &allowed));
    outcome.check("arrows go one way", arrows(&workspace));
    outcome.check("a service builds with none of the others", alone(&workspace));
    outcome.check("promised crates are direct dependencies", direct(&workspace, &allowed)?);
    outcome.check("every dependency is used by name", used(&workspace, &allowed)?);
    outcome.check("every module says what it is", module_docs(&workspace)?);
    outcome.check("mains are short and alike", mains(&workspace)?);
    outcome.check("no drawers", drawers(&workspace)?);
    outcome.check("docs/ARCHITECTURE.md names what exists", names::unknown(&workspace)?);
    outcome.check("versions with known holes are not locked", lockfile::too_old()?);
    Ok(outcome)
}

fn allowed() -> Result<Allowed> {
    let path = paths::root().join("xtask/edges.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not what we expect", path.display()))
}

fn listed_edges(workspace: &Workspace, allowed: &Allowed) -> Vec<String> {
    let mut problems = Vec::new();
    let none = BTreeSet::new();
    for package in workspace.members() {
        let name = package.name.as_str();
        let list = allowed.edges.get(name).unwrap_or(&none);
        if !allowed.edges.contains_key(name) {
            problems.push(format!("xtask/edges.toml does not list the crate {name}"));
        }
        for edge in workspace.edges(package).difference(list) {
            problems.push(format!("{name} -> {edge} is not allowed by xtask/edges.toml"));
        }
    }
    let members: BTreeSet<&str> = workspace.members().iter().map(|package| package.name.as_str()).collect();
    for gone in allowed.edges.keys().filter(|name| !members.contains(name.as_str())) {
        problems.push(format!("xtask/edges.toml lists {gone}, which is no crate of the workspace"));
    }
    problems
}

/// The direction that the list itself may not break.
fn arrows(workspace: &Workspace) -> Vec<String> {
    let services: BTreeSet<String> = names_of(&workspace.members_in("services"));
    let mut problems = Vec::new();
    for package in workspace.members() {
        let name = package.name.as_str();
        let folder = place(package);
        let edges = workspace.edges(package);
        let mut forbid = |rule: &str, broken: bool| {
            if broken {
                problems.push(format!("{name}: {rule}"));
            }
        };
        if folder.starts_with("platform") {
            let above = ["stoa", "stoa-gateway", "sandbox", "integration", "xtask"];
            forbid("a platform crate never depends on a service", !edges.is_disjoint(&services));
            forbid(
                "a platform crate never depends on what is built from the services",
                above.iter().any(|other| edges.contains(*other)),
            );
            forbid(
                "only `operations` of the platform crates sees the contracts",
                name != "operations" && edges.contains("contracts"),
            );
        }
        if folder.starts_with("services") {
            let beside = ["stoa", "stoa-gateway", "integration", "xtask"];
            forbid("a service never depends on another", !edges.is_disjoint(&services));
            // The outside world: a service may be tested against it, never built with it.
            forbid("the sandbox provider is for tests alone", workspace.builds_on(package, "sandbox"));
            forbid(
                "a service depends on platform and contracts alone",
                beside.iter().any(|other| edges.contains(*other)),
            );
        }
        if folder.starts_with("integration") || folder.starts_with("xtask") {
            forbid("a stranger depends on none of our crates", !edges.is_empty());
        }
    }
    problems
}

fn alone(workspace: &Workspace) -> Vec<String> {
    let services = names_of(&workspace.members_in("services"));
    let mut problems = Vec::new();
    for service in workspace.members_in("services") {
        for other in workspace.built_with(service).intersection(&services) {
            if other != service.name.as_str() {
                problems.push(format!("testing {} builds {other} as well", service.name));
            }
        }
    }
    problems
}

fn direct(workspace: &Workspace, allowed: &Allowed) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for wanted in DIRECT {
        let mut used = false;
        for package in workspace.members() {
            let declared = package.dependencies.iter().any(|dependency| dependency.name == wanted);
            used |= declared && (allowed.excuses(package, wanted) || mentions(package, wanted)?);
        }
        if !used {
            problems.push(format!("no crate of ours depends on {wanted} directly and uses it"));
        }
    }
    Ok(problems)
}

fn used(workspace: &Workspace, allowed: &Allowed) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for package in workspace.members() {
        let mut unused = BTreeSet::new();
        for dependency in &package.dependencies {
            let name = dependency.rename.as_ref().unwrap_or(&dependency.name);
            if !allowed.excuses(package, name) && !mentions(package, name)? {
                unused.insert(name.as_str());
            }
        }
        if !unused.is_empty() {
            let unused: Vec<&str> = unused.into_iter().collect();
            problems.push(format!("{} never names {}", package.name, unused.join(", ")));
        }
    }
    Ok(problems)
}

/// True if a source of the package names the crate outside comments' first words.
fn mentions(package: &Package, dependency: &str) -> Result<bool> {
    let word = dependency.replace('-', "_");
    // Renamed packages of our own (`stoa-log`, `stoa-gateway`) are called by their library's name.
    let word = word.strip_prefix("stoa_").map_or(word.clone(), str::to_owned);
    Ok(sources(package)?.iter().any(|source| {
        source
            .text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .any(|line| names::words(line).any(|found| found == word))
    }))
}

fn module_docs(workspace: &Workspace) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for package in workspace.members() {
        for source in sources(package)? {
            let first = source.text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("#!"));
            if !first.is_some_and(|line| line.starts_with("//!")) {
                problems.push(format!("{} does not begin with `//!`", source.path.display()));
            }
        }
    }
    Ok(problems)
}

fn mains(workspace: &Workspace) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut same: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for service in workspace.members_in("services") {
        let name = short(service);
        let Some(main) = sources(service)?.into_iter().find(|source| source.path.ends_with("src/main.rs")) else {
            continue;
        };
        let lines = main.text.lines().count();
        if lines > MAIN_LINES {
            problems.push(format!("{} has {lines} lines, more than {MAIN_LINES}", main.path.display()));
        }
        same.entry(main.text.replace(name, "SERVICE")).or_default().push(name.to_owned());
    }
    if same.len() > 1 {
        let groups: Vec<String> = same.values().map(|names| names.join(", ")).collect();
        problems.push(format!("main.rs differs in more than the service's name: {}", groups.join(" | ")));
    }
    Ok(problems)
}

fn drawers(workspace: &Workspace) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for package in workspace.members() {
        if DRAWERS.contains(&package.name.as_str()) {
            problems.push(format!("a crate called {} is a drawer", package.name));
        }
        for source in sources(package)? {
            let inside = source.path.strip_prefix(place(package)).unwrap_or(&source.path).with_extension("");
            if let Some(part) = inside.iter().filter_map(|part| part.to_str()).find(|part| DRAWERS.contains(part)) {
                problems.push(format!("{}: `{part}` is a drawer", source.path.display()));
            }
            let module = source.text.lines().map(str::trim).find_map(|line| {
                let name = names::words(line.strip_suffix(['{', ';'])?).last()?;
                (names::words(line).any(|word| word == "mod") && DRAWERS.contains(&name)).then_some(name)
            });
            if let Some(name) = module {
                problems.push(format!("{}: module `{name}` is a drawer", source.path.display()));
            }
        }
    }
    Ok(problems)
}

/// What people call a service: its package without the project's name in front.
fn short(service: &Package) -> &str {
    service.name.strip_prefix("stoa-").unwrap_or(&service.name)
}

fn names_of(packages: &[&Package]) -> BTreeSet<String> {
    packages.iter().map(|package| package.name.to_string()).collect()
}
