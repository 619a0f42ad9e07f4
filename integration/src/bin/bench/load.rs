//! A load that is kept up for a while, what it cost, and how long its parts took.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use integration::ledger::Provider;
use integration::{Stoa, machine};
use tokio::task::JoinSet;

/// Shoppers at the same time.
pub(crate) const SHOPPERS: usize = 64;

/// How long a load is kept up; the first part warms up and does not count.
pub(crate) const MEASURED: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_secs(3);

/// A load in progress: when it counts, and how long each thing took.
#[derive(Clone)]
pub(crate) struct Load {
    begun: Instant,
    times: Arc<Mutex<Vec<Duration>>>,
}

/// CPU time by process, over the measured part alone.
pub(crate) struct Used {
    pub(crate) server: Duration,
    pub(crate) provider: Duration,
    pub(crate) generator: Duration,
}

/// How long something took, the middle and the slow end.
#[derive(Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Load {
    pub(crate) fn empty() -> Self {
        Self { begun: Instant::now(), times: Arc::default() }
    }

    pub(crate) fn begin(stoa: &Stoa, provider: Option<&Provider>) -> Result<Self> {
        ensure!(stoa.pid().is_some(), "no server");
        ensure!(provider.is_none_or(|provider| provider.pid().is_some()), "no provider");
        Ok(Self::empty())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.begun.elapsed() > WARM_UP + MEASURED
    }

    pub(crate) fn counts(&self) -> bool {
        let elapsed = self.begun.elapsed();
        elapsed > WARM_UP && elapsed <= WARM_UP + MEASURED
    }

    pub(crate) fn note(&self, time: Duration) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    }

    pub(crate) fn done(&self, begun: Instant) {
        if self.counts() {
            self.note(begun.elapsed());
        }
    }

    /// What the processes use of the CPU in the measured part.
    pub(crate) async fn cpu(&self, stoa: &Stoa, provider: Option<&Provider>) -> Result<Used> {
        let used = self.clocks(|| {
            Ok(vec![
                machine::cpu_time(stoa.pid().context("no server")?)?,
                match provider {
                    Some(provider) => machine::cpu_time(provider.pid().context("no provider")?)?,
                    None => Duration::ZERO,
                },
                machine::cpu_time(std::process::id())?,
            ])
        });
        match used.await?[..] {
            [server, provider, generator] => Ok(Used { server, provider, generator }),
            _ => bail!("three clocks were read"),
        }
    }

    /// How far clocks go in the measured part: each is read at its begin and at its end.
    pub(crate) async fn clocks(&self, read: impl Fn() -> Result<Vec<Duration>>) -> Result<Vec<Duration>> {
        tokio::time::sleep_until((self.begun + WARM_UP).into()).await;
        let before = read()?;
        tokio::time::sleep_until((self.begun + WARM_UP + MEASURED).into()).await;
        let mut used = read()?;
        for (after, before) in used.iter_mut().zip(before) {
            *after = after.saturating_sub(before);
        }
        Ok(used)
    }

    /// How many, and how long they took.
    pub(crate) fn result(&self) -> (u64, Latency) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        times.sort();
        let at = |part: f64| {
            let index = (times.len() as f64 * part) as usize;
            times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        (times.len() as u64, Latency { p50: at(0.5), p99: at(0.99) })
    }
}

pub(crate) async fn finish(tasks: JoinSet<Result<()>>) -> Result<()> {
    for outcome in tasks.join_all().await {
        outcome?;
    }
    Ok(())
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

pub(crate) fn micros_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}
