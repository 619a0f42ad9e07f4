//! Between contract messages and the domain: the only file that sees both.

use std::collections::BTreeMap;

use contract::{Currency, Money};
use contracts::google::r#type::Money as WireMoney;
use contracts::payment::v1 as proto;
use jiff::Timestamp;

use crate::payment::{Action, Attempt, AttemptState, Cancel, Event, Kind, Payment, Said, Source, State};

/// An event as it is stored; `payment` is the payment it happens to, as it is before or after.
pub(crate) fn to_stored(payment: &Payment, event: &Event) -> proto::Event {
    let (name, order) = (payment.name.clone(), payment.order.clone());
    let currency_code = payment.currency.clone();
    match event.clone() {
        Event::Created { order, customer, currency, amount, token, provider } => {
            proto::Event::PaymentCreated(proto::PaymentCreated {
                payment: name,
                order,
                customer,
                currency_code: currency,
                amount_minor: amount,
                payment_token: token,
                provider,
            })
        }
        Event::Prepared { attempt, kind, amount, key, shipment, return_id, reason, actor, parent } => {
            proto::Event::AttemptPrepared(proto::AttemptPrepared {
                payment: name,
                attempt,
                kind: kind_to(kind).into(),
                amount_minor: amount,
                currency_code,
                provider_key: key,
                shipment,
                return_id,
                reason,
                actor,
                provider_parent: parent,
            })
        }
        Event::Sent { attempt, tries } => {
            proto::Event::AttemptSent(proto::AttemptSent { payment: name, attempt, try_count: tries })
        }
        Event::Succeeded { attempt, kind, amount, reference, said } => {
            proto::Event::AttemptSucceeded(proto::AttemptSucceeded {
                payment: name,
                attempt,
                kind: kind_to(kind).into(),
                amount_minor: amount,
                provider_reference: reference,
                source: source_to(said.source).into(),
                actor: said.actor,
                note: said.note,
            })
        }
        Event::Declined { attempt, kind, code, said } => proto::Event::AttemptDeclined(proto::AttemptDeclined {
            payment: name,
            attempt,
            kind: kind_to(kind).into(),
            code,
            source: source_to(said.source).into(),
            actor: said.actor,
            note: said.note,
        }),
        Event::InDoubt { attempt, error } => {
            proto::Event::AttemptInDoubt(proto::AttemptInDoubt { payment: name, attempt, error })
        }
        Event::Abandoned { attempt, said } => proto::Event::AttemptAbandoned(proto::AttemptAbandoned {
            payment: name,
            attempt,
            source: source_to(said.source).into(),
            actor: said.actor,
            note: said.note,
        }),
        Event::ActionRequired { attempt, action, reference } => {
            proto::Event::PaymentActionRequired(proto::PaymentActionRequired {
                payment: name,
                attempt,
                uri: action.uri,
                challenge_id: action.challenge,
                expire_time: Some(action.expire_time.into()),
                provider_reference: reference,
            })
        }
        Event::Authorized { attempt, amount, expire_time } => {
            proto::Event::PaymentAuthorized(proto::PaymentAuthorized {
                payment: name,
                attempt,
                currency_code,
                amount_minor: amount,
                expire_time: Some(expire_time.into()),
                order,
            })
        }
        Event::Captured { attempt, amount, shipment, captured } => {
            proto::Event::PaymentCaptured(proto::PaymentCaptured {
                payment: name,
                attempt,
                currency_code,
                amount_minor: amount,
                shipment,
                captured_minor: captured,
                order,
            })
        }
        Event::Voided { attempt, amount } => proto::Event::PaymentVoided(proto::PaymentVoided {
            payment: name,
            attempt,
            currency_code,
            amount_minor: amount,
            order,
        }),
        Event::Refunded { attempt, amount, return_id, refunded } => {
            proto::Event::PaymentRefunded(proto::PaymentRefunded {
                payment: name,
                attempt,
                currency_code,
                amount_minor: amount,
                return_id,
                refunded_minor: refunded,
                order,
            })
        }
        Event::Failed { code } => proto::Event::PaymentFailed(proto::PaymentFailed { payment: name, code, order }),
        Event::Expired { released } => proto::Event::PaymentExpired(proto::PaymentExpired {
            payment: name,
            order,
            currency_code,
            released_minor: released,
        }),
        Event::CancelRequested { order, reason } => {
            proto::Event::CancelRequested(proto::CancelRequested { payment: name, order, reason })
        }
        Event::CancelCompleted => proto::Event::CancelCompleted(proto::CancelCompleted { payment: name, order }),
    }
}

/// The domain event of a stored one; nothing for what is about no payment.
pub(crate) fn from_stored(event: &proto::Event) -> Option<Event> {
    let time = |time: Option<contracts::wkt::Timestamp>| time.and_then(|time| Timestamp::try_from(time).ok());
    Some(match event.clone() {
        proto::Event::PaymentCreated(e) => Event::Created {
            order: e.order,
            customer: e.customer,
            currency: e.currency_code,
            amount: e.amount_minor,
            token: e.payment_token,
            provider: e.provider,
        },
        proto::Event::AttemptPrepared(e) => Event::Prepared {
            kind: kind_from(e.kind())?,
            attempt: e.attempt,
            amount: e.amount_minor,
            key: e.provider_key,
            shipment: e.shipment,
            return_id: e.return_id,
            reason: e.reason,
            actor: e.actor,
            parent: e.provider_parent,
        },
        proto::Event::AttemptSent(e) => Event::Sent { attempt: e.attempt, tries: e.try_count },
        proto::Event::AttemptSucceeded(e) => Event::Succeeded {
            kind: kind_from(e.kind())?,
            amount: e.amount_minor,
            said: said(e.source(), &e.actor, &e.note),
            attempt: e.attempt,
            reference: e.provider_reference,
        },
        proto::Event::AttemptDeclined(e) => Event::Declined {
            kind: kind_from(e.kind())?,
            said: said(e.source(), &e.actor, &e.note),
            attempt: e.attempt,
            code: e.code,
        },
        proto::Event::AttemptInDoubt(e) => Event::InDoubt { attempt: e.attempt, error: e.error },
        proto::Event::AttemptAbandoned(e) => {
            Event::Abandoned { said: said(e.source(), &e.actor, &e.note), attempt: e.attempt }
        }
        proto::Event::PaymentActionRequired(e) => Event::ActionRequired {
            action: Action { uri: e.uri, challenge: e.challenge_id, expire_time: time(e.expire_time)? },
            attempt: e.attempt,
            reference: e.provider_reference,
        },
        proto::Event::PaymentAuthorized(e) => {
            Event::Authorized { attempt: e.attempt, amount: e.amount_minor, expire_time: time(e.expire_time)? }
        }
        proto::Event::PaymentCaptured(e) => Event::Captured {
            attempt: e.attempt,
            amount: e.amount_minor,
            shipment: e.shipment,
            captured: e.captured_minor,
        },
        proto::Event::PaymentVoided(e) => Event::Voided { attempt: e.attempt, amount: e.amount_minor },
        proto::Event::PaymentRefunded(e) => Event::Refunded {
            attempt: e.attempt,
            amount: e.amount_minor,
            return_id: e.return_id,
            refunded: e.refunded_minor,
        },
        proto::Event::PaymentFailed(e) => Event::Failed { code: e.code },
        proto::Event::PaymentExpired(e) => Event::Expired { released: e.released_minor },
        proto::Event::CancelRequested(e) => Event::CancelRequested { order: e.order, reason: e.reason },
        proto::Event::CancelCompleted(_) => Event::CancelCompleted,
        proto::Event::WebhookReceived(_)
        | proto::Event::WebhookApplied(_)
        | proto::Event::WebhookParked(_)
        | proto::Event::SubjectErased(_) => return None,
    })
}

/// A payment as callers see it.
pub(crate) fn payment(payment: &Payment, version: u64) -> proto::Payment {
    let money = |minor| wire_money(&payment.currency, minor);
    let balance = payment.balance;
    let action = payment.action.as_ref();
    proto::Payment {
        name: payment.name.clone(),
        order: payment.order.clone(),
        customer: payment.customer.clone(),
        state: payment.state.map_or(proto::PaymentState::Unspecified, state_to).into(),
        amount: money(payment.amount),
        authorized: money(balance.authorized - balance.voided),
        captured: money(balance.captured),
        refunded: money(balance.refunded),
        in_doubt: payment.in_doubt(),
        cancel_requested: payment.cancel == Cancel::Requested,
        action_uri: action.map(|action| action.uri.clone()).unwrap_or_default(),
        challenge_id: action.map(|action| action.challenge.clone()).unwrap_or_default(),
        action_expire_time: action.map(|action| action.expire_time.into()),
        decline_code: payment.decline_code.clone(),
        provider: payment.provider.clone(),
        authorization_expire_time: payment.authorization_expire_time.map(Into::into),
        etag: version.to_string(),
        create_time: payment.create_time.map(Into::into),
        update_time: payment.update_time.map(Into::into),
    }
}

/// An attempt as callers see it; `traces` has the trace of each by its id.
pub(crate) fn attempt(payment: &Payment, attempt: &Attempt, traces: &BTreeMap<String, String>) -> proto::Attempt {
    proto::Attempt {
        name: attempt_name(&payment.name, &attempt.id),
        kind: kind_to(attempt.kind).into(),
        state: attempt_state_to(attempt.state).into(),
        amount: wire_money(&payment.currency, attempt.amount),
        provider_key: attempt.key.clone(),
        try_count: attempt.tries,
        provider_reference: attempt.reference.clone(),
        decline_code: attempt.decline_code.clone(),
        last_error: attempt.last_error.clone(),
        shipment: attempt.shipment.clone(),
        return_id: attempt.return_id.clone(),
        source: attempt.source.map_or(proto::ResolutionSource::Unspecified, source_to).into(),
        trace_id: traces.get(&attempt.id).cloned().unwrap_or_default(),
        create_time: Some(attempt.create_time.into()),
        update_time: Some(attempt.update_time.into()),
    }
}

/// `payments/{payment}/attempts/{attempt}`.
pub(crate) fn attempt_name(payment: &str, attempt: &str) -> String {
    format!("{payment}/attempts/{attempt}")
}

/// (`payments/{payment}`, attempt) of an attempt's name, which the contract has checked.
pub(crate) fn attempt_parts(name: &str) -> (String, String) {
    let (payment, attempt) = name.split_once("/attempts/").unwrap_or((name, ""));
    (payment.to_owned(), attempt.to_owned())
}

/// The payment a key (or reference) of ours was made for; empty for one that is not ours.
pub(crate) fn payment_of_key(key: &str) -> &str {
    let Some(rest) = key.strip_prefix("payments/") else { return "" };
    let end = rest.find('/').unwrap_or(rest.len());
    &key[.."payments/".len() + end]
}

/// The trace id in a `traceparent`.
pub(crate) fn trace_id(traceparent: &str) -> String {
    traceparent.split('-').nth(1).unwrap_or_default().to_owned()
}

/// The stored text of a state.
pub(crate) fn state_text(state: Option<State>) -> &'static str {
    match state {
        None => "",
        Some(State::Created) => "CREATED",
        Some(State::RequiresAction) => "REQUIRES_ACTION",
        Some(State::Authorized) => "AUTHORIZED",
        Some(State::PartiallyCaptured) => "PARTIALLY_CAPTURED",
        Some(State::Captured) => "CAPTURED",
        Some(State::PartiallyRefunded) => "PARTIALLY_REFUNDED",
        Some(State::Refunded) => "REFUNDED",
        Some(State::Voided) => "VOIDED",
        Some(State::Expired) => "EXPIRED",
        Some(State::Failed) => "FAILED",
    }
}

/// The stored text of a kind of attempt.
pub(crate) fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Authorize => "AUTHORIZE",
        Kind::Capture => "CAPTURE",
        Kind::Void => "VOID",
        Kind::Refund => "REFUND",
    }
}

/// The stored text of how something was learnt.
pub(crate) fn source_text(source: Source) -> &'static str {
    match source {
        Source::Answer => "ANSWER",
        Source::Query => "QUERY",
        Source::Webhook => "WEBHOOK",
        Source::Operator => "OPERATOR",
    }
}

fn wire_money(currency: &str, minor: i64) -> Option<WireMoney> {
    let currency: Currency = currency.parse().ok()?;
    Some(Money { currency, minor }.into())
}

fn state_to(state: State) -> proto::PaymentState {
    match state {
        State::Created => proto::PaymentState::Created,
        State::RequiresAction => proto::PaymentState::RequiresAction,
        State::Authorized => proto::PaymentState::Authorized,
        State::PartiallyCaptured => proto::PaymentState::PartiallyCaptured,
        State::Captured => proto::PaymentState::Captured,
        State::PartiallyRefunded => proto::PaymentState::PartiallyRefunded,
        State::Refunded => proto::PaymentState::Refunded,
        State::Voided => proto::PaymentState::Voided,
        State::Expired => proto::PaymentState::Expired,
        State::Failed => proto::PaymentState::Failed,
    }
}

fn attempt_state_to(state: AttemptState) -> proto::AttemptState {
    match state {
        AttemptState::Prepared => proto::AttemptState::Prepared,
        AttemptState::Sent | AttemptState::Waiting => proto::AttemptState::Sent,
        AttemptState::InDoubt => proto::AttemptState::InDoubt,
        AttemptState::Succeeded => proto::AttemptState::Succeeded,
        AttemptState::Declined => proto::AttemptState::Declined,
        AttemptState::Abandoned => proto::AttemptState::Abandoned,
    }
}

fn kind_to(kind: Kind) -> proto::AttemptKind {
    match kind {
        Kind::Authorize => proto::AttemptKind::Authorize,
        Kind::Capture => proto::AttemptKind::Capture,
        Kind::Void => proto::AttemptKind::Void,
        Kind::Refund => proto::AttemptKind::Refund,
    }
}

fn kind_from(kind: proto::AttemptKind) -> Option<Kind> {
    match kind {
        proto::AttemptKind::Unspecified => None,
        proto::AttemptKind::Authorize => Some(Kind::Authorize),
        proto::AttemptKind::Capture => Some(Kind::Capture),
        proto::AttemptKind::Void => Some(Kind::Void),
        proto::AttemptKind::Refund => Some(Kind::Refund),
    }
}

fn source_to(source: Source) -> proto::ResolutionSource {
    match source {
        Source::Answer => proto::ResolutionSource::Answer,
        Source::Query => proto::ResolutionSource::Query,
        Source::Webhook => proto::ResolutionSource::Webhook,
        Source::Operator => proto::ResolutionSource::Operator,
    }
}

fn said(source: proto::ResolutionSource, actor: &str, note: &str) -> Said {
    let source = match source {
        proto::ResolutionSource::Unspecified | proto::ResolutionSource::Answer => Source::Answer,
        proto::ResolutionSource::Query => Source::Query,
        proto::ResolutionSource::Webhook => Source::Webhook,
        proto::ResolutionSource::Operator => Source::Operator,
    };
    Said { source, actor: actor.to_owned(), note: note.to_owned() }
}
