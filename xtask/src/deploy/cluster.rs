//! The chart before a real kube-apiserver: what it would install, and each document applied on the server's side with no
//! field that the server does not know.
//!
//! Nothing acts on what was applied: there are no controllers, no nodes, no network.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::rendered::Rendered;
use super::{chart, run, values};
use crate::command::{Run, tail};
use crate::lane::{Context, Outcome};
use crate::paths;
use crate::servers::{Kubernetes, Started};
use crate::tools::{HELM, Had};

/// What has to be among what the server took.
const KINDS: [&str; 4] = ["Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget"];

/// A field of each of them, and what it is misspelt as; the server must know better.
const MISSPELT: [(&str, &str, &str); 5] = [
    ("Deployment", "readinessProbe:", "readynessProbe:"),
    ("Deployment", "securityContext:", "securityContent:"),
    ("HorizontalPodAutoscaler", "averageValue:", "averagevalue:"),
    ("NetworkPolicy", "policyTypes:", "policyType:"),
    ("PodDisruptionBudget", "maxUnavailable:", "maxUnavailible:"),
];

/// Installs the chart with each file of values, as far as a server without a cluster can.
pub(crate) fn kubernetes(_: &Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let helm = match HELM.get()? {
        Had::Ready(helm) => helm,
        Had::Missing(reason) => {
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    let server = match Kubernetes::start()? {
        Started::Ready(server) => server,
        Started::Missing(reason) => {
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    println!("    {}", server.kubectl(&["version"])?.unwrap_or_default().trim().replace('\n', ", "));
    for file in values()? {
        let name = file.as_deref().and_then(Path::file_stem).map_or("values".into(), |name| name.to_string_lossy());
        // One namespace each, so that nothing of one is taken for the other's.
        let namespace = format!("shop-{name}");
        let made = server.kubectl(&["create", "namespace", &namespace])?;
        outcome.check(&format!("a namespace for {name}"), made.err().into_iter().collect());
        outcome.check(&format!("helm install with {name}"), dry_run(&helm, &server, &namespace, file.as_deref())?);
        let text = match run(&helm, "template", &["template", "shop", "--namespace", &namespace], file.as_deref())? {
            Ok(text) => text,
            Err(problem) => {
                outcome.check(&format!("rendered with {name}"), vec![problem]);
                continue;
            }
        };
        let rendered = Rendered::parse(&text)?;
        outcome.check(&format!("applied with {name}"), applied(&server, &namespace, &text, &rendered)?);
        // The chart's own values have one of everything.
        if file.is_none() {
            for (kind, right, wrong) in MISSPELT {
                let problems = refused(&server, &namespace, &text, (kind, right, wrong))?;
                outcome.check(&format!("a {kind} with {wrong}"), problems);
            }
        }
    }
    Ok(outcome)
}

/// Lets Helm ask the server what it would do.
fn dry_run(helm: &Path, server: &Kubernetes, namespace: &str, values: Option<&Path>) -> Result<Vec<String>> {
    let home = paths::tools().join("helm-home");
    let mut run = Run::new("helm-install", helm)
        .args(["install", "shop", "--namespace", namespace, "--dry-run=server"])
        .args([chart()])
        .env("HELM_CONFIG_HOME", &home)
        .env("HELM_CACHE_HOME", &home)
        .env("HELM_DATA_HOME", &home)
        .env("KUBECONFIG", server.kubeconfig())
        .limit(Duration::from_secs(120));
    if let Some(values) = values {
        run = run.args(["--values"]).args([values]);
    }
    let ended = run.end()?;
    Ok(if ended.success { vec![] } else { vec![tail(&ended.output, 10)] })
}

/// Applies what was rendered, and looks that all of it is there.
fn applied(server: &Kubernetes, namespace: &str, text: &str, rendered: &Rendered) -> Result<Vec<String>> {
    let said = match apply(server, namespace, text)? {
        Ok(said) => said,
        Err(problem) => return Ok(vec![problem]),
    };
    let taken = said.lines().filter(|line| line.ends_with(" serverside-applied")).count();
    let mut problems = Vec::new();
    if taken != rendered.count() {
        problems.push(format!("{taken} of {} documents were taken", rendered.count()));
    }
    for kind in KINDS {
        let listed = server.kubectl(&["get", kind, "--namespace", namespace, "--output", "name"])?;
        let there: BTreeSet<String> = listed.unwrap_or_default().lines().map(str::to_owned).collect();
        let wanted = rendered.names(kind).len();
        if there.len() != wanted {
            problems.push(format!("{wanted} {kind} were rendered, {} are there", there.len()));
        }
    }
    Ok(problems)
}

/// That the server does not take a document with a field it does not know.
fn refused(
    server: &Kubernetes,
    namespace: &str,
    text: &str,
    (kind, right, wrong): (&str, &str, &str),
) -> Result<Vec<String>> {
    let documents = text.split("\n---\n");
    let mut of_kind = documents.filter(|document| document.contains(&format!("\nkind: {kind}\n")));
    let document =
        of_kind.find(|document| document.contains(right)).with_context(|| format!("no {kind} has {right}"))?;
    let field = wrong.trim_end_matches(':');
    Ok(match apply(server, namespace, &document.replacen(right, wrong, 1))? {
        Ok(_) => vec!["it is taken".to_owned()],
        Err(said) if said.contains(field) => vec![],
        Err(said) => vec![format!("it is refused for something else: {said}")],
    })
}

fn apply(server: &Kubernetes, namespace: &str, text: &str) -> Result<Result<String, String>> {
    let file = server.file("documents.yaml", text)?;
    let file = file.to_string_lossy();
    let how = ["--server-side", "--validate=strict", "--field-manager=lane", "--namespace", namespace];
    server.kubectl(&[&["apply"], &how[..], &["--filename", &file]].concat())
}
