//! Orders through the real RPC layers and the real store, with the callees played.

#![allow(clippy::unwrap_used)]

mod world;

use contracts::ordering::v1 as proto;
use contracts::ordering::v1::{OrderState, RejectReason};
use tonic::Code;
use world::{Effects, Payment, Play, World, as_user, request};

fn stocked() -> Play {
    Play { stock: 10, ..Play::default() }
}

const ALL_DONE: Effects = Effects {
    held: 0,
    committed: 2,
    authorized: 1,
    voided: 0,
    refunded: 0,
    carts_closed: 1,
    shipments: 1,
    shipments_cancelled: 0,
};

#[tokio::test]
async fn an_order_with_stock_and_money_is_confirmed_and_its_parcel_made() {
    let world = World::new(stocked()).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    assert_eq!(order.state(), OrderState::Confirmed);
    let order = world.until(&order.name, |order| !order.shipments.is_empty()).await;
    assert_eq!(order.shipments[0].value, order.total);
    assert_eq!(world.effects(), ALL_DONE);
}

#[tokio::test]
async fn an_order_without_stock_is_rejected_and_nothing_is_charged() {
    let world = World::new(Play::default()).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    assert_eq!((order.state(), order.reject_reason()), (OrderState::Rejected, RejectReason::OutOfStock));
    assert_eq!(world.effects(), Effects::default());
    // A rejected order does not use its cart up.
    world.play(|play| play.stock = 10);
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    assert_eq!(order.state(), OrderState::Confirmed);
}

#[tokio::test]
async fn a_declined_card_gives_the_stock_back() {
    let world = World::new(Play { payment: Payment::Declines, ..stocked() }).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    assert_eq!((order.state(), order.reject_reason()), (OrderState::Rejected, RejectReason::Declined));
    assert_eq!(world.effects(), Effects::default());
}

#[tokio::test]
async fn every_answer_may_be_lost_once_and_there_is_one_effect() {
    let lost = ["HoldStock", "AuthorizePayment", "CommitReservation", "CloseCart", "CreateShipment"];
    let play = Play { lost: lost.map(|method| (method, 1)).into_iter().collect(), ..stocked() };
    let world = World::new(play).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    assert_eq!(order.state(), OrderState::Confirmed);
    world.until(&order.name, |order| !order.shipments.is_empty()).await;
    assert_eq!(world.effects(), ALL_DONE);
}

#[tokio::test]
async fn a_repeated_request_is_one_order_and_another_body_is_refused() {
    let world = World::new(stocked()).await;
    let place = request("carts/a");
    let first = world.place("users/ann", place.clone()).await.unwrap();
    let again = world.place("users/ann", place.clone()).await.unwrap();
    assert_eq!(again.name, first.name);
    let other = proto::PlaceOrderRequest { contact_email: "bob@example.com".to_owned(), ..place };
    let refused = world.place("users/ann", other).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(server::status::reason(&refused).as_deref(), Some("REQUEST_ID_REUSED"));
    assert_eq!(world.effects().authorized, 1);
}

#[tokio::test]
async fn two_tabs_that_place_the_same_cart_get_one_order() {
    let world = World::new(stocked()).await;
    let (first, second) =
        tokio::join!(world.place("users/ann", request("carts/a")), world.place("users/ann", request("carts/a")));
    assert_eq!(first.unwrap().name, second.unwrap().name);
    assert_eq!(world.effects().authorized, 1);
}

#[tokio::test]
async fn a_buyer_who_must_act_is_told_and_the_order_is_confirmed_once_they_did() {
    let world = World::new(Play { payment: Payment::AsksTheBuyer, ..stocked() }).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    assert_eq!(order.state(), OrderState::AwaitingPaymentAction);
    assert_eq!(order.payment_action.as_ref().unwrap().challenge_id, "ch");
    world.play(|play| play.payment = Payment::Approves);
    world.until(&order.name, |order| order.state() == OrderState::Confirmed).await;
}

#[tokio::test]
async fn a_buyer_who_does_not_act_in_time_loses_the_order_and_nothing_else() {
    let world = World::new(Play { payment: Payment::AsksTheBuyer, ..stocked() }).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    let order = world.until(&order.name, |order| order.state() == OrderState::Rejected).await;
    assert_eq!(order.reject_reason(), RejectReason::ActionExpired);
    assert_eq!(world.effects().held, 0);
}

#[tokio::test]
async fn a_payment_in_doubt_is_said_so_waited_for_and_then_given_up() {
    let world = World::new(Play { payment: Payment::StaysSilent, ..stocked() }).await;
    let place = proto::PlaceOrderRequest {
        wait_timeout: Some(std::time::Duration::from_millis(1).into()),
        ..request("carts/a")
    };
    let order = world.place("users/ann", place).await.unwrap();
    assert_eq!(order.state(), OrderState::Pending);
    world.until(&order.name, |order| order.payment_in_doubt).await;
    let order = world.until(&order.name, |order| order.state() == OrderState::Rejected).await;
    assert_eq!(order.reject_reason(), RejectReason::PaymentTimeout);
    assert_eq!(world.effects(), Effects::default());
}

#[tokio::test]
async fn a_checkout_goes_on_after_a_restart_without_a_second_effect() {
    let mut world = World::new(Play { payment: Payment::StaysSilent, ..stocked() }).await;
    let place = proto::PlaceOrderRequest {
        wait_timeout: Some(std::time::Duration::from_millis(1).into()),
        ..request("carts/a")
    };
    let order = world.place("users/ann", place).await.unwrap();
    world.until(&order.name, |order| order.payment_in_doubt).await;
    world.stop().await;
    world.play(|play| play.payment = Payment::Approves);
    world.restart().await;
    let order = world.until(&order.name, |order| !order.shipments.is_empty()).await;
    assert_eq!(order.state(), OrderState::Confirmed);
    assert_eq!(world.effects(), ALL_DONE);
}

#[tokio::test]
async fn anothers_order_cannot_be_told_from_a_missing_one() {
    let world = World::new(stocked()).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    let other = world.get("users/bob", &order.name).await.unwrap_err();
    let name = order.name.replace(char::is_numeric, "0");
    let missing = world.get("users/bob", &name).await.unwrap_err();
    assert_eq!(other.code(), Code::NotFound);
    assert_eq!(other.message().replace(&order.name, &name), missing.message());
    assert!(world.get("users/operator", &order.name).await.is_ok());
    let refused = world.place("users/bob", request("carts/b")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "another's cart");
}

#[tokio::test]
async fn a_confirmed_order_is_cancelled_whole_or_not_at_all() {
    let world = World::new(stocked()).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    world.until(&order.name, |order| !order.shipments.is_empty()).await;
    world.play(|play| play.packed = true);
    let kept = world.cancel("users/ann", &order.name).await.unwrap();
    assert_eq!(kept.state(), OrderState::Confirmed, "a packed parcel goes on");
    world.play(|play| play.packed = false);
    let order = world.place("users/ann", request("carts/b")).await.unwrap();
    world.until(&order.name, |order| !order.shipments.is_empty()).await;
    let cancelled = world.cancel("users/ann", &order.name).await.unwrap();
    assert_eq!(cancelled.state(), OrderState::Cancelled);
    let effects = world.effects();
    assert_eq!((effects.committed, effects.voided, effects.shipments_cancelled), (2, 1, 1));
}

#[tokio::test]
async fn an_order_is_cancelled_while_its_buyer_must_act() {
    let world = World::new(Play { payment: Payment::AsksTheBuyer, ..stocked() }).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    let cancelled = world.cancel("users/ann", &order.name).await.unwrap();
    assert_eq!(cancelled.state(), OrderState::Cancelled);
    assert_eq!(world.effects().held, 0);
}

#[tokio::test]
async fn returned_lines_are_paid_back_once_and_never_more_than_was_bought() {
    let world = World::new(stocked()).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    world.until(&order.name, |order| !order.shipments.is_empty()).await;
    let give = |quantity, request_id: &str| proto::ReturnLinesRequest {
        order: order.name.clone(),
        lines: vec![proto::ReturnLine { line: "1".to_owned(), quantity }],
        restock: true,
        reason: "broken".to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    let id = uuid::Uuid::now_v7().to_string();
    for _ in 0..2 {
        let reply = world.client().return_lines(as_user("users/operator", give(1, &id))).await.unwrap().into_inner();
        assert_eq!(reply.order_return.unwrap().state(), proto::OrderReturnState::Done);
    }
    assert_eq!(world.effects().refunded, 10);
    let id = uuid::Uuid::now_v7().to_string();
    let refused = world.client().return_lines(as_user("users/operator", give(2, &id))).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let refused = world.client().return_lines(as_user("users/ann", give(1, &id))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_order_is_shown_as_it_was() {
    let world = World::new(stocked()).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    let get = proto::GetOrderRequest { name: order.name.clone(), version: 1, ..Default::default() };
    let then = world.client().get_order(as_user("users/ann", get)).await.unwrap().into_inner();
    assert_eq!((then.state(), then.version), (OrderState::Pending, 1));
    let list = proto::ListOrderEventsRequest { parent: order.name.clone(), ..Default::default() };
    let events = world.client().list_order_events(as_user("users/ann", list)).await.unwrap().into_inner().events;
    assert_eq!(events[0].r#type, "stoa.ordering.v1.OrderPlaced");
    assert!(events.iter().all(|event| !event.causation_id.is_empty()));
}

#[tokio::test]
async fn a_buyer_who_is_erased_before_the_parcels_are_made_gets_the_money_back() {
    let play = Play { lost: [("CloseCart", u32::MAX)].into_iter().collect(), ..stocked() };
    let world = World::new(play).await;
    let order = world.place("users/ann", request("carts/a")).await.unwrap();
    assert_eq!(order.state(), OrderState::Confirmed);
    world.erase("users/ann").await;
    let erased = |order: &proto::Order| order.shipping_address.as_ref().is_some_and(|it| it.recipient.is_empty());
    world.until(&order.name, erased).await;
    world.play(|play| play.lost.clear());
    world.until(&order.name, |order| order.state() == OrderState::Cancelled).await;
    let Effects { committed, authorized, voided, shipments, .. } = world.effects();
    assert_eq!((committed, authorized, voided, shipments), (0, 1, 1, 0));
}
