//! Orderview as its callers see it, fed by a toy log of ordering, with none of the other services built in.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use auth::{Principal, Role, Subject};
use client::{Channel, Outgoing};
use contracts::identity::v1 as identity;
use contracts::ordering::v1 as ordering;
use contracts::ordering::v1::ordering_service_server::{OrderingService, OrderingServiceServer};
use contracts::ordering::v1::{Event, OrderState as State};
use contracts::orderview::v1 as proto;
use contracts::orderview::v1::orderview_service_client::OrderviewServiceClient;
use log::{Log, Meta};
use server::{Component, Context, status};
use store::{Tx, site};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

type Client = OrderviewServiceClient<Channel>;

/// The service, running, and the log it reads.
struct Shop {
    context: Context,
    orders: Log<Event>,
    client: Client,
}

async fn shop_with(config: orderview::Config) -> Shop {
    let context = Context::temporary(contracts::METHODS);
    let orders = Log::new(context.open("ordering", &[]).await.unwrap(), vec![]);
    context.hub.publish("ordering", bus::source(orders.clone()));
    let component = orderview::build(config, &context).await.unwrap();
    let (_, tasks) = context.mount(component);
    let running = context.clone();
    tokio::spawn(async move { server::supervise(tasks, &running).await });
    let client = Client::new(context.clients.as_caller("gateway").channel("orderview"));
    Shop { context, orders, client }
}

async fn shop() -> Shop {
    shop_with(orderview::Config::default()).await
}

fn person(id: &str, role: Role) -> Outgoing {
    let subject = Subject { id: id.to_owned(), role, session: "sessions/1".to_owned() };
    Outgoing { principal: Principal::User(subject), ..Outgoing::default() }
}

fn customer<T>(id: &str, message: T) -> Request<T> {
    person(id, Role::Customer).request(message)
}

fn operator<T>(message: T) -> Request<T> {
    person("users/operator", Role::Operator).request(message)
}

fn get(name: &str, min_version: i64) -> proto::GetOrderViewRequest {
    proto::GetOrderViewRequest { name: name.to_owned(), min_version }
}

fn placed(order: &str, buyer: &str) -> Event {
    let line = |line: &str, quantity, unit_price_minor| ordering::PlacedLine {
        line: line.to_owned(),
        sku: format!("SKU-{line}"),
        title: format!("Thing {line}"),
        quantity,
        unit_price_minor,
        stocked: true,
        ..Default::default()
    };
    Event::OrderPlaced(ordering::OrderPlaced {
        order: order.to_owned(),
        customer: buyer.to_owned(),
        currency_code: "EUR".to_owned(),
        lines: vec![line("1", 3, 250), line("2", 1, 1000)],
        subtotal_minor: 1750,
        tax_minor: 350,
        total_minor: 2100,
        payment: order.replace("orders", "payments"),
        payment_token: "tok_ok".to_owned(),
        contact_email: "ada@example.com".to_owned(),
        external_reference: format!("X-{}", &order[7..]),
        ..Default::default()
    })
}

fn confirmed() -> Event {
    Event::OrderConfirmed(ordering::OrderConfirmed::default())
}

fn rejected() -> Event {
    let reason = ordering::RejectReason::OutOfStock.into();
    Event::OrderRejected(ordering::OrderRejected { reason, ..Default::default() })
}

fn counted(line: &str, quantity: i32) -> ordering::CountedLine {
    ordering::CountedLine { line: line.to_owned(), quantity }
}

impl Shop {
    async fn happen(&self, order: &str, buyer: &str, events: Vec<Event>) {
        let (log, order, buyer) = (self.orders.clone(), order.to_owned(), buyer.to_owned());
        self.orders
            .store()
            .write(site!("test.happen"), async move |tx: &mut Tx| {
                log.append_next(tx, &order, &Meta::default(), Some(&buyer), events.clone()).await.map(drop)
            })
            .await
            .unwrap();
    }

    async fn view(&self, buyer: &str, name: &str, min_version: i64) -> Result<proto::OrderView, Status> {
        let request = customer(buyer, get(name, min_version));
        self.client.clone().get_order_view(request).await.map(Response::into_inner)
    }

    async fn list(&self, request: Request<proto::ListOrdersRequest>) -> Result<proto::ListOrdersResponse, Status> {
        self.client.clone().list_orders(request).await.map(Response::into_inner)
    }
}

fn page(page_size: i32, page_token: &str, filter: &str) -> proto::ListOrdersRequest {
    proto::ListOrdersRequest { page_size, page_token: page_token.to_owned(), filter: filter.to_owned() }
}

fn names(list: &proto::ListOrdersResponse) -> Vec<&str> {
    list.orders.iter().map(|order| order.name.as_str()).collect()
}

#[tokio::test]
async fn a_view_says_what_the_events_say() {
    let shop = shop().await;
    let (order, shipment) = ("orders/1", "shipments/1-north".to_owned());
    let parcel = ordering::ShipmentCreated { shipment: shipment.clone(), value_minor: 900, ..Default::default() };
    let captured = ordering::ShipmentCaptured { shipment: shipment.clone(), amount_minor: 900, ..Default::default() };
    let shipped = ordering::LinesShipped {
        shipment,
        lines: vec![counted("1", 2)],
        carrier: "Post".to_owned(),
        tracking_number: "T1".to_owned(),
        ..Default::default()
    };
    let returned = ordering::LinesReturned {
        return_id: "r1".to_owned(),
        lines: vec![ordering::ReturnedLine { line: "1".to_owned(), quantity: 1, amount_minor: 300 }],
        ..Default::default()
    };
    let refunded = ordering::ReturnRefunded { amount_minor: 300, ..Default::default() };
    let cancelled = ordering::OrderCancelled { lines: vec![counted("2", 1)], partial: true, ..Default::default() };
    let events = vec![
        placed(order, "users/ada"),
        Event::StockHeld(ordering::StockHeld::default()),
        Event::PaymentAuthorized(ordering::PaymentAuthorized::default()),
        confirmed(),
        Event::ShipmentCreated(parcel),
        Event::ShipmentCaptured(captured),
        Event::LinesShipped(shipped),
        Event::LinesReturned(returned),
        Event::ReturnRefunded(refunded),
        Event::OrderCancelled(cancelled),
    ];
    shop.happen(order, "users/ada", events).await;
    let view = shop.view("users/ada", order, 10).await.unwrap();
    assert_eq!((view.state(), view.version, view.etag.as_str()), (State::PartiallyCancelled, 10, "10"));
    assert_eq!((view.contact_email.as_str(), view.external_reference.as_str()), ("ada@example.com", "X-1"));
    let units = |money: &Option<contracts::google::r#type::Money>| {
        contract::Money::try_from(money.as_ref().unwrap()).unwrap().minor
    };
    assert_eq!([&view.total, &view.captured, &view.refunded].map(units), [2100, 900, 300]);
    let lines = view.lines.iter().map(|line| {
        (line.sku.as_str(), line.quantity, line.shipped_quantity, line.returned_quantity, line.cancelled_quantity)
    });
    assert_eq!(lines.collect::<Vec<_>>(), [("SKU-1", 3, 2, 1, 0), ("SKU-2", 1, 0, 0, 1)]);
    assert_eq!(units(&view.lines[0].subtotal), 750);
    assert_eq!((view.shipments.len(), view.shipments[0].carrier.as_str()), (1, "Post"));
    assert_eq!(view.shipments[0].state(), ordering::OrderShipmentState::Shipped);
}

#[tokio::test]
async fn a_read_of_ones_own_write_waits_for_it() {
    let shop = shop().await;
    shop.happen("orders/1", "users/ada", vec![placed("orders/1", "users/ada")]).await;
    assert_eq!(shop.view("users/ada", "orders/1", 1).await.unwrap().state(), State::Pending);
    let waits = shop.view("users/ada", "orders/1", 2);
    let happens = shop.happen("orders/1", "users/ada", vec![confirmed()]);
    let (view, ()) = tokio::join!(waits, happens);
    assert_eq!((view.as_ref().unwrap().version, view.unwrap().state()), (2, State::Confirmed));
}

#[tokio::test]
async fn a_version_that_does_not_come_is_told_before_the_deadline() {
    let shop = shop().await;
    shop.happen("orders/1", "users/ada", vec![placed("orders/1", "users/ada")]).await;
    let request = person("users/ada", Role::Customer).within(Duration::from_millis(400)).request(get("orders/1", 9));
    let behind = shop.client.clone().get_order_view(request).await.unwrap_err();
    assert_eq!((behind.code(), status::reason(&behind).as_deref()), (Code::DeadlineExceeded, Some("VIEW_BEHIND")));
}

#[tokio::test]
async fn another_customers_order_looks_like_none_at_all() {
    let shop = shop().await;
    shop.happen("orders/1", "users/ada", vec![placed("orders/1", "users/ada")]).await;
    shop.view("users/ada", "orders/1", 1).await.unwrap();
    for min_version in [0, 1] {
        let foreign = shop.view("users/bob", "orders/1", min_version).await.unwrap_err();
        let missing = shop.view("users/bob", "orders/2", min_version).await.unwrap_err();
        assert_eq!(foreign.code(), Code::NotFound);
        assert_eq!(foreign.message().replace("orders/1", "orders/2"), missing.message());
        assert_eq!(foreign.details().len(), missing.details().len());
    }
    let watch = proto::WatchOrderRequest { name: "orders/1".to_owned(), after_version: 0 };
    assert_eq!(shop.client.clone().watch_order(customer("users/bob", watch)).await.unwrap_err().code(), Code::NotFound);
    let seen = shop.client.clone().get_order_view(operator(get("orders/1", 0))).await.unwrap().into_inner();
    assert_eq!(seen.customer, "users/ada");
}

#[tokio::test]
async fn a_list_shows_the_callers_own_page_by_page_and_all_to_an_operator() {
    let shop = shop().await;
    for (number, buyer) in ["users/ada", "users/bob", "users/ada", "users/ada"].into_iter().enumerate() {
        let order = format!("orders/{number}");
        let mut events = vec![placed(&order, buyer)];
        if number == 2 {
            events.push(rejected());
        }
        if number == 3 {
            let reason = "CAPTURE".to_owned();
            events.push(Event::NeedsAttentionRaised(ordering::NeedsAttentionRaised { reason, ..Default::default() }));
        }
        shop.happen(&order, buyer, events).await;
    }
    shop.view("users/ada", "orders/3", 2).await.unwrap();

    let first = shop.list(customer("users/ada", page(2, "", ""))).await.unwrap();
    assert_eq!(names(&first), ["orders/3", "orders/2"]);
    let second = shop.list(customer("users/ada", page(2, &first.next_page_token, ""))).await.unwrap();
    assert_eq!((names(&second), second.next_page_token.as_str()), (vec!["orders/0"], ""));

    let token = first.next_page_token.as_str();
    let other_filter = customer("users/ada", page(2, token, "state=ORDER_STATE_PENDING"));
    for request in [other_filter, customer("users/bob", page(2, token, "")), operator(page(2, token, ""))] {
        assert_eq!(shop.list(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    for (filter, expected) in [
        ("", vec!["orders/3", "orders/2", "orders/1", "orders/0"]),
        ("state=ORDER_STATE_REJECTED", vec!["orders/2"]),
        ("customer=\"users/ada\" AND state=ORDER_STATE_PENDING", vec!["orders/3", "orders/0"]),
        ("needs_attention=true", vec!["orders/3"]),
        ("needs_attention=false AND customer=\"users/ada\"", vec!["orders/2", "orders/0"]),
        ("external_reference=\"X-1\"", vec!["orders/1"]),
    ] {
        assert_eq!(names(&shop.list(operator(page(0, "", filter))).await.unwrap()), expected, "{filter}");
    }
    let others = shop.list(customer("users/ada", page(0, "", "customer=\"users/bob\""))).await.unwrap();
    assert_eq!(others.orders, []);
    for wrong in ["state=CONFIRMED", "color=red"] {
        assert_eq!(shop.list(operator(page(0, "", wrong))).await.unwrap_err().code(), Code::InvalidArgument, "{wrong}");
    }
}

#[tokio::test]
async fn a_watcher_sees_the_order_as_it_is_and_each_change_until_it_is_settled() {
    let shop = shop().await;
    shop.happen("orders/1", "users/ada", vec![placed("orders/1", "users/ada")]).await;
    shop.view("users/ada", "orders/1", 1).await.unwrap();
    let watch = |after_version| proto::WatchOrderRequest { name: "orders/1".to_owned(), after_version };
    let mut stream = shop.client.clone().watch_order(customer("users/ada", watch(0))).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!((first.order.unwrap().state(), first.event_type.as_str()), (State::Pending, ""));
    shop.happen("orders/1", "users/ada", vec![confirmed()]).await;
    let second = stream.message().await.unwrap().unwrap();
    assert_eq!(second.order.unwrap().state(), State::Confirmed);
    assert_eq!(second.event_type, "stoa.ordering.v1.OrderConfirmed");
    shop.happen("orders/1", "users/ada", vec![Event::OrderClosed(ordering::OrderClosed::default())]).await;
    assert_eq!(stream.message().await.unwrap().unwrap().order.unwrap().version, 3);
    assert!(stream.message().await.unwrap().is_none());

    let mut late = shop.client.clone().watch_order(customer("users/ada", watch(3))).await.unwrap().into_inner();
    assert!(late.message().await.unwrap().is_none(), "nothing newer will come");
}

#[tokio::test]
async fn more_watchers_than_there_are_seats_are_turned_away() {
    let shop = shop_with(orderview::Config { watchers: 1, ..Default::default() }).await;
    shop.happen("orders/1", "users/ada", vec![placed("orders/1", "users/ada")]).await;
    shop.view("users/ada", "orders/1", 1).await.unwrap();
    let watch = || customer("users/ada", proto::WatchOrderRequest { name: "orders/1".to_owned(), after_version: 0 });
    let seated = shop.client.clone().watch_order(watch()).await.unwrap();
    assert_eq!(shop.client.clone().watch_order(watch()).await.unwrap_err().code(), Code::ResourceExhausted);
    drop(seated);
}

#[tokio::test]
async fn an_erased_customer_is_not_to_be_written_to() {
    let shop = shop().await;
    shop.happen("orders/1", "users/ada", vec![placed("orders/1", "users/ada")]).await;
    assert_eq!(shop.view("users/ada", "orders/1", 1).await.unwrap().contact_email, "ada@example.com");
    let persons: Log<identity::Event> = Log::new(shop.context.open("identity", &[]).await.unwrap(), vec![]);
    let mut changed = shop.context.hub.source("orderview").unwrap().changed();
    shop.context.hub.publish("identity", bus::source(persons.clone()));
    let log = persons.clone();
    let erased = identity::UserErased { user: "users/ada".to_owned(), ..Default::default() };
    let erase = persons.store().write(site!("test.erase"), async move |tx: &mut Tx| {
        let event = identity::Event::UserErased(erased.clone());
        log.append(tx, "users/ada", 0, &Meta::default(), None, vec![event]).await.map(drop)
    });
    erase.await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), changed.wait_for(|head| *head >= 1)).await.unwrap().unwrap();
    let view = shop.view("users/ada", "orders/1", 1).await.unwrap();
    assert_eq!(view.contact_email, "");
    assert_eq!(view.lines.len(), 2);
}

/// Ordering, as far as an explanation asks it.
struct Ordering;

#[tonic::async_trait]
impl OrderingService for Ordering {
    async fn place_order(&self, _: Request<ordering::PlaceOrderRequest>) -> Result<Response<ordering::Order>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_order(&self, _: Request<ordering::GetOrderRequest>) -> Result<Response<ordering::Order>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_order(
        &self,
        _: Request<ordering::CancelOrderRequest>,
    ) -> Result<Response<ordering::CancelOrderResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn return_lines(
        &self,
        _: Request<ordering::ReturnLinesRequest>,
    ) -> Result<Response<ordering::ReturnLinesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_order_events(
        &self,
        request: Request<ordering::ListOrderEventsRequest>,
    ) -> Result<Response<ordering::ListOrderEventsResponse>, Status> {
        // Two pages, newest time first, to be put in order by whoever asks.
        let second = request.into_inner().page_token == "2";
        let (version, name) = if second { (2, "OrderConfirmed") } else { (1, "OrderPlaced") };
        let data = r#"{"order":"orders/1","contactEmail":"ada@example.com","currencyCode":"EUR","lines":[{},{}]}"#;
        let event = ordering::OrderEvent {
            version,
            r#type: format!("stoa.ordering.v1.{name}"),
            occur_time: Some(contracts::wkt::Timestamp { seconds: 100 - version, nanos: 0 }),
            data: Some(serde_json::from_str(data).unwrap()),
            ..Default::default()
        };
        let next_page_token = if second { String::new() } else { "2".to_owned() };
        Ok(Response::new(ordering::ListOrderEventsResponse { events: vec![event], next_page_token }))
    }
}

#[tokio::test]
async fn an_explanation_tells_what_it_has_in_order_of_time_and_what_it_lacks() {
    let shop = shop().await;
    shop.happen("orders/1", "users/ada", vec![placed("orders/1", "users/ada"), confirmed()]).await;
    shop.view("users/ada", "orders/1", 2).await.unwrap();
    let routes = Routes::new(OrderingServiceServer::new(Ordering));
    let component = Component::new("ordering", contracts::METHODS, routes);
    shop.context.mount(operations::Desk::new(&shop.orders).serve(component));

    let explain = || proto::ExplainOrderRequest { name: "orders/1".to_owned() };
    let refused = shop.client.clone().explain_order(customer("users/ada", explain())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let told = shop.client.clone().explain_order(operator(explain())).await.unwrap().into_inner();
    assert_eq!(told.order.unwrap().name, "orders/1");
    assert_eq!(told.missing, ["inventory", "notification", "payment", "shipping"]);
    let steps: Vec<_> = told.steps.iter().map(|step| (step.title.as_str(), step.service.as_str())).collect();
    assert_eq!(steps, [("order confirmed", "ordering"), ("order placed", "ordering")]);
    assert_eq!(told.steps[1].detail, "currencyCode EUR, 2 lines");
    let missing = proto::ExplainOrderRequest { name: "orders/2".to_owned() };
    assert_eq!(shop.client.clone().explain_order(operator(missing)).await.unwrap_err().code(), Code::NotFound);
}
