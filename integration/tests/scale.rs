//! Scale: a third copy of payment joins a sale that waits for a slow provider, and more is sold; it leaves; nobody is told no

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration::buyers::Buyers;
use integration::fleet::{Copy, Plan, engines};
use integration::sold_out::SKU;
use integration::{Fleet, skip};

/// How long the provider takes to answer.
const SLOW: Duration = Duration::from_secs(1);
/// Calls to the provider that one copy makes at once: with the provider's time, what a copy of payment can do, whatever the
/// machine. Every other limit is far away.
const SETTINGS: &[&str] = &["--psp-calls", "2", "--psp-timeout", "20s", "--drain", "15s"];
/// More than three copies can serve at once, so that somebody always waits.
const BUYERS: usize = 14;
/// Orders until callers have found a copy that came or went: they try one that was away every ten seconds at least.
const SETTLING: usize = 60;
/// Orders that are measured.
const MEASURED: usize = 48;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_copy_sells_more_and_neither_its_coming_nor_its_going_costs_a_call() -> Result<()> {
    let given = std::env::var_os("STOA_FLEET_BIN").zip(std::env::var("STOA_FLEET_DATABASES").ok());
    let Some((binary, database)) = given else {
        skip::not_proven("a third copy under load: no binary built for it, or no server");
        return Ok(());
    };
    let database = database.replace("{fleet}", "a");
    let (second, third): (Copy, Copy) = (("payment", 1), ("payment", 2));
    let plan = Plan {
        engines: &engines(Some(&database), None)?,
        reserved: &[second, third],
        windows: SETTINGS,
        slow: Some(SLOW),
        ..Plan::default()
    };
    let mut fleet = Fleet::start_as(PathBuf::from(binary), &plan).await?;
    fleet.launch(second).await?;
    fleet.operator().await?.stock(SKU, 20, 100_000).await?;
    let mut buyers = Buyers::at(&fleet, BUYERS, 1, "tok_slow");

    let two = goodput(&mut buyers).await?;
    fleet.launch(third).await?;
    let three = goodput(&mut buyers).await?;
    fleet.leave(third).await?;
    let again = goodput(&mut buyers).await?;
    println!(
        "measured: orders/s with two copies of payment {two:.2}, with three {three:.2} ({:.2} times), with two again {again:.2}",
        three / two
    );
    ensure!(three > 1.2 * two, "a third copy brings nothing: {three:.2} orders/s instead of {two:.2}");
    let orders = buyers.home().await?;
    let ledger = fleet.provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    ensure!(ledger.authorized().count() == orders.len(), "{} authorisations stand", ledger.authorized().count());
    Ok(())
}

/// Orders confirmed in a second, once callers have settled.
async fn goodput(buyers: &mut Buyers) -> Result<f64> {
    buyers.more(SETTLING).await?;
    let begun = Instant::now();
    buyers.more(MEASURED).await?;
    Ok(MEASURED as f64 / begun.elapsed().as_secs_f64())
}
