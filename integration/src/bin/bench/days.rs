//! The days on which everything dies, whole; see `integration::days`.

use anyhow::{Result, bail, ensure};
use integration::days::{Engines, Part, Scale, live};

/// As much as the lane does, on whichever broker there is.
pub(crate) async fn live_small() -> Result<()> {
    let Some(engines) = Engines::given()? else { bail!("cargo xtask bench -- fleet-days starts the engines") };
    println!("\n{}", live(&engines, &Scale::SMALL, &[Part::Sales, Part::Weeks]).await?);
    Ok(())
}

/// How often each kind of process and each engine has to die at least.
const DEATHS: u64 = 20;

pub(crate) async fn live_whole() -> Result<()> {
    let Some(engines) = Engines::given()? else { bail!("cargo xtask bench -- fleet-days starts the engines") };
    let tally = live(&engines, &Scale::WHOLE, &[Part::Sales, Part::Weeks]).await?;
    println!("\n{tally}");
    ensure!(tally.fewest() >= DEATHS, "something died fewer than {DEATHS} times");
    ensure!(tally.idle().is_empty(), "fewer than half died amid a commit or a call: {:?}", tally.idle());
    Ok(())
}
