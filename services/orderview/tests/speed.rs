//! How fast views follow and are folded anew, printed. Run with
//! `cargo test --release -p stoa-orderview --test speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use auth::{Principal, Role, Subject};
use client::Outgoing;
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use contracts::operations::v1::{RebuildProjectionRequest, VerifyProjectionRequest};
use contracts::ordering::v1 as ordering;
use contracts::ordering::v1::Event;
use contracts::orderview::v1::GetOrderViewRequest;
use contracts::orderview::v1::orderview_service_client::OrderviewServiceClient;
use log::{Log, Meta};
use server::Context;
use store::{Tx, site};

const ORDERS: usize = 20_000;
const LINES: usize = 26;
const ORDERS_A_TRANSACTION: usize = 100;

/// The life of an order, as the log of ordering has it.
fn life(order: &str, buyer: &str) -> Vec<Event> {
    let lines = (0..LINES).map(|line| ordering::PlacedLine {
        line: line.to_string(),
        item: format!("carts/0192d3c4-0000-7000-8000-000000000000/items/{line}"),
        sku: format!("8512{line}A"),
        variant: format!("products/8512{line}a/variants/default"),
        title: "WHITE HANGING HEART T-LIGHT HOLDER".to_owned(),
        quantity: 6,
        unit_price_minor: 255,
        stocked: true,
        ..Default::default()
    });
    let counted = || (0..LINES).map(|line| ordering::CountedLine { line: line.to_string(), quantity: 6 }).collect();
    let shipment = || order.replace("orders", "shipments");
    vec![
        Event::OrderPlaced(ordering::OrderPlaced {
            order: order.to_owned(),
            customer: buyer.to_owned(),
            currency_code: "GBP".to_owned(),
            lines: lines.collect(),
            contact_email: "buyer@example.com".to_owned(),
            ..Default::default()
        }),
        Event::StockHeld(Default::default()),
        Event::PaymentAuthorized(Default::default()),
        Event::StockCommitted(Default::default()),
        Event::OrderConfirmed(Default::default()),
        Event::CartClosed(Default::default()),
        Event::ShipmentCreated(ordering::ShipmentCreated {
            shipment: shipment(),
            lines: counted(),
            ..Default::default()
        }),
        Event::ShipmentPacked(ordering::ShipmentPacked { shipment: shipment(), ..Default::default() }),
        Event::ShipmentCaptured(ordering::ShipmentCaptured { shipment: shipment(), ..Default::default() }),
        Event::ShipmentFulfilled(ordering::ShipmentFulfilled { shipment: shipment(), ..Default::default() }),
        Event::ShipmentReleased(ordering::ShipmentReleased { shipment: shipment(), ..Default::default() }),
        Event::LinesShipped(ordering::LinesShipped {
            shipment: shipment(),
            lines: counted(),
            complete: true,
            ..Default::default()
        }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, meaningful in release builds alone"]
async fn views_follow_a_year_of_orders() {
    let context = Context::temporary(contracts::METHODS);
    let orders: Log<Event> = Log::new(context.open("ordering", &[]).await.unwrap(), vec![]);
    for first in (0..ORDERS).step_by(ORDERS_A_TRANSACTION) {
        let log = orders.clone();
        let write = orders.store().write(site!("speed.fill"), async move |tx: &mut Tx| {
            for number in first..first + ORDERS_A_TRANSACTION {
                let (order, buyer) = (format!("orders/{number:06}"), format!("users/{}", number % 4000));
                log.append_next(tx, &order, &Meta::default(), Some(&buyer), life(&order, &buyer)).await?;
            }
            Ok::<_, log::Error>(())
        });
        write.await.unwrap();
    }
    let events = (ORDERS * life("", "").len()) as f64;

    let component = orderview::build(orderview::Config::default(), &context).await.unwrap();
    let (_, tasks) = context.mount(component);
    let running = context.clone();
    tokio::spawn(async move { server::supervise(tasks, &running).await });
    let subject = Subject { id: "users/operator".to_owned(), role: Role::Operator, session: "s".to_owned() };
    let operator = Outgoing { principal: Principal::User(subject), ..Outgoing::default() };
    let channel = context.clients.as_caller("gateway").channel("orderview");
    let since = Instant::now();
    context.hub.publish("ordering", bus::source(orders));
    let last = GetOrderViewRequest { name: format!("orders/{:06}", ORDERS - 1), min_version: 12 };
    let mut views = OrderviewServiceClient::new(channel.clone());
    // Each call waits at most as long as the contract lets it.
    while views.get_order_view(operator.request(last.clone())).await.is_err() {}
    println!("followed: {:.0} events/s", events / since.elapsed().as_secs_f64());

    let mut desk = OperationsServiceClient::new(channel);
    let name = "services/orderview/projections/order_views".to_owned();
    let since = Instant::now();
    let verify = VerifyProjectionRequest { name: name.clone() };
    assert_eq!(desk.verify_projection(operator.request(verify)).await.unwrap().into_inner().differences, []);
    println!("verified: {:.0} events/s", events / since.elapsed().as_secs_f64());
    let since = Instant::now();
    let request_id = "0192d3c4-0000-7000-8000-000000000001".to_owned();
    let rebuild = RebuildProjectionRequest { name, request_id, ..Default::default() };
    desk.rebuild_projection(operator.request(rebuild)).await.unwrap();
    println!("rebuilt: {:.0} events/s", events / since.elapsed().as_secs_f64());
}
