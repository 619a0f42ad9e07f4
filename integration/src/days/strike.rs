//! Who is killed next, and how.

use std::collections::VecDeque;

use anyhow::{Context, Result};

use super::{Engines, Tally};
use crate::fleet::{Copy, Fleet, GATEWAY, SERVICES};

/// What is killed next.
#[derive(Clone, Debug)]
pub(super) enum Victim {
    Process(Copy),
    Engine(String),
}

/// Everything, so many times, the copies of a process in turn.
pub(super) fn victims(engines: &Engines, rounds: usize) -> VecDeque<Victim> {
    let mut victims = VecDeque::new();
    for round in 0..rounds {
        let processes = SERVICES.into_iter().chain([GATEWAY]).map(|name| Victim::Process((name, round % 2)));
        let mut servers: VecDeque<Victim> = engines.names().map(|name| Victim::Engine(name.to_owned())).collect();
        // Engines between processes, so that a sale which is over soon has met both.
        for (place, process) in processes.enumerate() {
            victims.push_back(process);
            if place % 3 == round % 3 {
                victims.extend(servers.pop_front());
            }
        }
        victims.extend(servers);
    }
    victims
}

/// Kills one and starts it again.
pub(super) async fn strike(
    fleet: &mut Fleet,
    engines: &Engines,
    victim: &Victim,
    under_way: impl Fn() -> usize,
    tally: &mut Tally,
) -> Result<()> {
    let under_way = under_way();
    match victim {
        Victim::Process(copy) => {
            fleet.kill(*copy).await?;
            tally.death(copy.0, under_way);
            fleet.launch(*copy).await
        }
        Victim::Engine(name) => {
            engines.kill(name).await?;
            tally.death(name, under_way);
            engines.start(name).await
        }
    }
    .with_context(|| format!("{victim:?}"))
}
