//! A purchase that is told apart from others by its trace.

use anyhow::{Context, Result};
use http::{HeaderMap, Method};

use crate::shopper::{Shopper, order_body, request_id, text};

/// What a purchase passes, by service and title.
pub const HOPS: [(&str, &str); 16] = [
    ("gateway", "POST stoa.ordering.v1.OrderingService/PlaceOrder"),
    ("gateway", "stoa.ordering.v1.OrderingService/PlaceOrder"),
    ("ordering", "stoa.ordering.v1.OrderingService/PlaceOrder"),
    ("ordering", "transaction ordering.place_order"),
    ("ordering", "step hold_stock"),
    ("inventory", "stoa.inventory.v1.InventoryService/HoldStock"),
    ("ordering", "step authorize_payment"),
    ("payment", "stoa.payment.v1.PaymentService/AuthorizePayment"),
    ("payment", "POST provider"),
    ("inventory", "stoa.inventory.v1.InventoryService/CommitReservation"),
    ("ordering", "step close_cart"),
    ("ordering", "step create_shipments"),
    ("shipping", "stoa.shipping.v1.ShippingService/CreateShipment"),
    ("orderview", "process ordering"),
    ("notification", "process ordering"),
    ("notification", "send mail"),
];

/// Buys something and says in which trace, and which order it is.
pub async fn buy(shopper: &mut Shopper) -> Result<(String, String)> {
    let sku = shopper.something().await?;
    let priced = shopper.fill("EUR", &sku, 1).await?;
    let body = serde_json::to_vec(&order_body(&priced, "tok_ok", &request_id()))?;
    let kind = Some("application/json");
    let answer = shopper.http.send_bytes(Method::POST, "/v1/orders", kind, &[], body.into()).await?;
    let id = trace_of(&answer.headers)?;
    let order = answer.ok()?;
    let order = if order["order"].is_object() { order["order"].clone() } else { order };
    Ok((id, text(&order, "name")?))
}

/// The trace that an answer says it belongs to.
pub fn trace_of(headers: &HeaderMap) -> Result<String> {
    Ok(headers.get("stoa-trace-id").context("no trace id")?.to_str()?.to_owned())
}
