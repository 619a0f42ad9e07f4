//! Stock through the real RPC layers and the real store.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auth::{Principal, Role, Subject};
use client::{Channel, Outgoing};
use contracts::inventory::v1 as proto;
use contracts::inventory::v1::ReservationState;
use contracts::inventory::v1::inventory_service_client::InventoryServiceClient;
use server::{Context, status};
use telemetry::Trace;
use tonic::{Code, Request, Status};
use uuid::Uuid;

/// A running inventory with `units` of the SKU `MUG` in one warehouse.
struct Shelf {
    context: Context,
    tasks: Option<tokio::task::JoinHandle<()>>,
}

impl Shelf {
    async fn with(units: i64, clock: Option<store::Clock>) -> Self {
        let mut context = Context::temporary(contracts::METHODS);
        context.windows.sweep = Duration::from_millis(10);
        if let Some(clock) = clock {
            context.clock = clock;
        }
        let component = inventory::build(inventory::Config::default(), &context).await.unwrap();
        let (_, tasks) = context.mount(component);
        let supervised = context.clone();
        let tasks = tokio::spawn(async move { server::supervise(tasks, &supervised).await.unwrap() });
        let shelf = Self { context, tasks: Some(tasks) };
        if units > 0 {
            shelf.adjust(units).await.unwrap();
        }
        shelf
    }

    fn operator(&self) -> InventoryServiceClient<Channel> {
        InventoryServiceClient::new(self.context.clients.as_caller("gateway").channel("inventory"))
    }

    fn ordering(&self) -> InventoryServiceClient<Channel> {
        InventoryServiceClient::new(self.context.clients.as_caller("ordering").channel("inventory"))
    }

    async fn adjust(&self, delta: i64) -> Result<proto::StockItem, Status> {
        let adjust = proto::AdjustStockRequest {
            name: "warehouses/north/stockItems/MUG".to_owned(),
            delta,
            request_id: Uuid::now_v7().to_string(),
            ..Default::default()
        };
        Ok(self.operator().adjust_stock(as_operator(adjust)).await?.into_inner().stock_item.unwrap())
    }

    async fn hold(&self, id: &str, quantity: i64) -> Result<proto::Reservation, Status> {
        let reply = self.ordering().hold_stock(hold(id, quantity)).await?;
        Ok(reply.into_inner().reservation.unwrap())
    }

    async fn commit(&self, id: &str) -> Result<proto::Reservation, Status> {
        let request = proto::CommitReservationRequest { name: reservation(id), request_id: Uuid::now_v7().to_string() };
        Ok(self.ordering().commit_reservation(request).await?.into_inner().reservation.unwrap())
    }

    async fn release(&self, id: &str) -> Result<proto::Reservation, Status> {
        let request = proto::ReleaseReservationRequest {
            name: reservation(id),
            order: order(id),
            reason: "test".to_owned(),
            request_id: Uuid::now_v7().to_string(),
        };
        Ok(self.ordering().release_reservation(request).await?.into_inner().reservation.unwrap())
    }

    async fn item(&self) -> proto::StockItem {
        let list = proto::ListStockItemsRequest { parent: "warehouses/-".to_owned(), ..Default::default() };
        let items = self.operator().list_stock_items(as_operator(list)).await.unwrap().into_inner().stock_items;
        items.into_iter().next().unwrap_or_default()
    }

    async fn available(&self) -> i64 {
        let ask = proto::BatchGetAvailabilityRequest { skus: vec!["MUG".to_owned()] };
        let reply = self.operator().batch_get_availability(as_operator(ask)).await.unwrap().into_inner();
        reply.availabilities[0].available
    }

    async fn end(mut self) {
        self.context.shutdown.cancel();
        if let Some(tasks) = self.tasks.take() {
            tasks.await.unwrap();
        }
    }
}

fn as_operator<T>(message: T) -> Request<T> {
    let subject = Subject { id: "users/operator".to_owned(), role: Role::Operator, session: "s".to_owned() };
    Outgoing { principal: Principal::User(subject), trace: Trace::new_root(), deadline: None }.request(message)
}

fn order(id: &str) -> String {
    format!("orders/{id}")
}

fn reservation(id: &str) -> String {
    format!("reservations/{id}")
}

fn hold(id: &str, quantity: i64) -> proto::HoldStockRequest {
    proto::HoldStockRequest {
        name: reservation(id),
        order: order(id),
        lines: vec![proto::ReservationLine { sku: "MUG".to_owned(), quantity }],
        ttl: Some(Duration::from_secs(60).into()),
        request_id: Uuid::now_v7().to_string(),
    }
}

fn reason(error: &Status) -> String {
    status::reason(error).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_buyers_at_once_get_what_there_is_and_no_more() {
    let shelf = Shelf::with(10, None).await;
    let (won, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let buyers = (0..100).map(|buyer| {
        let (shelf, won, lost) = (&shelf, &won, &lost);
        async move {
            match shelf.hold(&buyer.to_string(), 1).await {
                Ok(_) => won.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    assert_eq!(reason(&error), "OUT_OF_STOCK");
                    lost.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    });
    futures_util::future::join_all(buyers).await;
    assert_eq!((won.into_inner(), lost.into_inner()), (10, 90));
    let item = shelf.item().await;
    assert_eq!((item.on_hand, item.held, item.available), (10, 10, 0));
    shelf.end().await;
}

#[tokio::test]
async fn a_repeated_hold_is_one_hold() {
    let shelf = Shelf::with(10, None).await;
    let request = hold("a", 3);
    for _ in 0..3 {
        shelf.ordering().hold_stock(request.clone()).await.unwrap();
    }
    assert_eq!(shelf.item().await.held, 3);
    // Another request for the same reservation finds it there.
    shelf.hold("a", 3).await.unwrap();
    assert_eq!(shelf.item().await.held, 3);
    shelf.end().await;
}

#[tokio::test]
async fn a_release_that_overtakes_its_hold_wins() {
    let shelf = Shelf::with(10, None).await;
    assert_eq!(shelf.release("a").await.unwrap().state(), ReservationState::Released);
    let refused = shelf.hold("a", 1).await.unwrap_err();
    assert_eq!(reason(&refused), "RESERVATION_CLOSED");
    assert_eq!(shelf.item().await.held, 0);
    shelf.end().await;
}

#[tokio::test]
async fn what_is_sold_leaves_and_comes_back_by_its_reservation() {
    let shelf = Shelf::with(10, None).await;
    shelf.hold("a", 4).await.unwrap();
    assert_eq!(shelf.commit("a").await.unwrap().state(), ReservationState::Committed);
    let line = |quantity| vec![proto::ReservationLine { sku: "MUG".to_owned(), quantity }];
    let fulfill = proto::FulfillReservationRequest {
        name: reservation("a"),
        lines: line(3),
        shipment: "shipments/s".to_owned(),
        request_id: Uuid::now_v7().to_string(),
    };
    let left = shelf.ordering().fulfill_reservation(fulfill.clone()).await.unwrap().into_inner().reservation.unwrap();
    assert_eq!(left.state(), ReservationState::PartiallyFulfilled);
    // The same parcel under another request id is the same parcel.
    let again = proto::FulfillReservationRequest { request_id: Uuid::now_v7().to_string(), ..fulfill };
    shelf.ordering().fulfill_reservation(again).await.unwrap();
    let item = shelf.item().await;
    assert_eq!((item.on_hand, item.committed), (7, 1));
    let restock = proto::RestockReservationRequest {
        name: reservation("a"),
        lines: line(2),
        return_id: "r".to_owned(),
        request_id: Uuid::now_v7().to_string(),
    };
    let back = shelf.ordering().restock_reservation(restock).await.unwrap().into_inner().movements;
    assert_eq!(back.iter().map(|movement| movement.on_hand_delta).sum::<i64>(), 2);
    assert_eq!(shelf.item().await.on_hand, 9);
    shelf.end().await;
}

#[tokio::test]
async fn an_overdue_hold_is_let_go_when_somebody_needs_the_stock() {
    let clock = store::Clock::manual(jiff::Timestamp::UNIX_EPOCH);
    let shelf = Shelf::with(1, Some(clock.clone())).await;
    shelf.hold("a", 1).await.unwrap();
    assert_eq!(reason(&shelf.hold("b", 1).await.unwrap_err()), "OUT_OF_STOCK");
    clock.advance(Duration::from_secs(61));
    shelf.hold("c", 1).await.unwrap();
    let refused = shelf.commit("a").await.unwrap_err();
    assert_eq!(reason(&refused), "STOCK_GONE");
    shelf.release("c").await.unwrap();
    assert_eq!(shelf.commit("a").await.unwrap().state(), ReservationState::Committed, "won again");
    shelf.end().await;
}

#[tokio::test]
async fn no_adjustment_takes_what_is_promised() {
    let shelf = Shelf::with(5, None).await;
    shelf.hold("a", 4).await.unwrap();
    let refused = shelf.adjust(-2).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "STOCK_PROMISED"));
    shelf.adjust(-1).await.unwrap();
    assert_eq!(shelf.available().await, 0);
    let refused = shelf.adjust(0).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    shelf.end().await;
}

#[tokio::test]
async fn a_dry_run_answers_and_stores_nothing() {
    let shelf = Shelf::with(5, None).await;
    let adjust = proto::AdjustStockRequest {
        name: "warehouses/north/stockItems/MUG".to_owned(),
        delta: 7,
        request_id: Uuid::now_v7().to_string(),
        validate_only: true,
        ..Default::default()
    };
    let item = shelf.operator().adjust_stock(as_operator(adjust)).await.unwrap().into_inner().stock_item.unwrap();
    assert_eq!(item.on_hand, 12);
    assert_eq!(shelf.available().await, 5);
    shelf.end().await;
}

#[tokio::test]
async fn only_ordering_holds_and_only_operators_count() {
    let shelf = Shelf::with(5, None).await;
    let refused = shelf.operator().hold_stock(as_operator(hold("a", 1))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let customer = Subject { id: "users/ann".to_owned(), role: Role::Customer, session: "s".to_owned() };
    let outgoing = Outgoing { principal: Principal::User(customer), trace: Trace::new_root(), deadline: None };
    let list = proto::ListStockItemsRequest { parent: "warehouses/-".to_owned(), ..Default::default() };
    let refused = shelf.operator().list_stock_items(outgoing.request(list)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    shelf.end().await;
}

#[tokio::test]
async fn movements_add_up_to_the_item_and_page_by_page_to_the_whole() {
    let shelf = Shelf::with(9, None).await;
    for id in ["a", "b", "c"] {
        shelf.hold(id, 1).await.unwrap();
        shelf.commit(id).await.unwrap();
    }
    let (mut token, mut movements) = (String::new(), vec![]);
    loop {
        let list = proto::ListMovementsRequest {
            stock_item: "warehouses/north/stockItems/MUG".to_owned(),
            page_size: 3,
            page_token: token,
            ..Default::default()
        };
        let page = shelf.operator().list_movements(as_operator(list)).await.unwrap().into_inner();
        movements.extend(page.movements);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(movements.len(), 7);
    let item = shelf.item().await;
    let sum = |delta: fn(&proto::StockMovement) -> i64| movements.iter().map(delta).sum::<i64>();
    assert_eq!(sum(|movement| movement.on_hand_delta), item.on_hand);
    assert_eq!(sum(|movement| movement.held_delta), item.held);
    assert_eq!(sum(|movement| movement.committed_delta), item.committed);
    shelf.end().await;
}
