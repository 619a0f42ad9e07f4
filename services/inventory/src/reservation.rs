//! Stock kept for an order: what may become of a reservation, and how many units each event moves.
//!
//! Invariants: a reservation holds all of its lines or none; one released before its hold refuses every later hold (a
//! compensation that overtakes its action wins); the units an event moves are a function of the event alone, so stock is
//! the sum of the log.
//!
//! A command whose effect is already there causes no event.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Units of a SKU in a warehouse.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Units {
    /// What.
    pub sku: String,
    /// `warehouses/{warehouse}`.
    pub warehouse: String,
    /// How many, at least 1.
    pub quantity: i64,
}

/// A part of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// What is kept, and where.
    pub units: Units,
    /// Of them, how many left.
    pub fulfilled: i64,
    /// Of those, how many came back.
    pub restocked: i64,
}

/// A reservation as its events make it; the default does not exist yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// Where it stands; none before its first event.
    pub state: Option<State>,
    /// The order it is for.
    pub order: String,
    /// What is kept.
    pub allocations: Vec<Allocation>,
    /// When a hold ends.
    pub expire_time: Option<Timestamp>,
    /// Shipments that left.
    shipments: Vec<String>,
    /// Returns that came back.
    returns: Vec<String>,
}

/// Where a reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Kept until it expires.
    Held,
    /// No longer kept; a commit may win the stock again.
    Expired,
    /// Sold.
    Committed,
    /// Given back, or closed before any hold.
    Released,
    /// Some of it left.
    PartiallyFulfilled,
    /// All of it left.
    Fulfilled,
}

/// What may be asked of a reservation. `free` is what can be sold of each SKU and warehouse now, in the order in which
/// warehouses are preferred.
#[derive(Clone, Debug)]
pub enum Command {
    /// Keep these units.
    Hold {
        /// The order.
        order: String,
        /// Units by SKU.
        wanted: BTreeMap<String, i64>,
        /// What can be sold.
        free: Vec<Units>,
        /// When the hold ends.
        expire_time: Timestamp,
    },
    /// Keep them longer.
    Extend {
        /// The new end.
        expire_time: Timestamp,
    },
    /// Let an overdue hold go.
    Expire {
        /// The time now.
        now: Timestamp,
    },
    /// Sell them.
    Commit {
        /// What can be sold, for a hold that has expired.
        free: Vec<Units>,
    },
    /// Give them back.
    Release {
        /// The order.
        order: String,
        /// Why.
        reason: String,
    },
    /// Take sold units off the shelf.
    Fulfill {
        /// `shipments/{shipment}`.
        shipment: String,
        /// Units by SKU.
        wanted: BTreeMap<String, i64>,
    },
    /// Put returned units back.
    Restock {
        /// Id of the return.
        return_id: String,
        /// Units by SKU.
        wanted: BTreeMap<String, i64>,
    },
}

/// What happened to a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Units are kept.
    Held {
        /// The order.
        order: String,
        /// What.
        units: Vec<Units>,
        /// Until when.
        expire_time: Timestamp,
    },
    /// They are kept longer.
    Extended {
        /// Until when.
        expire_time: Timestamp,
    },
    /// They are not kept any more.
    Expired {
        /// What is free again.
        units: Vec<Units>,
    },
    /// An expired reservation won its stock again.
    HeldAgain {
        /// What is kept now.
        units: Vec<Units>,
    },
    /// They are sold.
    Committed {
        /// What.
        units: Vec<Units>,
    },
    /// They are free again.
    Released {
        /// What was held.
        held: Vec<Units>,
        /// What was sold.
        committed: Vec<Units>,
        /// Why.
        reason: String,
    },
    /// Released before any hold.
    Closed {
        /// The order.
        order: String,
        /// Why.
        reason: String,
    },
    /// Sold units left.
    Fulfilled {
        /// In which shipment.
        shipment: String,
        /// What.
        units: Vec<Units>,
        /// Whether nothing is left.
        complete: bool,
    },
    /// Returned units are back.
    Restocked {
        /// By which return.
        return_id: String,
        /// What, and where to.
        units: Vec<Units>,
    },
}

/// The domain says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such reservation.
    #[error("the reservation does not exist")]
    Missing,
    /// There is less than was asked for.
    #[error("not in stock: {}", .0.join(", "))]
    OutOfStock(Vec<String>),
    /// It was released before it was held, or since.
    #[error("the reservation is closed")]
    Closed,
    /// Its hold expired and the stock is gone.
    #[error("the hold expired and the stock is gone: {}", .0.join(", "))]
    StockGone(Vec<String>),
    /// Its state does not allow it.
    #[error("a reservation that is {0:?} does not allow this")]
    WrongState(State),
    /// More than was sold, or than left.
    #[error("{asked} units of {sku} were asked for and {left} are left")]
    TooMany {
        /// The SKU.
        sku: String,
        /// Units left.
        left: i64,
        /// Units asked for.
        asked: i64,
    },
}

impl Reservation {
    /// What a command causes.
    pub fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Hold { order, wanted, free, expire_time } => match self.state {
                None => {
                    let units = allocate(wanted, free).map_err(Rejection::OutOfStock)?;
                    Ok(vec![Event::Held { order: order.clone(), units, expire_time: *expire_time }])
                }
                Some(State::Released) => Err(Rejection::Closed),
                Some(_) => Ok(vec![]),
            },
            Command::Extend { expire_time } => match (self.existing()?, self.expire_time) {
                (State::Held, Some(before)) if *expire_time > before => {
                    Ok(vec![Event::Extended { expire_time: *expire_time }])
                }
                (State::Held | State::Committed | State::PartiallyFulfilled | State::Fulfilled, _) => Ok(vec![]),
                (state @ (State::Expired | State::Released), _) => Err(Rejection::WrongState(state)),
            },
            Command::Expire { now } => match (self.existing()?, self.expire_time) {
                (State::Held, Some(end)) if end <= *now => Ok(vec![Event::Expired { units: self.units() }]),
                _ => Ok(vec![]),
            },
            Command::Commit { free } => match self.existing()? {
                State::Held => Ok(vec![Event::Committed { units: self.units() }]),
                State::Expired => {
                    let units = allocate(&self.wanted(), free).map_err(Rejection::StockGone)?;
                    Ok(vec![Event::HeldAgain { units: units.clone() }, Event::Committed { units }])
                }
                State::Committed | State::PartiallyFulfilled | State::Fulfilled => Ok(vec![]),
                State::Released => Err(Rejection::Closed),
            },
            Command::Release { order, reason } => Ok(self.release(order, reason)),
            Command::Fulfill { shipment, wanted } => self.fulfill(shipment, wanted),
            Command::Restock { return_id, wanted } => self.restock(return_id, wanted),
        }
    }

    /// The reservation after an event.
    #[must_use]
    pub fn evolve(mut self, event: &Event) -> Self {
        match event {
            Event::Held { order, units, expire_time } => {
                self.state = Some(State::Held);
                self.order.clone_from(order);
                self.keep(units);
                self.expire_time = Some(*expire_time);
            }
            Event::Extended { expire_time } => self.expire_time = Some(*expire_time),
            Event::Expired { .. } => self.state = Some(State::Expired),
            Event::HeldAgain { units } => {
                self.state = Some(State::Held);
                self.keep(units);
            }
            Event::Committed { .. } => self.state = Some(State::Committed),
            Event::Released { .. } => self.state = Some(State::Released),
            Event::Closed { order, .. } => {
                self.state = Some(State::Released);
                self.order.clone_from(order);
            }
            Event::Fulfilled { shipment, units, complete } => {
                self.state = Some(if *complete { State::Fulfilled } else { State::PartiallyFulfilled });
                self.shipments.push(shipment.clone());
                for allocation in &mut self.allocations {
                    allocation.fulfilled += quantity_of(units, &allocation.units);
                }
            }
            Event::Restocked { return_id, units } => {
                self.returns.push(return_id.clone());
                for allocation in &mut self.allocations {
                    allocation.restocked += quantity_of(units, &allocation.units);
                }
            }
        }
        self
    }

    fn existing(&self) -> Result<State, Rejection> {
        self.state.ok_or(Rejection::Missing)
    }

    fn keep(&mut self, units: &[Units]) {
        let kept = units.iter().map(|units| Allocation { units: units.clone(), fulfilled: 0, restocked: 0 });
        self.allocations = kept.collect();
    }

    fn units(&self) -> Vec<Units> {
        self.allocations.iter().map(|allocation| allocation.units.clone()).collect()
    }

    /// Its units by SKU.
    pub fn wanted(&self) -> BTreeMap<String, i64> {
        let mut wanted = BTreeMap::new();
        for allocation in &self.allocations {
            *wanted.entry(allocation.units.sku.clone()).or_default() += allocation.units.quantity;
        }
        wanted
    }

    fn release(&self, order: &str, reason: &str) -> Vec<Event> {
        let left = || {
            let open = self.allocations.iter().map(|allocation| Units {
                quantity: allocation.units.quantity - allocation.fulfilled,
                ..allocation.units.clone()
            });
            open.filter(|units| units.quantity > 0).collect::<Vec<_>>()
        };
        let reason = reason.to_owned();
        match self.state {
            None => vec![Event::Closed { order: order.to_owned(), reason }],
            Some(State::Held) => vec![Event::Released { held: left(), committed: vec![], reason }],
            Some(State::Expired) => vec![Event::Released { held: vec![], committed: vec![], reason }],
            Some(State::Committed | State::PartiallyFulfilled) => {
                vec![Event::Released { held: vec![], committed: left(), reason }]
            }
            Some(State::Released | State::Fulfilled) => vec![],
        }
    }

    fn fulfill(&self, shipment: &str, wanted: &BTreeMap<String, i64>) -> Result<Vec<Event>, Rejection> {
        match self.existing()? {
            _ if self.shipments.iter().any(|sent| sent == shipment) => return Ok(vec![]),
            State::Committed | State::PartiallyFulfilled => {}
            state @ (State::Held | State::Expired | State::Released | State::Fulfilled) => {
                return Err(Rejection::WrongState(state));
            }
        }
        let units = self.take(wanted, |allocation| allocation.units.quantity - allocation.fulfilled)?;
        let all: i64 = self.allocations.iter().map(|allocation| allocation.units.quantity - allocation.fulfilled).sum();
        let complete = all == units.iter().map(|units| units.quantity).sum::<i64>();
        Ok(vec![Event::Fulfilled { shipment: shipment.to_owned(), units, complete }])
    }

    fn restock(&self, return_id: &str, wanted: &BTreeMap<String, i64>) -> Result<Vec<Event>, Rejection> {
        self.existing()?;
        if self.returns.iter().any(|done| done == return_id) {
            return Ok(vec![]);
        }
        let units = self.take(wanted, |allocation| allocation.fulfilled - allocation.restocked)?;
        Ok(vec![Event::Restocked { return_id: return_id.to_owned(), units }])
    }

    /// Spreads the wanted units over the allocations, as far as `left` of each allows.
    fn take(&self, wanted: &BTreeMap<String, i64>, left: impl Fn(&Allocation) -> i64) -> Result<Vec<Units>, Rejection> {
        let mut taken = vec![];
        for (sku, &asked) in wanted {
            let mut open = asked;
            for allocation in self.allocations.iter().filter(|allocation| allocation.units.sku == *sku) {
                let quantity = left(allocation).min(open);
                if quantity > 0 {
                    open -= quantity;
                    taken.push(Units { quantity, ..allocation.units.clone() });
                }
            }
            if open > 0 {
                return Err(Rejection::TooMany { sku: sku.clone(), left: asked - open, asked });
            }
        }
        Ok(taken)
    }
}

/// Chooses warehouses: the first that has everything, else each SKU from the preferred ones in turn. Sorted by SKU and
/// warehouse, so that all transactions touch rows in one order. The error names the SKUs that lack.
fn allocate(wanted: &BTreeMap<String, i64>, free: &[Units]) -> Result<Vec<Units>, Vec<String>> {
    let mut by_item: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let mut warehouses: Vec<&str> = vec![];
    for units in free {
        by_item.insert((&units.sku, &units.warehouse), units.quantity);
        if !warehouses.contains(&units.warehouse.as_str()) {
            warehouses.push(&units.warehouse);
        }
    }
    let has = |warehouse: &str, sku: &str| by_item.get(&(sku, warehouse)).copied().unwrap_or(0).max(0);
    let whole =
        warehouses.iter().find(|warehouse| wanted.iter().all(|(sku, &quantity)| has(warehouse, sku) >= quantity));
    let mut units = vec![];
    let mut lacking = vec![];
    for (sku, &quantity) in wanted {
        let mut open = quantity;
        let order: &[&str] = whole.map_or(&warehouses, std::slice::from_ref);
        for &warehouse in order {
            let taken = has(warehouse, sku).min(open);
            if taken > 0 {
                open -= taken;
                units.push(Units { sku: sku.clone(), warehouse: warehouse.to_owned(), quantity: taken });
            }
        }
        if open > 0 {
            lacking.push(sku.clone());
        }
    }
    units.sort();
    if lacking.is_empty() { Ok(units) } else { Err(lacking) }
}

fn quantity_of(units: &[Units], of: &Units) -> i64 {
    let same = units.iter().filter(|units| units.sku == of.sku && units.warehouse == of.warehouse);
    same.map(|units| units.quantity).sum()
}

/// Why a stock item changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MovementKind {
    /// Counted, received, written off.
    Adjusted,
    /// Held for an order.
    Held,
    /// A hold ended.
    Expired,
    /// Sold.
    Committed,
    /// Given back.
    Released,
    /// Left in a shipment.
    Fulfilled,
    /// Came back.
    Restocked,
}

/// A change of one stock item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// What, and where.
    pub sku: String,
    /// `warehouses/{warehouse}`.
    pub warehouse: String,
    /// Why.
    pub kind: MovementKind,
    /// Change of what is on the shelf.
    pub on_hand: i64,
    /// Change of what is held.
    pub held: i64,
    /// Change of what is sold and still on the shelf.
    pub committed: i64,
}

/// The units an event moves, sorted by SKU and warehouse.
pub fn deltas(event: &Event) -> Vec<Delta> {
    let mut deltas = vec![];
    let mut each = |units: &[Units], kind, on_hand: i64, held: i64, committed: i64| {
        deltas.extend(units.iter().map(|units| Delta {
            sku: units.sku.clone(),
            warehouse: units.warehouse.clone(),
            kind,
            on_hand: on_hand * units.quantity,
            held: held * units.quantity,
            committed: committed * units.quantity,
        }));
    };
    match event {
        Event::Held { units, .. } | Event::HeldAgain { units } => each(units, MovementKind::Held, 0, 1, 0),
        Event::Expired { units } => each(units, MovementKind::Expired, 0, -1, 0),
        Event::Committed { units } => each(units, MovementKind::Committed, 0, -1, 1),
        Event::Released { held, committed, .. } => {
            each(held, MovementKind::Released, 0, -1, 0);
            each(committed, MovementKind::Released, 0, 0, -1);
        }
        Event::Fulfilled { units, .. } => each(units, MovementKind::Fulfilled, -1, 0, -1),
        Event::Restocked { units, .. } => each(units, MovementKind::Restocked, 1, 0, 0),
        Event::Extended { .. } | Event::Closed { .. } => {}
    }
    deltas.sort_by(|a, b| (&a.sku, &a.warehouse).cmp(&(&b.sku, &b.warehouse)));
    deltas
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units(sku: &str, warehouse: &str, quantity: i64) -> Units {
        Units { sku: sku.into(), warehouse: warehouse.into(), quantity }
    }

    fn wanted(lines: &[(&str, i64)]) -> BTreeMap<String, i64> {
        lines.iter().map(|(sku, quantity)| ((*sku).to_owned(), *quantity)).collect()
    }

    fn hold(lines: &[(&str, i64)], free: &[Units]) -> Command {
        Command::Hold {
            order: "orders/o".into(),
            wanted: wanted(lines),
            free: free.to_vec(),
            expire_time: Timestamp::UNIX_EPOCH,
        }
    }

    fn given(commands: &[Command]) -> Reservation {
        commands.iter().fold(Reservation::default(), |reservation, command| {
            let events = reservation.decide(command).unwrap();
            events.iter().fold(reservation, Reservation::evolve)
        })
    }

    fn release() -> Command {
        Command::Release { order: "orders/o".into(), reason: "test".into() }
    }

    #[test]
    fn one_warehouse_that_has_everything_is_preferred_to_a_split() {
        let free = [units("A", "north", 1), units("A", "south", 5), units("B", "south", 5)];
        let Event::Held { units: held, .. } =
            &Reservation::default().decide(&hold(&[("A", 1), ("B", 1)], &free)).unwrap()[0]
        else {
            panic!("not held")
        };
        assert_eq!(*held, [units("A", "south", 1), units("B", "south", 1)]);
    }

    #[test]
    fn an_order_without_stock_is_refused_whole_and_names_what_lacks() {
        let refused = Reservation::default().decide(&hold(&[("A", 1), ("B", 9)], &[units("A", "north", 1)]));
        assert_eq!(refused, Err(Rejection::OutOfStock(vec!["B".into()])));
    }

    #[test]
    fn a_release_that_overtakes_its_hold_wins() {
        let closed = given(&[release()]);
        assert_eq!(closed.decide(&hold(&[("A", 1)], &[units("A", "north", 1)])), Err(Rejection::Closed));
    }

    #[test]
    fn an_expired_hold_is_committed_only_if_the_stock_is_still_there() {
        let free = [units("A", "north", 1)];
        let expired = given(&[hold(&[("A", 1)], &free), Command::Expire { now: Timestamp::MAX }]);
        assert_eq!(expired.decide(&Command::Commit { free: vec![] }), Err(Rejection::StockGone(vec!["A".into()])));
        assert_eq!(expired.decide(&Command::Commit { free: free.to_vec() }).unwrap().len(), 2);
    }

    #[test]
    fn what_left_is_not_released_and_comes_back_once() {
        let free = [units("A", "north", 3)];
        let fulfill = Command::Fulfill { shipment: "shipments/s".into(), wanted: wanted(&[("A", 2)]) };
        let shipped = given(&[hold(&[("A", 3)], &free), Command::Commit { free: vec![] }, fulfill.clone()]);
        assert_eq!(shipped.decide(&fulfill), Ok(vec![]));
        let Event::Released { committed, .. } = &shipped.decide(&release()).unwrap()[0] else { panic!("not released") };
        assert_eq!(*committed, [units("A", "north", 1)]);
        let restock = Command::Restock { return_id: "r".into(), wanted: wanted(&[("A", 3)]) };
        assert_eq!(shipped.decide(&restock), Err(Rejection::TooMany { sku: "A".into(), left: 2, asked: 3 }));
    }

    proptest! {
        /// Whatever happens to a reservation in whatever order, it gives back what it took: after a release nothing is held
        /// or committed, and on hand fell by what left and did not come back.
        #[test]
        fn a_released_reservation_keeps_nothing(steps in prop::collection::vec(0_u8..6, 0..12)) {
            let free = [units("A", "north", 5), units("A", "south", 5)];
            let mut reservation = Reservation::default();
            let mut sums = (0_i64, 0_i64, 0_i64);
            let mut left = 0_i64;
            for (index, step) in steps.iter().chain(&[5]).enumerate() {
                let command = match step {
                    0 => hold(&[("A", 7)], &free),
                    1 => Command::Commit { free: free.to_vec() },
                    2 => Command::Expire { now: Timestamp::MAX },
                    3 => Command::Fulfill { shipment: index.to_string(), wanted: wanted(&[("A", 2)]) },
                    4 => Command::Restock { return_id: index.to_string(), wanted: wanted(&[("A", 1)]) },
                    _ => release(),
                };
                for event in reservation.decide(&command).unwrap_or_default() {
                    for delta in deltas(&event) {
                        sums = (sums.0 + delta.on_hand, sums.1 + delta.held, sums.2 + delta.committed);
                        left -= delta.on_hand;
                    }
                    reservation = reservation.evolve(&event);
                }
                prop_assert!(sums.1 >= 0 && sums.2 >= 0 && sums.1 + sums.2 <= 7);
            }
            prop_assert_eq!((sums.1, sums.2), (0, 0));
            prop_assert_eq!(sums.0, -left);
        }
    }
}
