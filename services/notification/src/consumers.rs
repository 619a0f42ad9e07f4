//! What notification listens to: people who come and go, and what becomes of orders.
//!
//! The dedupe key of a message is the event that causes it, so a redelivered event finds its message there. Effects are on the
//! own store alone: what leaves the process is the sender's work.

use bus::{Failure, Handler, Message};
use contracts::identity::v1 as identity;
use contracts::notification::v1 as proto;
use contracts::ordering::v1 as ordering;
use log::{LocalBoxFuture, Log, personal};
use store::Tx;

use crate::intent::{self, House, Intent, Origin};
use crate::mail::{Template, Variables, render};
use crate::store as rows;
use crate::store::RECIPIENTS;

/// Follows identity and ordering.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) log: Log<proto::Event>,
    pub(crate) house: House,
}

impl Handler for Events {
    fn wants(&self, name: &str) -> bool {
        matches!(
            name,
            "stoa.identity.v1.UserCreated"
                | "stoa.identity.v1.UserErased"
                | "stoa.ordering.v1.OrderPlaced"
                | "stoa.ordering.v1.OrderConfirmed"
                | "stoa.ordering.v1.OrderRejected"
                | "stoa.ordering.v1.OrderCancelled"
                | "stoa.ordering.v1.PaymentActionRequired"
                | "stoa.ordering.v1.LinesShipped"
                | "stoa.ordering.v1.LinesDelivered"
                | "stoa.ordering.v1.ReturnRefunded"
        )
    }

    fn knows(&self, name: &str) -> bool {
        bus::listed(name, identity::EVENTS) || bus::listed(name, ordering::EVENTS)
    }

    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            match message.service.as_str() {
                "identity" => self.person(tx, message).await,
                "ordering" => self.order(tx, message).await,
                other => Err(Failure::Permanent(format!("nothing is expected of {other}"))),
            }
        })
    }
}

impl Events {
    async fn person(&self, tx: &mut Tx, message: &Message) -> Result<(), Failure> {
        match message.decode::<identity::Event>()? {
            identity::Event::UserCreated(created) => {
                // Imported users have no address, and of those who are erased by now none can be read.
                if created.email.is_empty() {
                    return Ok(());
                }
                self.record(tx, message, &created.user, &created.user, &created.email, &created.display_name).await?;
                match created.role() {
                    identity::Role::Customer => {
                        self.write_to(tx, message, Template::Welcome, "", &created.user, Variables::new()).await
                    }
                    identity::Role::Unspecified | identity::Role::Guest | identity::Role::Operator => Ok(()),
                }
            }
            identity::Event::UserErased(erased) => self.erase(tx, message, &erased.user).await,
            identity::Event::SessionStarted(_)
            | identity::Event::SessionRefreshed(_)
            | identity::Event::SessionRevoked(_)
            | identity::Event::SigningKeyPublished(_)
            | identity::Event::SigningKeyRetired(_) => Ok(()),
        }
    }

    async fn order(&self, tx: &mut Tx, message: &Message) -> Result<(), Failure> {
        let event = message.decode::<ordering::Event>()?;
        if let Some((template, variables)) = text_of(&event) {
            let customer = message.subject.clone().unwrap_or_default();
            return self.write_to(tx, message, template, &message.stream, &customer, variables).await;
        }
        // An order may say where to write to about it.
        if let ordering::Event::OrderPlaced(placed) = event
            && !placed.contact_email.is_empty()
        {
            self.record(tx, message, &placed.order, &placed.customer, &placed.contact_email, "").await?;
        }
        Ok(())
    }

    /// Remembers where to write to about `name`, a person or an order of `subject`.
    async fn record(
        &self,
        tx: &mut Tx,
        message: &Message,
        name: &str,
        subject: &str,
        email: &str,
        display_name: &str,
    ) -> Result<(), Failure> {
        let recorded = proto::RecipientRecorded {
            subject: subject.to_owned(),
            email: email.to_owned(),
            display_name: display_name.to_owned(),
        };
        let event = proto::Event::RecipientRecorded(recorded);
        let stream = format!("{RECIPIENTS}{name}");
        self.log.append_next(tx, &stream, &message.meta(), Some(subject), vec![event]).await?;
        Ok(())
    }

    /// Requests a message about an order (or none) to a customer, wherever they are to be written to.
    async fn write_to(
        &self,
        tx: &mut Tx,
        message: &Message,
        template: Template,
        order: &str,
        customer: &str,
        variables: Variables,
    ) -> Result<(), Failure> {
        if !self.house.sends {
            return Ok(());
        }
        let person = rows::get_recipient(tx, customer).await?;
        let of_order = if order.is_empty() { None } else { rows::get_recipient(tx, order).await? };
        let name = match &person {
            Some(person) => personal::open_text(tx, &person.subject, &person.display_name).await?,
            None => String::new(),
        };
        let recipient = match of_order.or(person) {
            Some(recipient) => personal::open_text(tx, &recipient.subject, &recipient.email).await?,
            None => String::new(),
        };
        let meta = message.meta();
        let intent = Intent {
            origin: Origin::Event,
            dedupe_key: meta.causation.clone(),
            template,
            recipient,
            text: render(template, &name, order, &variables),
            order: order.to_owned(),
            customer: customer.to_owned(),
            actor: String::new(),
        };
        intent::request(&self.log, tx, &meta, &self.house, &intent).await?;
        Ok(())
    }

    /// Makes everything about a person unreadable; what has not left does not leave any more.
    async fn erase(&self, tx: &mut Tx, message: &Message, subject: &str) -> Result<(), Failure> {
        let meta = message.meta();
        for pending in rows::pending_of(tx, subject).await? {
            let event = intent::suppressed(&pending.name, "ERASED");
            self.log.append(tx, &pending.name, pending.version, &meta, None, vec![event]).await?;
        }
        let event = proto::Event::SubjectErased(proto::SubjectErased { subject: subject.to_owned() });
        self.log.append_next(tx, &format!("{RECIPIENTS}{subject}"), &meta, Some(subject), vec![event]).await?;
        Ok(personal::forget(tx, subject).await?)
    }
}

/// The text an event of an order causes, if it causes one.
fn text_of(event: &ordering::Event) -> Option<(Template, Variables)> {
    let (template, facts): (Template, Vec<(&str, String)>) = match event {
        ordering::Event::OrderConfirmed(_) => (Template::OrderConfirmed, vec![]),
        ordering::Event::OrderRejected(rejected) => {
            (Template::OrderRejected, vec![("reason", why(rejected.reason()).to_owned())])
        }
        ordering::Event::OrderCancelled(cancelled) => {
            (Template::OrderCancelled, vec![("partial", cancelled.partial.to_string())])
        }
        ordering::Event::PaymentActionRequired(action) => {
            (Template::PaymentActionRequired, vec![("uri", action.uri.clone())])
        }
        ordering::Event::LinesShipped(shipped) => {
            let carrier = ("carrier", shipped.carrier.clone());
            (Template::OrderShipped, vec![carrier, ("tracking_number", shipped.tracking_number.clone())])
        }
        ordering::Event::LinesDelivered(_) => (Template::OrderDelivered, vec![]),
        ordering::Event::ReturnRefunded(_) => (Template::OrderRefunded, vec![]),
        ordering::Event::OrderPlaced(_)
        | ordering::Event::StockHeld(_)
        | ordering::Event::PaymentInDoubt(_)
        | ordering::Event::PaymentAuthorized(_)
        | ordering::Event::StockCommitted(_)
        | ordering::Event::CancelRequested(_)
        | ordering::Event::CancelRefused(_)
        | ordering::Event::CartClosed(_)
        | ordering::Event::ShipmentCreated(_)
        | ordering::Event::ShipmentPacked(_)
        | ordering::Event::ShipmentCaptured(_)
        | ordering::Event::ShipmentFulfilled(_)
        | ordering::Event::ShipmentReleased(_)
        | ordering::Event::ShipmentCancelled(_)
        | ordering::Event::LinesReturned(_)
        | ordering::Event::ReturnCompleted(_)
        | ordering::Event::PaymentSettled(_)
        | ordering::Event::OrderClosed(_)
        | ordering::Event::NeedsAttentionRaised(_)
        | ordering::Event::NeedsAttentionCleared(_)
        | ordering::Event::SubjectErased(_) => return None,
    };
    Some((template, facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
}

fn why(reason: ordering::RejectReason) -> &'static str {
    match reason {
        ordering::RejectReason::OutOfStock => "What you wanted is sold out.",
        ordering::RejectReason::Declined => "The payment was declined.",
        ordering::RejectReason::StockGone => "What you wanted was sold before the payment was sure.",
        ordering::RejectReason::PaymentTimeout => "The payment could not be confirmed in time.",
        ordering::RejectReason::ActionExpired => "The payment was not confirmed in time.",
        ordering::RejectReason::StockTimeout
        | ordering::RejectReason::Invalid
        | ordering::RejectReason::Unspecified => "",
    }
}
