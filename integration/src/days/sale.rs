//! Flash sales at two doors of a fleet, while processes and engines are killed.
//!
//! One sale after the other, until everything has been killed as often as planned; each has its own article, and each is
//! sold to the last piece and not beyond.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::around::Around;
use super::strike::{Victim, strike, victims};
use super::{Engines, PATIENT, SETTLED, Scale, Tally, fleet_that, well};
use crate::flash_sale::{self, Offer};
use crate::fleet::{Fleet, Plan};
use crate::shopper::{Shopper, text};
use crate::{limits, until};

/// How long a sale may stand still.
const STALLED: Duration = Duration::from_secs(600);
/// How an order is refused for which stock had no answer in half a minute.
const WAITED: &str = "REJECT_REASON_STOCK_TIMEOUT";
/// Buyers and nobody who dies cannot be for ever.
const SALES: usize = 12;

pub(super) async fn part(engines: &Engines, scale: &Scale, tally: &mut Tally) -> Result<()> {
    let files = limits::raise_open_files();
    ensure!(files >= 2 * scale.buyers as u64 + 1000, "only {files} files may be open, of {} buyers", scale.buyers);
    let mut fleet = fleet_that(engines, "sale", Plan { windows: &PATIENT, ..Plan::default() }).await?;
    let around = Around::begin(&fleet).await?;
    let mut victims = victims(engines, scale.kills);
    let mut sales = 0;
    while !victims.is_empty() {
        ensure!(sales < SALES, "{victims:?} are left after {sales} sales");
        sales += 1;
        let offer = Offer { sku: format!("FLASH-{sales}"), buyers: scale.buyers, pieces: scale.pieces };
        let orders = hold(&mut fleet, engines, &offer, &mut victims, tally).await?;
        flash_sale::judge(&offer, &orders)?;
        tally.sold(offer.pieces);
        tally.refused("OUT_OF_STOCK", offer.buyers - offer.pieces);
        flash_sale::paid(&fleet.provider, sales * scale.pieces).await?;
        flash_sale::nothing_left(&mut fleet.operator().await?, &offer).await?;
        parcels(&fleet, &orders).await?;
        well(&mut fleet, tally).await?;
    }
    around.end().await?;
    well(&mut fleet, tally).await?;
    println!("{sales} flash sales, each of {} pieces to {} buyers", scale.pieces, scale.buyers);
    Ok(())
}

/// One sale, in which as many die as it meets; every buyer's order as it was settled.
async fn hold(
    fleet: &mut Fleet,
    engines: &Engines,
    offer: &Offer,
    victims: &mut VecDeque<Victim>,
    tally: &mut Tally,
) -> Result<Vec<Value>> {
    fleet.operator().await?.stock(&offer.sku, 10, offer.pieces as i64).await?;
    let buyers = flash_sale::get_ready(offer, |number| fleet.client_of(number % 2)).await?;
    let finished = Arc::new(AtomicUsize::new(0));
    let orders = flash_sale::open(buyers, Arc::clone(&finished));
    let under_way = || offer.buyers - finished.load(Ordering::Relaxed);
    let planned = victims.len();
    while let Some(victim) = victims.front().cloned() {
        // By progress, not by the clock: each kill meets buyers who wait for their answer.
        let enough = (planned - victims.len()) * offer.buyers / (planned + 2);
        until(STALLED, "the sale goes on", async || Ok((finished.load(Ordering::Relaxed) > enough).then_some(())))
            .await?;
        if under_way() == 0 {
            break;
        }
        strike(fleet, engines, &victim, under_way, tally).await?;
        victims.pop_front();
    }
    let mut orders: Vec<Value> = orders.join_all().await.into_iter().collect::<Result<_>>()?;
    // Who waited in vain for stock's answer was refused honestly, and is a buyer still.
    while let late @ 1.. = orders.extract_if(.., |order| order["rejectReason"] == WAITED).count() {
        tally.refused("STOCK_TIMEOUT, and came again", late);
        let again = Offer { buyers: late, ..offer.clone() };
        let buyers = flash_sale::get_ready(&again, |number| fleet.client_of(number % 2)).await?;
        for order in flash_sale::open(buyers, Arc::default()).join_all().await {
            orders.push(order?);
        }
    }
    Ok(orders)
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
