//! Partition: between two services wires are cut, fall silent, crawl and lose answers under a sale; nothing is lost or doubled

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::fleet::{Link, Plan};
use integration::shopper::{Shopper, text};
use integration::sold_out::{Begun, PATIENCE, SKU, SOON, buy};
use integration::wire::Weather;
use integration::{Fleet, command_line, until};
use serde_json::Value;
use tokio::task::JoinSet;

/// Every kind of call a checkout makes, and one reader of another's log.
const LINKS: [Link; 6] = [
    ("gateway", "ordering"),
    ("cart", "catalog"),
    ("ordering", "cart"),
    ("ordering", "inventory"),
    ("ordering", "payment"),
    ("shipping", "ordering"),
];

const WEATHERS: [Weather; 4] =
    [Weather::Cut, Weather::Silent, Weather::AnswersLost, Weather::Slow(Duration::from_millis(300))];

/// How much has to meet a weather before it passes, and how long it lasts at most once something has: longer than most
/// calls may take.
const HURT: usize = 6;
const LASTS: Duration = Duration::from_secs(3);

const PIECES: i64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn troubled_wires_lose_and_double_nothing() -> Result<()> {
    let fleet = Fleet::start_as(command_line::binary()?, &Plan { wires: &LINKS, ..Plan::default() }).await?;
    fleet.operator().await?.stock(SKU, 20, PIECES).await?;
    let (begun, enough) = (Begun::default(), Arc::new(AtomicBool::new(false)));
    let mut buyers = JoinSet::new();
    for _ in 0..4 {
        let (client, begun, enough) = (fleet.client().insisting(PATIENCE), begun.clone(), Arc::clone(&enough));
        buyers.spawn(async move {
            let mut orders = vec![];
            while !enough.load(Ordering::Relaxed) {
                begun.count();
                orders.push(buy(Shopper::guest_over(client.again()).await?).await?);
            }
            Ok::<_, anyhow::Error>(orders)
        });
    }
    for (turn, (link, weather)) in LINKS.iter().flat_map(|link| WEATHERS.map(|it| (*link, it))).enumerate() {
        begun.reach(2 * turn).await?;
        storm(&fleet, link, weather).await.with_context(|| format!("{weather:?} between {link:?}"))?;
    }
    enough.store(true, Ordering::Relaxed);
    let mut orders = vec![];
    while let Some(bought) = buyers.join_next().await {
        orders.extend(bought??);
    }
    judge(&fleet, &orders).await
}

/// Bad weather until enough has met it, or it has lasted long enough.
async fn storm(fleet: &Fleet, link: Link, weather: Weather) -> Result<()> {
    let wire = fleet.wire(link)?;
    let before = wire.hurt();
    wire.set(weather);
    until(PATIENCE, "somebody uses the wire", async || Ok((wire.hurt() > before).then_some(()))).await?;
    let ends = Instant::now() + LASTS;
    until(PATIENCE, "the weather passes", async || {
        Ok((wire.hurt() >= before + HURT || Instant::now() >= ends).then_some(()))
    })
    .await?;
    wire.set(Weather::Fair);
    Ok(())
}

/// Every order is confirmed and paid once, has one parcel, and its piece has left the shelf.
async fn judge(fleet: &Fleet, orders: &[Value]) -> Result<()> {
    let lost: Vec<&Value> = orders.iter().filter(|order| order["state"] != "ORDER_STATE_CONFIRMED").collect();
    ensure!(lost.is_empty(), "not confirmed, of {}: {lost:?}", orders.len());
    let names: BTreeSet<String> = orders.iter().map(|order| text(order, "name")).collect::<Result<_>>()?;
    ensure!(names.len() == orders.len(), "an order was given to two buyers");
    let ledger = fleet.provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    ensure!(ledger.authorized().count() == orders.len(), "{} authorisations stand", ledger.authorized().count());
    let mut operator = fleet.operator().await?;
    let left = operator.availability(&[SKU]).await?;
    let wanted = (PIECES - i64::try_from(orders.len())?).to_string();
    ensure!(left["availabilities"][0]["available"] == wanted.as_str(), "{left}, not {wanted}");
    for name in &names {
        let parcels = until(SOON, "a parcel", async || {
            let mut looking = Shopper { http: operator.http.again(), user: String::new() };
            let parcels = looking.shipments(name).await?;
            Ok((!parcels.is_empty()).then_some(parcels))
        })
        .await
        .with_context(|| name.clone())?;
        ensure!(parcels.len() == 1, "{name} has {} parcels", parcels.len());
    }
    println!("{} orders through {} storms", orders.len(), LINKS.len() * WEATHERS.len());
    Ok(())
}
