//! The measurements: what one machine does with one `stoa`, with the machine's own limits beside them.
//!
//! Server, payment provider and load generator are three processes; their CPU time is read apart from
//! `/proc`. Everything is measured on the file system of the data folder, whose fsync time stands in the
//! first lines; a folder in memory is refused. A run that cannot keep its promises (an order that is not
//! confirmed, an audit that finds something) has no numbers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use integration::ledger::Provider;
use integration::retail::Invoices;
use integration::shopper::Shopper;
use integration::{Setup, Stoa, command_line, limits, machine, replay, until};
use tokio::task::JoinSet;

/// Shoppers at the same time.
const SHOPPERS: usize = 64;

/// How long a load is kept up; the first part warms up and does not count.
const MEASURED: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_secs(3);

/// The measurements by name, in the order they run.
const ALL: [&str; 5] = ["start", "reads", "checkouts", "half-load", "year"];

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.iter().any(|word| word == "--help" || word == "-h") {
        println!("bench [NAME...]   measures {}", ALL.join(", "));
        println!("STOA_BENCH_DIR    where data folders are made (on a disk)");
        println!("STOA_RETAIL_CSV   the real year's file");
        return Ok(());
    }
    if let Some(unknown) = wanted.iter().find(|name| !ALL.contains(&name.as_str())) {
        bail!("no measurement is called {unknown:?}; there are {}", ALL.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(|name| wanted.is_empty() || wanted.iter().any(|word| word == name)))
}

async fn measure(wanted: impl Fn(&str) -> bool) -> Result<()> {
    limits::raise_open_files();
    let place = match std::env::var_os("STOA_BENCH_DIR") {
        Some(place) => PathBuf::from(place),
        None => command_line::repository().join("target"),
    };
    std::fs::create_dir_all(&place)?;
    let cores = std::thread::available_parallelism()?;
    println!("machine: {cores} cores, {} on {}", machine::file_system(&place)?, place.display());
    println!("fsync of 4 KiB: median {:.2} ms", millis(machine::fsync_time(&place)?));
    if wanted("start") {
        start(&place).await?;
    }
    if wanted("reads") {
        reads(&place).await?;
    }
    if wanted("checkouts") {
        checkouts(&place, SHOPPERS, None).await?;
    }
    if wanted("half-load") {
        let full = checkouts(&place, SHOPPERS, None).await?;
        checkouts(&place, SHOPPERS, Some(full / 2.0)).await?;
    }
    if wanted("year") {
        year(&place).await?;
    }
    Ok(())
}

/// A folder for one server on the measured file system.
fn folder(place: &Path) -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(place)?)
}

/// Cold starts, and what an idle server holds.
async fn start(place: &Path) -> Result<()> {
    let folder = folder(place)?;
    let mut stoa = Stoa::start(Setup::default().data(folder.path().join("data"))).await?;
    println!("start on an empty folder to first answer: {:.0} ms", millis(stoa.start_time));
    ensure!(stoa.stop().await?.success());
    let mut times = Vec::new();
    for _ in 0..5 {
        stoa.restart().await?;
        times.push(stoa.start_time);
        ensure!(stoa.stop().await?.success());
    }
    times.sort();
    println!("start on an existing folder to first answer: {:.0} ms", millis(times[2]));
    stoa.restart().await?;
    // Idle means after the start's own work is over, not before.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pid = stoa.pid().context("no process")?;
    println!("idle memory: {:.1} MiB", machine::resident_kib(pid)? as f64 / 1024.0);
    Ok(())
}

/// Products through JSON: one, and a list of twenty.
async fn reads(place: &Path) -> Result<()> {
    let folder = folder(place)?;
    let stoa = Stoa::start(Setup::default().data(folder.path().join("data"))).await?;
    let list = stoa.client().get("/v1/products?pageSize=20").await?.ok()?;
    let name = list["products"][0]["name"].as_str().context("no product")?.to_owned();
    for (what, path) in
        [("one product", format!("/v1/{name}")), ("a list of 20", "/v1/products?pageSize=20".to_owned())]
    {
        let load = Load::begin(&stoa, None)?;
        let mut readers = JoinSet::new();
        for _ in 0..SHOPPERS {
            let (mut client, path, load) = (stoa.client(), path.clone(), load.clone());
            readers.spawn(async move {
                while !load.is_over() {
                    let begun = Instant::now();
                    let answer = client.get(&path).await?;
                    ensure!(answer.status == 200, "{}", answer.describe());
                    load.done(begun);
                }
                anyhow::Ok(())
            });
        }
        let used = load.cpu(&stoa, None).await?;
        finish(readers).await?;
        let (count, latency) = load.result();
        println!(
            "{what} by JSON: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms; server CPU {:.0} us each, load generator {:.0} us",
            count as f64 / MEASURED.as_secs_f64(),
            millis(latency.0),
            millis(latency.1),
            micros_each(used.server, count),
            micros_each(used.generator, count),
        );
    }
    Ok(())
}

/// Checkouts from guest to CONFIRMED: token, cart, item, look, price, order, look. With a rate, shoppers
/// begin by the clock instead of as fast as they can.
async fn checkouts(place: &Path, shoppers: usize, rate: Option<f64>) -> Result<f64> {
    let folder = folder(place)?;
    let provider = Provider::start().await?;
    let setup = Setup::default().provider(&provider.url()).data(folder.path().join("data"));
    let stoa = Stoa::start(setup).await?;
    provider.send_webhooks_to(stoa.address()).await?;
    let mut operator = Shopper::operator(&stoa).await?;
    operator.stock("BENCH", 10, 100_000_000).await?;
    let load = Load::begin(&stoa, Some(&provider))?;
    let orders = Arc::new(Load::empty());
    let mut buying = JoinSet::new();
    for number in 0..shoppers {
        let (stoa_client, load, orders) = (stoa.client(), load.clone(), Arc::clone(&orders));
        let pause = rate.map(|rate| Duration::from_secs_f64(shoppers as f64 / rate));
        buying.spawn(async move {
            let mut turn = pause.map(|pause| {
                let first = pause.mul_f64(number as f64 / shoppers as f64);
                tokio::time::interval_at((Instant::now() + first).into(), pause)
            });
            while !load.is_over() {
                if let Some(turn) = &mut turn {
                    turn.tick().await;
                }
                let begun = Instant::now();
                let mut guest = Shopper::guest_over(stoa_client.again()).await?;
                let cart = guest.cart("EUR").await?;
                let cart = cart["name"].as_str().context("no cart")?.to_owned();
                guest.add(&cart, "BENCH", 1).await?;
                guest.http.get(&format!("/v1/{cart}")).await?.ok()?;
                let priced = guest.price(&cart).await?;
                let ordering = Instant::now();
                let order = guest.order(&priced, "tok_ok").await?;
                ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
                if load.counts() {
                    orders.note(ordering.elapsed());
                }
                let name = order["name"].as_str().context("no order")?;
                guest.http.get(&format!("/v1/{name}")).await?.ok()?;
                load.done(begun);
            }
            anyhow::Ok(())
        });
    }
    let used = load.cpu(&stoa, Some(&provider)).await?;
    finish(buying).await?;
    let (count, whole) = load.result();
    let (_, order) = orders.result();
    let per_second = count as f64 / MEASURED.as_secs_f64();
    let how = match rate {
        Some(rate) => format!("at a rate of {rate:.0}/s"),
        None => format!("{shoppers} shoppers at once"),
    };
    println!(
        "checkouts, {how}: {per_second:.0}/s; whole p50 {:.0} ms, p99 {:.0} ms; PlaceOrder to CONFIRMED p50 {:.0} ms, p99 {:.0} ms",
        millis(whole.0),
        millis(whole.1),
        millis(order.0),
        millis(order.1),
    );
    println!(
        "  CPU a checkout: server {:.2} ms, provider {:.2} ms, load generator {:.2} ms",
        micros_each(used.server, count) / 1000.0,
        micros_each(used.provider, count) / 1000.0,
        micros_each(used.generator, count) / 1000.0,
    );
    let ledger = provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice");
    until(Duration::from_secs(120), "a clean audit", async || stoa.audit().await.map(Some)).await?;
    Ok(per_second)
}

/// The real year whole, killed once in the middle; memory, recovery and rebuild afterwards.
async fn year(place: &Path) -> Result<()> {
    let path = match std::env::var_os("STOA_RETAIL_CSV") {
        Some(path) => PathBuf::from(path),
        None => command_line::repository().join("../shared/data/online-retail.csv.gz"),
    };
    if !path.is_file() {
        println!("the real year: skipped, not proven: no file at {}", path.display());
        return Ok(());
    }
    let invoices = Invoices::read(&path, None)?;
    let folder = folder(place)?;
    let data = folder.path().join("data");
    let provider = Provider::start().await?;
    let setup = Setup::default().provider(&provider.url()).data(&data);
    let mut stoa = Stoa::start(setup).await?;
    let done = Arc::new(AtomicU64::new(0));
    let progress = {
        let done = Arc::clone(&done);
        Arc::new(move |count| done.store(count, Ordering::Relaxed))
    };
    let address = stoa.address();
    let half = invoices.invoices.len() as u64 / 3;
    let playing = tokio::spawn(async move {
        let report = replay::play(address, &invoices, progress).await;
        (report, invoices.counts())
    });
    until(Duration::from_secs(1800), "half of the year", async || {
        ensure!(!playing.is_finished(), "the replay ended early");
        Ok((done.load(Ordering::Relaxed) > half).then_some(()))
    })
    .await?;
    stoa.kill().await?;
    stoa.restart().await?;
    println!(
        "the real year: killed after {} sales, back in {:.0} ms",
        done.load(Ordering::Relaxed),
        millis(stoa.start_time)
    );
    let (report, counts) = playing.await?;
    let report = report?;
    report.balances()?;
    println!("{counts:#}");
    println!("{report:#?}");
    ensure!(report.confirmed >= report.sales.saturating_sub(9), "too many refusals");
    let lines = counts["categories"]["sale"]["lines"].as_u64().unwrap_or(0);
    println!(
        "the real year: {} sales with {lines} lines in {:.1} s ({:.0} lines/s)",
        report.sales,
        report.time.as_secs_f64(),
        lines as f64 / report.time.as_secs_f64(),
    );
    let pid = stoa.pid().context("no process")?;
    println!("memory after the real year: {:.1} MiB", machine::resident_kib(pid)? as f64 / 1024.0);
    until(Duration::from_secs(300), "a clean audit", async || stoa.audit().await.map(Some)).await?;
    stoa.kill().await?;
    stoa.restart().await?;
    println!("recovery after kill -9, the year in the log: {:.0} ms", millis(stoa.start_time));
    ensure!(stoa.stop().await?.success());
    let begun = Instant::now();
    let rebuilt = command_line::stoa(["rebuild", "--data", &data.display().to_string()]).await?;
    ensure!(rebuilt.code == Some(0), "{rebuilt:?}");
    println!("rebuild of everything: {:.1} s\n{}", begun.elapsed().as_secs_f64(), rebuilt.output.trim());
    Ok(())
}

/// A load in progress: when it counts, and how long each thing took.
#[derive(Clone)]
struct Load {
    begun: Instant,
    times: Arc<std::sync::Mutex<Vec<Duration>>>,
}

/// CPU time by process, over the measured part alone.
struct Used {
    server: Duration,
    provider: Duration,
    generator: Duration,
}

impl Load {
    fn empty() -> Self {
        Self { begun: Instant::now(), times: Arc::default() }
    }

    fn begin(stoa: &Stoa, provider: Option<&Provider>) -> Result<Self> {
        ensure!(stoa.pid().is_some(), "no server");
        ensure!(provider.is_none_or(|provider| provider.pid().is_some()), "no provider");
        Ok(Self::empty())
    }

    fn is_over(&self) -> bool {
        self.begun.elapsed() > WARM_UP + MEASURED
    }

    fn counts(&self) -> bool {
        let elapsed = self.begun.elapsed();
        elapsed > WARM_UP && elapsed <= WARM_UP + MEASURED
    }

    fn note(&self, time: Duration) {
        self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(time);
    }

    fn done(&self, begun: Instant) {
        if self.counts() {
            self.note(begun.elapsed());
        }
    }

    /// Reads the clocks of the processes at the begin and the end of the measured part.
    async fn cpu(&self, stoa: &Stoa, provider: Option<&Provider>) -> Result<Used> {
        let clocks = || -> Result<[Duration; 3]> {
            Ok([
                machine::cpu_time(stoa.pid().context("no server")?)?,
                match provider {
                    Some(provider) => machine::cpu_time(provider.pid().context("no provider")?)?,
                    None => Duration::ZERO,
                },
                machine::cpu_time(std::process::id())?,
            ])
        };
        tokio::time::sleep_until((self.begun + WARM_UP).into()).await;
        let before = clocks()?;
        tokio::time::sleep_until((self.begun + WARM_UP + MEASURED).into()).await;
        let after = clocks()?;
        Ok(Used {
            server: after[0].saturating_sub(before[0]),
            provider: after[1].saturating_sub(before[1]),
            generator: after[2].saturating_sub(before[2]),
        })
    }

    /// How many, and their p50 and p99.
    fn result(&self) -> (u64, (Duration, Duration)) {
        let mut times = self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        times.sort();
        let at = |part: f64| {
            let index = (times.len() as f64 * part) as usize;
            times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        (times.len() as u64, (at(0.5), at(0.99)))
    }
}

async fn finish(tasks: JoinSet<Result<()>>) -> Result<()> {
    for outcome in tasks.join_all().await {
        outcome?;
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn micros_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}
