//! The README's tour: every fenced command is executed as it stands, one after the other.
//!
//! A block fenced as `sh` (or `bash`, `console`) is a command of the tour; the server the README starts
//! is started here on a free port, and the address and folder the README names are replaced by ours.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::{Setup, Stoa, command_line, skip};
use tokio::process::Command;

/// Commands that are not executed: they build, they start the server that runs here already, or they
/// are lanes of their own.
const ELSEWHERE: [&str; 5] = ["cargo run --release -p stoa", "cargo xtask", "git clone", "cargo build", "cd stoa"];

#[tokio::test]
async fn the_tour_works_by_copy_and_paste() -> Result<()> {
    let stoa = Stoa::start(Setup::default()).await?;
    tour(&stoa.address().to_string(), &stoa.data().display().to_string()).await
}

/// The words a fleet is found by (`STOA_FLEET` and the rest) are in our environment, and the tour's commands inherit them.
#[tokio::test]
#[ignore = "run by the lane `fleet`, with the address and the folder of one that runs"]
async fn the_tour_passes_against_a_fleet_unchanged() -> Result<()> {
    let known = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    tour(&known("STOA_TOUR_ADDRESS")?, &known("STOA_DATA")?).await
}

/// Walks the tour against a shop that listens here and keeps its mail in this folder.
async fn tour(address: &str, folder: &str) -> Result<()> {
    let readme = fs::read_to_string(command_line::repository().join("README.md"))?;
    let commands = fenced(&readme);
    ensure!(commands.len() >= 5, "the README has only {} commands", commands.len());
    let grpcurl = std::env::var_os("STOA_GRPCURL");
    let script: Vec<String> = commands
        .iter()
        .filter(|command| !ELSEWHERE.iter().any(|start| command.starts_with(start)))
        .filter(|command| {
            let skipped = command.contains("grpcurl") && grpcurl.is_none();
            if skipped {
                skip::not_proven("the tour's grpcurl lines: no grpcurl");
            }
            !skipped
        })
        .cloned()
        .collect();
    let script = ours(&script.join("\n"), address, folder);

    // One shell for the whole tour, as the reader has one: variables live on. `-e` stops at the first
    // command that fails, `pipefail` sees a curl that fails before a pipe.
    let work = tempfile::tempdir()?;
    let path = std::env::var("PATH").unwrap_or_default();
    let beside = command_line::binary()?.parent().context("no folder")?.display().to_string();
    let tools = grpcurl
        .as_deref()
        .and_then(|path| std::path::Path::new(path).parent())
        .map(|folder| folder.display().to_string())
        .unwrap_or_default();
    let password = std::env::var("STOA_OPERATOR_PASSWORD").unwrap_or(integration::server::OPERATOR.1.to_owned());
    let ended = command_line::run(
        Command::new("bash")
            .args(["-euxo", "pipefail", "-c", &script])
            .current_dir(work.path())
            .env("PATH", format!("{beside}:{tools}:{path}"))
            .env("STOA_OPERATOR_PASSWORD", password),
        Duration::from_secs(120),
    )
    .await?;
    ensure!(ended.code == Some(0), "the tour stops ({:?}) at:\n{}\n{}", ended.code, ended.errors, ended.output);
    ensure!(ended.output.contains("ORDER_STATE_CONFIRMED"), "no order was confirmed:\n{}", ended.output);
    Ok(())
}

/// The commands of the fenced shell blocks, continuation lines joined by the shell itself.
fn fenced(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match (&mut block, line.trim()) {
            (None, "```sh" | "```bash" | "```console" | "```shell") => block = Some(String::new()),
            (Some(body), "```") => {
                commands.push(body.trim().to_owned());
                block = None;
            }
            (Some(body), _) => {
                body.push_str(line.strip_prefix("$ ").unwrap_or(line));
                body.push('\n');
            }
            (None, _) => {}
        }
    }
    // A block that is one command a line is told apart by its first words; others stay whole.
    commands
        .into_iter()
        .flat_map(|block| {
            let whole = ELSEWHERE.iter().all(|start| !block.contains(start));
            if whole { vec![block] } else { block.lines().map(str::to_owned).collect() }
        })
        .filter(|command| !command.trim().is_empty())
        .collect()
}

/// The script with our address and folder in place of the README's.
fn ours(script: &str, address: &str, folder: &str) -> String {
    let mut script = script.to_owned();
    for name in ["localhost:8080", "127.0.0.1:8080"] {
        script = script.replace(name, address);
    }
    // Operator commands look into the default folder: ours is named for them.
    for command in ["audit", "explain", "orders", "rebuild", "import", "config"] {
        script = script.replace(&format!("stoa {command}"), &format!("stoa --data {folder} {command}"));
    }
    script
}
