//! Attacks: what each costs in memory, and how much longer others wait meanwhile than without it, in the same run.
//!
//! The server has one half of the machine's cores. Attackers and others share the other half, on which the others go first: how
//! long they wait is the server's doing, not that of the machine the attackers stand on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::attack::Attack;
use integration::attack::http1::{Idle, Slow, crawl};
use integration::attack::watch::Memory;
use integration::machine::Cores;
use integration::{Setup, Stoa, limits, machine};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::Bench;
use crate::figures::Wanted;
use crate::load::{finish, millis};

/// Others, each a connection that reads a product and waits a moment.
const OTHERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(5);

/// How long each attack goes on, and how long is measured without one before it.
const SPAN: Duration = Duration::from_secs(8);

/// Connections that attack at once; one that is ended comes again.
const ATTACKERS: usize = 4;

/// How much a connection does if nobody ends it.
const ROUNDS: usize = 100_000;

const CRAWLERS: usize = 1_000;
const IDLE: usize = 10_000;

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    for attack in Attack::ALL {
        one(bench, attack.name(), async move |address, over| {
            let mut attackers = JoinSet::new();
            for _ in 0..ATTACKERS {
                let over = Arc::clone(&over);
                attackers.spawn(async move {
                    let mut connections = 0;
                    while !over.load(Ordering::Relaxed) {
                        // One that is neither ended nor done by then is left.
                        let left = tokio::time::timeout(SPAN, attack.run(address, ROUNDS)).await;
                        connections += 1;
                        left.unwrap_or_else(|_| Ok(Default::default()))?;
                    }
                    anyhow::Ok(connections)
                });
            }
            let mut connections = 0_usize;
            for attacker in attackers.join_all().await {
                connections += attacker?;
            }
            Ok(format!("{connections} connections"))
        })
        .await?;
    }
    for (name, slow) in [("slow-headers", Slow::Headers), ("slow-body", Slow::Body)] {
        one(bench, name, async move |address, _| {
            let ends = crawl(address, slow, CRAWLERS, SPAN).await?;
            Ok(format!("{} crawlers, {} ended", ends.len(), ends.iter().filter(|end| end.closed).count()))
        })
        .await?;
    }
    if limits::raise_open_files() < IDLE as u64 + 2_000 {
        println!("{IDLE} idle connections: a process may open fewer files here");
        return Ok(());
    }
    one(bench, "idle", async |address, over| {
        let idle = Idle::open(address, IDLE).await?;
        while !over.load(Ordering::Relaxed) {
            tokio::time::sleep(PAUSE).await;
        }
        drop(idle);
        Ok(format!("{IDLE} connections"))
    })
    .await
}

/// A server of its own, others who read, and after a while the attack, which is told when its time is over.
async fn one<F>(
    bench: &mut Bench,
    name: &str,
    attack: impl FnOnce(SocketAddr, Arc<AtomicBool>) -> F + Send + 'static,
) -> Result<()>
where
    F: Future<Output = Result<String>>,
{
    let folder = bench.folder()?;
    let stoa = Stoa::start(Setup::default().data(folder.path().join("data"))).await?;
    let pid = stoa.pid().context("no process")?;
    let (servers, visitors) = Cores::allowed()?.halves();
    servers.keep(pid)?;
    let all = Cores::allowed()?;
    visitors.keep(std::process::id())?;
    let without = others(&stoa, Arc::default()).await?;
    let memory = Memory::of(pid)?;
    let over = Arc::new(AtomicBool::new(false));
    let (address, told) = (stoa.address(), Arc::clone(&over));
    let attack = last(move || attack(address, told));
    let (came, with) = tokio::join!(attack, others(&stoa, Arc::clone(&over)));
    all.keep(std::process::id())?;
    let (came, with) = (came?, with?);
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    println!(
        "{name}: {came}; {} MiB more; p99 of others {:.2} ms, without {:.2} ms",
        memory.growth_mib(),
        millis(with),
        millis(without),
    );
    bench.figures.add(&format!("attacks.{name}.memory"), memory.growth_mib() as f64, "MiB");
    bench.figures.add(&format!("attacks.{name}.p99"), millis(with), "ms");
    bench.figures.judged(&format!("attacks.{name}.p99_ratio"), ratio, "", Wanted::AtMost(2.0));
    Ok(())
}

/// Does something on a thread of its own that every other goes before.
async fn last<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let worked = || {
            machine::step_back()?;
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work())
        };
        // Nobody waits for it any more.
        let _ = tell.send(worked());
    });
    told.await.context("the attackers panicked")?
}

/// The p99 of what others wait; every answer has to be right.
async fn others(stoa: &Stoa, over: Arc<AtomicBool>) -> Result<Duration> {
    let list = stoa.client().get("/v1/products?pageSize=1").await?.ok()?;
    let path = format!("/v1/{}", list["products"][0]["name"].as_str().context("no product")?);
    let begun = Instant::now();
    let times = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut readers = JoinSet::new();
    for _ in 0..OTHERS {
        let (mut client, path, times) = (stoa.client(), path.clone(), Arc::clone(&times));
        readers.spawn(async move {
            while begun.elapsed() < SPAN {
                let asked = Instant::now();
                let answer = client.get(&path).await?;
                ensure!(answer.status == 200, "{}", answer.describe());
                times.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(asked.elapsed());
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::Ok(())
        });
    }
    let ended = finish(readers).await;
    over.store(true, Ordering::Relaxed);
    ended?;
    let mut times = times.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    times.sort();
    times.get(times.len() * 99 / 100).copied().context("nothing was read")
}
