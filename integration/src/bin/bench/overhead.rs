//! What a call between two processes pays for tokens, certificates and telemetry: measured by a program of the layers' own,
//! with one after the other switched on, in turns, so that a machine that grows slower does so for all.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::command_line;
use tokio::process::Command;

use crate::Bench;
use crate::figures::Wanted;

/// What is on, each with what was before.
const SWITCHED: [&str; 4] = ["nothing", "tokens", "certificates", "telemetry"];
/// Each is the middle of so many.
const TURNS: usize = 5;
const FIGURES: [&str; 3] = ["cpu", "p50", "p99"];
/// What all three may cost a call, in microseconds of CPU.
const ALL: f64 = 15.0;

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    let program = match std::env::var_os("STOA_OVERHEAD") {
        Some(path) => PathBuf::from(path),
        None => command_line::repository().join("target/release/examples/overhead"),
    };
    ensure!(
        program.is_file(),
        "no program at {}: cargo build --release -p server --example overhead",
        program.display()
    );
    let mut told: HashMap<(&str, String), Vec<f64>> = HashMap::new();
    for _ in 0..TURNS {
        for switched in SWITCHED.into_iter().chain(["counted"]) {
            let mut command = Command::new(&program);
            let ended = command_line::run(command.arg(switched), Duration::from_secs(120)).await?;
            ensure!(ended.code == Some(0), "{ended:?}");
            for line in ended.output.lines() {
                let Some((name, value)) = line.split_once(' ').filter(|(name, _)| FIGURES.contains(name)) else {
                    continue;
                };
                told.entry((switched, name.to_owned())).or_default().push(value.parse()?);
            }
        }
    }
    let mut middle = |switched: &'static str, figure: &str| {
        let values = told.get_mut(&(switched, figure.to_owned())).context("a figure is missing")?;
        values.sort_by(f64::total_cmp);
        anyhow::Ok(values[values.len() / 2])
    };
    for switched in SWITCHED {
        for figure in FIGURES {
            bench.figures.add(&format!("overhead.{switched}.{figure}"), middle(switched, figure)?, "us");
        }
    }
    let counted = middle("counted", "cpu")?;
    bench.figures.add("overhead.counted.cpu", counted, "us");
    for pair in SWITCHED.windows(2) {
        let [before, switched] = pair else { continue };
        let cost = middle(switched, "cpu")? - middle(before, "cpu")?;
        println!("{switched}: {cost:.1} us of CPU a call, both sides");
        bench.figures.add(&format!("overhead.{switched}.cost"), cost, "us");
    }
    let all = middle("telemetry", "cpu")? - middle("nothing", "cpu")? + counted;
    bench.figures.judged("overhead.all.cost", all, "us", Wanted::AtMost(ALL));
    Ok(())
}
