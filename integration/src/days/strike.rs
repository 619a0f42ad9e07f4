//! Who is killed next, and how: `kill -9` from outside, and, for processes of ours, the points between two instructions at
//! which they kill themselves with a transaction or a call in flight.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Engines, Scale, Tally};
use crate::calls::Calls;
use crate::fleet::{Copy, Fleet, GATEWAY, SERVICES};
use crate::server::Died;
use crate::until;

/// How long a process is waited for that is to die at a point; then it is killed, and the point counts as not met.
const MET: Duration = Duration::from_secs(8);

/// How long a server is watched for work in it before it is killed.
const BUSY: Duration = Duration::from_secs(20);

/// What is killed next.
#[derive(Clone, Debug)]
pub(super) enum Victim {
    Process(Copy),
    Engine(String),
}

/// Everything: engines so many times, and processes, the copies of each in turn, in every third round, because in one turn
/// a process dies several times.
pub(super) fn victims(engines: &Engines, rounds: usize) -> VecDeque<Victim> {
    let mut victims = VecDeque::new();
    for round in 0..rounds {
        let mut servers: VecDeque<Victim> = engines.names().map(|name| Victim::Engine(name.to_owned())).collect();
        // Engines between processes, so that a sale which is over soon has met both.
        let processes = SERVICES.into_iter().chain([GATEWAY]).filter(|_| round % 3 == 0);
        for (place, name) in processes.enumerate() {
            victims.push_back(Victim::Process((name, round / 3 % 2)));
            if place % 3 == round / 3 % 3 {
                victims.extend(servers.pop_front());
            }
        }
        victims.extend(servers);
    }
    victims
}

/// What a fleet is struck with, and amid what.
pub(super) struct Striker<'a> {
    pub(super) engines: &'a Engines,
    pub(super) scale: &'a Scale,
    /// The calls of everybody who buys.
    pub(super) calls: &'a Calls,
    pub(super) tally: &'a mut Tally,
}

impl Striker<'_> {
    /// Kills one and starts it again.
    pub(super) async fn strike(&mut self, fleet: &mut Fleet, victim: &Victim) -> Result<()> {
        match victim {
            Victim::Process(copy) => self.process(fleet, *copy).await,
            Victim::Engine(name) => self.engine(name).await,
        }
        .with_context(|| format!("{victim:?}"))
    }

    async fn engine(&mut self, name: &str) -> Result<()> {
        let begun = Instant::now();
        // A server that can tell says itself whether it is at work; of others it is known that somebody waits.
        if self.engines.tells_of_work(name) {
            until(BUSY, "a transaction", async || Ok((self.engines.open_work(name).await? > 0).then_some(()))).await?;
        }
        let open = self.calls.open();
        self.engines.kill(name).await?;
        self.tally.killed(name, open);
        self.engines.start(name).await?;
        self.say(&format!("{name} killed amid {open} calls, back after {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// One copy dies from outside, then at some points of its own, one life after the other: no more seldom than from outside.
    async fn process(&mut self, fleet: &mut Fleet, copy: Copy) -> Result<()> {
        let begun = Instant::now();
        let open = self.calls.open();
        fleet.kill(copy).await?;
        self.tally.killed(copy.0, open);
        let mut said = format!("{} {} killed amid {open} calls", copy.0, copy.1);
        let (mut fell, mut outside, mut missed) = (0, 1, false);
        for _ in 0..self.scale.most_points {
            // After a point that did not come, one that does.
            let Some((point, deaths)) = self.tally.next_point(&fleet.passed(copy.0)?, missed) else { break };
            if fell >= self.scale.least_points.max(outside) && (missed || deaths > 0) {
                break;
            }
            // A point known well is met amid other work than the last time.
            if dies_at(fleet, copy, &format!("{point}:{}", deaths + 1)).await? {
                self.tally.fell(copy.0, &point);
                fell += 1;
                said += &format!(", died at {point}");
            } else {
                let open = self.calls.open();
                fleet.kill(copy).await?;
                self.tally.killed(copy.0, open);
                self.tally.missed(&point);
                outside += 1;
                missed = true;
                said += &format!(", did not pass {point} and was killed");
            }
        }
        fleet.launch(copy).await?;
        self.say(&format!("{said}; {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    fn say(&self, what: &str) {
        println!("{:5.1} min: {what}", self.tally.since_begin().as_secs_f64() / 60.0);
    }
}

/// Starts a copy that is to die at this hit of a point; whether it did, else it runs.
async fn dies_at(fleet: &mut Fleet, copy: Copy, fatal: &str) -> Result<bool> {
    let end = match fleet.launch_with(copy, &["--crash-point", fatal]).await {
        Ok(()) => fleet.end(copy, MET).await?.map(Died),
        Err(error) => Some(error.downcast::<Died>()?),
    };
    let Some(end) = end else { return Ok(false) };
    ensure!(end.aborted(), "to die at {fatal}, {end}\n{}", fleet.tail(copy, 20));
    Ok(true)
}
