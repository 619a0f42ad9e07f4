//! The `stoa` program: every service and the gateway in one process, and the operator's command line.
//!
//! Start reading at `command.rs` (what can be asked), then `shop.rs` (what a process is made of) and `run.rs` (how it
//! lives). What the command line does to a shop (`work.rs`) is the same whether that shop runs already or is opened for it:
//! a running one is asked over `control.rs`, an idle one is opened without a listener.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod command;
pub mod goods;
pub mod import;
pub mod sample;
pub mod settings;

mod asking;
mod audit;
mod banner;
mod ca;
mod control;
mod crash_points;
mod folder;
mod health;
mod importing;
mod ledger;
mod psp;
mod rebuild;
mod run;
mod serve;
mod shop;
mod stocking;
mod story;
mod traces;
mod work;
