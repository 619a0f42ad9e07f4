//! The only file that sees both prost and domain types.

use contracts::notification::v1 as proto;
use jiff::Timestamp;
use store::Tx;

use crate::mail::Template;
use crate::store::Stored;

/// A message for an operator: personal fields opened.
pub(crate) async fn notification(tx: &mut Tx, stored: &Stored) -> Result<proto::Notification, log::Error> {
    let owner = stored.sealed_for();
    let recipient = log::personal::open_text(tx, owner, &stored.recipient).await?;
    let subject_line = log::personal::open_text(tx, owner, &stored.subject_line).await?;
    Ok(proto::Notification {
        name: stored.name.clone(),
        template: proto::Template::from_str_name(&stored.template).unwrap_or_default().into(),
        state: state(&stored.state).into(),
        recipient,
        subject_line,
        order: stored.order.clone(),
        customer: stored.customer.clone(),
        dedupe_key: stored.dedupe_key.clone(),
        attempt_count: stored.attempt_count,
        last_error: stored.last_error.clone(),
        message_id: stored.message_id.clone(),
        trace_id: stored.trace_id.clone(),
        create_time: Some(stored.create_time.into()),
        send_time: stored.send_time.map(Into::into),
        update_time: Some(stored.update_time.into()),
    })
}

/// The text a wire value stands for.
pub(crate) fn template(template: proto::Template) -> Option<Template> {
    match template {
        proto::Template::Unspecified => None,
        proto::Template::Welcome => Some(Template::Welcome),
        proto::Template::OrderConfirmed => Some(Template::OrderConfirmed),
        proto::Template::OrderRejected => Some(Template::OrderRejected),
        proto::Template::PaymentActionRequired => Some(Template::PaymentActionRequired),
        proto::Template::OrderCancelled => Some(Template::OrderCancelled),
        proto::Template::OrderShipped => Some(Template::OrderShipped),
        proto::Template::OrderDelivered => Some(Template::OrderDelivered),
        proto::Template::OrderRefunded => Some(Template::OrderRefunded),
        proto::Template::Note => Some(Template::Note),
    }
}

/// The wire value of a text.
pub(crate) fn to_template(template: Template) -> proto::Template {
    match template {
        Template::Welcome => proto::Template::Welcome,
        Template::OrderConfirmed => proto::Template::OrderConfirmed,
        Template::OrderRejected => proto::Template::OrderRejected,
        Template::PaymentActionRequired => proto::Template::PaymentActionRequired,
        Template::OrderCancelled => proto::Template::OrderCancelled,
        Template::OrderShipped => proto::Template::OrderShipped,
        Template::OrderDelivered => proto::Template::OrderDelivered,
        Template::OrderRefunded => proto::Template::OrderRefunded,
        Template::Note => proto::Template::Note,
    }
}

/// The stored text of a state in a filter: "" for all of them, nothing for a text that is no state.
pub(crate) fn state_filter(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("");
    }
    Some(match proto::NotificationState::from_str_name(text)? {
        proto::NotificationState::Unspecified => "",
        proto::NotificationState::Pending => "PENDING",
        proto::NotificationState::Sent => "SENT",
        proto::NotificationState::Failed => "FAILED",
        proto::NotificationState::Suppressed => "SUPPRESSED",
    })
}

fn state(text: &str) -> proto::NotificationState {
    proto::NotificationState::from_str_name(&format!("NOTIFICATION_STATE_{text}")).unwrap_or_default()
}

/// When a failed attempt is repeated, as a column.
pub(crate) fn micros(time: Option<contracts::wkt::Timestamp>) -> i64 {
    time.and_then(|time| Timestamp::try_from(time).ok()).map_or(0, Timestamp::as_microsecond)
}
