//! Crash matrix: a kill at every registered commit and outgoing call; every order settles, the audit is clean.
//!
//! The points are not a list of ours: the binary names every site at which it commits or calls
//! (`crash-points`), a recording says which act of the play reaches which, and a site that no act
//! reaches fails. Then the server dies at every point, in the middle of the act and while the actors
//! insist, a few times in one performance; after that the act must end well, everything must be settled
//! within thirty seconds, nobody is charged twice, and `stoa audit` has nothing to say.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use integration::acts::{Act, PATIENCE, Stage};
use integration::ledger::Provider;
use integration::server::Died;
use integration::{Setup, Stoa, command_line, skip, until};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Servers that are killed side by side.
const SIDE_BY_SIDE: usize = 4;

/// Points at which one data folder's servers die, at most.
const POINTS_OF_A_LIFE: usize = 12;

/// Deaths in one performance of an act, at most: what is left of it has to end well.
const DEATHS_OF_A_PLAY: usize = 4;

/// Performances in which a point may be missed before it is given up.
const MISSED: usize = 3;

/// From the restart until everything is settled.
const SETTLED: Duration = Duration::from_secs(30);

/// Points that the acts on one process do not pass: what only processes of a fleet do, and an hourly sweep.
const ELSEWHERE: [&str; 3] =
    ["gateway->/stoa.identity.v1.IdentityService/CheckSession", "identity.sweep_tokens", "saga.beat"];

/// Who passes on whatever anybody calls from outside: the door, and the command line, whose commands the shop runs.
const FROM_OUTSIDE: [&str; 2] = ["gateway", "operator"];

/// One place to die: `commit.before:ordering.place_order`.
type Point = String;

/// The bugs of the planted build, and the act in which each must show.
const PLANTED: [(&str, Act); 3] =
    [("ack-before-commit", Act::Refusals), ("new-payment-key", Act::Provider), ("cursor-before-effect", Act::Sale)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_commit_or_call_loses_and_doubles_nothing() -> Result<()> {
    let prepared = prepare().await?;
    let mut reached: BTreeSet<Point> = BTreeSet::new();
    let mut scripts = vec![];
    for act in Act::ALL {
        let mut points = record(prepared.path(), act).await?;
        // Where several acts reach a point, the first one is played. A call that did not leave the door is one that did not
        // come: the points in front of it are those of whoever waits for the answer.
        points.retain(|point| !is_from_outside("call.before", point) && reached.insert(point.clone()));
        scripts.push((act, points));
    }
    let registered = registered().await?;
    let elsewhere = |point: &Point| ELSEWHERE.iter().any(|name| point.ends_with(name));
    let never: Vec<&Point> = registered.difference(&reached).filter(|point| !elsewhere(point)).collect();
    ensure!(never.is_empty(), "no act reaches {never:#?}");
    // Whatever anybody calls is no list.
    let unlisted = reached.difference(&registered).filter(|point| !is_from_outside("call.after", point));
    let unlisted: Vec<&Point> = unlisted.collect();
    ensure!(unlisted.is_empty(), "the binary does not list {unlisted:#?}");

    let started = Instant::now();
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut lives = JoinSet::new();
    for (act, points) in scripts {
        for points in dealt(points) {
            let (places, prepared) = (Arc::clone(&places), prepared.path().to_owned());
            lives.spawn(async move {
                let _place = places.acquire_owned().await?;
                anyhow::Ok(die_everywhere(&prepared, act, points, None).await)
            });
        }
    }
    let mut failures = vec![];
    for found in lives.join_all().await {
        failures.extend(found?);
    }
    println!("{} points in {:?}", reached.len(), started.elapsed());
    let told: Vec<String> = failures.iter().map(Failure::to_string).collect();
    ensure!(told.is_empty(), "{} failures:\n{}", told.len(), told.join("\n"));
    Ok(())
}

/// Whether it is that point of a call that somebody outside makes.
fn is_from_outside(kind: &str, point: &str) -> bool {
    let call = point.strip_prefix(kind).and_then(|rest| rest.strip_prefix(':')).and_then(|call| call.split_once("->"));
    call.is_some_and(|(caller, _)| FROM_OUTSIDE.contains(&caller))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_planted_bug_is_caught() -> Result<()> {
    let Some(binary) = command_line::planted_binary() else {
        skip::not_proven("the planted bugs: no binary built with them");
        return Ok(());
    };
    let prepared = prepare().await?;
    for (bug, act) in PLANTED {
        let plant = Plant { binary: binary.clone(), bug };
        // The points are those of the sound shop: with its bug an act may not come to its end even without a kill.
        let points = record(prepared.path(), act).await?;
        let mut caught = None;
        for some in dealt(points) {
            let failures = die_everywhere(prepared.path(), act, some, Some(&plant)).await;
            caught = failures.into_iter().find(Failure::by_a_kill);
            if caught.is_some() {
                break;
            }
        }
        let caught = caught.with_context(|| format!("the planted bug {bug} went unnoticed"))?;
        println!("{bug}: {caught}");
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

/// A data folder with the sample catalogue, stopped: every life begins with a copy.
async fn prepare() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("crash-base-").tempdir()?;
    let mut stoa = Stoa::start(Setup::new().data(folder.path().join("data"))).await?;
    let status = stoa.stop().await?;
    ensure!(status.success(), "the prepared server ended with {status}");
    Ok(folder)
}

/// Points dealt to several lives: each gets some of the start, of the middle and of the end of the act.
fn dealt(points: Vec<Point>) -> Vec<Vec<Point>> {
    let mut hands = vec![vec![]; points.len().div_ceil(POINTS_OF_A_LIFE)];
    let count = hands.len();
    for (place, point) in points.into_iter().enumerate() {
        hands[place % count].push(point);
    }
    hands
}

/// Every point the binary has.
async fn registered() -> Result<BTreeSet<Point>> {
    let ended = command_line::stoa(["crash-points"]).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    let points: BTreeSet<Point> = ended.output.lines().map(str::to_owned).collect();
    ensure!(points.len() > 40, "only {} points: {points:?}", points.len());
    Ok(points)
}

/// Plays an act undisturbed and notes which points it reaches, in the order of the first time.
async fn record(prepared: &Path, act: Act) -> Result<Vec<Point>> {
    let folder = folder_for(act, prepared)?;
    let file = folder.path().join("recorded");
    let provider = Provider::start().await?;
    let setup = Setup::default()
        .flags(act.windows())
        .provider(&provider.url())
        .data(folder.path().join("data"))
        .flags(["--crash-record".to_owned(), file.display().to_string()]);
    let stoa = Stoa::start(setup).await?;
    provider.send_webhooks_to(stoa.address()).await?;
    act.play(&Stage { client: &stoa.client(), provider: &provider, patience: PATIENCE }).await?;
    settled(stoa.data()).await?;
    let noted = std::fs::read_to_string(&file).context("nothing was recorded")?;
    Ok(noted.lines().map(str::to_owned).collect())
}

/// What went wrong in a performance, and the deaths in it.
struct Failure {
    act: Act,
    died: Vec<Point>,
    error: Error,
}

impl Failure {
    fn by_a_kill(&self) -> bool {
        !self.died.is_empty()
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, dead at {:?}: {:#}", self.act, self.died, self.error)
    }
}

/// Dies at each point; what went wrong. What is left after a failure gets a new folder.
async fn die_everywhere(prepared: &Path, act: Act, points: Vec<Point>, plant: Option<&Plant>) -> Vec<Failure> {
    let mut failures = vec![];
    let mut left = VecDeque::from(points);
    while !left.is_empty() {
        let (before, mut died) = (left.len(), vec![]);
        let lived = async {
            let mut life = Life::begin(prepared, act, plant).await?;
            match act {
                Act::FirstStart => life.begin_again(&mut left, &mut died).await,
                _ => life.live(&mut left, &mut died).await,
            }
        };
        if let Err(error) = lived.await {
            if left.len() == before {
                left.pop_front();
            }
            failures.push(Failure { act, died, error });
            if plant.is_some() && failures.iter().any(Failure::by_a_kill) {
                break;
            }
        }
    }
    failures
}

/// A data folder, its provider, and the servers that live and die on it one after the other.
struct Life {
    act: Act,
    provider: Arc<Provider>,
    calm: Setup,
    stoa: Stoa,
    _folder: TempDir,
}

impl Life {
    async fn begin(prepared: &Path, act: Act, plant: Option<&Plant>) -> Result<Self> {
        let folder = folder_for(act, prepared)?;
        let provider = Arc::new(Provider::start().await?);
        let setup = Setup::default().flags(act.windows()).provider(&provider.url()).data(folder.path().join("data"));
        let calm = Plant::apply(plant, setup);
        let stoa = Stoa::reserve(calm.clone()).await?;
        Ok(Self { act, provider, calm, stoa, _folder: folder })
    }

    /// Performances until every point was died at; `died` holds those of the last one.
    async fn live(&mut self, left: &mut VecDeque<Point>, died: &mut Vec<Point>) -> Result<()> {
        // A start passes these before anybody asks for anything: to die there counts once work was cut off.
        let mut early = VecDeque::new();
        let mut opener = None;
        let mut missed = 0;
        while let Some(first) = left.pop_front().or_else(|| opener.clone().filter(|_| !early.is_empty())) {
            died.clear();
            self.stoa.kill().await?;
            if !self.rise(Some(&first)).await? {
                ensure!(opener.as_ref() != Some(&first), "{first} is passed before any work");
                early.push_back(first);
                continue;
            }
            let survived = self.perform(first.clone(), left, &mut early, died).await?;
            missed = if survived.is_some() { missed + 1 } else { 0 };
            ensure!(missed < MISSED, "{survived:?} was not met in {MISSED} performances");
            left.extend(survived);
            if !died.is_empty() {
                opener = opener.or(Some(first));
            }
        }
        ensure!(early.is_empty(), "{early:?} are passed before any work");
        Ok(())
    }

    /// Starts that die one after the other on a folder that was empty, and a performance at the end.
    async fn begin_again(&mut self, left: &mut VecDeque<Point>, died: &mut Vec<Point>) -> Result<()> {
        while died.len() < DEATHS_OF_A_PLAY
            && let Some(point) = left.pop_front()
        {
            if !self.rise(Some(&point)).await? {
                died.push(point);
            } else if died.is_empty() {
                // What a start begins may come to the point a moment after it.
                let met = self.perform(point, &mut VecDeque::new(), &mut VecDeque::new(), died).await?;
                ensure!(met.is_none(), "{met:?} is not met by a first start");
                return Ok(());
            } else {
                left.push_front(point);
                break;
            }
        }
        self.stoa.kill().await?;
        ensure!(self.rise(None).await?, "dead without a reason");
        let client = self.stoa.client();
        self.act.play(&Stage { client: &client, provider: &self.provider, patience: PATIENCE }).await?;
        settled(self.stoa.data()).await?;
        self.nobody_paid_twice().await
    }

    /// Starts a server that is to die at a point; false if it died before it was ready.
    async fn rise(&mut self, armed: Option<&Point>) -> Result<bool> {
        let fatal = armed.map(|point| ["--crash-point".to_owned(), format!("{point}:1")]);
        self.stoa.change(self.calm.clone().flags(fatal.into_iter().flatten()));
        let deadline = Instant::now() + SETTLED;
        loop {
            let Err(error) = self.stoa.restart().await else {
                self.provider.send_webhooks_to(self.stoa.address()).await?;
                return Ok(true);
            };
            if error.downcast_ref::<Died>().is_some_and(Died::aborted) {
                return if armed.is_some() { Ok(false) } else { Err(error) };
            }
            // An audit that was cut off with its server may still have the folder.
            if Instant::now() > deadline {
                return Err(error);
            }
            self.stoa.kill().await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One performance, in which the server dies at `first` and at more of what is left, and the judgement after it.
    /// Answers the point that was not met.
    async fn perform(
        &mut self,
        first: Point,
        left: &mut VecDeque<Point>,
        early: &mut VecDeque<Point>,
        died: &mut Vec<Point>,
    ) -> Result<Option<Point>> {
        let (client, data) = (self.stoa.client(), self.stoa.data().to_owned());
        let provider = Arc::clone(&self.provider);
        let stage = Stage { client: &client, provider: &provider, patience: PATIENCE };
        let play = self.act.play(&stage);
        tokio::pin!(play);
        let (mut armed, mut played) = (Some(first), false);
        loop {
            tokio::select! {
                // The actors insist while the server dies and comes back.
                ended = self.stoa.wait_end(Duration::MAX), if armed.is_some() => {
                    let end = Died(ended?);
                    ensure!(end.aborted(), "not at a point: {end}");
                }
                over = &mut play, if !played => {
                    over?;
                    played = true;
                    continue;
                }
                // Work behind the act may reach the point until everything has settled.
                clean = settled(&data), if played => {
                    clean?;
                    break;
                }
            }
            loop {
                died.extend(armed.take());
                if died.len() < DEATHS_OF_A_PLAY {
                    armed = early.pop_front().or_else(|| left.pop_front());
                }
                // To die in this start cuts the recovery off: it counts.
                if self.rise(armed.as_ref()).await? {
                    break;
                }
            }
        }
        self.nobody_paid_twice().await?;
        Ok(armed)
    }

    async fn nobody_paid_twice(&self) -> Result<()> {
        let ledger = self.provider.ledger().await?;
        ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
        Ok(())
    }
}

async fn settled(data: &Path) -> Result<()> {
    until(SETTLED, "settled and clean", async || command_line::audit(data).await.map(Some)).await?;
    Ok(())
}

/// A folder for one life: a copy of the prepared one, or an empty one for a first start.
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
