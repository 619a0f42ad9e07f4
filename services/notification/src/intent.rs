//! The intent to send: an event that is committed before anything leaves, once for each dedupe key.
//!
//! The name of a message is derived from its dedupe key, so that the same message is the same stream: whoever asks for it
//! again finds it there, in whatever order and however often events are delivered.

use contracts::notification::v1 as proto;
use log::{Log, Meta, personal};
use store::Tx;
use uuid::Uuid;

use crate::mail::{Template, Text};
use crate::store::sealed_for;
use crate::wire;

/// Who wants a message sent. The keys of one have nothing to do with those of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An event of another service; the key is the event.
    Event,
    /// An operator, who chose the key.
    Operator,
}

/// What is to be sent, in the clear.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    pub(crate) origin: Origin,
    pub(crate) dedupe_key: String,
    pub(crate) template: Template,
    /// E-mail address, or empty where none is known.
    pub(crate) recipient: String,
    pub(crate) text: Text,
    pub(crate) order: String,
    /// Whose personal data it holds, or empty.
    pub(crate) customer: String,
    pub(crate) actor: String,
}

/// What every message of this installation has in common.
#[derive(Clone, Debug)]
pub(crate) struct House {
    /// The right side of every Message-ID.
    pub(crate) domain: String,
    /// Whether mail leaves at all.
    pub(crate) sends: bool,
}

/// Requests a message in `tx` unless it is there; its name.
pub(crate) async fn request(
    log: &Log<proto::Event>,
    tx: &mut Tx,
    meta: &Meta,
    house: &House,
    intent: &Intent,
) -> Result<String, log::Error> {
    let id = id_of(intent.origin, &intent.dedupe_key);
    let name = format!("notifications/{id}");
    if log.version(tx, &name).await? > 0 {
        return Ok(name);
    }
    let owner = sealed_for(&intent.customer, &name);
    let suppressed = if !house.sends {
        Some("MAIL_OFF")
    } else if personal::seal_text(tx, owner, "anything").await?.is_empty() {
        Some("ERASED")
    } else if intent.recipient.is_empty() {
        Some("NO_ADDRESS")
    } else {
        None
    };
    let requested = proto::NotificationRequested {
        notification: name.clone(),
        dedupe_key: intent.dedupe_key.clone(),
        template: wire::to_template(intent.template).into(),
        recipient: intent.recipient.clone(),
        subject_line: intent.text.subject_line.clone(),
        body: intent.text.body.clone(),
        order: intent.order.clone(),
        customer: intent.customer.clone(),
        message_id: format!("<{id}@{}>", house.domain),
        actor: intent.actor.clone(),
    };
    let mut events = vec![proto::Event::NotificationRequested(requested)];
    if let Some(reason) = suppressed {
        events.push(self::suppressed(&name, reason));
    }
    log.append(tx, &name, 0, meta, Some(owner), events).await?;
    Ok(name)
}

/// The event of a message that is not sent.
pub(crate) fn suppressed(name: &str, reason: &str) -> proto::Event {
    proto::Event::NotificationSuppressed(proto::NotificationSuppressed {
        notification: name.to_owned(),
        reason: reason.to_owned(),
    })
}

fn id_of(origin: Origin, dedupe_key: &str) -> Uuid {
    let origin = match origin {
        Origin::Event => "event",
        Origin::Operator => "operator",
    };
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("stoa:notification:{origin}:{dedupe_key}").as_bytes())
}
