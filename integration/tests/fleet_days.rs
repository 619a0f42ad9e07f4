//! Fleet days: two copies of everything on every engine; each process and each engine is killed amid sales, the books hold

use anyhow::{Result, ensure};
use integration::days::{Engines, Part, Scale, live};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flash_sales_over_kills_of_every_process_and_every_engine_sell_what_there_is() -> Result<()> {
    small(Part::Sales).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_made_up_quarter_over_kills_of_every_process_and_every_engine_balances() -> Result<()> {
    small(Part::Weeks).await
}

/// One part of a day, small: minutes on two cores.
async fn small(part: Part) -> Result<()> {
    let Some(engines) = Engines::given()? else { return Ok(()) };
    let tally = live(&engines, &Scale::SMALL, &[part]).await?;
    println!("{tally}");
    ensure!(tally.fewest() >= 1, "something lived through it");
    Ok(())
}
