//! Crash matrix: a kill at every registered commit and outgoing call; every order settles, the audit is clean.
//!
//! The points are not a list of ours: the binary names every site at which it commits or calls
//! (`crash-points`), a recording says which act of the play reaches which, and a site that no act
//! reaches fails. Then every point gets a server of its own that dies there, in the middle of the act,
//! while the actors insist; after the restart the act must end well, everything must be settled within
//! thirty seconds, nobody is charged twice, and `stoa audit` has nothing to say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use integration::acts::{Act, Stage};
use integration::ledger::Provider;
use integration::{Setup, Stoa, command_line, skip, until};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Servers that die at the same time.
const SIDE_BY_SIDE: usize = 4;

/// From the restart until everything is settled.
const SETTLED: Duration = Duration::from_secs(30);

/// A point that a start passes often enough is given up.
const LATEST_HIT: u32 = 12;

/// One place to die: `commit.before:ordering.place_order`.
type Point = String;

/// The bugs of the planted build, and the act in which each must show.
const PLANTED: [(&str, Act); 3] =
    [("ack-before-commit", Act::Refusals), ("new-payment-key", Act::Provider), ("cursor-before-effect", Act::Sale)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_commit_or_call_loses_and_doubles_nothing() -> Result<()> {
    let prepared = prepare().await?;
    let reached = record(prepared.path(), None).await?;
    let registered = registered().await?;
    let never: Vec<&Point> = registered.iter().filter(|point| !reached.contains_key(*point)).collect();
    ensure!(never.is_empty(), "no act reaches {never:#?}");

    let started = Instant::now();
    let failures = die_everywhere(prepared.path(), reached.clone(), None).await?;
    println!("{} points in {:?}", reached.len(), started.elapsed());
    ensure!(failures.is_empty(), "{} of {} points:\n{}", failures.len(), reached.len(), failures.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_planted_bug_is_caught() -> Result<()> {
    let Some(binary) = command_line::planted_binary() else {
        skip::not_proven("the planted bugs: no binary built with them");
        return Ok(());
    };
    for (bug, act) in PLANTED {
        let plant = Plant { binary: binary.clone(), bug };
        let prepared = prepare().await?;
        let mut reached = record(prepared.path(), Some(&plant)).await?;
        reached.retain(|_, acts| acts.contains(&format!("{act:?}")));
        let failures = die_everywhere(prepared.path(), reached, Some(&plant)).await?;
        ensure!(!failures.is_empty(), "the planted bug {bug} went unnoticed");
        println!("{bug}: caught at {} points, first {}", failures.len(), failures[0]);
    }
    Ok(())
}

/// A binary with a bug that is switched on.
#[derive(Clone)]
struct Plant {
    binary: PathBuf,
    bug: &'static str,
}

impl Plant {
    fn apply(plant: Option<&Self>, setup: Setup) -> Setup {
        match plant {
            Some(plant) => setup.binary(&plant.binary).flags(["--planted-bug", plant.bug]),
            None => setup,
        }
    }
}

/// A data folder with the sample catalogue, stopped: every server starts from a copy.
async fn prepare() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("crash-base-").tempdir()?;
    let mut stoa = Stoa::start(Setup::new().data(folder.path().join("data"))).await?;
    let status = stoa.stop().await?;
    ensure!(status.success(), "the prepared server ended with {status}");
    Ok(folder)
}

/// Every point the binary has.
async fn registered() -> Result<BTreeSet<Point>> {
    let ended = command_line::stoa(["crash-points"]).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    let points: BTreeSet<Point> = ended.output.lines().map(str::to_owned).collect();
    ensure!(points.len() > 40, "only {} points: {points:?}", points.len());
    Ok(points)
}

/// Plays every act once, each on its own server, and notes which points it reaches.
async fn record(prepared: &Path, plant: Option<&Plant>) -> Result<BTreeMap<Point, BTreeSet<String>>> {
    let mut reached: BTreeMap<Point, BTreeSet<String>> = BTreeMap::new();
    for act in Act::ALL {
        let folder = folder_for(act, prepared)?;
        let file = folder.path().join("recorded");
        let provider = Provider::start().await?;
        let setup = Setup::default()
            .flags(act.windows())
            .provider(&provider.url())
            .data(folder.path().join("data"))
            .flags(["--crash-record".to_owned(), file.display().to_string()]);
        let stoa = Stoa::start(Plant::apply(plant, setup)).await?;
        provider.send_webhooks_to(stoa.address()).await?;
        act.play(&Stage { client: &stoa.client(), provider: &provider }).await?;
        settled(&stoa).await?;
        let noted = std::fs::read_to_string(&file).context("nothing was recorded")?;
        for point in noted.lines() {
            reached.entry(point.to_owned()).or_default().insert(format!("{act:?}"));
        }
    }
    Ok(reached)
}

/// Dies once at each point; what went wrong, one line each.
async fn die_everywhere(
    prepared: &Path,
    reached: BTreeMap<Point, BTreeSet<String>>,
    plant: Option<&Plant>,
) -> Result<Vec<String>> {
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut deaths = JoinSet::new();
    for (point, acts) in reached {
        let act =
            Act::ALL.into_iter().find(|act| acts.contains(&format!("{act:?}"))).with_context(|| format!("{acts:?}"))?;
        let (places, prepared, plant) = (Arc::clone(&places), prepared.to_owned(), plant.cloned());
        deaths.spawn(async move {
            let _place = places.acquire_owned().await?;
            anyhow::Ok(
                die(&prepared, &point, act, plant.as_ref())
                    .await
                    .err()
                    .map(|error| format!("{point} in {act:?}: {error:#}")),
            )
        });
    }
    let mut failures = Vec::new();
    for outcome in deaths.join_all().await {
        failures.extend(outcome?);
    }
    Ok(failures)
}

/// Dies at the first hit of a point that meets work in flight: hits before the act begins do not count.
async fn die(prepared: &Path, point: &Point, act: Act, plant: Option<&Plant>) -> Result<()> {
    for nth in 1..=LATEST_HIT {
        let folder = folder_for(act, prepared)?;
        match die_at(folder.path(), &format!("{point}:{nth}"), act, plant).await? {
            Death::InTheAct => return Ok(()),
            Death::TooEarly => {}
        }
    }
    bail!("the first {LATEST_HIT} hits meet no work in flight")
}

enum Death {
    InTheAct,
    TooEarly,
}

/// One server, one death in the middle of the act, and everything is as it should be.
async fn die_at(folder: &Path, spec: &str, act: Act, plant: Option<&Plant>) -> Result<Death> {
    let provider = Provider::start().await?;
    let calm = Setup::default().flags(act.windows()).provider(&provider.url()).data(folder.join("data"));
    let calm = Plant::apply(plant, calm);
    let mut stoa = Stoa::reserve(calm.clone()).await?;
    stoa.change(calm.clone().flags(["--crash-point", spec]));
    let launched = stoa.launch().await;
    if act == Act::FirstStart {
        // The start is the act: it may die before it listens.
        if launched.is_ok() {
            stoa.wait_end(SETTLED).await.context("the point was never reached")?;
        }
        stoa.change(calm);
        stoa.restart().await?;
        provider.send_webhooks_to(stoa.address()).await?;
        act.play(&Stage { client: &stoa.client(), provider: &provider }).await?;
        return judged(&stoa, &provider).await;
    }
    if launched.is_err() {
        return Ok(Death::TooEarly);
    }
    provider.send_webhooks_to(stoa.address()).await?;
    if stoa.ended()?.is_some() {
        return Ok(Death::TooEarly);
    }
    let client = stoa.client();
    let stage = Stage { client: &client, provider: &provider };
    let play = act.play(&stage);
    tokio::pin!(play);
    // The actors insist while the server dies and comes back; who is first tells what happened.
    let ended = tokio::select! {
        played = &mut play => {
            played?;
            None
        }
        ended = stoa.wait_end(Duration::from_secs(120)) => Some(ended?),
    };
    let played = ended.is_none();
    // Background work may reach the point a moment after the act is over.
    let status = match ended {
        Some(status) => status,
        None => stoa.wait_end(SETTLED).await.context("the point was never reached")?,
    };
    ensure!(!status.success(), "the server ended by itself: {status}");
    stoa.change(calm);
    stoa.restart().await?;
    if !played {
        play.await?;
    }
    judged(&stoa, &provider).await
}

async fn judged(stoa: &Stoa, provider: &Provider) -> Result<Death> {
    settled(stoa).await?;
    let ledger = provider.ledger().await?;
    if !ledger.doubled().is_empty() {
        bail!("charged twice: {:?}", ledger.doubled());
    }
    Ok(Death::InTheAct)
}

async fn settled(stoa: &Stoa) -> Result<()> {
    until(SETTLED, "settled and clean", async || stoa.audit().await.map(Some)).await?;
    Ok(())
}

/// A folder for one server: a copy of the prepared one, or an empty one for a first start.
fn folder_for(act: Act, prepared: &Path) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("crash-").tempdir()?;
    if act != Act::FirstStart {
        copy_folder(prepared, folder.path())?;
    }
    Ok(folder)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
