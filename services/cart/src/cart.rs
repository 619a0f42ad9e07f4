//! What somebody means to buy: what may become of a cart.
//!
//! Invariants: lines are keyed by an id of their own, counted from 1 and never used twice, so that one SKU may stand twice;
//! a cart has at most [`MOST_LINES`] lines of 1 to [`MOST_UNITS`] units each and one currency; a closed cart does not change.
//!
//! A command whose effect is already there causes no event.

use std::collections::{BTreeMap, HashMap};

use contract::Currency;

/// Lines of a cart at most.
pub const MOST_LINES: usize = 2_000;
/// Units of a line at most.
pub const MOST_UNITS: i64 = 100_000;

/// A cart as its events make it; the default does not exist yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cart {
    /// Whose it is, `users/{user}` or `guests/{guest}`; empty once they were erased.
    pub customer: String,
    /// The currency of its prices; none before its first event.
    pub currency: Option<Currency>,
    /// Where it stands.
    pub state: State,
    /// The order it became, once closed.
    pub order: String,
    /// What is in it, by rising id.
    pub lines: Vec<Line>,
    /// The id of the next new line; 0 stands for 1.
    pub next_line: u32,
    /// Orders whose lines were taken out of it.
    pub ordered: Vec<String>,
}

/// Where a cart stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It was not created.
    #[default]
    Missing,
    /// It takes lines.
    Open,
    /// It became an order.
    Closed,
}

/// A line of a cart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its id in the cart.
    pub id: u32,
    /// What.
    pub sku: String,
    /// `products/{product}/variants/{variant}`.
    pub variant: String,
    /// Title to show.
    pub title: String,
    /// False for what has no stock.
    pub stocked: bool,
    /// How many, 1 to [`MOST_UNITS`].
    pub quantity: i64,
}

/// Units to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLine {
    /// What.
    pub sku: String,
    /// `products/{product}/variants/{variant}`.
    pub variant: String,
    /// Title to show.
    pub title: String,
    /// False for what has no stock.
    pub stocked: bool,
    /// How many.
    pub quantity: i64,
    /// Whether they get a line of their own though the SKU has one.
    pub separate: bool,
}

/// What may be asked of a cart.
#[derive(Clone, Debug)]
pub enum Command {
    /// Open it.
    Create {
        /// Whose it is.
        customer: String,
        /// The currency of its prices.
        currency: Currency,
        /// Who opens it, where not the customer.
        actor: String,
    },
    /// Put units in: all of them or none.
    Add(Vec<NewLine>),
    /// Set the units of a line.
    SetQuantity {
        /// The line.
        line: u32,
        /// How many.
        quantity: i64,
    },
    /// Take a line out.
    Remove {
        /// The line.
        line: u32,
    },
    /// It was ordered with these lines.
    Close {
        /// The order.
        order: String,
        /// (Line, units) as ordered.
        ordered: Vec<(u32, i64)>,
    },
    /// Forget whose it is.
    Erase,
}

/// What happened to a cart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It exists.
    Created {
        /// Whose it is.
        customer: String,
        /// The currency of its prices.
        currency: Currency,
        /// Who opened it, where not the customer.
        actor: String,
    },
    /// Units were added, line by line, as the line is after it.
    Added(Vec<Added>),
    /// A line has another quantity.
    QuantitySet {
        /// The line.
        line: u32,
        /// How many.
        quantity: i64,
    },
    /// A line is gone.
    Removed {
        /// The line.
        line: u32,
    },
    /// It became an order.
    Closed {
        /// The order.
        order: String,
    },
    /// It had changed since it was ordered: these (line, units) stay.
    OrderedRemoved {
        /// The order.
        order: String,
        /// What stays.
        remaining: Vec<(u32, i64)>,
    },
    /// It is nobody's any more.
    Erased,
}

/// A line that units were added to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// The line after it.
    pub line: Line,
    /// Units added.
    pub added: i64,
}

/// Why a cart refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is none.
    #[error("the cart does not exist")]
    Missing,
    /// It became an order.
    #[error("the cart became {order} and does not change any more")]
    Closed {
        /// The order.
        order: String,
    },
    /// There would be too many lines.
    #[error("a cart has at most {MOST_LINES} lines")]
    TooManyLines,
    /// A line would have too many units, or none.
    #[error("a line has 1 to {MOST_UNITS} units; of {sku:?} there would be {units}")]
    Units {
        /// The SKU of the line.
        sku: String,
        /// How many there would be.
        units: i64,
    },
    /// There is no such line.
    #[error("the cart has no line {line}")]
    NoSuchLine {
        /// The line.
        line: u32,
    },
}

impl Cart {
    /// What happens because of a command, or why nothing does.
    pub fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        match (self.state, command) {
            (State::Missing, Command::Create { customer, currency, actor }) => {
                let (customer, actor) = (customer.clone(), actor.clone());
                Ok(vec![Event::Created { customer, currency: *currency, actor }])
            }
            (State::Open | State::Closed, Command::Create { .. }) => Ok(vec![]),
            (State::Missing, _) => Err(Rejection::Missing),
            (State::Open | State::Closed, Command::Erase) => {
                Ok(if self.customer.is_empty() { vec![] } else { vec![Event::Erased] })
            }
            // The order is confirmed by now: that another order came first is no reason to refuse it.
            (State::Closed, Command::Close { .. }) => Ok(vec![]),
            (State::Closed, Command::Add(_) | Command::SetQuantity { .. } | Command::Remove { .. }) => {
                Err(Rejection::Closed { order: self.order.clone() })
            }
            (State::Open, Command::Add(items)) => self.add(items),
            (State::Open, Command::SetQuantity { line, quantity }) => self.set_quantity(*line, *quantity),
            (State::Open, Command::Remove { line }) => {
                Ok(self.line(*line).map(|line| Event::Removed { line: line.id }).into_iter().collect())
            }
            (State::Open, Command::Close { order, ordered }) => Ok(self.close(order, ordered)),
        }
    }

    /// The cart after an event.
    #[must_use]
    pub fn evolve(mut self, event: &Event) -> Self {
        match event {
            Event::Created { customer, currency, .. } => {
                self.customer.clone_from(customer);
                self.currency = Some(*currency);
                self.state = State::Open;
            }
            Event::Added(added) => {
                for Added { line, .. } in added {
                    self.next_line = self.next_line.max(line.id.saturating_add(1));
                    match self.lines.binary_search_by_key(&line.id, |known| known.id) {
                        Ok(index) => self.lines[index] = line.clone(),
                        Err(index) => self.lines.insert(index, line.clone()),
                    }
                }
            }
            Event::QuantitySet { line, quantity } => {
                if let Ok(index) = self.lines.binary_search_by_key(line, |known| known.id) {
                    self.lines[index].quantity = *quantity;
                }
            }
            Event::Removed { line } => self.lines.retain(|known| known.id != *line),
            Event::Closed { order } => {
                self.state = State::Closed;
                self.order.clone_from(order);
            }
            Event::OrderedRemoved { order, remaining } => {
                let remaining: BTreeMap<u32, i64> = remaining.iter().copied().collect();
                self.lines.retain_mut(|line| match remaining.get(&line.id) {
                    Some(units) => {
                        line.quantity = *units;
                        true
                    }
                    None => false,
                });
                self.ordered.push(order.clone());
            }
            Event::Erased => self.customer.clear(),
        }
        self
    }

    /// A line by its id.
    pub fn line(&self, id: u32) -> Option<&Line> {
        let index = self.lines.binary_search_by_key(&id, |line| line.id).ok()?;
        self.lines.get(index)
    }

    fn add(&self, items: &[NewLine]) -> Result<Vec<Event>, Rejection> {
        // Units go onto the first line of their SKU.
        let mut lines: HashMap<&str, (u32, i64)> = HashMap::new();
        for line in &self.lines {
            lines.entry(&line.sku).or_insert((line.id, line.quantity));
        }
        let (mut next, mut count) = (self.next_line.max(1), self.lines.len());
        let mut all = vec![];
        for item in items {
            let known = if item.separate { None } else { lines.get_mut(item.sku.as_str()) };
            let before = known.as_ref().map_or(0, |known| known.1);
            let units = before.saturating_add(item.quantity);
            if item.quantity < 1 || units > MOST_UNITS {
                return Err(Rejection::Units { sku: item.sku.clone(), units });
            }
            let id = match known {
                Some(known) => {
                    known.1 = units;
                    known.0
                }
                None => {
                    let id = next;
                    next = next.checked_add(1).ok_or(Rejection::TooManyLines)?;
                    count += 1;
                    lines.entry(&item.sku).or_insert((id, units));
                    id
                }
            };
            if count > MOST_LINES {
                return Err(Rejection::TooManyLines);
            }
            let line = Line {
                id,
                sku: item.sku.clone(),
                variant: item.variant.clone(),
                title: item.title.clone(),
                stocked: item.stocked,
                quantity: units,
            };
            all.push(Added { line, added: item.quantity });
        }
        Ok(if all.is_empty() { vec![] } else { vec![Event::Added(all)] })
    }

    fn set_quantity(&self, line: u32, quantity: i64) -> Result<Vec<Event>, Rejection> {
        let known = self.line(line).ok_or(Rejection::NoSuchLine { line })?;
        if !(1..=MOST_UNITS).contains(&quantity) {
            return Err(Rejection::Units { sku: known.sku.clone(), units: quantity });
        }
        Ok(if known.quantity == quantity { vec![] } else { vec![Event::QuantitySet { line, quantity }] })
    }

    fn close(&self, order: &str, ordered: &[(u32, i64)]) -> Vec<Event> {
        if self.ordered.iter().any(|known| known == order) {
            return vec![];
        }
        let order = order.to_owned();
        let now = self.lines.iter().map(|line| (line.id, line.quantity));
        if now.clone().eq(ordered.iter().copied()) {
            return vec![Event::Closed { order }];
        }
        let ordered: BTreeMap<u32, i64> = ordered.iter().copied().collect();
        let left = now.map(|(id, units)| (id, units - ordered.get(&id).copied().unwrap_or(0)));
        vec![Event::OrderedRemoved { order, remaining: left.filter(|(_, units)| *units > 0).collect() }]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn new(sku: &str, quantity: i64, separate: bool) -> NewLine {
        let (variant, title) = (format!("products/{sku}/variants/1"), format!("Thing {sku}"));
        NewLine { sku: sku.to_owned(), variant, title, stocked: true, quantity, separate }
    }

    fn open() -> Cart {
        after(Cart::default(), &create())
    }

    fn create() -> Command {
        Command::Create { customer: "users/1".to_owned(), currency: Currency::EUR, actor: String::new() }
    }

    fn close(order: &str, ordered: &[(u32, i64)]) -> Command {
        Command::Close { order: order.to_owned(), ordered: ordered.to_vec() }
    }

    fn after(cart: Cart, command: &Command) -> Cart {
        cart.decide(command).unwrap().iter().fold(cart, Cart::evolve)
    }

    fn lines(cart: &Cart) -> Vec<(u32, &str, i64)> {
        cart.lines.iter().map(|line| (line.id, line.sku.as_str(), line.quantity)).collect()
    }

    #[test]
    fn units_of_one_sku_go_onto_its_line_unless_asked_for_a_separate_one() {
        let cart = after(open(), &Command::Add(vec![new("A", 2, false), new("B", 1, false)]));
        let cart = after(
            cart,
            &Command::Add(vec![new("A", 1, true), new("A", 3, false), new("C", 1, true), new("C", 1, false)]),
        );
        assert_eq!(lines(&cart), [(1, "A", 5), (2, "B", 1), (3, "A", 1), (4, "C", 2)]);
    }

    #[test]
    fn an_id_is_never_used_for_two_lines() {
        let cart = after(open(), &Command::Add(vec![new("A", 1, false), new("B", 1, false)]));
        let cart = after(cart, &Command::Remove { line: 2 });
        let cart = after(cart, &Command::Add(vec![new("B", 1, false)]));
        assert_eq!(lines(&cart), [(1, "A", 1), (3, "B", 1)]);
    }

    #[test]
    fn a_line_has_at_most_its_units_and_a_cart_its_lines() {
        let full = after(open(), &Command::Add(vec![new("A", MOST_UNITS, false)]));
        let more = full.decide(&Command::Add(vec![new("A", 1, false)]));
        assert_eq!(more, Err(Rejection::Units { sku: "A".to_owned(), units: MOST_UNITS + 1 }));
        let twice = open().decide(&Command::Add(vec![new("A", MOST_UNITS, false), new("A", 1, false)]));
        assert!(matches!(twice, Err(Rejection::Units { .. })), "{twice:?}");
        for quantity in [0, -1, i64::MIN, i64::MAX] {
            let refused = full.decide(&Command::Add(vec![new("A", quantity, false)]));
            assert!(matches!(refused, Err(Rejection::Units { .. })), "{quantity}");
            let refused = full.decide(&Command::SetQuantity { line: 1, quantity });
            assert!(matches!(refused, Err(Rejection::Units { .. })), "{quantity}");
        }
        let most = after(open(), &Command::Add(vec![new("A", 1, true); MOST_LINES]));
        assert_eq!(most.decide(&Command::Add(vec![new("B", 1, false)])), Err(Rejection::TooManyLines));
        assert!(most.decide(&Command::Add(vec![new("A", 1, false)])).is_ok(), "no line more");
    }

    #[test]
    fn a_batch_is_added_whole_or_not_at_all() {
        let cart = open();
        assert!(cart.decide(&Command::Add(vec![new("A", 1, false), new("B", 0, false)])).is_err());
        let events = cart.decide(&Command::Add(vec![new("A", 1, false); 3])).unwrap();
        assert_eq!(events.len(), 1, "one event, however many lines");
    }

    #[test]
    fn a_command_whose_effect_is_there_causes_nothing() {
        let cart = after(open(), &Command::Add(vec![new("A", 1, false)]));
        for command in [create(), Command::SetQuantity { line: 1, quantity: 1 }, Command::Remove { line: 9 }] {
            assert_eq!(cart.decide(&command), Ok(vec![]), "{command:?}");
        }
        let closed = after(cart, &close("orders/1", &[(1, 1)]));
        assert_eq!(closed.decide(&close("orders/1", &[(1, 1)])), Ok(vec![]));
        assert_eq!(closed.decide(&close("orders/2", &[])), Ok(vec![]));
        let erased = after(closed, &Command::Erase);
        assert_eq!(erased.decide(&Command::Erase), Ok(vec![]));
    }

    #[test]
    fn a_closed_cart_does_not_change() {
        let cart = after(open(), &Command::Add(vec![new("A", 1, false)]));
        let closed = after(cart, &close("orders/1", &[(1, 1)]));
        assert_eq!((closed.state, closed.order.as_str()), (State::Closed, "orders/1"));
        let refused = Err(Rejection::Closed { order: "orders/1".to_owned() });
        for command in [
            Command::Add(vec![new("A", 1, false)]),
            Command::SetQuantity { line: 1, quantity: 2 },
            Command::Remove { line: 1 },
            Command::Remove { line: 9 },
        ] {
            assert_eq!(closed.decide(&command), refused, "{command:?}");
        }
    }

    #[test]
    fn a_cart_that_changed_since_it_was_ordered_only_loses_what_was_ordered() {
        let ordered = [(1, 2), (2, 1), (3, 4)];
        let cart = after(open(), &Command::Add(vec![new("A", 2, false), new("B", 1, false), new("C", 4, false)]));
        let cart = after(cart, &Command::Add(vec![new("A", 3, false), new("D", 7, false)]));
        let cart = after(cart, &Command::SetQuantity { line: 3, quantity: 1 });
        let cart = after(cart, &close("orders/1", &ordered));
        assert_eq!(cart.state, State::Open);
        assert_eq!(lines(&cart), [(1, "A", 3), (4, "D", 7)]);
        assert_eq!(cart.decide(&close("orders/1", &ordered)), Ok(vec![]), "an order takes its lines once");
    }

    #[test]
    fn nothing_happens_to_a_cart_that_does_not_exist() {
        for command in [
            Command::Add(vec![new("A", 1, false)]),
            Command::SetQuantity { line: 1, quantity: 2 },
            Command::Remove { line: 1 },
            close("orders/1", &[]),
            Command::Erase,
        ] {
            assert_eq!(Cart::default().decide(&command), Err(Rejection::Missing), "{command:?}");
        }
    }

    fn command() -> impl Strategy<Value = Command> {
        let item =
            (0..6_u32, -1..60_000_i64, any::<bool>()).prop_map(|(sku, units, own)| new(&format!("S{sku}"), units, own));
        prop_oneof![
            4 => prop::collection::vec(item, 0..8).prop_map(Command::Add),
            2 => (0..20_u32, -1..110_000_i64).prop_map(|(line, quantity)| Command::SetQuantity { line, quantity }),
            2 => (0..20_u32).prop_map(|line| Command::Remove { line }),
            1 => (0..3_u32, prop::collection::vec((0..20_u32, 1..9_i64), 0..6))
                .prop_map(|(order, ordered)| close(&format!("orders/{order}"), &ordered)),
            1 => Just(Command::Erase),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_asked_a_cart_keeps_its_bounds(commands in prop::collection::vec(command(), 0..40)) {
            let mut cart = open();
            let mut events = vec![];
            for command in &commands {
                let before = cart.clone();
                match cart.decide(command) {
                    Ok(decided) => {
                        cart = decided.iter().fold(cart, Cart::evolve);
                        events.extend(decided);
                    }
                    Err(_) => prop_assert_eq!(&cart, &before),
                }
                prop_assert!(cart.lines.len() <= MOST_LINES);
                prop_assert!(cart.lines.iter().all(|line| (1..=MOST_UNITS).contains(&line.quantity)));
                prop_assert!(cart.lines.windows(2).all(|pair| pair[0].id < pair[1].id));
                prop_assert!(cart.lines.iter().all(|line| line.id < cart.next_line.max(1)));
                if before.state == State::Closed {
                    prop_assert_eq!(&before.lines, &cart.lines);
                }
            }
            prop_assert_eq!(events.iter().fold(open(), Cart::evolve), cart);
        }
    }
}
