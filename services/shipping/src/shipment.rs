//! A shipment: one parcel on its way from being planned to its receiver.
//!
//! `PREPARING -> PACKED -> RELEASED -> DISPATCHED -> DELIVERED`, or CANCELLED while it is PREPARING. What is packed is being
//! charged, so from then on it goes forward; only what is charged is released, and only what is released leaves. A
//! cancellation that overtakes the creation wins: the shipment is refused for ever. Commands of the order's sagas may be
//! repeated and then change nothing; those of a person who sees a stale state are refused.

/// The state of a shipment, folded from its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shipment {
    /// Where it stands; nothing before it exists.
    pub state: Option<State>,
    /// What it was planned as; empty when it was cancelled first.
    pub plan: Plan,
    /// Who carries it.
    pub carrier: String,
    /// Number to follow it by.
    pub tracking_number: String,
    /// Why it was cancelled.
    pub cancel_reason: String,
}

/// Where a shipment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// To be packed.
    Preparing,
    /// Packed, being charged.
    Packed,
    /// Charged; may leave.
    Released,
    /// Left.
    Dispatched,
    /// Arrived.
    Delivered,
    /// Will not leave.
    Cancelled,
}

/// What a shipment is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The order it is of.
    pub order: String,
    /// Who receives it.
    pub customer: String,
    /// What is in it.
    pub lines: Vec<Line>,
    /// Where it goes.
    pub address: Option<Address>,
    /// The warehouse it leaves from; empty where nothing in it has stock.
    pub warehouse: String,
    /// The service it is sent by; empty for the cheapest.
    pub shipping_service: String,
}

/// Units of an order's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Id of the line in the order.
    pub line: String,
    /// The SKU.
    pub sku: String,
    /// Units.
    pub quantity: i32,
    /// Title to print.
    pub title: String,
}

/// Where a parcel goes; all of it but the country is personal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Person or firm.
    pub recipient: String,
    /// Firm or department.
    pub organization: String,
    /// Street and number.
    pub street: String,
    /// Second line.
    pub street_extra: String,
    /// City.
    pub city: String,
    /// State or province.
    pub region: String,
    /// Postal code.
    pub postal_code: String,
    /// Country.
    pub country_code: String,
    /// Phone, for the carrier.
    pub phone: String,
}

/// What may be asked of a shipment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Plan it.
    Create(Box<Plan>),
    /// It is packed.
    Pack {
        /// Who says so.
        actor: String,
    },
    /// It is charged and may leave.
    Release,
    /// It left.
    Dispatch {
        /// Who carries it.
        carrier: String,
        /// Number to follow it by.
        tracking_number: String,
        /// Who says so.
        actor: String,
    },
    /// The carrier said something about it.
    Track {
        /// What.
        status: Tracking,
        /// More about it.
        note: String,
        /// Who noted it.
        actor: String,
    },
    /// It must not leave.
    Cancel {
        /// The order it is of.
        order: String,
        /// Why.
        reason: String,
    },
}

/// What a carrier says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// On the way.
    InTransit,
    /// Arrived.
    Delivered,
    /// Could not be delivered.
    Failed,
}

/// What happened to a shipment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is to be packed.
    Created(Box<Plan>),
    /// It is packed.
    Packed {
        /// Who says so.
        actor: String,
    },
    /// It may leave.
    Released,
    /// It left.
    Dispatched {
        /// Who carries it.
        carrier: String,
        /// Number to follow it by.
        tracking_number: String,
        /// Who says so.
        actor: String,
    },
    /// The carrier said something that ends nothing.
    Tracked {
        /// It failed, or it is on the way.
        status: Tracking,
        /// More about it.
        note: String,
        /// Who noted it.
        actor: String,
    },
    /// It arrived.
    Delivered {
        /// More about it.
        note: String,
        /// Who noted it.
        actor: String,
    },
    /// It will not leave; perhaps it never was.
    Cancelled {
        /// The order it is of.
        order: String,
        /// Why.
        reason: String,
    },
}

/// The domain says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such shipment.
    #[error("the shipment does not exist")]
    Missing,
    /// It exists, and is of another order.
    #[error("the shipment exists and is of another order")]
    Taken,
    /// It was cancelled.
    #[error("the shipment was cancelled")]
    Cancelled,
    /// It would leave before it is paid.
    #[error("the shipment is not released yet: its payment is not captured")]
    NotCaptured,
    /// It is packed and being charged.
    #[error("the shipment is packed already")]
    AlreadyPacked,
    /// It has left.
    #[error("the shipment has left already")]
    AlreadyDispatched,
    /// The command does not fit where it stands.
    #[error("a shipment that is {0:?} cannot do this")]
    WrongState(State),
}

impl Shipment {
    /// What happens because of `command`; nothing when it has happened before.
    pub fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Create(plan) => self.create(plan),
            Command::Pack { actor } => match self.existing()? {
                State::Preparing => Ok(vec![Event::Packed { actor: actor.clone() }]),
                State::Packed | State::Released => Err(Rejection::AlreadyPacked),
                State::Dispatched | State::Delivered => Err(Rejection::AlreadyDispatched),
                State::Cancelled => Err(Rejection::Cancelled),
            },
            Command::Release => match self.existing()? {
                State::Packed => Ok(vec![Event::Released]),
                State::Released | State::Dispatched | State::Delivered => Ok(vec![]),
                State::Preparing => Err(Rejection::WrongState(State::Preparing)),
                State::Cancelled => Err(Rejection::Cancelled),
            },
            Command::Dispatch { carrier, tracking_number, actor } => match self.existing()? {
                State::Released => Ok(vec![Event::Dispatched {
                    carrier: carrier.clone(),
                    tracking_number: tracking_number.clone(),
                    actor: actor.clone(),
                }]),
                State::Preparing | State::Packed => Err(Rejection::NotCaptured),
                State::Dispatched | State::Delivered => Err(Rejection::AlreadyDispatched),
                State::Cancelled => Err(Rejection::Cancelled),
            },
            Command::Track { status, note, actor } => {
                let (note, actor) = (note.clone(), actor.clone());
                match (self.existing()?, *status) {
                    (State::Dispatched, Tracking::Delivered) => Ok(vec![Event::Delivered { note, actor }]),
                    (State::Dispatched, status @ (Tracking::InTransit | Tracking::Failed)) => {
                        Ok(vec![Event::Tracked { status, note, actor }])
                    }
                    (State::Cancelled, _) => Err(Rejection::Cancelled),
                    (state @ (State::Preparing | State::Packed | State::Released | State::Delivered), _) => {
                        Err(Rejection::WrongState(state))
                    }
                }
            }
            Command::Cancel { order, reason } => self.cancel(order, reason),
        }
    }

    /// The state after `event`.
    #[must_use]
    pub fn evolve(mut self, event: &Event) -> Self {
        match event {
            Event::Created(plan) => {
                self.state = Some(State::Preparing);
                self.plan = (**plan).clone();
            }
            Event::Packed { .. } => self.state = Some(State::Packed),
            Event::Released => self.state = Some(State::Released),
            Event::Dispatched { carrier, tracking_number, .. } => {
                self.state = Some(State::Dispatched);
                self.carrier.clone_from(carrier);
                self.tracking_number.clone_from(tracking_number);
            }
            Event::Tracked { .. } => {}
            Event::Delivered { .. } => self.state = Some(State::Delivered),
            Event::Cancelled { order, reason } => {
                self.state = Some(State::Cancelled);
                self.plan.order.clone_from(order);
                self.cancel_reason.clone_from(reason);
            }
        }
        self
    }

    fn create(&self, plan: &Plan) -> Result<Vec<Event>, Rejection> {
        match self.state {
            None => Ok(vec![Event::Created(Box::new(plan.clone()))]),
            Some(_) if self.plan.order != plan.order => Err(Rejection::Taken),
            Some(State::Cancelled) => Err(Rejection::Cancelled),
            Some(State::Preparing | State::Packed | State::Released | State::Dispatched | State::Delivered) => {
                Ok(vec![])
            }
        }
    }

    fn cancel(&self, order: &str, reason: &str) -> Result<Vec<Event>, Rejection> {
        let cancelled = || Event::Cancelled { order: order.to_owned(), reason: reason.to_owned() };
        match self.state {
            None => Ok(vec![cancelled()]),
            Some(_) if self.plan.order != order => Err(Rejection::Taken),
            Some(State::Preparing) => Ok(vec![cancelled()]),
            Some(State::Cancelled) => Ok(vec![]),
            Some(State::Packed | State::Released) => Err(Rejection::AlreadyPacked),
            Some(State::Dispatched | State::Delivered) => Err(Rejection::AlreadyDispatched),
        }
    }

    fn existing(&self) -> Result<State, Rejection> {
        self.state.ok_or(Rejection::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan { order: "orders/1".to_owned(), customer: "users/1".to_owned(), ..Plan::default() }
    }

    fn create() -> Command {
        Command::Create(Box::new(plan()))
    }

    fn pack() -> Command {
        Command::Pack { actor: "users/9".to_owned() }
    }

    fn dispatch() -> Command {
        Command::Dispatch { carrier: "Post".to_owned(), tracking_number: "1".to_owned(), actor: String::new() }
    }

    fn track(status: Tracking) -> Command {
        Command::Track { status, note: String::new(), actor: String::new() }
    }

    fn cancel() -> Command {
        Command::Cancel { order: "orders/1".to_owned(), reason: "unwanted".to_owned() }
    }

    fn after(commands: &[Command]) -> Shipment {
        commands.iter().fold(Shipment::default(), |shipment, command| {
            let events = shipment.decide(command).unwrap();
            events.iter().fold(shipment, Shipment::evolve)
        })
    }

    /// A shipment in each state it can be in.
    fn everywhere() -> Vec<Shipment> {
        let path = [create(), pack(), Command::Release, dispatch(), track(Tracking::Delivered)];
        let mut all: Vec<_> = (0..=path.len()).map(|steps| after(&path[..steps])).collect();
        all.push(after(&[create(), cancel()]));
        all
    }

    #[test]
    fn a_parcel_goes_from_planned_to_delivered() {
        let states: Vec<_> = everywhere().iter().map(|shipment| shipment.state).collect();
        let expected = [
            None,
            Some(State::Preparing),
            Some(State::Packed),
            Some(State::Released),
            Some(State::Dispatched),
            Some(State::Delivered),
            Some(State::Cancelled),
        ];
        assert_eq!(states, expected);
    }

    #[test]
    fn nothing_leaves_before_its_payment_is_captured() {
        for path in [&[create()][..], &[create(), pack()]] {
            assert_eq!(after(path).decide(&dispatch()), Err(Rejection::NotCaptured));
        }
    }

    #[test]
    fn a_cancellation_that_overtakes_the_creation_wins() {
        let stopped = after(&[cancel()]);
        assert_eq!(stopped.state, Some(State::Cancelled));
        assert_eq!(stopped.decide(&create()), Err(Rejection::Cancelled));
        assert_eq!(stopped.decide(&cancel()), Ok(vec![]));
    }

    #[test]
    fn what_is_packed_or_gone_is_not_cancelled() {
        let answers: Vec<_> = everywhere().iter().skip(2).take(4).map(|shipment| shipment.decide(&cancel())).collect();
        assert_eq!(
            answers,
            [
                Err(Rejection::AlreadyPacked),
                Err(Rejection::AlreadyPacked),
                Err(Rejection::AlreadyDispatched),
                Err(Rejection::AlreadyDispatched),
            ]
        );
    }

    #[test]
    fn each_step_of_a_saga_may_run_twice() {
        for (path, again) in [
            (vec![create()], create()),
            (vec![create(), pack(), Command::Release], Command::Release),
            (vec![create(), pack(), Command::Release, dispatch()], Command::Release),
            (vec![create(), cancel()], cancel()),
        ] {
            assert_eq!(after(&path).decide(&again), Ok(vec![]), "{again:?}");
        }
    }

    #[test]
    fn another_order_gets_and_stops_nothing() {
        let other = Plan { order: "orders/2".to_owned(), ..plan() };
        let stop = Command::Cancel { order: "orders/2".to_owned(), reason: String::new() };
        for shipment in everywhere().iter().skip(1) {
            assert_eq!(shipment.decide(&Command::Create(Box::new(other.clone()))), Err(Rejection::Taken));
            assert_eq!(shipment.decide(&stop), Err(Rejection::Taken));
        }
    }

    #[test]
    fn a_carrier_speaks_only_of_what_it_carries() {
        for shipment in everywhere() {
            let answer = shipment.decide(&track(Tracking::InTransit));
            assert_eq!(answer.is_ok(), shipment.state == Some(State::Dispatched), "{:?}", shipment.state);
        }
    }
}
