//! What a command causes.

use jiff::Timestamp;

use super::{
    ACTION_EXPIRED, Action, Attempt, AttemptState, CANCELLED, Cancel, Command, Event, Kind, NEVER_ARRIVED, Outcome,
    Payment, Rejection, Said, Source, State,
};

impl Payment {
    /// What a command causes; a command whose effect is already there causes no event.
    pub fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Authorize { order, customer, currency, amount, token, provider } => {
                if self.state.is_some() {
                    // A tombstone has no customer: whoever comes after the cancel is told that it failed.
                    let same = self.customer.is_empty()
                        || (self.order == *order
                            && self.customer == *customer
                            && self.currency == *currency
                            && self.amount == *amount);
                    return if same { Ok(vec![]) } else { Err(Rejection::OtherTerms) };
                }
                let created = Event::Created {
                    order: order.clone(),
                    customer: customer.clone(),
                    currency: currency.clone(),
                    amount: *amount,
                    token: token.clone(),
                    provider: provider.clone(),
                };
                let mut events = vec![created];
                events.extend(self.call(Asked::new(Kind::Authorize, *amount)));
                Ok(events)
            }
            Command::Capture { shipment, amount } => self.capture(shipment, *amount),
            Command::Refund { amount, return_id, reason, actor } => self.refund(*amount, return_id, reason, actor),
            Command::Cancel { order, reason } => Ok(match self.cancel {
                Cancel::No => self.then(vec![Event::CancelRequested { order: order.clone(), reason: reason.clone() }]),
                Cancel::Requested | Cancel::Completed => self.then(vec![]),
            }),
            Command::Expire { now } => {
                let over = self.action.as_ref().is_some_and(|action| action.expire_time <= *now);
                if self.state != Some(State::RequiresAction) || !over || self.cancel != Cancel::No {
                    return Ok(vec![]);
                }
                let reason = ACTION_EXPIRED.to_owned();
                Ok(self.then(vec![Event::CancelRequested { order: self.order.clone(), reason }]))
            }
            Command::Resend { attempt } => {
                let attempt = self.known(attempt)?;
                Ok(match attempt.is_open() {
                    true => vec![Event::Sent { attempt: attempt.id.clone(), tries: attempt.tries + 1 }],
                    false => vec![],
                })
            }
            Command::Settle { attempt, outcome, said, action_expire_time, authorization_expire_time } => {
                let attempt = self.known(attempt)?;
                let times = (*action_expire_time, *authorization_expire_time);
                Ok(self.then(self.settle(attempt, outcome, said, times)))
            }
            Command::Continue => Ok(self.next_of_cancel(true)),
        }
    }

    fn known(&self, id: &str) -> Result<&Attempt, Rejection> {
        self.state.ok_or(Rejection::Missing)?;
        self.attempt(id).ok_or_else(|| Rejection::NoSuchAttempt(id.to_owned()))
    }

    /// The events of a new call to the provider.
    fn call(&self, asked: Asked<'_>) -> Vec<Event> {
        let prepared = self.prepare(asked, 0);
        let attempt = self.ordinal(0);
        vec![prepared, Event::Sent { attempt, tries: 1 }]
    }

    /// Writes an attempt down, after `ahead` others of the same decision.
    fn prepare(&self, asked: Asked<'_>, ahead: usize) -> Event {
        let attempt = self.ordinal(ahead);
        let what = match asked.kind {
            Kind::Authorize => "authorize",
            Kind::Capture => "capture",
            Kind::Void => "void",
            Kind::Refund => "refund",
        };
        Event::Prepared {
            key: format!("{}/{what}-{attempt}", self.name),
            attempt,
            kind: asked.kind,
            amount: asked.amount,
            shipment: asked.shipment.to_owned(),
            return_id: asked.return_id.to_owned(),
            reason: asked.reason.to_owned(),
            actor: asked.actor.to_owned(),
            parent: self.reference.clone(),
        }
    }

    fn ordinal(&self, ahead: usize) -> String {
        (self.attempts.len() + 1 + ahead).to_string()
    }

    /// Frees what is not charged without a call: the provider only voids the whole of an authorization.
    fn free(&self, asked: Asked<'_>) -> Vec<Event> {
        let (attempt, amount) = (self.ordinal(0), asked.amount);
        let said = Said { source: Source::Answer, actor: asked.actor.to_owned(), note: String::new() };
        let succeeded =
            Event::Succeeded { attempt: attempt.clone(), kind: Kind::Void, amount, reference: String::new(), said };
        vec![self.prepare(asked, 0), succeeded, Event::Voided { attempt, amount }]
    }

    fn pending(&self, kind: Kind) -> i64 {
        let open = self.attempts.iter().filter(|attempt| attempt.kind == kind && attempt.is_open());
        open.map(|attempt| attempt.amount).sum()
    }

    /// The state of a payment that may be charged and refunded.
    fn payable(&self) -> Result<(), Rejection> {
        match self.state.ok_or(Rejection::Missing)? {
            _ if self.cancel != Cancel::No => Err(Rejection::Cancelled),
            state @ (State::Created | State::RequiresAction | State::Voided | State::Expired | State::Failed) => {
                Err(Rejection::WrongState(state))
            }
            State::Authorized
            | State::PartiallyCaptured
            | State::Captured
            | State::PartiallyRefunded
            | State::Refunded => Ok(()),
        }
    }

    fn capture(&self, shipment: &str, amount: i64) -> Result<Vec<Event>, Rejection> {
        let mut charged = self.attempts.iter().filter(|attempt| attempt.kind == Kind::Capture && !attempt.is_void());
        if let Some(charged) = charged.find(|attempt| attempt.shipment == shipment) {
            return match charged.amount == amount {
                true => Ok(vec![]),
                false => Err(Rejection::OtherAmount(shipment.to_owned())),
            };
        }
        self.payable()?;
        // A void under way takes all that is left, whatever its amount says.
        let voiding = self.attempts.iter().any(|attempt| attempt.kind == Kind::Void && attempt.is_open());
        let left = if voiding { 0 } else { self.balance.open() - self.pending(Kind::Capture) };
        if amount > left {
            return Err(Rejection::TooMuch { left, asked: amount });
        }
        Ok(self.call(Asked { shipment, ..Asked::new(Kind::Capture, amount) }))
    }

    /// First what is charged, then what is only set aside.
    fn refund(&self, amount: i64, return_id: &str, reason: &str, actor: &str) -> Result<Vec<Event>, Rejection> {
        let given = self
            .attempts
            .iter()
            .filter(|attempt| !return_id.is_empty() && attempt.return_id == return_id && !attempt.is_void());
        match given.map(|attempt| attempt.amount).sum::<i64>() {
            0 => {}
            before if before == amount => return Ok(vec![]),
            _ => return Err(Rejection::OtherAmount(return_id.to_owned())),
        }
        self.payable()?;
        let charged = self.balance.captured - self.balance.refunded - self.pending(Kind::Refund);
        let open = self.balance.open() - self.pending(Kind::Capture) - self.pending(Kind::Void);
        if amount > charged + open {
            return Err(Rejection::TooMuch { left: charged + open, asked: amount });
        }
        let back = amount.min(charged);
        let asked = |kind, amount| Asked { return_id, reason, actor, ..Asked::new(kind, amount) };
        let mut events = match amount - back {
            0 => vec![],
            freed => {
                let whole = self.balance.captured == 0 && freed == self.balance.open();
                let asked = asked(Kind::Void, freed);
                if whole { self.call(asked) } else { self.free(asked) }
            }
        };
        if back > 0 {
            let ahead = usize::from(!events.is_empty());
            events.push(self.prepare(asked(Kind::Refund, back), ahead));
            events.push(Event::Sent { attempt: self.ordinal(ahead), tries: 1 });
        }
        Ok(events)
    }

    fn settle(
        &self,
        attempt: &Attempt,
        outcome: &Outcome,
        said: &Said,
        (action_expire_time, authorization_expire_time): (Timestamp, Timestamp),
    ) -> Vec<Event> {
        let id = || attempt.id.clone();
        let (kind, amount) = (attempt.kind, attempt.amount);
        match outcome {
            Outcome::Unknown { error } => match attempt.state {
                AttemptState::Prepared | AttemptState::Sent => {
                    vec![Event::InDoubt { attempt: id(), error: error.clone() }]
                }
                AttemptState::Waiting
                | AttemptState::InDoubt
                | AttemptState::Succeeded
                | AttemptState::Declined
                | AttemptState::Abandoned => vec![],
            },
            Outcome::NotFound if attempt.is_open() => {
                let mut events = vec![Event::Abandoned { attempt: id(), said: said.clone() }];
                if kind == Kind::Authorize {
                    let code = if self.cancel == Cancel::No { NEVER_ARRIVED } else { CANCELLED };
                    events.push(Event::Failed { code: code.to_owned() });
                }
                events
            }
            Outcome::Declined { code } if attempt.is_open() || attempt.state == AttemptState::Waiting => {
                let mut events = vec![Event::Declined { attempt: id(), kind, code: code.clone(), said: said.clone() }];
                if kind == Kind::Authorize {
                    events.push(Event::Failed { code: code.clone() });
                }
                events
            }
            Outcome::ActionRequired { reference, uri, challenge } if kind == Kind::Authorize && attempt.is_open() => {
                let action = Action { uri: uri.clone(), challenge: challenge.clone(), expire_time: action_expire_time };
                vec![Event::ActionRequired { attempt: id(), action, reference: reference.clone() }]
            }
            Outcome::Done { reference } if attempt.state != AttemptState::Succeeded && self.fits(attempt) => {
                let succeeded =
                    Event::Succeeded { attempt: id(), kind, amount, reference: reference.clone(), said: said.clone() };
                let mut events = vec![succeeded];
                match kind {
                    Kind::Authorize => {
                        let expire_time = authorization_expire_time;
                        events.push(Event::Authorized { attempt: id(), amount, expire_time });
                        let closed = matches!(self.state, Some(State::Failed | State::Expired));
                        if self.cancel == Cancel::Completed || (closed && self.cancel == Cancel::No) {
                            let reason = "the provider authorized it after it was closed".to_owned();
                            events.push(Event::CancelRequested { order: self.order.clone(), reason });
                        }
                    }
                    Kind::Capture => {
                        let captured = self.balance.captured + amount;
                        let shipment = attempt.shipment.clone();
                        events.push(Event::Captured { attempt: id(), amount, shipment, captured });
                    }
                    Kind::Refund => {
                        let refunded = self.balance.refunded + amount;
                        let return_id = attempt.return_id.clone();
                        events.push(Event::Refunded { attempt: id(), amount, return_id, refunded });
                    }
                    Kind::Void if self.state == Some(State::RequiresAction) => events.extend(self.give_up(said)),
                    Kind::Void => {
                        let amount = amount.min(self.balance.open());
                        events.extend((amount > 0).then(|| Event::Voided { attempt: id(), amount }));
                    }
                }
                events
            }
            Outcome::NotFound | Outcome::Declined { .. } | Outcome::ActionRequired { .. } | Outcome::Done { .. } => {
                vec![]
            }
        }
    }

    /// Whether an attempt can have been done. One that came to nothing and was replaced cannot, for then more would be
    /// charged or given back than there was, and the provider keeps the same books.
    fn fits(&self, attempt: &Attempt) -> bool {
        match attempt.kind {
            Kind::Authorize | Kind::Void => true,
            Kind::Capture => attempt.amount <= self.balance.open(),
            Kind::Refund => attempt.amount <= self.balance.captured - self.balance.refunded,
        }
    }

    /// A payment that waited for its buyer and was voided.
    fn give_up(&self, said: &Said) -> Vec<Event> {
        let expired = self.cancel_reason == ACTION_EXPIRED;
        let code = if expired { ACTION_EXPIRED } else { CANCELLED }.to_owned();
        let waiting = self.attempts.iter().filter(|attempt| attempt.state == AttemptState::Waiting);
        let mut events: Vec<Event> = waiting
            .map(|attempt| Event::Declined {
                attempt: attempt.id.clone(),
                kind: attempt.kind,
                code: code.clone(),
                said: said.clone(),
            })
            .collect();
        events.push(if expired { Event::Expired { released: 0 } } else { Event::Failed { code } });
        events
    }

    /// These events, and what they make possible towards a net of zero.
    fn then(&self, mut events: Vec<Event>) -> Vec<Event> {
        let when = self.update_time.unwrap_or(Timestamp::UNIX_EPOCH);
        let mut state = events.iter().fold(self.clone(), |state, event| state.evolve(event, when));
        loop {
            let more = state.next_of_cancel(false);
            if more.is_empty() {
                return events;
            }
            state = more.iter().fold(state, |state, event| state.evolve(event, when));
            events.extend(more);
        }
    }

    /// The next step towards a net of zero; nothing while an outcome is unknown, or after a refusal unless `again`.
    fn next_of_cancel(&self, again: bool) -> Vec<Event> {
        if self.cancel != Cancel::Requested || self.in_doubt() {
            return vec![];
        }
        let refused =
            self.attempts.last().is_some_and(|last| last.is_void() && matches!(last.kind, Kind::Void | Kind::Refund));
        if refused && !again && !self.is_settled() {
            return vec![];
        }
        let reason = self.cancel_reason.as_str();
        let ask = |kind, amount| Asked { reason, ..Asked::new(kind, amount) };
        if self.state == Some(State::RequiresAction) {
            return self.call(ask(Kind::Void, self.amount));
        }
        match self.balance.open() {
            0 => {}
            open if self.balance.captured == 0 => return self.call(ask(Kind::Void, open)),
            open => return self.free(ask(Kind::Void, open)),
        }
        match self.balance.captured - self.balance.refunded {
            0 => {}
            left => return self.call(ask(Kind::Refund, left)),
        }
        let mut events = vec![];
        if matches!(self.state, None | Some(State::Created)) {
            events.push(Event::Failed { code: CANCELLED.to_owned() });
        }
        events.push(Event::CancelCompleted);
        events
    }

    /// Whether nothing is set aside or charged that was not freed or given back.
    fn is_settled(&self) -> bool {
        self.state != Some(State::RequiresAction)
            && self.balance.open() == 0
            && self.balance.captured == self.balance.refunded
    }
}

/// What a new attempt asks.
#[derive(Clone, Copy)]
struct Asked<'a> {
    kind: Kind,
    amount: i64,
    shipment: &'a str,
    return_id: &'a str,
    reason: &'a str,
    actor: &'a str,
}

impl Asked<'_> {
    fn new(kind: Kind, amount: i64) -> Self {
        Self { kind, amount, shipment: "", return_id: "", reason: "", actor: "" }
    }
}
