//! Views beside a toy log of ordering: folded anew, checked, and changed by hand.

use std::time::Duration;

use contracts::ordering::v1 as ordering;
use ordering::Event;
use server::Context;
use store::params;

use super::*;
use crate::consumers::Orders;
use crate::store::MIGRATIONS;

struct Beside {
    orders: Log<Event>,
    views: Views,
}

async fn beside() -> Beside {
    let context = Context::temporary(contracts::METHODS);
    let orders = Log::new(context.open("ordering", &[]).await.unwrap(), vec![]);
    context.hub.publish("ordering", bus::source(orders.clone()));
    let log = Log::new(context.open("orderview", &[MIGRATIONS]).await.unwrap(), vec![]);
    let handler = Arc::new(Orders);
    let consumer =
        Consumer::new("orderview.ordering", log.store().clone(), context.hub.clone(), &["ordering"], handler);
    tokio::spawn(consumer.clone().run(std::future::pending()));
    Beside { orders, views: Views { log, hub: context.hub.clone(), consumer } }
}

fn placed(order: &str) -> Event {
    Event::OrderPlaced(ordering::OrderPlaced {
        order: order.to_owned(),
        customer: "users/ada".to_owned(),
        currency_code: "EUR".to_owned(),
        total_minor: 1200,
        contact_email: "ada@example.com".to_owned(),
        lines: vec![ordering::PlacedLine { line: "1".to_owned(), quantity: 3, ..Default::default() }],
        ..Default::default()
    })
}

impl Beside {
    async fn happen(&self, order: &str, events: Vec<Event>) {
        let (log, order) = (self.orders.clone(), order.to_owned());
        self.orders
            .store()
            .write(site!("test.happen"), async move |tx: &mut Tx| {
                log.append_next(tx, &order, &Meta::default(), Some("users/ada"), events.clone()).await.map(drop)
            })
            .await
            .unwrap();
    }

    async fn fill(&self) {
        for number in 0..40 {
            let order = format!("orders/{number}");
            let lines = vec![ordering::CountedLine { line: "1".to_owned(), quantity: 3 }];
            let shipped = ordering::LinesShipped { lines, complete: true, ..Default::default() };
            let events = vec![placed(&order), Event::OrderConfirmed(Default::default()), Event::LinesShipped(shipped)];
            self.happen(&order, events).await;
        }
        self.caught_up().await;
    }

    async fn caught_up(&self) {
        let caught = tokio::time::timeout(Duration::from_secs(10), self.views.consumer.caught_up());
        caught.await.unwrap().unwrap();
    }

    async fn by_hand(&self, sql: &'static str) {
        let changed = self
            .views
            .log
            .store()
            .write(site!("test.by_hand"), async move |tx: &mut Tx| tx.execute(sql, params![]).await)
            .await;
        assert!(changed.map_err(|error: store::Error| error.to_string()).unwrap() > 0);
    }

    async fn dump(&self) -> Vec<Vec<Value>> {
        let dump = self.views.log.store().read(async |tx: &mut Tx| {
            let mut dump = vec![];
            for table in TABLE_NAMES {
                dump.extend(tx.rows(table).await?.iter().map(|row| row.values().to_vec()));
            }
            Ok::<_, store::Error>(dump)
        });
        dump.await.unwrap()
    }
}

#[tokio::test]
async fn deleted_views_come_back_equal_to_the_byte() {
    let beside = beside().await;
    beside.fill().await;
    let before = beside.dump().await;
    assert_eq!(before.len(), 40 * 3, "a row, its lines, and what left");
    beside.by_hand("DELETE FROM order_views").await;
    beside.by_hand("DELETE FROM order_view_lines").await;
    beside.by_hand("DELETE FROM order_contacts").await;
    assert_eq!(verify(&beside.views).await.unwrap().len(), 40 * 4);
    let rebuilt = rebuild(&beside.views, "users/operator").await.unwrap();
    assert_eq!((rebuilt.events, rebuilt.rows), (120, 80 + 40));
    assert_eq!(beside.dump().await, before);
    assert_eq!(verify(&beside.views).await.unwrap(), []);
}

#[tokio::test]
async fn a_row_changed_by_hand_is_found_and_set_right() {
    let beside = beside().await;
    beside.fill().await;
    beside.by_hand("UPDATE order_views SET total = 1 WHERE name = 'orders/7'").await;
    beside.by_hand("DELETE FROM order_view_lines WHERE order_name = 'orders/8' AND version = 3").await;
    beside.by_hand("UPDATE order_views SET name = 'orders/x' WHERE name = 'orders/9'").await;
    let differs = |table: &'static str, key: &str, what| Difference { table, key: key.to_owned(), what };
    let found = verify(&beside.views).await.unwrap();
    let expected = [
        differs("order_views", "orders/7", What::Differs(vec!["total".to_owned()])),
        differs("order_views", "orders/9", What::Missing),
        differs("order_views", "orders/x", What::Extra),
        differs("order_view_lines", "orders/8@3", What::Missing),
    ];
    assert_eq!(found, expected);
    rebuild(&beside.views, "").await.unwrap();
    assert_eq!(verify(&beside.views).await.unwrap(), []);
}

#[tokio::test]
async fn a_rebuild_among_new_orders_misses_none_and_the_consumer_goes_on() {
    let beside = beside().await;
    beside.fill().await;
    let more = async {
        for number in 100..140 {
            let order = format!("orders/{number}");
            beside.happen(&order, vec![placed(&order)]).await;
        }
    };
    let (rebuilt, ()) = tokio::join!(rebuild(&beside.views, ""), more);
    rebuilt.unwrap();
    beside.happen("orders/0", vec![Event::OrderClosed(Default::default())]).await;
    beside.caught_up().await;
    assert_eq!(verify(&beside.views).await.unwrap(), []);
    assert_eq!(beside.dump().await.len(), 40 * 3 + 40 * 2);
    assert!(!beside.views.consumer.is_paused());
}

#[tokio::test]
async fn a_forgotten_reader_stays_forgotten_in_a_rebuild() {
    let beside = beside().await;
    beside.fill().await;
    let forget = beside
        .views
        .log
        .store()
        .write(site!("test.forget"), async |tx: &mut Tx| log::personal::forget(tx, "users/ada").await);
    forget.await.unwrap();
    beside.by_hand("DELETE FROM order_contacts").await;
    rebuild(&beside.views, "").await.unwrap();
    assert_eq!(verify(&beside.views).await.unwrap(), []);
    let contact = beside.views.log.store().read(async |tx: &mut Tx| rows::contact(tx, "orders/1").await);
    assert_eq!(contact.await.unwrap(), "");
}

#[tokio::test]
async fn an_order_with_an_event_nobody_can_read_ends_there_live_and_in_a_rebuild() {
    let beside = beside().await;
    beside.happen("orders/1", vec![placed("orders/1")]).await;
    let poison = beside.orders.store().write(site!("test.poison"), async |tx: &mut Tx| {
        tx.append(store::NewEvent {
            stream: "orders/1".to_owned(),
            version: 2,
            name: "stoa.ordering.v1.Nonsense",
            schema: 1,
            payload: vec![],
            subject: None,
            causation: String::new(),
            correlation: String::new(),
            traceparent: String::new(),
        });
        Ok::<_, store::Error>(())
    });
    poison.await.unwrap();
    let closed = || vec![Event::OrderClosed(Default::default())];
    beside.happen("orders/2", vec![placed("orders/2"), Event::OrderConfirmed(Default::default())]).await;
    let log = beside.orders.clone();
    let behind = beside.orders.store().write(site!("test.behind"), async move |tx: &mut Tx| {
        log.append(tx, "orders/1", 2, &Meta::default(), None, closed()).await.map(drop)
    });
    behind.await.unwrap();
    beside.caught_up().await;
    let versions = async || {
        let read = beside.views.log.store().read(async |tx: &mut Tx| {
            Ok::<_, store::Error>((rows::version(tx, "orders/1").await?, rows::version(tx, "orders/2").await?))
        });
        read.await.unwrap()
    };
    assert_eq!(versions().await, (1, 2));
    assert_eq!(verify(&beside.views).await.unwrap(), []);
    rebuild(&beside.views, "").await.unwrap();
    assert_eq!(versions().await, (1, 2));
}
