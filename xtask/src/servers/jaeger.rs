//! Jaeger with its traces in memory: takes spans over OTLP/gRPC, answers over its HTTP API.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::{LOOK, Owner, READY, Server, Started, answer, private_folder};
use crate::command::{Run, minutes, tail};
use crate::{paths, ports};

const VERSION: &str = "1.76.0";
const MODULE: &str = "github.com/jaegertracing/jaeger";

/// The first time it downloads and compiles the program, with both cores for seven minutes or so.
const BUILD: Duration = Duration::from_secs(3600);

/// A private Jaeger.
pub(crate) struct Jaeger {
    _server: Server,
    otlp: u16,
    query: u16,
}

impl Jaeger {
    pub(crate) fn start() -> Result<Started<Self>> {
        let program = match program()? {
            Started::Ready(program) => program,
            Started::Missing(reason) => return Ok(Started::Missing(reason)),
        };
        let owner = Owner { ids: None };
        let folder = private_folder("jaeger-", &owner)?;
        let (otlp, query) = (ports::one()?, ports::one()?);
        let config = folder.path().join("config.yaml");
        fs::write(&config, configuration(otlp, query, ports::one()?))?;
        let mut command = owner.command(&program);
        command.arg("--config").arg(&config);
        let server = Server::spawn("jaeger", command, Signal::TERM, otlp, folder)?;
        let jaeger = Self { _server: server, otlp, query };
        jaeger.await_ready()?;
        Ok(Started::Ready(jaeger))
    }

    fn await_ready(&self) -> Result<()> {
        let begun = Instant::now();
        while answer(self.query, "/api/services").is_none() {
            if begun.elapsed() > READY {
                bail!("Jaeger does not answer within {READY:?}");
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }

    /// What it is.
    pub(crate) fn version() -> String {
        format!("Jaeger {VERSION}")
    }

    /// Where it takes spans.
    pub(crate) fn takes(&self) -> String {
        format!("http://127.0.0.1:{}", self.otlp)
    }

    /// The address at which it is asked for traces.
    pub(crate) fn answers(&self) -> String {
        format!("127.0.0.1:{}", self.query)
    }
}

/// The program, built if it is missing. It is built where its own `go.mod` holds, which replaces some of what it needs.
fn program() -> Result<Started<PathBuf>> {
    let folder = paths::tools().join(format!("jaeger-{VERSION}"));
    let program = folder.join("jaeger");
    if program.exists() {
        return Ok(Started::Ready(program));
    }
    println!("    building Jaeger {VERSION} (at most {})", minutes(BUILD));
    fs::create_dir_all(&folder)?;
    Ok(match build(&folder.join("source"), &program) {
        Ok(()) => Started::Ready(program),
        Err(error) => Started::Missing(format!("Jaeger cannot be built: {error:#}")),
    })
}

fn build(source: &std::path::Path, program: &std::path::Path) -> Result<()> {
    let download =
        Run::new("download-jaeger", "go").args(["mod", "download", "-json", &format!("{MODULE}@v{VERSION}")]);
    let told = whole(download.limit(BUILD))?;
    let told: serde_json::Value = serde_json::from_str(&told).context("what go says of the module is no JSON")?;
    let cached = told["Dir"].as_str().context("go does not say where the module is")?.to_owned();
    if source.exists() {
        fs::remove_dir_all(source)?;
    }
    let source = source.display().to_string();
    // The cache is read-only, and so would be its copy.
    whole(Run::new("copy-jaeger", "cp").args(["-r", "--no-preserve=mode", &cached, &source]))?;
    let output = program.display().to_string();
    let build = Run::new("build-jaeger", "go").args(["build", "-C", &source, "-o", &output, "./cmd/jaeger"]);
    whole(build.env("CGO_ENABLED", "0").limit(BUILD)).map(drop)
}

fn whole(run: Run) -> Result<String> {
    let ended = run.end()?;
    if ended.success { Ok(ended.output) } else { bail!("{}", tail(&ended.output, 3)) }
}

fn configuration(otlp: u16, query: u16, remote: u16) -> String {
    format!(
        "service:\n\
         \x20 extensions: [jaeger_storage, jaeger_query]\n\
         \x20 pipelines:\n\
         \x20   traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}\n\
         \x20 telemetry: {{metrics: {{level: none}}}}\n\
         extensions:\n\
         \x20 jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 1000}}}}}}}}\n\
         \x20 jaeger_query:\n\
         \x20   storage: {{traces: memory}}\n\
         \x20   http: {{endpoint: \"127.0.0.1:{query}\"}}\n\
         \x20   grpc: {{endpoint: \"127.0.0.1:{remote}\"}}\n\
         receivers:\n\
         \x20 otlp: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{otlp}\"}}}}}}\n\
         exporters:\n\
         \x20 jaeger_storage_exporter: {{trace_storage: memory}}\n"
    )
}
