//! The chart in `deploy/helm/stoa`: rendered by Helm with several files of values, and what came out held against the
//! contracts and against the rules of this project.

mod cluster;
mod compose;
mod istio;
mod rendered;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command::{Run, tail};
use crate::lane::{Context, Outcome};
use crate::tools::{HELM, Had};
use crate::{golden, paths};
pub(crate) use cluster::kubernetes;
use rendered::Rendered;

/// The Kubernetes that the chart is rendered for.
const KUBERNETES: &str = crate::servers::KUBERNETES;

/// The nine services.
pub(crate) const SERVICES: [&str; 9] =
    ["identity", "catalog", "inventory", "cart", "ordering", "payment", "shipping", "notification", "orderview"];

/// Values that the schema must not let through.
const WRONG: [&str; 6] = [
    "defaults.replica=2",
    "components.basket.replicas=2",
    "fleet.secret=short",
    "engines.database=mysql://here/stoa",
    "image.digest=sha256:short",
    "settings.PATH=/bin",
];

/// The label by which everything of a component is found.
const COMPONENT: &str = "app.kubernetes.io/component";

/// Who may call whom: callers by service.
type Arrows = BTreeMap<String, BTreeSet<String>>;

fn chart() -> PathBuf {
    paths::root().join("deploy/helm/stoa")
}

/// Each file of values, the chart's own first, which is none.
fn values() -> Result<Vec<Option<PathBuf>>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(chart().join("ci"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    ensure!(!files.is_empty(), "the chart is tried with no values but its own");
    Ok(std::iter::once(None).chain(files.into_iter().map(Some)).collect())
}

/// Lints and renders the chart, and looks at what comes out.
pub(crate) fn helm(_: &Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let arrows = Drawn::read()?;
    let contracts = contracts()?;
    outcome.check("arrows", arrows.problems(&contracts));
    outcome.check("istio", istio::problems(&arrows.callers(), &contracts)?);
    outcome.check("compose.yaml", compose::problems()?);
    outcome.check("Dockerfile", compose::image_problems()?);
    let helm = match HELM.get()? {
        Had::Ready(helm) => helm,
        Had::Missing(reason) => {
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    for file in values()? {
        let name = file.as_deref().and_then(Path::file_stem).map_or("values".into(), |name| name.to_string_lossy());
        let linted = run(&helm, "lint", &["lint", "--strict"], file.as_deref())?;
        outcome.check(&format!("lint with {name}"), linted.err().into_iter().collect());
        match run(&helm, "template", &["template", "shop", "--namespace", "shop"], file.as_deref())? {
            Ok(text) => {
                let rendered = Rendered::parse(&text)?;
                outcome.check(&format!("rendered with {name}"), rendered.problems(&arrows.callers()));
            }
            Err(problem) => outcome.check(&format!("rendered with {name}"), vec![problem]),
        }
    }
    for wrong in WRONG {
        let refused = run(&helm, "refused", &["template", "shop", "--set", wrong], None)?;
        let problems = if refused.is_err() { vec![] } else { vec!["it is let through".to_owned()] };
        outcome.check(&format!("values with {wrong}"), problems);
    }
    Ok(outcome)
}

/// What Helm prints, or why it does not.
fn run(helm: &Path, log: &str, arguments: &[&str], values: Option<&Path>) -> Result<Result<String, String>> {
    let mut run = Run::new(&format!("helm-{log}"), helm)
        .args(arguments)
        .args([chart()])
        .args(["--kube-version", KUBERNETES])
        // Nothing of whoever runs it.
        .env("HELM_CONFIG_HOME", paths::tools().join("helm-home"))
        .env("HELM_CACHE_HOME", paths::tools().join("helm-home"))
        .env("HELM_DATA_HOME", paths::tools().join("helm-home"))
        .env("KUBECONFIG", "/dev/null");
    if let Some(values) = values {
        run = run.args(["--values"]).args([values]);
    }
    let ended = run.end()?;
    Ok(if ended.success { Ok(ended.output) } else { Err(tail(&ended.output, 10)) })
}

/// The arrows of the chart.
struct Drawn {
    calls: Arrows,
    follows: Arrows,
}

impl Drawn {
    fn read() -> Result<Self> {
        let file = chart().join("files/arrows.yaml");
        let read: BTreeMap<String, Arrows> = serde_yaml_ng::from_str(&fs::read_to_string(&file)?)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let part = |name: &str| read.get(name).cloned().with_context(|| format!("{} has no {name}", file.display()));
        Ok(Self { calls: part("calls")?, follows: part("follows")? })
    }

    /// Everybody who may reach a service, by service.
    fn callers(&self) -> Arrows {
        let everybody = |service: &str| {
            let known = [&self.calls, &self.follows].into_iter().filter_map(|arrows| arrows.get(service)).flatten();
            known.cloned().chain(["gateway".to_owned(), "audit".to_owned()]).collect()
        };
        SERVICES.into_iter().map(|service| (service.to_owned(), everybody(service))).collect()
    }

    fn problems(&self, contracts: &Contracts) -> Vec<String> {
        let mut problems = Vec::new();
        let none = BTreeSet::new();
        for service in SERVICES {
            let (drawn, told) =
                (self.calls.get(service).unwrap_or(&none), contracts.callers.get(service).unwrap_or(&none));
            if drawn != told {
                problems.push(format!("{service} is called by {drawn:?} in the chart, by {told:?} in the contracts"));
            }
        }
        for (service, followers) in &self.follows {
            for follower in followers.difference(&contracts.readers) {
                problems.push(format!("{follower} follows {service} in the chart, and may not by the contracts"));
            }
        }
        for name in self.calls.keys().chain(self.follows.keys()) {
            if !SERVICES.contains(&name.as_str()) {
                problems.push(format!("{name} is no service"));
            }
        }
        problems
    }
}

/// What the contracts say of callers.
struct Contracts {
    /// By service, of its own methods.
    callers: Arrows,
    /// Who may read the logs of others.
    readers: BTreeSet<String>,
    methods: Vec<Method>,
}

/// A method, and who may call it.
struct Method {
    /// The short name of who answers it; `operations` are answered by every service for itself.
    owner: String,
    path: String,
    /// Closed to people.
    internal: bool,
    callers: BTreeSet<String>,
}

impl Contracts {
    /// The methods of a service that are open to a process of the cluster. The gateway speaks for people, and so does the audit.
    fn open_to(&self, service: &str, caller: &str) -> BTreeSet<String> {
        let people = ["gateway", "audit"].contains(&caller);
        let own = self.methods.iter().filter(|method| method.owner == service || method.owner == OPERATIONS);
        let open = own.filter(|method| method.callers.contains(caller) || (people && !method.internal));
        open.map(|method| method.path.clone()).collect()
    }
}

/// What every service answers for itself.
const OPERATIONS: &str = "operations";

fn contracts() -> Result<Contracts> {
    let pool = golden::pool()?.context("there are no contracts in proto/")?;
    let policy = pool.get_extension_by_name("stoa.contract.v1.policy").context("no method has a policy")?;
    let (mut callers, mut readers, mut methods) = (Arrows::new(), BTreeSet::new(), Vec::new());
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let service = method.parent_service();
        let package = service.package_name().to_owned();
        let Some(owner) = package.strip_prefix("stoa.").and_then(|rest| rest.strip_suffix(".v1")) else { continue };
        let options = method.options();
        let policy = options.get_extension(&policy);
        let field =
            |name| policy.as_message().and_then(|policy| policy.get_field_by_name(name).map(|it| it.into_owned()));
        let named: BTreeSet<String> = field("callers")
            .iter()
            .filter_map(|value| value.as_list())
            .flatten()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect();
        if owner != OPERATIONS {
            callers.entry(owner.to_owned()).or_default().extend(named.iter().cloned());
        } else if method.name() == "ReadLog" {
            readers.extend(named.iter().cloned());
        }
        methods.push(Method {
            owner: owner.to_owned(),
            path: format!("/{}/{}", service.full_name(), method.name()),
            // ACCESS_INTERNAL.
            internal: field("access").and_then(|access| access.as_enum_number()) == Some(5),
            callers: named,
        });
    }
    ensure!(!callers.is_empty() && !readers.is_empty(), "the contracts name no callers");
    Ok(Contracts { callers, readers, methods })
}

/// A part of a document, by its keys.
fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, key| value.get(key).unwrap_or(&Value::Null))
}
