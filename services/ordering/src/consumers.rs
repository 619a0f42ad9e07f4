//! What ordering listens to: parcels that move, payments that learn their outcome, persons who are erased.
//!
//! Each handler has effects on ordering's own store alone; what must be asked of others becomes a saga. A message that is
//! delivered again finds its effect there.

use bus::{Failure, Handler, Message};
use contracts::identity::v1 as identity;
use contracts::ordering::v1::{Event as StoredEvent, SubjectErased};
use contracts::payment::v1 as payment;
use contracts::shipping::v1 as shipping;
use log::{LocalBoxFuture, Log};
use saga::Start;
use store::Tx;

use crate::error::Error;
use crate::fulfilment::FULFILMENT;
use crate::order::{Command, Rejection, ShipmentStep};
use crate::recent::Recent;
use crate::sagas::{checkout_saga, data, fulfilment_saga};
use crate::store as rows;

/// Follows shipping.
pub(crate) struct Shipments {
    pub(crate) log: Log<StoredEvent>,
    pub(crate) recent: Recent,
}

impl Handler for Shipments {
    fn wants(&self, name: &str) -> bool {
        matches!(
            name,
            "stoa.shipping.v1.ShipmentPacked"
                | "stoa.shipping.v1.ShipmentDispatched"
                | "stoa.shipping.v1.ShipmentDelivered"
        )
    }

    fn knows(&self, name: &str) -> bool {
        bus::listed(name, shipping::EVENTS)
    }

    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let (shipment, order, step) = match message.decode::<shipping::Event>()? {
                shipping::Event::ShipmentPacked(packed) => (packed.shipment, packed.order, ShipmentStep::Pack),
                shipping::Event::ShipmentDispatched(left) => {
                    let step = ShipmentStep::Ship { carrier: left.carrier, tracking: left.tracking_number };
                    (left.shipment, left.order, step)
                }
                shipping::Event::ShipmentDelivered(arrived) => (arrived.shipment, arrived.order, ShipmentStep::Deliver),
                shipping::Event::ShipmentCreated(_)
                | shipping::Event::ShipmentReleased(_)
                | shipping::Event::TrackingRecorded(_)
                | shipping::Event::ShipmentCancelled(_)
                | shipping::Event::SubjectErased(_) => return Ok(()),
            };
            let packed = step == ShipmentStep::Pack;
            let command = Command::MoveShipment { shipment: shipment.clone(), step };
            match rows::execute(&self.log, &self.recent, tx, &order, &message.meta(), command).await {
                Ok(_) => {}
                // The parcel may be packed before the order has noted that it exists; that note is on its way.
                Err(Error::Rejected { rejection: rejection @ Rejection::UnknownShipment(_), .. }) => {
                    return Err(Failure::Transient(rejection.to_string()));
                }
                Err(error) => return Err(failure(error)),
            }
            if packed {
                let start = Start {
                    id: fulfilment_saga(&shipment),
                    data: data(&order, &shipment),
                    correlation: message.correlation.clone(),
                    traceparent: message.traceparent.clone(),
                };
                saga::enqueue(tx, &FULFILMENT, &start).await?;
            }
            Ok(())
        })
    }
}

/// Follows payment: whatever is learnt of a payment wakes the saga that waits for it.
pub(crate) struct Payments;

impl Handler for Payments {
    fn wants(&self, name: &str) -> bool {
        matches!(
            name,
            "stoa.payment.v1.PaymentAuthorized"
                | "stoa.payment.v1.PaymentFailed"
                | "stoa.payment.v1.PaymentExpired"
                | "stoa.payment.v1.PaymentVoided"
                | "stoa.payment.v1.PaymentRefunded"
                | "stoa.payment.v1.PaymentCaptured"
        )
    }

    fn knows(&self, name: &str) -> bool {
        bus::listed(name, payment::EVENTS)
    }

    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let order = match message.decode::<payment::Event>()? {
                payment::Event::PaymentAuthorized(event) => event.order,
                payment::Event::PaymentFailed(event) => event.order,
                payment::Event::PaymentExpired(event) => event.order,
                payment::Event::PaymentVoided(event) => event.order,
                payment::Event::PaymentRefunded(event) => event.order,
                payment::Event::PaymentCaptured(event) => event.order,
                _ => return Ok(()),
            };
            saga::nudge(tx, &checkout_saga(&order)).await?;
            Ok(())
        })
    }
}

/// Follows identity: what is personal about an erased person becomes unreadable here too.
pub(crate) struct Persons {
    pub(crate) log: Log<StoredEvent>,
}

impl Handler for Persons {
    fn wants(&self, name: &str) -> bool {
        name == "stoa.identity.v1.UserErased"
    }

    fn knows(&self, name: &str) -> bool {
        bus::listed(name, identity::EVENTS)
    }

    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let identity::Event::UserErased(erased) = message.decode::<identity::Event>()? else { return Ok(()) };
            let subject = erased.user;
            let stream = rows::erasure_stream(&subject);
            let event = StoredEvent::SubjectErased(SubjectErased { subject: subject.clone() });
            self.log.append_next(tx, &stream, &message.meta(), None, vec![event]).await?;
            log::personal::forget(tx, &subject).await?;
            Ok(())
        })
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Log(error) => error.into(),
        Error::Rejected { .. } | Error::Stale(_) | Error::Replayed(_) | Error::Unreadable { .. } => {
            Failure::Permanent(error.to_string())
        }
    }
}
