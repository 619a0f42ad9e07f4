//! Overload: visitors come by the clock, whether or not those before them have been served, and leave when it takes too long.
//!
//! A visitor looks at a product and buys it. The visit is good when every answer was right and the last came within five
//! seconds, an order that is CONFIRMED. Who is refused does not come again, and who left counts for nothing, whatever was done
//! for them. The peak is the most good visits a second that any rate of arrivals gave; then twice and ten times as many come.
//! The server has one half of the machine's cores, visitors and provider the other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use integration::http::{Answer, Client};
use integration::ledger::Provider;
use integration::machine::Cores;
use integration::shopper::{Priced, Shopper, order_body, request_id, text};
use integration::{Setup, Stoa, machine, until};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Bench;
use crate::figures::Wanted;
use crate::load::millis;

/// How long they wait, from the first look to a confirmed order.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections of all visitors; who finds none waits for one within their time.
const CONNECTIONS: usize = 2_048;
/// How long a rate is tried while the peak is looked for, and kept up once it is known; the first part does not count.
const TRY: Duration = Duration::from_secs(6);
const KEPT: Duration = Duration::from_secs(20);
const BEGIN: Duration = Duration::from_secs(2);
/// Between two arrivals of many.
const TICK: Duration = Duration::from_millis(2);
/// The rates that are tried: doubled from the first, then a little more than the last that was served.
const FIRST: f64 = 25.0;
const MORE: [f64; 6] = [1.15, 1.3, 1.45, 1.6, 1.75, 1.9];
/// A rate is served when so much of it was good.
const SERVED: f64 = 0.95;
/// Afterwards so much of the peak comes, and all is well again after the last second in which less than [`SERVED`] was good.
const CALM: f64 = 0.7;
/// Arrivals that the generator may begin this late; later ones were not offered when it says.
const PUNCTUAL: Duration = Duration::from_millis(100);
/// What is left of the peak at ten times its rate, or it has collapsed.
const NO_COLLAPSE: f64 = 0.5;

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    let folder = bench.folder()?;
    let provider = Provider::start().await?;
    let setup = Setup::default().provider(&provider.url()).data(folder.path().join("data"));
    let stoa = Stoa::start(setup).await?;
    provider.send_webhooks_to(stoa.address()).await?;
    let cores = Cores::allowed()?;
    let (servers, visitors) = cores.halves();
    servers.keep(stoa.pid().context("no server")?)?;
    visitors.keep(provider.pid().context("no provider")?)?;
    visitors.keep(std::process::id())?;
    let outcome = Street::open(&stoa).await?.measure(bench).await;
    cores.keep(std::process::id())?;
    cores.keep(stoa.pid().context("no server")?)?;
    outcome?;
    let ledger = provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice");
    until(Duration::from_secs(120), "a clean audit", async || stoa.audit().await.map(Some)).await?;
    Ok(())
}

/// What visitors come by: connections, and what there is to look at.
#[derive(Clone)]
struct Street {
    pid: u32,
    address: SocketAddr,
    idle: Arc<Mutex<Vec<Client>>>,
    places: Arc<Semaphore>,
    product: Arc<str>,
}

/// How a visit ended.
#[derive(Clone, Debug, PartialEq)]
enum End {
    Good,
    Refused,
    Late,
    Wrong(String),
}

struct Visit {
    /// When it began, since the first.
    at: Duration,
    /// How much later than it should have.
    lag: Duration,
    end: End,
    took: Duration,
}

/// A rate that was kept up.
struct Stage {
    rate: f64,
    span: Duration,
    visits: Vec<Visit>,
    server: Duration,
    generator: Duration,
}

impl Street {
    async fn open(stoa: &Stoa) -> Result<Self> {
        let mut operator = Shopper::operator(stoa).await?;
        operator.stock("BENCH", 10, 100_000_000).await?;
        let list = stoa.client().get("/v1/products?pageSize=1").await?.ok()?;
        let product = format!("/v1/{}", list["products"][0]["name"].as_str().context("no product")?);
        Ok(Street {
            pid: stoa.pid().context("no server")?,
            address: stoa.address(),
            idle: Arc::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            product: product.into(),
        })
    }

    async fn measure(&self, bench: &mut Bench) -> Result<()> {
        self.offer(FIRST, TRY).await?;
        let (peak, at) = self.peak().await?;
        bench.figures.add("overload.peak", peak, "visits/s");
        for (name, times, wanted) in [("twice", 2.0, 0.8), ("ten_times", 10.0, NO_COLLAPSE)] {
            let stage = self.offer(at * times, KEPT).await?;
            stage.is_offered()?;
            let kept = stage.good() / peak;
            let mut add = |what: &str, value, unit| bench.figures.add(&format!("overload.{name}.{what}"), value, unit);
            add("offered", stage.rate, "visits/s");
            add("good", stage.good(), "visits/s");
            add("refused", stage.share(|visit| visit.end == End::Refused), "of all");
            add("late", stage.share(|visit| visit.end == End::Late), "of all");
            add("good_p99", millis(stage.good_p99()), "ms");
            bench.figures.judged(&format!("overload.{name}.of_peak"), kept, "", Wanted::AtLeast(wanted));
            stage.has_no_mistake()?;
        }
        // Right after it, without a pause: what is left of the crowd has to be served or let go first.
        let calm = self.offer(peak * CALM, KEPT).await?;
        calm.has_no_mistake()?;
        let recovery = calm.well_from().context("all was never well again")?;
        bench.figures.judged("overload.recovery", recovery.as_secs_f64(), "s", Wanted::AtMost(5.0));
        Ok(())
    }

    /// The most good visits a second of any rate, and that rate.
    async fn peak(&self) -> Result<(f64, f64)> {
        let mut best = (0.0, 0.0);
        let mut served = FIRST;
        let mut rate = FIRST;
        let mut look = async |rate: f64| {
            let stage = self.offer(rate, TRY).await?;
            stage.has_no_mistake()?;
            stage.is_offered()?;
            if stage.good() > best.0 {
                best = (stage.good(), rate);
            }
            anyhow::Ok(stage.good() >= SERVED * rate)
        };
        while look(rate).await? {
            served = rate;
            rate *= 2.0;
        }
        for more in MORE {
            look(served * more).await?;
        }
        Ok(best)
    }

    /// Visitors arrive at this rate for so long.
    async fn offer(&self, rate: f64, span: Duration) -> Result<Stage> {
        let clocks = || anyhow::Ok((machine::cpu_time(self.pid)?, machine::cpu_time(std::process::id())?));
        let before = clocks()?;
        let begun = Instant::now();
        let visits = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let mut tick = tokio::time::interval(TICK);
        let mut came = 0_u64;
        while begun.elapsed() < span {
            tick.tick().await;
            let due = (begun.elapsed().min(span).as_secs_f64() * rate) as u64;
            while came < due {
                let at = Duration::from_secs_f64(came as f64 / rate);
                let (street, visits) = (self.clone(), Arc::clone(&visits));
                tasks.spawn(async move {
                    let visit = street.visit(begun, at).await;
                    visits.lock().unwrap_or_else(PoisonError::into_inner).push(visit);
                });
                came += 1;
            }
            while tasks.try_join_next().is_some() {}
        }
        let after = clocks()?;
        tasks.join_all().await;
        let visits = std::mem::take(&mut *visits.lock().unwrap_or_else(PoisonError::into_inner));
        let stage = Stage {
            rate,
            span,
            visits,
            server: after.0.saturating_sub(before.0),
            generator: after.1.saturating_sub(before.1),
        };
        stage.tell();
        Ok(stage)
    }

    async fn visit(&self, begun: Instant, at: Duration) -> Visit {
        let due = begun + at;
        let lag = due.elapsed();
        let end = match tokio::time::timeout_at((due + PATIENCE).into(), self.served()).await {
            Ok(Ok(())) => End::Good,
            Ok(Err(end)) => end,
            // Who leaves takes their connection along.
            Err(_) => End::Late,
        };
        Visit { at, lag, end, took: due.elapsed() }
    }

    async fn served(&self) -> Result<(), End> {
        let _place = self.places.acquire().await.map_err(|closed| End::Wrong(closed.to_string()))?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut client = idle.unwrap_or_else(|| Client::new(self.address));
        let end = purchase(&mut client, &self.product).await;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client.anonymous());
        end
    }
}

/// From the look at a product to a confirmed order, as `checkouts` goes.
async fn purchase(client: &mut Client, product: &str) -> Result<(), End> {
    let field = |json: &Value, name: &str| text(json, name).map_err(wrong);
    read(client.get(product).await)?;
    let session = read(client.post("/v1/sessions:guest", &json!({})).await)?;
    client.set_token(field(&session, "accessToken")?);
    let cart = read(client.post("/v1/carts:getOrCreate", &json!({ "currencyCode": "EUR" })).await)?;
    let cart = field(&cart["cart"], "name")?;
    let add = json!({ "sku": "BENCH", "quantity": 1, "requestId": request_id() });
    read(client.post(&format!("/v1/{cart}:addItem"), &add).await)?;
    read(client.get(&format!("/v1/{cart}")).await)?;
    let priced = read(client.post(&format!("/v1/{cart}:price"), &json!({})).await)?;
    let priced = Priced::read(&priced["quote"]).map_err(wrong)?;
    let order = read(client.post("/v1/orders", &order_body(&priced, "tok_ok", &request_id())).await)?;
    match order["state"].as_str() {
        Some("ORDER_STATE_CONFIRMED") => {}
        Some("ORDER_STATE_PENDING") => return Err(End::Late),
        _ => return Err(End::Wrong(order.to_string())),
    }
    read(client.get(&format!("/v1/{}", field(&order, "name")?)).await).map(drop)
}

fn read(answer: Result<Answer>) -> Result<Value, End> {
    let answer = answer.map_err(wrong)?;
    match answer.status {
        200 => Ok(answer.json()),
        429 if answer.retry_after().is_some() => Err(End::Refused),
        504 => Err(End::Late),
        _ => Err(End::Wrong(answer.describe())),
    }
}

fn wrong(error: anyhow::Error) -> End {
    End::Wrong(format!("{error:#}"))
}

impl Stage {
    fn counted(&self) -> impl Iterator<Item = &Visit> {
        self.visits.iter().filter(|visit| visit.at >= BEGIN)
    }

    fn good(&self) -> f64 {
        self.rate_of(|visit| visit.end == End::Good)
    }

    fn rate_of(&self, which: impl Fn(&Visit) -> bool) -> f64 {
        self.counted().filter(|visit| which(visit)).count() as f64 / (self.span - BEGIN).as_secs_f64()
    }

    fn share(&self, which: impl Fn(&Visit) -> bool) -> f64 {
        self.rate_of(which) / self.rate_of(|_| true).max(f64::MIN_POSITIVE)
    }

    /// How long good visits took at most, but for one of a hundred.
    fn good_p99(&self) -> Duration {
        at_p99(self.counted().filter(|visit| visit.end == End::Good).map(|visit| visit.took).collect())
    }

    /// The second from which on nearly all visits were good, since the first visitor.
    fn well_from(&self) -> Option<Duration> {
        let seconds = self.span.as_secs();
        let well = |second: &u64| {
            let of = |good: bool| {
                let visits = self.visits.iter().filter(|visit| visit.at.as_secs() == *second);
                visits.filter(|visit| !good || visit.end == End::Good).count() as f64
            };
            of(true) >= SERVED * of(false)
        };
        let from = (0..seconds).rev().find(|second| !well(second)).map_or(0, |bad| bad + 1);
        (from < seconds).then(|| Duration::from_secs(from))
    }

    /// What was wrong, if anything was: a refusal and a late answer are not.
    fn has_no_mistake(&self) -> Result<()> {
        let wrong = self.visits.iter().filter_map(|visit| match &visit.end {
            End::Wrong(what) => Some(what.as_str()),
            End::Good | End::Refused | End::Late => None,
        });
        let wrong: Vec<&str> = wrong.collect();
        match wrong.first() {
            Some(first) => bail!("{} of {} visits at {:.0}/s: {first}", wrong.len(), self.visits.len(), self.rate),
            None => Ok(()),
        }
    }

    /// A generator that falls behind has not offered what it says.
    fn is_offered(&self) -> Result<()> {
        let lag = at_p99(self.visits.iter().map(|visit| visit.lag).collect());
        ensure!(lag <= PUNCTUAL, "visitors at {:.0}/s begin {:.0} ms late", self.rate, millis(lag));
        Ok(())
    }

    fn tell(&self) {
        let cores = |used: Duration| used.as_secs_f64() / self.span.as_secs_f64();
        println!(
            "{:.0} visits/s: {:.0}/s good, {:.0} % refused, {:.1} % late; p99 of good ones {:.0} ms; cores used: server {:.2}, visitors {:.2}",
            self.rate,
            self.good(),
            100.0 * self.share(|visit| visit.end == End::Refused),
            100.0 * self.share(|visit| visit.end == End::Late),
            millis(self.good_p99()),
            cores(self.server),
            cores(self.generator),
        );
    }
}

fn at_p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).or(times.last()).copied().unwrap_or_default()
}
