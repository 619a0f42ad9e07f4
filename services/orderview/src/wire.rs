//! Between contract messages and the view: what an event of ordering changes, and how a view is shown.

use std::collections::HashMap;

use contract::{Currency, Money};
use contracts::google::r#type::Money as WireMoney;
use contracts::ordering::v1 as ordering;
use contracts::orderview::v1 as proto;
use jiff::Timestamp;
use prost::Message as _;

use crate::error::Error;
use crate::store::{Lines, Stored};
use crate::view::{Action, Change, ParcelState, Progress, RejectReason, State};

/// What an event of ordering means for the view.
pub(crate) enum Folded<'a> {
    /// An order begins.
    Placed(Placed<'a>),
    /// Its progress changes, and perhaps what became of its lines.
    Changed { change: Change, lines: Option<(LineKind, Vec<u8>)> },
    /// Only its version moves.
    Nothing,
}

/// An order as it was placed.
pub(crate) struct Placed<'a> {
    pub(crate) fields: &'a ordering::OrderPlaced,
    /// When it was placed in another system.
    pub(crate) placed_time: Option<Timestamp>,
}

/// What happened to lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineKind {
    Placed,
    Shipped,
    Returned,
    Cancelled,
}

impl Placed<'_> {
    /// The lines alone, encoded: nothing personal.
    pub(crate) fn lines(&self) -> Vec<u8> {
        ordering::OrderPlaced { lines: self.fields.lines.clone(), ..Default::default() }.encode_to_vec()
    }
}

/// What an event of an order means for its view.
pub(crate) fn folded(event: &ordering::Event) -> Folded<'_> {
    use ordering::Event;
    let moved = |shipment: &str, state| Change::ParcelMoved { shipment: shipment.to_owned(), state };
    let (change, lines) = match event {
        Event::OrderPlaced(placed) => {
            let placed_time = placed.placed_time.and_then(|time| time.try_into().ok());
            return Folded::Placed(Placed { fields: placed, placed_time });
        }
        Event::StockHeld(_)
        | Event::StockCommitted(_)
        | Event::CartClosed(_)
        | Event::ShipmentFulfilled(_)
        | Event::ReturnCompleted(_)
        | Event::SubjectErased(_) => return Folded::Nothing,
        Event::PaymentActionRequired(action) => {
            let action = Action {
                uri: action.uri.clone(),
                challenge: action.challenge_id.clone(),
                expire_time: action.expire_time.and_then(|time| time.try_into().ok()),
            };
            (Change::ActionRequired(action), None)
        }
        Event::PaymentInDoubt(_) => (Change::InDoubt, None),
        Event::PaymentAuthorized(_) => (Change::Authorized, None),
        Event::OrderConfirmed(_) => (Change::Confirmed, None),
        Event::OrderRejected(rejected) => (Change::Rejected(reject_reason(rejected.reason())), None),
        Event::CancelRequested(_) => (Change::CancelRequested, None),
        Event::CancelRefused(_) => (Change::CancelRefused, None),
        Event::OrderCancelled(cancelled) => {
            let lines = counted(&cancelled.lines);
            (Change::Cancelled { partial: cancelled.partial }, Some((LineKind::Cancelled, lines)))
        }
        Event::ShipmentCreated(created) => (Change::ParcelMade(created.shipment.clone()), None),
        Event::ShipmentPacked(packed) => (moved(&packed.shipment, ParcelState::Packed), None),
        Event::ShipmentCaptured(captured) => {
            let shipment = captured.shipment.clone();
            (Change::Captured { shipment, amount: captured.amount_minor }, None)
        }
        Event::ShipmentReleased(released) => (moved(&released.shipment, ParcelState::Released), None),
        Event::ShipmentCancelled(cancelled) => (moved(&cancelled.shipment, ParcelState::Cancelled), None),
        Event::LinesShipped(shipped) => {
            let change = Change::Shipped {
                shipment: shipped.shipment.clone(),
                complete: shipped.complete,
                carrier: shipped.carrier.clone(),
                tracking_number: shipped.tracking_number.clone(),
            };
            (change, Some((LineKind::Shipped, counted(&shipped.lines))))
        }
        Event::LinesDelivered(delivered) => {
            (Change::Delivered { shipment: delivered.shipment.clone(), complete: delivered.complete }, None)
        }
        Event::LinesReturned(returned) => {
            let lines = returned.lines.iter().map(|line| (line.line.clone(), line.quantity));
            let lines = lines.map(|(line, quantity)| ordering::CountedLine { line, quantity }).collect::<Vec<_>>();
            (Change::Returned(returned.return_id.clone()), Some((LineKind::Returned, counted(&lines))))
        }
        Event::ReturnRefunded(refunded) => (Change::Refunded(refunded.amount_minor), None),
        Event::PaymentSettled(settled) => (Change::Refunded(settled.refunded_minor), None),
        Event::OrderClosed(_) => (Change::Closed, None),
        Event::NeedsAttentionRaised(raised) => (Change::AttentionRaised(raised.reason.clone()), None),
        Event::NeedsAttentionCleared(cleared) => (Change::AttentionCleared(cleared.reason.clone()), None),
    };
    Folded::Changed { change, lines }
}

/// Units of lines, encoded.
fn counted(lines: &[ordering::CountedLine]) -> Vec<u8> {
    ordering::OrderCancelled { lines: lines.to_vec(), ..Default::default() }.encode_to_vec()
}

/// An order as callers see it.
pub(crate) fn view(stored: &Stored, lines: &[Lines], contact_email: String) -> Result<proto::OrderView, Error> {
    let unreadable = |detail: String| Error::Unreadable { name: stored.name.clone(), detail };
    let progress = progress(stored)?;
    let currency: Currency =
        stored.currency.parse().map_err(|_| unreadable(format!("currency {:?}", stored.currency)))?;
    let money = |minor: i64| -> Option<WireMoney> { Some(Money::new(currency, minor).into()) };
    Ok(proto::OrderView {
        name: stored.name.clone(),
        state: wire_state(progress.state).into(),
        customer: stored.customer.clone(),
        lines: line_views(lines, currency).map_err(|error| unreadable(error.to_string()))?,
        subtotal: money(stored.subtotal),
        tax: money(stored.tax),
        shipping: money(stored.shipping),
        total: money(stored.total),
        captured: money(progress.captured),
        refunded: money(progress.refunded),
        currency_code: stored.currency.clone(),
        reject_reason: wire_reject_reason(progress.reject_reason).into(),
        payment: stored.payment.clone(),
        payment_action: progress.action.map(|action| ordering::PaymentAction {
            uri: action.uri,
            challenge_id: action.challenge,
            expire_time: action.expire_time.map(Into::into),
        }),
        shipments: progress
            .parcels
            .into_iter()
            .map(|parcel| proto::OrderShipmentView {
                shipment: parcel.shipment,
                state: parcel_state(parcel.state).into(),
                carrier: parcel.carrier,
                tracking_number: parcel.tracking_number,
            })
            .collect(),
        needs_attention: !progress.attention.is_empty(),
        attention_reasons: progress.attention,
        external_reference: stored.external_reference.clone(),
        placed_time: Some(stored.placed_time.into()),
        version: i64::try_from(stored.version).unwrap_or(i64::MAX),
        etag: stored.version.to_string(),
        create_time: Some(stored.create_time.into()),
        update_time: Some(stored.update_time.into()),
        contact_email,
        payment_in_doubt: progress.payment_in_doubt,
    })
}

/// The stored progress of an order.
pub(crate) fn progress(stored: &Stored) -> Result<Progress, Error> {
    serde_json::from_str(&stored.progress)
        .map_err(|error| Error::Unreadable { name: stored.name.clone(), detail: error.to_string() })
}

fn line_views(all: &[Lines], currency: Currency) -> Result<Vec<proto::OrderLineView>, prost::DecodeError> {
    let mut views: Vec<proto::OrderLineView> = vec![];
    let mut places: HashMap<String, usize> = HashMap::new();
    for Lines { kind, lines } in all {
        if *kind == LineKind::Placed {
            for line in ordering::OrderPlaced::decode(lines.as_slice())?.lines {
                let money = |minor| Some(Money::new(currency, minor).into());
                places.insert(line.line.clone(), views.len());
                views.push(proto::OrderLineView {
                    line: line.line,
                    sku: line.sku,
                    title: line.title,
                    quantity: line.quantity,
                    unit_price: money(line.unit_price_minor),
                    subtotal: money(line.unit_price_minor.saturating_mul(line.quantity.into())),
                    variant: line.variant,
                    ..Default::default()
                });
            }
            continue;
        }
        for counted in ordering::OrderCancelled::decode(lines.as_slice())?.lines {
            let view = places.get(&counted.line).and_then(|place| views.get_mut(*place));
            let Some(view) = view else { continue };
            let sum = match kind {
                LineKind::Placed => continue,
                LineKind::Shipped => &mut view.shipped_quantity,
                LineKind::Returned => &mut view.returned_quantity,
                LineKind::Cancelled => &mut view.cancelled_quantity,
            };
            *sum = sum.saturating_add(counted.quantity);
        }
    }
    Ok(views)
}

/// The stored text of what happened to lines.
pub(crate) fn kind_text(kind: LineKind) -> &'static str {
    match kind {
        LineKind::Placed => "PLACED",
        LineKind::Shipped => "SHIPPED",
        LineKind::Returned => "RETURNED",
        LineKind::Cancelled => "CANCELLED",
    }
}

/// What happened to lines, by its stored text.
pub(crate) fn kind(text: &str) -> Option<LineKind> {
    let all = [LineKind::Placed, LineKind::Shipped, LineKind::Returned, LineKind::Cancelled];
    all.into_iter().find(|kind| kind_text(*kind) == text)
}

/// The stored text of a state.
pub(crate) fn state_text(state: State) -> &'static str {
    wire_state(state).as_str_name().trim_start_matches("ORDER_STATE_")
}

/// The stored text of the state with this name in the contract, for filters; nothing if there is none.
pub(crate) fn state_text_of(name: &str) -> Option<&'static str> {
    match ordering::OrderState::from_str_name(name)? {
        ordering::OrderState::Unspecified => None,
        known => Some(known.as_str_name().trim_start_matches("ORDER_STATE_")),
    }
}

fn wire_state(state: State) -> ordering::OrderState {
    match state {
        State::Pending => ordering::OrderState::Pending,
        State::AwaitingPaymentAction => ordering::OrderState::AwaitingPaymentAction,
        State::Confirmed => ordering::OrderState::Confirmed,
        State::PartiallyShipped => ordering::OrderState::PartiallyShipped,
        State::Shipped => ordering::OrderState::Shipped,
        State::Delivered => ordering::OrderState::Delivered,
        State::Closed => ordering::OrderState::Closed,
        State::Rejected => ordering::OrderState::Rejected,
        State::Cancelling => ordering::OrderState::Cancelling,
        State::Cancelled => ordering::OrderState::Cancelled,
        State::PartiallyCancelled => ordering::OrderState::PartiallyCancelled,
    }
}

fn parcel_state(state: ParcelState) -> ordering::OrderShipmentState {
    match state {
        ParcelState::Created => ordering::OrderShipmentState::Created,
        ParcelState::Packed => ordering::OrderShipmentState::Packed,
        ParcelState::Captured => ordering::OrderShipmentState::Captured,
        ParcelState::Released => ordering::OrderShipmentState::Released,
        ParcelState::Shipped => ordering::OrderShipmentState::Shipped,
        ParcelState::Delivered => ordering::OrderShipmentState::Delivered,
        ParcelState::Cancelled => ordering::OrderShipmentState::Cancelled,
    }
}

fn reject_reason(reason: ordering::RejectReason) -> RejectReason {
    match reason {
        ordering::RejectReason::OutOfStock => RejectReason::OutOfStock,
        ordering::RejectReason::Declined => RejectReason::Declined,
        ordering::RejectReason::StockGone => RejectReason::StockGone,
        ordering::RejectReason::PaymentTimeout => RejectReason::PaymentTimeout,
        ordering::RejectReason::ActionExpired => RejectReason::ActionExpired,
        ordering::RejectReason::StockTimeout => RejectReason::StockTimeout,
        ordering::RejectReason::Invalid | ordering::RejectReason::Unspecified => RejectReason::Invalid,
    }
}

fn wire_reject_reason(reason: Option<RejectReason>) -> ordering::RejectReason {
    match reason {
        None => ordering::RejectReason::Unspecified,
        Some(RejectReason::OutOfStock) => ordering::RejectReason::OutOfStock,
        Some(RejectReason::Declined) => ordering::RejectReason::Declined,
        Some(RejectReason::StockGone) => ordering::RejectReason::StockGone,
        Some(RejectReason::PaymentTimeout) => ordering::RejectReason::PaymentTimeout,
        Some(RejectReason::ActionExpired) => ordering::RejectReason::ActionExpired,
        Some(RejectReason::StockTimeout) => ordering::RejectReason::StockTimeout,
        Some(RejectReason::Invalid) => ordering::RejectReason::Invalid,
    }
}
