//! Flash sale: 2,000 buyers, 100 pieces: exactly 100 are sold and paid, over kills of the server too.

use anyhow::{Result, ensure};
use integration::flash_sale::{Plan, hold};

const PLAN: Plan = Plan { buyers: 2000, pieces: 100, kills: 0, data: None };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_buyers_get_exactly_the_hundred_pieces_there_are() -> Result<()> {
    let sale = hold(&PLAN).await?;
    ensure!(
        sale.in_flight >= 1000,
        "only {} requests were in flight at once, by the server's own count",
        sale.in_flight
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_kills_during_the_sale_change_no_total() -> Result<()> {
    hold(&Plan { kills: 5, ..PLAN }).await?;
    Ok(())
}
