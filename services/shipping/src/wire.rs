//! Between contract messages and the domain: the only file that sees both.

use contracts::address::v1::PostalAddress;
use contracts::shipping::v1 as proto;

use crate::rates::Rate;
use crate::shipment::{Address, Event, Line, Plan, Shipment, State, Tracking};
use crate::store::Stored;

/// An event of the shipment `name`, of `order`, as it is stored.
pub(crate) fn to_stored(name: &str, order: &str, event: &Event) -> proto::Event {
    let (shipment, order) = (name.to_owned(), order.to_owned());
    match event {
        Event::Created(plan) => proto::Event::ShipmentCreated(proto::ShipmentCreated {
            shipment,
            order: plan.order.clone(),
            customer: plan.customer.clone(),
            lines: plan
                .lines
                .iter()
                .map(|line| proto::ParcelLine {
                    line: line.line.clone(),
                    sku: line.sku.clone(),
                    quantity: line.quantity,
                    title: line.title.clone(),
                })
                .collect(),
            address: plan.address.as_ref().map(postal_address),
            warehouse: plan.warehouse.clone(),
            shipping_service: plan.shipping_service.clone(),
        }),
        Event::Packed { actor } => {
            proto::Event::ShipmentPacked(proto::ShipmentPacked { shipment, order, actor: actor.clone() })
        }
        Event::Released => proto::Event::ShipmentReleased(proto::ShipmentReleased { shipment, order }),
        Event::Dispatched { carrier, tracking_number, actor } => {
            proto::Event::ShipmentDispatched(proto::ShipmentDispatched {
                shipment,
                order,
                carrier: carrier.clone(),
                tracking_number: tracking_number.clone(),
                actor: actor.clone(),
            })
        }
        Event::Tracked { status, note, actor } => proto::Event::TrackingRecorded(proto::TrackingRecorded {
            shipment,
            order,
            status: tracking_status(*status).into(),
            note: note.clone(),
            actor: actor.clone(),
        }),
        Event::Delivered { note, actor } => proto::Event::ShipmentDelivered(proto::ShipmentDelivered {
            shipment,
            order,
            note: note.clone(),
            actor: actor.clone(),
        }),
        Event::Cancelled { order, reason } => proto::Event::ShipmentCancelled(proto::ShipmentCancelled {
            shipment,
            order: order.clone(),
            reason: reason.clone(),
        }),
    }
}

/// The domain event of a stored one; nothing for an erasure, which is about no shipment.
pub(crate) fn from_stored(event: &proto::Event) -> Option<Event> {
    Some(match event {
        proto::Event::ShipmentCreated(created) => Event::Created(Box::new(Plan {
            order: created.order.clone(),
            customer: created.customer.clone(),
            lines: created
                .lines
                .iter()
                .map(|line| Line {
                    line: line.line.clone(),
                    sku: line.sku.clone(),
                    quantity: line.quantity,
                    title: line.title.clone(),
                })
                .collect(),
            address: created.address.as_ref().map(address),
            warehouse: created.warehouse.clone(),
            shipping_service: created.shipping_service.clone(),
        })),
        proto::Event::ShipmentPacked(packed) => Event::Packed { actor: packed.actor.clone() },
        proto::Event::ShipmentReleased(_) => Event::Released,
        proto::Event::ShipmentDispatched(left) => Event::Dispatched {
            carrier: left.carrier.clone(),
            tracking_number: left.tracking_number.clone(),
            actor: left.actor.clone(),
        },
        proto::Event::TrackingRecorded(said) => Event::Tracked {
            status: tracking(said.status()).unwrap_or(Tracking::InTransit),
            note: said.note.clone(),
            actor: said.actor.clone(),
        },
        proto::Event::ShipmentDelivered(arrived) => {
            Event::Delivered { note: arrived.note.clone(), actor: arrived.actor.clone() }
        }
        proto::Event::ShipmentCancelled(cancelled) => {
            Event::Cancelled { order: cancelled.order.clone(), reason: cancelled.reason.clone() }
        }
        proto::Event::SubjectErased(_) => return None,
    })
}

/// What CreateShipment asks for.
pub(crate) fn plan(shipment: &proto::Shipment) -> Plan {
    Plan {
        order: shipment.order.clone(),
        customer: shipment.customer.clone(),
        lines: shipment
            .lines
            .iter()
            .map(|line| Line {
                line: line.line.clone(),
                sku: line.sku.clone(),
                quantity: line.quantity,
                title: line.title.clone(),
            })
            .collect(),
        address: shipment.address.as_ref().map(address),
        warehouse: shipment.warehouse.clone(),
        shipping_service: shipment.shipping_service.clone(),
    }
}

/// A shipment as callers see it.
pub(crate) fn shipment(version: u64, state: &Shipment, stored: &Stored) -> proto::Shipment {
    proto::Shipment {
        name: stored.name.clone(),
        order: state.plan.order.clone(),
        customer: state.plan.customer.clone(),
        state: state.state.map_or(proto::ShipmentState::Unspecified, state_of).into(),
        lines: state
            .plan
            .lines
            .iter()
            .map(|line| proto::ShipmentLine {
                line: line.line.clone(),
                sku: line.sku.clone(),
                quantity: line.quantity,
                title: line.title.clone(),
            })
            .collect(),
        address: address_of(state),
        warehouse: state.plan.warehouse.clone(),
        shipping_service: state.plan.shipping_service.clone(),
        carrier: state.carrier.clone(),
        tracking_number: state.tracking_number.clone(),
        etag: version.to_string(),
        pack_time: stored.pack_time.map(Into::into),
        release_time: stored.release_time.map(Into::into),
        dispatch_time: stored.dispatch_time.map(Into::into),
        deliver_time: stored.deliver_time.map(Into::into),
        create_time: Some(stored.create_time.into()),
        update_time: Some(stored.update_time.into()),
        cancel_reason: state.cancel_reason.clone(),
    }
}

/// Where a shipment goes, as callers see it.
pub(crate) fn address_of(state: &Shipment) -> Option<PostalAddress> {
    state.plan.address.as_ref().map(postal_address)
}

/// A rate as callers see it.
pub(crate) fn rate(rate: &Rate<'_>, tax_basis_points: i32) -> proto::ShippingRate {
    proto::ShippingRate {
        shipping_service: rate.service.id.clone(),
        title: rate.service.title.clone(),
        carrier: rate.service.carrier.clone(),
        price: Some(rate.price.into()),
        tax_basis_points,
        min_days: rate.days.0,
        max_days: rate.days.1,
    }
}

/// What a carrier says; nothing if it says nothing.
pub(crate) fn tracking(status: proto::TrackingStatus) -> Option<Tracking> {
    match status {
        proto::TrackingStatus::Unspecified => None,
        proto::TrackingStatus::InTransit => Some(Tracking::InTransit),
        proto::TrackingStatus::Delivered => Some(Tracking::Delivered),
        proto::TrackingStatus::Failed => Some(Tracking::Failed),
    }
}

/// The stored text of the state with this name in the contract, for filters; nothing if there is none.
pub(crate) fn state_text_of(name: &str) -> Option<&'static str> {
    let state = match proto::ShipmentState::from_str_name(name)? {
        proto::ShipmentState::Unspecified => return None,
        proto::ShipmentState::Preparing => State::Preparing,
        proto::ShipmentState::Packed => State::Packed,
        proto::ShipmentState::Released => State::Released,
        proto::ShipmentState::Dispatched => State::Dispatched,
        proto::ShipmentState::Delivered => State::Delivered,
        proto::ShipmentState::Cancelled => State::Cancelled,
    };
    Some(state_text(state))
}

/// The stored text of a state.
pub(crate) fn state_text(state: State) -> &'static str {
    match state {
        State::Preparing => "PREPARING",
        State::Packed => "PACKED",
        State::Released => "RELEASED",
        State::Dispatched => "DISPATCHED",
        State::Delivered => "DELIVERED",
        State::Cancelled => "CANCELLED",
    }
}

fn state_of(state: State) -> proto::ShipmentState {
    match state {
        State::Preparing => proto::ShipmentState::Preparing,
        State::Packed => proto::ShipmentState::Packed,
        State::Released => proto::ShipmentState::Released,
        State::Dispatched => proto::ShipmentState::Dispatched,
        State::Delivered => proto::ShipmentState::Delivered,
        State::Cancelled => proto::ShipmentState::Cancelled,
    }
}

fn tracking_status(status: Tracking) -> proto::TrackingStatus {
    match status {
        Tracking::InTransit => proto::TrackingStatus::InTransit,
        Tracking::Delivered => proto::TrackingStatus::Delivered,
        Tracking::Failed => proto::TrackingStatus::Failed,
    }
}

fn address(address: &PostalAddress) -> Address {
    Address {
        recipient: address.recipient.clone(),
        organization: address.organization.clone(),
        street: address.street.clone(),
        street_extra: address.street_extra.clone(),
        city: address.city.clone(),
        region: address.region.clone(),
        postal_code: address.postal_code.clone(),
        country_code: address.country_code.clone(),
        phone: address.phone.clone(),
    }
}

fn postal_address(address: &Address) -> PostalAddress {
    PostalAddress {
        recipient: address.recipient.clone(),
        organization: address.organization.clone(),
        street: address.street.clone(),
        street_extra: address.street_extra.clone(),
        city: address.city.clone(),
        region: address.region.clone(),
        postal_code: address.postal_code.clone(),
        country_code: address.country_code.clone(),
        phone: address.phone.clone(),
    }
}
