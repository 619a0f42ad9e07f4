//! The project's own commands, run as `cargo xtask <command>`.
//!
//! Everything a contributor or the continuous integration needs beyond plain cargo lives here, in
//! Rust, so that a clone needs no other build tool. Nothing here is part of the product.

mod bench;
mod built;
mod cli;
mod command;
mod conformance;
mod contracts;
mod deny;
mod deploy;
mod engines;
mod fleet;
mod foreign;
mod fuzz;
mod gateways;
mod golden;
mod interrupt;
mod lane;
mod lanes;
mod libtest;
mod lockfile;
mod names;
mod paths;
mod ports;
mod servers;
mod structure;
mod suites;
mod tools;
mod workspace;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
