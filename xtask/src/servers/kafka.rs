//! Kafka, one node that is broker and controller.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::process::Signal;

use super::control::Restart;
use super::{Home, Owner, Place, Server, Started, installed};
use crate::command::{Run, tail};
use crate::tools::turn_of;
use crate::{paths, ports};

const VERSION: &str = "4.4.0";

/// A private Kafka that makes no topic by itself.
pub(crate) struct Kafka {
    server: Server,
    port: u16,
}

impl Kafka {
    pub(crate) fn start() -> Result<Started<Self>> {
        Self::start_in(Place::Lane)
    }

    /// The same in a place of its own, going on with what is there.
    pub(crate) fn start_in(place: Place<'_>) -> Result<Started<Self>> {
        let (java, jars) = match classes()? {
            Started::Ready(found) => found,
            Started::Missing(reason) => return Ok(Started::Missing(reason)),
        };
        let home = Home::new("kafka", place, &Owner { ids: None })?;
        let (port, controller) = (place.port()?, ports::one()?);
        let settings = home.folder.join("server.properties");
        fs::write(&settings, properties(&home.folder.join("data"), port, controller))?;
        let mut id = [0_u8; 16];
        id[..4].copy_from_slice(&std::process::id().to_be_bytes());
        let run = |class: &str| {
            let mut command = Command::new(&java);
            command.args(["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
            command.arg("-cp").arg(jars.join("*")).arg(class).stdin(Stdio::null());
            command
        };
        // The tool passes over what it has made before, whole.
        if !home.folder.join("data/meta.properties").exists() {
            let mut format = run("kafka.tools.StorageTool");
            format.args(["format", "-t", &URL_SAFE_NO_PAD.encode(id), "-c"]).arg(&settings);
            let formatted = format.output().context("cannot start java")?;
            if !formatted.status.success() {
                let said = String::from_utf8_lossy(&formatted.stderr);
                return Ok(Started::Missing(format!("Kafka's storage cannot be made: {}", tail(&said, 3))));
            }
        }
        let mut command = run("kafka.Kafka");
        command.arg(&settings);
        let server = Server::spawn("kafka", command, Signal::TERM, port, home)?;
        Ok(Started::Ready(Self { server, port }))
    }

    /// Lets it run on.
    pub(crate) fn detach(self) {
        self.server.detach();
    }

    /// Where it is, as clients want to be told.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process; who asks for it counts its children too.
    pub(crate) fn process(&self) -> u32 {
        self.server.child.id()
    }

    /// What it is.
    pub(crate) fn version() -> String {
        format!("Kafka {VERSION}, one node, KRaft")
    }
}

impl Restart for Kafka {
    fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    fn start(&mut self) -> Result<()> {
        self.server.start()
    }

    fn ask(&mut self, words: &[&str]) -> Result<String> {
        match words {
            // It keeps its connections and answers nothing.
            ["hang"] => self.server.signal(Signal::STOP)?,
            ["wake"] => self.server.signal(Signal::CONT)?,
            _ => bail!("{words:?} is not understood"),
        }
        Ok(String::new())
    }
}

fn properties(data: &Path, port: u16, controller: u16) -> String {
    let data = data.display();
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={data}\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\ngroup.min.session.timeout.ms=1000\nauto.create.topics.enable=false\n\
         broker.session.timeout.ms=1500\nbroker.heartbeat.interval.ms=300\n"
    )
}

/// What runs it, and its classes.
pub(super) fn classes() -> Result<Started<(PathBuf, PathBuf)>> {
    let Some(java) = installed("java", "openjdk-17-jre-headless", || on_path("java"))? else {
        return Ok(Started::Missing("Kafka needs Java 17, which is not installed and cannot be".to_owned()));
    };
    Ok(match jars()? {
        Started::Ready(jars) => Started::Ready((java, jars)),
        Started::Missing(reason) => Started::Missing(reason),
    })
}

/// Its classes and those they need, fetched once.
fn jars() -> Result<Started<PathBuf>> {
    let folder = paths::tools().join(format!("kafka-{VERSION}"));
    let done = folder.join("complete");
    let jars = folder.join("lib");
    let turn = turn_of("kafka");
    let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
    if done.exists() {
        return Ok(Started::Ready(jars));
    }
    let Some(maven) = installed("maven", "maven", || on_path("mvn"))? else {
        return Ok(Started::Missing("Kafka is had through Maven, which is not installed and cannot be".to_owned()));
    };
    println!("    fetching Kafka {VERSION} into {} (at most 5 minutes)", folder.display());
    fs::create_dir_all(&folder)?;
    let dependency = |group: &str, name: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
        )
    };
    let kafka = dependency("org.apache.kafka", "kafka_2.13", VERSION);
    let logging = dependency("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.1");
    let project = folder.join("pom.xml");
    fs::write(
        &project,
        format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
             <groupId>stoa</groupId><artifactId>kafka</artifactId><version>1</version>\
             <dependencies>{kafka}{logging}</dependencies></project>"
        ),
    )?;
    let ended = Run::new("install-kafka", maven)
        .args(["-q", "-B", "-f"])
        .args([&project])
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .args([&format!("-DoutputDirectory={}", jars.display())])
        .limit(Duration::from_secs(300))
        .end();
    match ended {
        Ok(ended) if ended.success => {
            fs::write(done, "")?;
            Ok(Started::Ready(jars))
        }
        Ok(ended) => Ok(Started::Missing(format!("Kafka cannot be fetched: {}", tail(&ended.output, 3)))),
        Err(error) => Ok(Started::Missing(format!("Kafka cannot be fetched: {error:#}"))),
    }
}

/// A program of the name on the search path.
fn on_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|program| program.is_file())
}
