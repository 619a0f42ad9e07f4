//! Stock, folded from inventory's log by the audit's own arithmetic.
//!
//! A log of one shard is in the order in which things happened. Of several shards only each is, and between them there is
//! the time, which a transaction takes at its begin: what waited for another one may look earlier than it. So there a stock
//! item is oversold if it was so for longer than a transaction lives.

use std::collections::HashMap;
use std::time::Duration;

use bus::Message;
use contracts::inventory::v1::{AllocatedUnits, Event};
use jiff::Timestamp;

use super::findings::{Findings, Invariant};

/// Between the time of an event and its commit, at most; whoever is stopped for longer finds its transaction gone.
const TRANSACTION: Duration = Duration::from_secs(30);

/// On hand, held, committed; or by how much they change.
type Units = (i64, i64, i64);

/// A change of an item.
#[derive(Debug)]
struct Change {
    time: Timestamp,
    by: Units,
}

/// The changes of every item, as far as the log was read.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    items: HashMap<String, Vec<Change>>,
    last_shard: Option<u32>,
    several_shards: bool,
    changes: u64,
}

impl Stock {
    /// Applies one event.
    pub(crate) fn note(&mut self, message: &Message, event: &Event) {
        self.several_shards |= self.last_shard.is_some_and(|shard| shard != message.shard);
        self.last_shard = Some(message.shard);
        let time = message.occur_time;
        match event {
            Event::StockAdjusted(it) => self.change(time, &it.stock_item, (it.delta, 0, 0)),
            Event::StockHeld(it) => self.each(time, &it.allocations, |n| (0, n, 0)),
            Event::ReservationExpired(it) => self.each(time, &it.allocations, |n| (0, -n, 0)),
            Event::StockHeldAgain(it) => self.each(time, &it.allocations, |n| (0, n, 0)),
            Event::StockCommitted(it) => self.each(time, &it.allocations, |n| (0, -n, n)),
            Event::StockReleased(it) => {
                self.each(time, &it.held, |n| (0, -n, 0));
                self.each(time, &it.committed, |n| (0, 0, -n));
            }
            Event::StockFulfilled(it) => self.each(time, &it.allocations, |n| (-n, 0, -n)),
            Event::StockRestocked(it) => self.each(time, &it.allocations, |n| (n, 0, 0)),
            Event::ReservationExtended(_) | Event::ReservationClosed(_) => {}
        }
    }

    /// Says what was looked at, and which items were oversold, up to this time.
    pub(crate) fn judge(&self, now: Timestamp, findings: &mut Findings) {
        let allowed = if self.several_shards { TRANSACTION } else { Duration::ZERO };
        for (name, changes) in &self.items {
            let mut changes: Vec<&Change> = changes.iter().collect();
            if self.several_shards {
                changes.sort_by_key(|change| change.time);
            }
            if let Some((on_hand, held, committed)) = oversold(&changes, allowed, now) {
                let why = format!("oversold: {on_hand} on hand, {held} held, {committed} committed");
                findings.broken(Invariant::I1, name, why);
            }
        }
        let (changes, items) = (self.changes, self.items.len());
        findings.checked(Invariant::I1, format!("no oversell at any of {changes} changes of {items} stock items"));
    }

    fn each(&mut self, time: Timestamp, units: &[AllocatedUnits], by: impl Fn(i64) -> Units) {
        for unit in units {
            let warehouse = unit.warehouse.strip_prefix("warehouses/").unwrap_or(&unit.warehouse);
            let name = format!("warehouses/{warehouse}/stockItems/{}", unit.sku);
            self.change(time, &name, by(unit.quantity));
        }
    }

    fn change(&mut self, time: Timestamp, name: &str, by: Units) {
        self.changes += 1;
        let change = Change { time, by };
        match self.items.get_mut(name) {
            Some(changes) => changes.push(change),
            None => self.items.entry(name.to_owned()).or_default().push(change),
        }
    }
}

/// The first state that was impossible, and for longer than allowed.
fn oversold(changes: &[&Change], allowed: Duration, now: Timestamp) -> Option<Units> {
    let mut sum = (0, 0, 0);
    let mut impossible: Option<(Timestamp, Units)> = None;
    let lasted =
        |since: Timestamp, until: Timestamp| Duration::try_from(until.duration_since(since)).unwrap_or_default();
    for Change { time, by } in changes {
        sum = (sum.0 + by.0, sum.1 + by.1, sum.2 + by.2);
        let (on_hand, held, committed) = sum;
        let possible = on_hand - held - committed >= 0 && held >= 0 && committed >= 0 && on_hand >= 0;
        match impossible {
            Some((since, state)) if lasted(since, *time) > allowed => return Some(state),
            _ if possible => impossible = None,
            None if allowed.is_zero() => return Some(sum),
            None => impossible = Some((*time, sum)),
            Some(_) => {}
        }
    }
    impossible.filter(|(since, _)| lasted(*since, now) > allowed).map(|(_, state)| state)
}

#[cfg(test)]
mod tests {
    use contracts::inventory::v1::{StockAdjusted, StockCommitted, StockHeld};

    use super::*;

    fn units(quantity: i64) -> Vec<AllocatedUnits> {
        vec![AllocatedUnits { warehouse: "warehouses/w".to_owned(), sku: "S".to_owned(), quantity }]
    }

    fn received(delta: i64) -> Event {
        let stock_item = "warehouses/w/stockItems/S".to_owned();
        Event::StockAdjusted(StockAdjusted { stock_item, delta, ..Default::default() })
    }

    fn held(quantity: i64) -> Event {
        Event::StockHeld(StockHeld { allocations: units(quantity), ..Default::default() })
    }

    fn sold(quantity: i64) -> Event {
        Event::StockCommitted(StockCommitted { allocations: units(quantity), ..Default::default() })
    }

    fn message(shard: u32, second: i64) -> Message {
        Message {
            service: "inventory".to_owned(),
            shard,
            position: 1,
            stream: "reservations/r".to_owned(),
            version: 1,
            name: String::new(),
            schema: 1,
            occur_time: Timestamp::from_second(second).unwrap(),
            causation: String::new(),
            correlation: String::new(),
            traceparent: String::new(),
            subject: None,
            payload: Vec::new(),
        }
    }

    /// Events of these shards and seconds, in the order in which they are read, looked at in second 1000.
    fn found(events: &[(u32, i64, Event)]) -> bool {
        let (mut stock, mut findings) = (Stock::default(), Findings::default());
        for (shard, second, event) in events {
            stock.note(&message(*shard, *second), event);
        }
        stock.judge(Timestamp::from_second(1000).unwrap(), &mut findings);
        !findings.hold()
    }

    #[test]
    fn an_oversell_is_found_though_later_goods_make_up_for_it() {
        let one = |events: Vec<Event>| found(&events.into_iter().map(|event| (0, 1, event)).collect::<Vec<_>>());
        assert!(!one(vec![received(2), held(2), sold(2)]));
        assert!(one(vec![received(2), held(2), held(1), received(1)]));
        assert!(one(vec![received(2), sold(1)]), "what was never held is sold");
    }

    #[test]
    fn shards_are_read_one_after_the_other_and_judged_by_the_time() {
        assert!(!found(&[(0, 20, held(2)), (0, 21, sold(2)), (1, 10, received(2))]));
        assert!(found(&[(0, 20, held(3)), (1, 10, received(2))]), "an oversell that lasts");
        assert!(found(&[(0, 20, held(3)), (1, 10, received(2)), (1, 60, received(1))]), "or lasted");
    }

    #[test]
    fn who_waited_for_another_may_look_earlier_than_it() {
        assert!(!found(&[(0, 20, held(2)), (1, 21, received(2))]));
        assert!(!found(&[(0, 990, held(2)), (1, 1, received(1))]), "the rest may not have been read yet");
    }
}
