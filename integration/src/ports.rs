//! Ports for processes that are told of each other before any of them listens.
//!
//! They lie below those that the system gives to whoever wants any port: one of these could be somebody else's between its
//! choice and its listener, or while the process that listens there is killed and started again.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use anyhow::{Result, anyhow, ensure};

/// From the first that few programs have by habit to the first that Linux gives away by itself.
const FIRST: u16 = 10_000;
/// See [`FIRST`].
const END: u16 = 32_768;

/// So many ports at which nobody listens and which nobody else in this process is given.
pub fn free(count: usize) -> Result<Vec<u16>> {
    static LAST: Mutex<Option<u16>> = Mutex::new(None);
    let mut last = LAST.lock().map_err(|_| anyhow!("somebody stopped while choosing ports"))?;
    let begin = last.unwrap_or_else(somewhere);
    let circle = (begin + 1..END).chain(FIRST..=begin);
    let free = circle.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    let ports: Vec<u16> = free.take(count).collect();
    ensure!(ports.len() == count, "there are no {count} free ports from {FIRST} to {END}");
    *last = ports.last().copied().or(*last);
    Ok(ports)
}

/// Where processes that run side by side begin: far from each other.
fn somewhere() -> u16 {
    let place = std::process::id().wrapping_mul(7_919) % u32::from(END - FIRST);
    u16::try_from(place).map_or(FIRST, |place| FIRST + place)
}
