//! What each service tells of an order, as steps a person can read.

use contract::Money;
use contracts::google::r#type::Money as WireMoney;
use contracts::inventory::v1 as inventory;
use contracts::notification::v1 as notification;
use contracts::operations::v1 as operations;
use contracts::ordering::v1 as ordering;
use contracts::orderview::v1::{ExplainKind, ExplainStep};
use contracts::payment::v1 as payment;
use contracts::shipping::v1 as shipping;
use contracts::wkt::Timestamp;
use serde_json::Value;

/// Fields of events that say nothing new, or something about a person.
const UNTOLD: [&str; 5] = ["order", "customer", "contactEmail", "paymentToken", "shippingAddress"];

/// An event of the order.
pub(crate) fn event(order: &str, event: &ordering::OrderEvent) -> ExplainStep {
    let fields = fields(event);
    let told =
        fields.iter().filter(|(name, _)| !UNTOLD.contains(&name.as_str())).filter_map(|(name, value)| match value {
            Value::String(text) => Some(format!("{name} {text}")),
            Value::Number(number) => Some(format!("{name} {number}")),
            Value::Bool(flag) => Some(format!("{name} {flag}")),
            Value::Array(items) => Some(format!("{} {name}", items.len())),
            Value::Null | Value::Object(_) => None,
        });
    ExplainStep {
        time: event.occur_time,
        service: "ordering".to_owned(),
        kind: ExplainKind::Event.into(),
        title: words(event.r#type.rsplit('.').next().unwrap_or_default()),
        detail: told.collect::<Vec<_>>().join(", "),
        attempt: 0,
        trace_id: event.trace_id.clone(),
        resource: order.to_owned(),
    }
}

/// The id of the saga that carries out a return, if the event is one.
pub(crate) fn saga_of_return(event: &ordering::OrderEvent) -> Option<String> {
    if event.r#type != "stoa.ordering.v1.LinesReturned" {
        return None;
    }
    let fields = fields(event);
    let text = |field: &str| fields.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let named = text("saga").map(|saga| saga.rsplit('/').next().unwrap_or(saga).to_owned());
    named.or_else(|| text("returnId").map(|id| format!("return-{id}")))
}

fn fields(event: &ordering::OrderEvent) -> serde_json::Map<String, Value> {
    let value = event.data.as_ref().and_then(|data| serde_json::to_value(data).ok());
    match value {
        Some(Value::Object(fields)) => fields,
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | None => {
            serde_json::Map::new()
        }
    }
}

/// The steps of a saga.
pub(crate) fn saga(saga: &operations::Saga) -> Vec<ExplainStep> {
    let steps = saga.steps.iter().map(|step| {
        let outcome = match step.outcome() {
            operations::StepOutcome::Unspecified => "running",
            operations::StepOutcome::Done => "done",
            operations::StepOutcome::Refused => "refused",
            operations::StepOutcome::Retry => "failed, tried again",
            operations::StepOutcome::Wait => "waiting",
        };
        let undo = if step.compensation { "undo " } else { "" };
        ExplainStep {
            time: step.start_time,
            service: "ordering".to_owned(),
            kind: ExplainKind::SagaStep.into(),
            title: format!("{}: {undo}{} {outcome}", saga.definition, step.step),
            detail: step.detail.clone(),
            attempt: step.attempt,
            trace_id: step.trace_id.clone(),
            resource: saga.name.clone(),
        }
    });
    steps.collect()
}

/// A call to the payment provider.
pub(crate) fn attempt(attempt: &payment::Attempt) -> ExplainStep {
    let kind = attempt.kind().as_str_name().trim_start_matches("ATTEMPT_KIND_");
    let state = attempt.state().as_str_name().trim_start_matches("ATTEMPT_STATE_");
    let reference = labelled("reference", &attempt.provider_reference);
    let declined = labelled("declined", &attempt.decline_code);
    let error = labelled("last error", &attempt.last_error);
    ExplainStep {
        time: attempt.create_time,
        service: "payment".to_owned(),
        kind: ExplainKind::PaymentAttempt.into(),
        title: format!("{}: {}", spoken(kind), spoken(state)),
        detail: joined([money(attempt.amount.as_ref()), reference, declined, error]),
        attempt: attempt.try_count,
        trace_id: attempt.trace_id.clone(),
        resource: attempt.name.clone(),
    }
}

/// A movement of stock.
pub(crate) fn movement(movement: &inventory::StockMovement) -> ExplainStep {
    let kind = movement.kind().as_str_name().trim_start_matches("MOVEMENT_KIND_");
    let delta = |name: &str, delta: i64| if delta == 0 { String::new() } else { format!("{name} {delta:+}") };
    ExplainStep {
        time: movement.occur_time,
        service: "inventory".to_owned(),
        kind: ExplainKind::StockMovement.into(),
        title: format!("stock {}", spoken(kind)),
        detail: joined([
            delta("on hand", movement.on_hand_delta),
            delta("held", movement.held_delta),
            delta("committed", movement.committed_delta),
            movement.note.clone(),
        ]),
        attempt: 0,
        trace_id: movement.trace_id.clone(),
        resource: movement.stock_item.clone(),
    }
}

/// What became of a parcel, one step for each time it has.
pub(crate) fn shipment(shipment: &shipping::Shipment) -> Vec<ExplainStep> {
    let units: i64 = shipment.lines.iter().map(|line| i64::from(line.quantity)).sum();
    let carried = joined([shipment.carrier.clone(), shipment.tracking_number.clone()]);
    let cancelled = shipment.state() == shipping::ShipmentState::Cancelled;
    let moments = [
        (shipment.create_time, "parcel made", joined([format!("{units} units"), shipment.warehouse.clone()])),
        (shipment.pack_time, "parcel packed", String::new()),
        (shipment.release_time, "parcel released", String::new()),
        (shipment.dispatch_time, "parcel left", carried),
        (shipment.deliver_time, "parcel arrived", String::new()),
        (shipment.update_time.filter(|_| cancelled), "parcel cancelled", shipment.cancel_reason.clone()),
    ];
    let steps = moments.into_iter().filter(|(time, ..)| time.is_some()).map(|(time, title, detail)| ExplainStep {
        time,
        service: "shipping".to_owned(),
        kind: ExplainKind::Shipment.into(),
        title: title.to_owned(),
        detail,
        attempt: 0,
        trace_id: String::new(),
        resource: shipment.name.clone(),
    });
    steps.collect()
}

/// A message to the customer: asked for, and sent. Whom it went to is not told.
pub(crate) fn message(message: &notification::Notification) -> Vec<ExplainStep> {
    let template = spoken(message.template().as_str_name().trim_start_matches("TEMPLATE_"));
    let state = spoken(message.state().as_str_name().trim_start_matches("NOTIFICATION_STATE_"));
    let step = |time: Option<Timestamp>, title: String, detail: String, attempt: i32| ExplainStep {
        time,
        service: "notification".to_owned(),
        kind: ExplainKind::Message.into(),
        title,
        detail,
        attempt,
        trace_id: message.trace_id.clone(),
        resource: message.name.clone(),
    };
    let failed = labelled("last error", &message.last_error);
    let asked = step(message.create_time, format!("mail {template} asked for"), joined([state, failed]), 0);
    let sent = message.send_time.is_some().then(|| {
        step(message.send_time, format!("mail {template} sent"), message.message_id.clone(), message.attempt_count)
    });
    [Some(asked), sent].into_iter().flatten().collect()
}

/// `12.34 EUR`.
fn money(wire: Option<&WireMoney>) -> String {
    let Some(Ok(money)) = wire.map(Money::try_from) else { return String::new() };
    let exponent = money.currency.exponent();
    let unit = 10_u64.pow(exponent);
    let (sign, minor) = (if money.minor < 0 { "-" } else { "" }, money.minor.unsigned_abs());
    let code = money.currency.code();
    if exponent == 0 {
        return format!("{sign}{minor} {code}");
    }
    format!("{sign}{}.{:0width$} {code}", minor / unit, minor % unit, width = exponent as usize)
}

fn labelled(label: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{label} {text}") }
}

fn joined<const N: usize>(parts: [String; N]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// `IN_DOUBT` as `in doubt`.
fn spoken(constant: &str) -> String {
    constant.to_lowercase().replace('_', " ")
}

/// `OrderPlaced` as `order placed`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && index > 0 {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_in_words() {
        assert_eq!(words("NeedsAttentionRaised"), "needs attention raised");
        assert_eq!(spoken("IN_DOUBT"), "in doubt");
    }

    #[test]
    fn amounts_are_told_with_their_decimals() {
        let told = |code: &str, units, nanos| money(Some(&WireMoney { currency_code: code.to_owned(), units, nanos }));
        assert_eq!(told("EUR", 12, 50_000_000), "12.05 EUR");
        assert_eq!(told("GBP", -1, -500_000_000), "-1.50 GBP");
        assert_eq!(told("JPY", 700, 0), "700 JPY");
    }

    #[test]
    fn a_parcel_tells_the_moments_it_has_had() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let parcel = shipping::Shipment {
            create_time: at(1),
            pack_time: at(2),
            update_time: at(2),
            lines: vec![shipping::ShipmentLine { quantity: 3, ..Default::default() }],
            ..Default::default()
        };
        let titles: Vec<_> = shipment(&parcel).into_iter().map(|step| (step.title, step.detail)).collect();
        let expected = [("parcel made", "3 units"), ("parcel packed", "")];
        assert_eq!(titles, expected.map(|(title, detail)| (title.to_owned(), detail.to_owned())));
    }
}
