//! Flash sales at two doors of a fleet, while processes and engines are killed.
//!
//! One sale after the other, until everything has been killed as often as planned; each has its own article, and each is
//! sold to the last piece and not beyond.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::around::Around;
use super::strike::{Striker, Victim, victims};
use super::{Engines, PATIENT, SETTLED, Scale, Tally, WATCHFUL, fleet_that, passed, well};
use crate::calls::Calls;
use crate::flash_sale::{self, Offer};
use crate::fleet::{Fleet, Plan};
use crate::http::Client;
use crate::shopper::{Shopper, text};
use crate::{limits, until};

/// How long a sale may stand still.
const STALLED: Duration = Duration::from_secs(600);
/// How many calls are answered between two kills.
const PACE: usize = 20;
/// How an order is refused for which stock had no answer in half a minute.
const WAITED: &str = "REJECT_REASON_STOCK_TIMEOUT";
/// Buyers and nobody who dies cannot be for ever.
const SALES: usize = 30;

pub(super) async fn part(engines: &Engines, scale: &Scale, tally: &mut Tally) -> Result<()> {
    let files = limits::raise_open_files();
    ensure!(files >= 2 * scale.buyers as u64 + 1000, "only {files} files may be open, of {} buyers", scale.buyers);
    let windows = [&PATIENT[..], &WATCHFUL].concat();
    let mut fleet = fleet_that(engines, "sale", Plan { windows: &windows, ..Plan::default() }).await?;
    passed(&fleet, tally)?;
    let mut victims = victims(engines, scale.kills);
    let calls = Calls::default();
    let mut sales = 0;
    while !victims.is_empty() {
        ensure!(sales < SALES, "{victims:?} are left after {sales} sales");
        sales += 1;
        let offer = Offer { sku: format!("FLASH-{sales}"), buyers: scale.buyers, pieces: scale.pieces };
        let around = Around::begin(&fleet).await?;
        let striker = Striker { engines, scale, calls: &calls, tally };
        let orders = hold(&mut fleet, striker, &offer, &mut victims).await?;
        around.end().await?;
        flash_sale::judge(&offer, &orders)?;
        tally.sold(offer.pieces);
        tally.refused("OUT_OF_STOCK", offer.buyers - offer.pieces);
        paid(&fleet, &orders).await?;
        until(SETTLED, "nothing is left", async || {
            flash_sale::nothing_left(&mut fleet.operator().await?, &offer).await.map(Some)
        })
        .await?;
        parcels(&fleet, &orders).await?;
        well(&mut fleet, tally).await?;
    }
    passed(&fleet, tally)?;
    println!("{sales} flash sales, each of {} pieces to {} buyers", scale.pieces, scale.buyers);
    Ok(())
}

/// One sale, in which as many die as it meets, from the first buyer's coming to the last order; every order as it was settled.
async fn hold(
    fleet: &mut Fleet,
    mut striker: Striker<'_>,
    offer: &Offer,
    victims: &mut VecDeque<Victim>,
) -> Result<Vec<Value>> {
    let calls = striker.calls.clone();
    fleet.operator().await?.stock(&offer.sku, 10, offer.pieces as i64).await?;
    let selling = tokio::spawn(sell(offer.clone(), doors(fleet, &calls)));
    while let Some(victim) = victims.front().cloned() {
        // By progress, not by the clock, and only amid calls that have no answer yet.
        let enough = calls.ended() + PACE;
        let over = until(STALLED, "the sale goes on", async || {
            let over = selling.is_finished();
            Ok((over || (calls.open() > 0 && calls.ended() >= enough)).then_some(over))
        })
        .await?;
        if over {
            break;
        }
        striker.strike(fleet, &victim).await?;
        victims.pop_front();
    }
    let mut orders = selling.await??;
    // Who waited in vain for stock's answer was refused honestly, and is a buyer still.
    while let late @ 1.. = orders.extract_if(.., |order| order["rejectReason"] == WAITED).count() {
        striker.tally.refused("STOCK_TIMEOUT, and came again", late);
        let again = Offer { buyers: late, ..offer.clone() };
        orders.extend(sell(again, doors(fleet, &calls)).await?);
    }
    Ok(orders)
}

/// A connection at each door, of which buyers take copies.
fn doors(fleet: &Fleet, calls: &Calls) -> [Client; 2] {
    [0, 1].map(|copy| fleet.client_of(copy).counted_by(calls))
}

/// Everybody gets ready and orders at the same moment.
async fn sell(offer: Offer, doors: [Client; 2]) -> Result<Vec<Value>> {
    let [first, second] = doors;
    let door = |number: usize| if number.is_multiple_of(2) { first.again() } else { second.again() };
    let buyers = flash_sale::get_ready(&offer, door).await?;
    flash_sale::open(buyers, Arc::default()).join_all().await.into_iter().collect()
}

/// Of each confirmed order one authorisation stands with the provider, of each other one none.
async fn paid(fleet: &Fleet, orders: &[Value]) -> Result<()> {
    let ledger = fleet.provider.ledger().await?;
    let mut standing: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in ledger.authorized() {
        *standing.entry(entry.reference.split("/attempts").next().unwrap_or_default()).or_default() += 1;
    }
    for order in orders {
        let confirmed = order["state"] == "ORDER_STATE_CONFIRMED";
        let payment = order["payment"].as_str().unwrap_or_default();
        let authorized = standing.get(payment).copied().unwrap_or_default();
        ensure!(authorized == usize::from(confirmed), "{authorized} authorisations stand for {order}");
    }
    Ok(())
}

/// Each paid order gets its parcel, whoever was dead when it was to be made.
async fn parcels(fleet: &Fleet, orders: &[Value]) -> Result<()> {
    let operator = fleet.operator().await?;
    for order in orders.iter().filter(|order| order["state"] == "ORDER_STATE_CONFIRMED") {
        let name = text(order, "name")?;
        until(SETTLED, "a parcel", async || {
            let mut looking = Shopper { http: operator.http.again(), user: String::new() };
            Ok(looking.shipments(&name).await?.into_iter().next())
        })
        .await
        .with_context(|| name.clone())?;
    }
    Ok(())
}
