//! Flash sale: 2,000 buyers, 100 pieces: exactly 100 are sold and paid, over kills of the server too.

use anyhow::{Result, ensure};
use integration::Setup;
use integration::flash_sale::{Plan, hold};

fn plan(kills: usize) -> Plan {
    Plan { buyers: 2000, pieces: 100, kills, setup: Setup::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_buyers_get_exactly_the_hundred_pieces_there_are() -> Result<()> {
    let sale = hold(&plan(0)).await?;
    ensure!(
        sale.in_flight >= 1000,
        "only {} requests were in flight at once, by the server's own count",
        sale.in_flight
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_kills_during_the_sale_change_no_total() -> Result<()> {
    hold(&plan(5)).await?;
    Ok(())
}
