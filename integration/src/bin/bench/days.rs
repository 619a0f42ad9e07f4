//! The days on which everything dies, whole or a part of them; see `integration::days`.

use anyhow::{Context, Result, ensure};
use integration::days::{Engines, Part, Scale, live};

/// What they are called by; they run by name alone, on engines that somebody has started.
pub(crate) const NAMES: [&str; 4] = ["fleet-days", "fleet-days-sales", "fleet-days-weeks", "fleet-days-small"];

/// How often each kind of process and each engine has to die at least in each part.
const DEATHS: u64 = 10;

pub(crate) async fn lived(name: &str) -> Result<()> {
    let engines = Engines::given()?.context("cargo xtask bench -- fleet-days starts the engines")?;
    let parts: &[Part] = match name {
        "fleet-days-sales" => &[Part::Sales],
        "fleet-days-weeks" => &[Part::Weeks],
        _ => &[Part::Sales, Part::Weeks],
    };
    let small = name == "fleet-days-small";
    let tally = live(&engines, if small { &Scale::SMALL } else { &Scale::WHOLE }, parts).await?;
    println!("\n{tally}");
    if small {
        // As much as the lane does, on whichever broker there is.
        return Ok(());
    }
    let least = DEATHS * parts.len() as u64;
    ensure!(tally.fewest() >= least, "something died fewer than {least} times");
    ensure!(tally.idle().is_empty(), "fewer than half died amid a commit or a call: {:?}", tally.idle());
    Ok(())
}
