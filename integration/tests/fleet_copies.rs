//! Fleet with copies: two of everything; copies die, sleep, join and leave under a sale, and so do database and broker

use std::path::PathBuf;

use anyhow::{Context, Result};
use integration::buyers::Buyers;
use integration::control::{controls, tell};
use integration::fleet::{Copy, Plan, engines};
use integration::sold_out::{SKU, kills, sold_out};
use integration::{Fleet, skip};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_every_copy_change_no_total() -> Result<()> {
    let Some((binary, database)) = databases("a") else { return Ok(()) };
    let plan = Plan { engines: &engines(Some(&database), None)?, more: 1, ..Plan::default() };
    kills(Fleet::start_as(binary, &plan).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_slept_beyond_its_lease_changes_no_total() -> Result<()> {
    let Some((binary, database)) = databases("b") else { return Ok(()) };
    let plan = Plan { engines: &engines(Some(&database), None)?, more: 1, ..Plan::default() };
    sold_out(Fleet::start_as(binary, &plan).await?, async |fleet, begun| {
        for (turn, name) in ["ordering", "payment", "inventory"].into_iter().enumerate() {
            begun.reach(4 + turn * 16).await?;
            fleet.freeze((name, 0))?;
            // The others have taken over what it held when this many have come.
            begun.reach(4 + turn * 16 + 12).await?;
            fleet.thaw((name, 0))?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_joins_or_leaves_under_load_costs_no_call() -> Result<()> {
    let Some((binary, database)) = databases("c") else { return Ok(()) };
    let third: Copy = ("ordering", 2);
    let plan = Plan { engines: &engines(Some(&database), None)?, more: 1, reserved: &[third], ..Plan::default() };
    let mut fleet = Fleet::start_as(binary, &plan).await?;
    fleet.operator().await?.stock(SKU, 20, 100_000).await?;
    let mut buyers = Buyers::at(&fleet, 4, 2, "tok_ok");
    buyers.more(8).await?;
    fleet.launch(third).await?;
    buyers.more(16).await?;
    fleet.leave(third).await?;
    for name in ["ordering", "cart", "inventory", "payment", "identity", "shipping", "orderview"] {
        buyers.more(8).await.with_context(|| format!("before {name} leaves"))?;
        fleet.leave((name, 0)).await?;
    }
    buyers.more(8).await?;
    buyers.home().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_the_database_and_the_broker_change_no_total() -> Result<()> {
    let Some((binary, database)) = databases("d") else { return Ok(()) };
    let (Some(kafka), Some(controls)) = (std::env::var("STOA_FLEET_KAFKA").ok(), controls()) else {
        skip::not_proven("a fleet whose database and broker die: there is none to kill");
        return Ok(());
    };
    let kafka = format!("{kafka}/copies-{}", std::process::id());
    let engines = engines(Some(&database), Some(("kafka", &kafka)))?;
    let plan = Plan { engines: &engines, more: 1, ..Plan::default() };
    sold_out(Fleet::start_as(binary, &plan).await?, async |_, begun| {
        for turn in 0..6 {
            begun.reach(4 + turn * 9).await?;
            let control = controls.get(turn % controls.len()).context("one who kills")?;
            tell(control, "kill").await?;
            tell(control, "start").await?;
        }
        Ok(())
    })
    .await
}

/// The binary with the fleet's engines, and where the databases of this fleet are.
fn databases(fleet: &str) -> Option<(PathBuf, String)> {
    let given = std::env::var_os("STOA_FLEET_BIN").zip(std::env::var("STOA_FLEET_DATABASES").ok());
    let Some((binary, database)) = given else {
        skip::not_proven("a fleet on PostgreSQL: no binary built for it, or no server");
        return None;
    };
    Some((PathBuf::from(binary), database.replace("{fleet}", fleet)))
}
