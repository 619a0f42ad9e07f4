//! Fleet found through etcd: copies join, leave and die, etcd dies and forgets, and whoever buys goes on buying

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use integration::control::{controls, tell};
use integration::fleet::{Copy, PREFIX, Plan, SERVICES, TTL, engines};
use integration::http::Client;
use integration::shopper::{Shopper, text};
use integration::sold_out::{Begun, SKU, SOON};
use integration::{Fleet, skip, until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What etcd may take beyond a lease to notice that it has run out.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_that_join_leave_and_die_and_an_etcd_that_forgets_cost_no_call() -> Result<()> {
    let Some(lane) = Lane::given() else { return Ok(()) };
    let (first, second, third): (Copy, Copy, Copy) = (("ordering", 0), ("ordering", 1), ("ordering", 2));
    let engines = engines(Some(&lane.database), None)?;
    let plan = Plan { engines: &engines, more: 1, reserved: &[third], etcd: Some(&lane.etcd.url), ..Plan::default() };
    let mut fleet = Fleet::start_as(lane.binary, &plan).await?;
    let etcd = lane.etcd;
    for service in SERVICES {
        let copies = fleet.running().into_iter().filter(|(name, _)| *name == service).collect::<Vec<_>>();
        etcd.lists(&fleet, service, &copies, SOON).await?;
    }
    fleet.operator().await?.stock(SKU, 20, 100_000).await?;
    let mut crowd = Crowd::default();
    for place in 0..4 {
        crowd.buys(fleet.client_of(place % 2));
    }
    crowd.reach(8).await?;

    // It is in no map: whoever finds it, found it in etcd. At the end it serves alone.
    fleet.launch(third).await?;
    etcd.lists(&fleet, "ordering", &[first, second, third], SOON).await?;
    crowd.goes_on().await?;
    for leaves in [first, second] {
        fleet.leave(leaves).await?;
        crowd.goes_on().await.with_context(|| format!("after {leaves:?} left"))?;
    }
    etcd.lists(&fleet, "ordering", &[third], SOON).await?;
    fleet.launch(first).await?;
    etcd.lists(&fleet, "ordering", &[first, third], SOON).await?;
    crowd.goes_on().await?;
    crowd.ends().await?;

    // Away, back, and back without any memory, while a copy joins that nobody can be told of. While it comes back a call may
    // break, and these buyers ask again.
    let mut crowd = Crowd::default();
    for place in 0..4 {
        crowd.buys(fleet.client_of(place % 2).insisting(SOON));
    }
    crowd.reach(8).await?;
    for trouble in ["", "empty"] {
        tell(&etcd.control, "kill").await?;
        crowd.goes_on().await.context("without etcd")?;
        fleet.launch(second).await?;
        if !trouble.is_empty() {
            tell(&etcd.control, trouble).await?;
        }
        tell(&etcd.control, "start").await?;
        etcd.lists(&fleet, "ordering", &[first, second, third], SOON).await?;
        crowd.goes_on().await.context("with etcd again")?;
        fleet.leave(second).await?;
        crowd.goes_on().await?;
    }
    crowd.ends().await?;

    // A copy that is killed breaks what it was doing; what may be repeated is, elsewhere.
    let mut shopper = Shopper::guest_over(fleet.client()).await?;
    let order = text(&shopper.buy("EUR", SKU, 1, "tok_ok").await?, "name")?;
    let mut crowd = Crowd::default();
    for _ in 0..4 {
        crowd.reads(shopper.http.again(), &order);
    }
    crowd.reach(100).await?;
    for dies in [first, third] {
        fleet.kill(dies).await?;
        let left: Vec<Copy> = fleet.running().into_iter().filter(|(name, _)| *name == "ordering").collect();
        etcd.lists(&fleet, "ordering", &left, TTL + SLACK).await?;
        crowd.goes_on().await?;
        fleet.launch(dies).await?;
        etcd.lists(&fleet, "ordering", &[first, third], SOON).await?;
        crowd.goes_on().await?;
    }
    crowd.ends().await
}

/// What the lane has: the binary with the fleet's engines, databases, and an etcd that may be killed.
struct Lane {
    binary: PathBuf,
    database: String,
    etcd: Etcd,
}

impl Lane {
    fn given() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let given = (|| {
            let control = controls()?.pop()?;
            let url = variable("STOA_FLEET_ETCD")?;
            let address = url.strip_prefix("http://")?.parse().ok()?;
            let database = variable("STOA_FLEET_DATABASES")?.replace("{fleet}", "a");
            let etcd = Etcd { url, address, control };
            Some(Lane { binary: variable("STOA_FLEET_BIN")?.into(), database, etcd })
        })();
        if given.is_none() {
            skip::not_proven("a fleet found through etcd: no binary built for it, no PostgreSQL or no etcd");
        }
        given
    }
}

struct Etcd {
    url: String,
    address: SocketAddr,
    control: String,
}

impl Etcd {
    /// Waits until exactly these copies of a service are listed, each at its address.
    async fn lists(&self, fleet: &Fleet, service: &str, copies: &[Copy], limit: Duration) -> Result<()> {
        let mut wanted: Vec<String> =
            copies.iter().map(|copy| Ok(fleet.address(*copy)?.to_string())).collect::<Result<_>>()?;
        wanted.sort();
        until(limit, &format!("{service} at {wanted:?}"), async || {
            let found = self.read(&format!("{PREFIX}/{service}/")).await?;
            ensure!(found == wanted, "{found:?}");
            Ok(Some(()))
        })
        .await
    }

    /// The values under a prefix that ends in a slash.
    async fn read(&self, prefix: &str) -> Result<Vec<String>> {
        let after = format!("{}0", prefix.strip_suffix('/').context("no folder")?);
        let range = json!({ "key": BASE64_STANDARD.encode(prefix), "range_end": BASE64_STANDARD.encode(after) });
        let found = Client::new(self.address).post("/v3/kv/range", &range).await?.ok()?;
        let values = found["kvs"].as_array().into_iter().flatten().map(|kv| kv["value"].as_str().unwrap_or_default());
        let mut values = values
            .map(|value| Ok(String::from_utf8(BASE64_STANDARD.decode(value)?)?))
            .collect::<Result<Vec<String>>>()?;
        values.sort();
        Ok(values)
    }
}

/// People who do the same again and again and take no for an answer: what fails once has failed.
#[derive(Default)]
struct Crowd {
    done: Begun,
    enough: Arc<AtomicBool>,
    people: JoinSet<Result<()>>,
}

impl Crowd {
    fn buys(&mut self, door: Client) {
        let (done, enough) = (self.done.clone(), Arc::clone(&self.enough));
        self.people.spawn(async move {
            while !enough.load(Ordering::Relaxed) {
                let order = Shopper::guest_over(door.again()).await?.buy("EUR", SKU, 1, "tok_ok").await?;
                ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
                done.count();
            }
            Ok(())
        });
    }

    fn reads(&mut self, mut door: Client, order: &str) {
        let (done, enough, path) = (self.done.clone(), Arc::clone(&self.enough), format!("/v1/{order}"));
        self.people.spawn(async move {
            while !enough.load(Ordering::Relaxed) {
                let read: Value = door.get(&path).await?.ok()?;
                ensure!(path.ends_with(read["name"].as_str().unwrap_or("?")), "{read}");
                done.count();
            }
            Ok(())
        });
    }

    /// Waits until so much more has been done.
    async fn reach(&mut self, more: usize) -> Result<()> {
        let goal = self.done.so_far() + more;
        tokio::select! {
            reached = self.done.reach(goal) => reached,
            Some(ended) = self.people.join_next() => ended?.and_then(|()| anyhow::bail!("somebody went home")),
        }
    }

    async fn goes_on(&mut self) -> Result<()> {
        self.reach(16).await
    }

    async fn ends(mut self) -> Result<()> {
        self.enough.store(true, Ordering::Relaxed);
        while let Some(ended) = self.people.join_next().await {
            ended??;
        }
        Ok(())
    }
}
