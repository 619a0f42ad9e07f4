//! Between contract messages and the domain: the only file that sees both.

mod events;
mod reply;

pub(crate) use events::{from_stored, to_stored};
pub(crate) use reply::{Times, order_event, reply};

use contract::{Currency, Money};
use contracts::address::v1::PostalAddress;
use contracts::cart::v1::Quote;
use contracts::ordering::v1 as proto;

use crate::order::{Address, Line, Placement, RejectReason, Status};

/// What an order request and its verified quote agree on.
pub(crate) fn placement(
    request: &proto::PlaceOrderRequest,
    quote: &Quote,
    customer: &str,
    actor: &str,
) -> Result<Placement, String> {
    let money = |wire: &Option<contracts::google::r#type::Money>| -> Result<Money, String> {
        let wire = wire.as_ref().ok_or("the quote lacks an amount")?;
        Money::try_from(wire).map_err(|error| error.to_string())
    };
    let mut lines = vec![];
    for (index, line) in quote.lines.iter().enumerate() {
        lines.push(Line {
            id: (index + 1).to_string(),
            item: line.item.clone(),
            sku: line.sku.clone(),
            variant: line.variant.clone(),
            title: line.title.clone(),
            quantity: i64::from(line.quantity),
            unit_price: money(&line.unit_price)?,
            tax: money(&line.tax)?,
            stocked: line.stocked,
        });
    }
    Ok(Placement {
        customer: customer.to_owned(),
        cart: quote.cart.clone(),
        cart_etag: quote.cart_etag.clone(),
        lines,
        subtotal: money(&quote.subtotal)?,
        tax: money(&quote.tax)?,
        shipping: money(&quote.shipping)?,
        total: money(&quote.total)?,
        quote_id: quote.quote_id.clone(),
        payment_token: request.payment_method.as_ref().map(|method| method.token.clone()).unwrap_or_default(),
        address: request.shipping_address.as_ref().map(address).unwrap_or_default(),
        contact_email: request.contact_email.clone(),
        external_reference: request.external_reference.clone(),
        external_time: request.placed_time.and_then(|time| time.try_into().ok()),
        actor: actor.to_owned(),
    })
}

/// An address as the domain has it.
pub(crate) fn address(wire: &PostalAddress) -> Address {
    Address {
        recipient: wire.recipient.clone(),
        organization: wire.organization.clone(),
        street: wire.street.clone(),
        street_extra: wire.street_extra.clone(),
        city: wire.city.clone(),
        region: wire.region.clone(),
        postal_code: wire.postal_code.clone(),
        country_code: wire.country_code.clone(),
        phone: wire.phone.clone(),
    }
}

/// An address on the wire; nothing when there is none.
pub(crate) fn postal_address(address: &Address) -> Option<PostalAddress> {
    if *address == Address::default() {
        return None;
    }
    Some(PostalAddress {
        recipient: address.recipient.clone(),
        organization: address.organization.clone(),
        street: address.street.clone(),
        street_extra: address.street_extra.clone(),
        city: address.city.clone(),
        region: address.region.clone(),
        postal_code: address.postal_code.clone(),
        country_code: address.country_code.clone(),
        phone: address.phone.clone(),
    })
}

fn state(status: Status) -> proto::OrderState {
    match status {
        Status::Pending => proto::OrderState::Pending,
        Status::AwaitingPaymentAction => proto::OrderState::AwaitingPaymentAction,
        Status::Confirmed => proto::OrderState::Confirmed,
        Status::PartiallyShipped => proto::OrderState::PartiallyShipped,
        Status::Shipped => proto::OrderState::Shipped,
        Status::Delivered => proto::OrderState::Delivered,
        Status::Closed => proto::OrderState::Closed,
        Status::Rejected => proto::OrderState::Rejected,
        Status::Cancelling => proto::OrderState::Cancelling,
        Status::Cancelled => proto::OrderState::Cancelled,
        Status::PartiallyCancelled => proto::OrderState::PartiallyCancelled,
    }
}

fn reject_reason(reason: RejectReason) -> proto::RejectReason {
    match reason {
        RejectReason::OutOfStock => proto::RejectReason::OutOfStock,
        RejectReason::Declined => proto::RejectReason::Declined,
        RejectReason::StockGone => proto::RejectReason::StockGone,
        RejectReason::PaymentTimeout => proto::RejectReason::PaymentTimeout,
        RejectReason::ActionExpired => proto::RejectReason::ActionExpired,
        RejectReason::StockTimeout => proto::RejectReason::StockTimeout,
        RejectReason::Invalid => proto::RejectReason::Invalid,
    }
}

fn reason_of(reason: proto::RejectReason) -> RejectReason {
    match reason {
        proto::RejectReason::OutOfStock => RejectReason::OutOfStock,
        proto::RejectReason::Declined => RejectReason::Declined,
        proto::RejectReason::StockGone => RejectReason::StockGone,
        proto::RejectReason::PaymentTimeout => RejectReason::PaymentTimeout,
        proto::RejectReason::ActionExpired => RejectReason::ActionExpired,
        proto::RejectReason::StockTimeout => RejectReason::StockTimeout,
        proto::RejectReason::Invalid | proto::RejectReason::Unspecified => RejectReason::Invalid,
    }
}

fn currency(code: &str) -> Result<Currency, String> {
    code.parse().map_err(|error| format!("currency {code:?}: {error}"))
}

fn count(quantity: i64) -> i32 {
    i32::try_from(quantity).unwrap_or(i32::MAX)
}
