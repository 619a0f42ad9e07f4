//! Stock, folded from inventory's log by the audit's own arithmetic.

use std::collections::HashMap;

use contracts::inventory::v1::{AllocatedUnits, Event};

use super::findings::{Findings, Invariant};

#[derive(Debug, Default, Clone, Copy)]
struct Item {
    on_hand: i64,
    held: i64,
    committed: i64,
}

/// Every item, as far as the log was read.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    items: HashMap<String, Item>,
    changes: u64,
}

impl Stock {
    /// Applies one event, and looks whether the item is still possible.
    pub(crate) fn note(&mut self, event: &Event, findings: &mut Findings) {
        match event {
            Event::StockAdjusted(it) => self.change(&it.stock_item, (it.delta, 0, 0), findings),
            Event::StockHeld(it) => self.each(&it.allocations, |n| (0, n, 0), findings),
            Event::ReservationExpired(it) => self.each(&it.allocations, |n| (0, -n, 0), findings),
            Event::StockHeldAgain(it) => self.each(&it.allocations, |n| (0, n, 0), findings),
            Event::StockCommitted(it) => self.each(&it.allocations, |n| (0, -n, n), findings),
            Event::StockReleased(it) => {
                self.each(&it.held, |n| (0, -n, 0), findings);
                self.each(&it.committed, |n| (0, 0, -n), findings);
            }
            Event::StockFulfilled(it) => self.each(&it.allocations, |n| (-n, 0, -n), findings),
            Event::StockRestocked(it) => self.each(&it.allocations, |n| (n, 0, 0), findings),
            Event::ReservationExtended(_) | Event::ReservationClosed(_) => {}
        }
    }

    /// Says what was looked at.
    pub(crate) fn judge(&self, findings: &mut Findings) {
        let (changes, items) = (self.changes, self.items.len());
        findings.checked(Invariant::I1, format!("no oversell at any of {changes} changes of {items} stock items"));
    }

    fn each(&mut self, units: &[AllocatedUnits], by: impl Fn(i64) -> (i64, i64, i64), findings: &mut Findings) {
        for unit in units {
            let warehouse = unit.warehouse.strip_prefix("warehouses/").unwrap_or(&unit.warehouse);
            let name = format!("warehouses/{warehouse}/stockItems/{}", unit.sku);
            self.change(&name, by(unit.quantity), findings);
        }
    }

    fn change(&mut self, name: &str, (on_hand, held, committed): (i64, i64, i64), findings: &mut Findings) {
        self.changes += 1;
        let item = match self.items.get_mut(name) {
            Some(item) => item,
            None => self.items.entry(name.to_owned()).or_default(),
        };
        item.on_hand += on_hand;
        item.held += held;
        item.committed += committed;
        let left = item.on_hand - item.held - item.committed;
        if left < 0 || item.held < 0 || item.committed < 0 || item.on_hand < 0 {
            let Item { on_hand, held, committed } = *item;
            let why = format!("oversold: {on_hand} on hand, {held} held, {committed} committed");
            findings.broken(Invariant::I1, name, why);
        }
    }
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

    fn found(events: &[Event]) -> bool {
        let (mut stock, mut findings) = (Stock::default(), Findings::default());
        for event in events {
            stock.note(event, &mut findings);
        }
        !findings.hold()
    }

    #[test]
    fn an_oversell_is_found_though_later_goods_make_up_for_it() {
        let held = |quantity| Event::StockHeld(StockHeld { allocations: units(quantity), ..Default::default() });
        let sold =
            |quantity| Event::StockCommitted(StockCommitted { allocations: units(quantity), ..Default::default() });
        assert!(!found(&[received(2), held(2), sold(2)]));
        assert!(found(&[received(2), held(2), held(1), received(1)]));
        assert!(found(&[received(2), sold(1)]), "what was never held is sold");
    }
}
