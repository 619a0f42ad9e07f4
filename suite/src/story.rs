//! What happened to an order, and what it was at a moment, for a person to read.

use contracts::ordering::v1::ordering_service_client::OrderingServiceClient;
use contracts::ordering::v1::{GetOrderRequest, Order};
use contracts::orderview::v1::orderview_service_client::OrderviewServiceClient;
use contracts::orderview::v1::{ExplainKind, ExplainOrderRequest};
use contracts::{google::r#type::Money, wkt};
use jiff::Timestamp;

use crate::shop::{Shop, Unreached};
use crate::work::Voice;

/// Tells an order's story, oldest first.
pub(crate) async fn explain(shop: &Shop, name: &str, voice: &Voice) -> anyhow::Result<bool> {
    let mut client = OrderviewServiceClient::new(shop.channel("orderview"));
    let request = Shop::by_operator(ExplainOrderRequest { name: name.to_owned() });
    let story =
        client.explain_order(request).await.map_err(|status| Unreached::or_said("orderview", &status))?.into_inner();
    // The write side is never behind, so the order itself comes from there.
    let order = order(shop, name, None).await?;
    voice.line(headline(&order)).await;
    for line in lines(&order) {
        voice.line(line).await;
    }
    voice.line("").await;
    let mut trace = String::new();
    for step in story.steps {
        if step.trace_id != trace && !step.trace_id.is_empty() {
            voice.line(format!("  trace {}", step.trace_id)).await;
            trace.clone_from(&step.trace_id);
        }
        let kind = match step.kind() {
            ExplainKind::Unspecified => "",
            ExplainKind::Event => "event",
            ExplainKind::SagaStep => "step",
            ExplainKind::PaymentAttempt => "payment",
            ExplainKind::StockMovement => "stock",
            ExplainKind::Shipment => "parcel",
            ExplainKind::Message => "message",
        };
        let attempt = if step.attempt > 1 { format!(" (attempt {})", step.attempt) } else { String::new() };
        let title = if step.kind() == ExplainKind::Event { event_name(&step.title) } else { step.title };
        let detail = if step.detail.is_empty() { String::new() } else { format!("  {}", step.detail) };
        let time = shown(step.time);
        voice.line(format!("{time}  {:<12} {kind:<8} {title}{attempt}{detail}", step.service)).await;
    }
    for service in &story.missing {
        voice.line(format!("{service} did not answer; its part of the story is missing")).await;
    }
    Ok(story.missing.is_empty())
}

/// Shows an order as it was at a moment.
pub(crate) async fn at(shop: &Shop, name: &str, time: Option<Timestamp>, voice: &Voice) -> anyhow::Result<bool> {
    let order = order(shop, name, time).await?;
    voice.line(headline(&order)).await;
    for line in lines(&order) {
        voice.line(line).await;
    }
    Ok(true)
}

async fn order(shop: &Shop, name: &str, time: Option<Timestamp>) -> anyhow::Result<Order> {
    let mut client = OrderingServiceClient::new(shop.channel("ordering"));
    let request = GetOrderRequest { name: name.to_owned(), read_time: time.map(wkt::Timestamp::from), version: 0 };
    let order = client.get_order(Shop::by_operator(request)).await;
    Ok(order.map_err(|status| Unreached::or_said("ordering", &status))?.into_inner())
}

fn headline(order: &Order) -> String {
    let state = order.state().as_str_name();
    let state = state.strip_prefix("ORDER_STATE_").unwrap_or(state);
    let reason = if order.reject_detail.is_empty() { String::new() } else { format!(" ({})", order.reject_detail) };
    format!("{} is {state}{reason}, version {}, of {}", order.name, order.version, order.customer)
}

fn lines(order: &Order) -> Vec<String> {
    let mut lines: Vec<String> = order
        .lines
        .iter()
        .map(|line| {
            let moved = [
                ("shipped", line.shipped_quantity),
                ("returned", line.returned_quantity),
                ("cancelled", line.cancelled_quantity),
            ];
            let moved: String =
                moved.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!(", {count} {what}")).collect();
            format!(
                "  {:>5} x {:<24} {:<40} {:>12}{moved}",
                line.quantity,
                line.sku,
                line.title,
                amount(&line.subtotal)
            )
        })
        .collect();
    lines.push(format!(
        "  subtotal {}, tax {}, shipping {}, total {}; charged {}, given back {}",
        amount(&order.subtotal),
        amount(&order.tax),
        amount(&order.shipping),
        amount(&order.total),
        amount(&order.captured),
        amount(&order.refunded)
    ));
    for shipment in &order.shipments {
        let state = shipment.state().as_str_name();
        let state = state.strip_prefix("ORDER_SHIPMENT_STATE_").unwrap_or(state);
        lines.push(format!("  {} {state}, worth {}", shipment.shipment, amount(&shipment.value)));
    }
    lines
}

fn amount(money: &Option<Money>) -> String {
    let money = money.as_ref().and_then(|money| contract::Money::try_from(money).ok());
    money.map_or_else(|| "-".to_owned(), |money| money.to_string())
}

fn shown(time: Option<wkt::Timestamp>) -> String {
    let time = time.and_then(|time| Timestamp::try_from(time).ok());
    time.map_or_else(String::new, |time| format!("{time:.3}"))
}

/// The name an event has in the log, from its words: `order placed` is `OrderPlaced`.
fn event_name(words: &str) -> String {
    let mut name = String::with_capacity(words.len());
    for word in words.split(' ') {
        let mut letters = word.chars();
        name.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        name.extend(letters);
    }
    name
}
