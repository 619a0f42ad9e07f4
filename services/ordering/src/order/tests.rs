//! Given what happened, when a command arrives, then these events.

use contract::{Currency, Money};
use proptest::prelude::*;

use super::*;

fn gbp(minor: i64) -> Money {
    Money::new(Currency::GBP, minor)
}

fn line(id: &str, sku: &str, quantity: i64, price: i64, stocked: bool) -> Line {
    let title = format!("Title of {sku}");
    let (item, variant, tax) = (format!("carts/c/items/{id}"), String::new(), gbp(0));
    Line { id: id.into(), sku: sku.into(), title, item, variant, tax, quantity, unit_price: gbp(price), stocked }
}

fn placement(lines: Vec<Line>, tax: i64, shipping: i64) -> Placement {
    let subtotal = gbp(lines.iter().map(|line| line.quantity * line.unit_price.minor).sum());
    Placement {
        customer: "users/ann".into(),
        cart: "carts/c".into(),
        cart_etag: "3".into(),
        lines,
        subtotal,
        tax: gbp(tax),
        shipping: gbp(shipping),
        total: gbp(subtotal.minor + tax + shipping),
        quote_id: "quote".into(),
        payment_token: "tok_ok".into(),
        address: Address::default(),
        contact_email: "ann@example.com".into(),
        external_reference: String::new(),
        external_time: None,
        actor: String::new(),
    }
}

fn placed() -> Event {
    let lines = vec![line("1", "MUG", 3, 1000, true), line("2", "POST", 1, 500, false)];
    Event::Placed(Box::new(placement(lines, 780, 400)))
}

fn held() -> Event {
    let allocation = |warehouse: &str, quantity| Allocation {
        warehouse: format!("warehouses/{warehouse}"),
        sku: "MUG".into(),
        quantity,
    };
    Event::StockHeld { allocations: vec![allocation("north", 2), allocation("south", 1)], expire_time: None }
}

fn reject(reason: RejectReason) -> Command {
    Command::Reject { reason, detail: String::new(), skus: vec![] }
}

fn give_back(lines: Vec<(String, i64)>) -> Command {
    Command::ReturnLines {
        id: "r".into(),
        lines,
        restock: true,
        reason: String::new(),
        actor: "users/op".into(),
        external_reference: String::new(),
        external_time: None,
    }
}

fn given(events: &[Event]) -> Order {
    fold(events).unwrap()
}

fn confirmed() -> Vec<Event> {
    let mut events = vec![placed(), held(), Event::PaymentAuthorized { amount: gbp(4680) }, Event::Confirmed];
    for (shipment, planned) in given(&events).plan_shipments("o").unwrap() {
        events.push(Event::ShipmentCreated { shipment, planned });
    }
    events
}

#[test]
fn an_order_is_placed_once() {
    let Event::Placed(placement) = placed() else { unreachable!() };
    assert_eq!(decide(None, Command::Place(placement.clone())), Ok(vec![placed()]));
    assert_eq!(decide(Some(&given(&[placed()])), Command::Place(placement)), Ok(vec![]));
}

#[test]
fn amounts_that_do_not_add_up_are_refused() {
    let mut wrong = placement(vec![line("1", "MUG", 1, 100, true)], 20, 0);
    wrong.total = gbp(119);
    assert!(matches!(decide(None, Command::Place(Box::new(wrong))), Err(Rejection::Amounts(_))));
    let nothing = placement(vec![line("1", "MUG", 0, 100, true)], 0, 0);
    assert!(matches!(decide(None, Command::Place(Box::new(nothing))), Err(Rejection::Amounts(_))));
}

#[test]
fn a_command_for_an_order_that_does_not_exist_is_refused() {
    assert_eq!(decide(None, Command::Confirm), Err(Rejection::Missing));
}

#[test]
fn a_cancellation_before_the_confirmation_wins() {
    let asked = Event::CancelRequested { by: "users/ann".into(), reason: "changed my mind".into() };
    let order = given(&[placed(), held(), asked]);
    assert_eq!(decide(Some(&order), Command::Confirm), Err(Rejection::CancelRequested));
    assert_eq!(
        decide(Some(&order), reject(RejectReason::Declined)),
        Ok(vec![Event::Cancelled { lines: vec![("1".into(), 3), ("2".into(), 1)], partial: false }])
    );
}

#[test]
fn a_confirmed_order_cannot_be_rejected_and_a_rejected_one_not_confirmed() {
    let order = given(&confirmed());
    assert!(decide(Some(&order), reject(RejectReason::OutOfStock)).is_err());
    assert_eq!(decide(Some(&order), Command::Confirm), Ok(vec![]));
    let rejected =
        given(&[placed(), Event::Rejected { reason: RejectReason::OutOfStock, detail: String::new(), skus: vec![] }]);
    assert!(decide(Some(&rejected), Command::Confirm).is_err());
}

#[test]
fn an_order_whose_parcels_are_all_packed_cannot_be_cancelled() {
    let mut events = confirmed();
    let shipment = "shipments/o-north".to_owned();
    events.push(Event::ShipmentPacked { shipment });
    let shipment = "shipments/o-south".to_owned();
    events.push(Event::ShipmentPacked { shipment });
    let cancel = Command::RequestCancel { by: "users/ann".into(), reason: String::new() };
    assert_eq!(decide(Some(&given(&events)), cancel), Err(Rejection::AlreadyDispatched));
}

#[test]
fn a_cancellation_that_comes_too_late_puts_the_order_back() {
    let mut events = confirmed();
    events.push(Event::CancelRequested { by: "users/ann".into(), reason: String::new() });
    assert_eq!(given(&events).status, Status::Cancelling);
    events.push(Event::CancelRefused);
    assert_eq!(given(&events).status, Status::Confirmed);
}

#[test]
fn parcels_carry_every_line_and_their_values_are_the_total() {
    let order = given(&confirmed());
    assert_eq!(order.shipments.len(), 2);
    let north = &order.shipments["shipments/o-north"];
    assert_eq!(north.lines.iter().map(|line| line.quantity).sum::<i64>(), 3, "two mugs and the postage");
    let sum: i64 = order.shipments.values().map(|parcel| parcel.value.minor).sum();
    assert_eq!(sum, order.placed.total.minor);
}

#[test]
fn an_order_is_shipped_when_all_its_parcels_are() {
    let mut events = confirmed();
    for (shipment, status) in [("north", Status::PartiallyShipped), ("south", Status::Shipped)] {
        let shipment = format!("shipments/o-{shipment}");
        let command =
            Command::MoveShipment { shipment, step: ShipmentStep::Ship { carrier: "C".into(), tracking: "T".into() } };
        events.extend(decide(Some(&given(&events)), command).unwrap());
        assert_eq!(given(&events).status, status);
    }
}

#[test]
fn what_has_not_left_is_taken_out_of_its_parcel_and_not_captured() {
    let mut events = confirmed();
    let before: i64 = ["north", "south"]
        .map(|name| given(&events).capture_value(&format!("shipments/o-{name}")).unwrap().minor)
        .iter()
        .sum();
    let lines = vec![("1".to_owned(), 2)];
    let command = give_back(lines);
    events.extend(decide(Some(&given(&events)), command).unwrap());
    let order = given(&events);
    let after: i64 =
        ["north", "south"].map(|name| order.capture_value(&format!("shipments/o-{name}")).unwrap().minor).iter().sum();
    assert_eq!(before - after, order.returns["r"].amount.minor);
    assert_eq!(order.returns["r"].lines[0].withdrawn, vec![("shipments/o-north".to_owned(), 2)]);
}

#[test]
fn lines_that_come_back_before_there_are_parcels_are_taken_out_of_them() {
    let made = |event: &Event| matches!(event, Event::ShipmentCreated { .. });
    let (parcels, mut events): (Vec<Event>, Vec<Event>) = confirmed().into_iter().partition(made);
    events.extend(decide(Some(&given(&events)), give_back(vec![("1".to_owned(), 2)])).unwrap());
    assert_eq!(given(&events).returns["r"].lines[0].withdrawn, vec![]);
    events.extend(parcels);
    assert_eq!(given(&events).returns["r"].lines[0].withdrawn, vec![("shipments/o-north".to_owned(), 2)]);
}

#[test]
fn no_more_is_returned_than_was_bought() {
    let order = given(&confirmed());
    let lines = vec![("1".to_owned(), 2), ("1".to_owned(), 2)];
    let command = give_back(lines);
    assert_eq!(decide(Some(&order), command), Err(Rejection::TooMany { line: "1".into(), left: 1, asked: 2 }));
}

proptest! {
    /// Whatever is bought and however it is split over warehouses, the parcels' values add up to the total.
    #[test]
    fn shipment_values_conserve_the_total(
        lines in prop::collection::vec((1_i64..50, 0_i64..100_000, any::<bool>()), 1..12),
        tax in 0_i64..100_000,
        shipping in 0_i64..2_000,
        cut in 0_i64..50,
    ) {
        let lines: Vec<Line> = lines
            .iter()
            .enumerate()
            .map(|(index, (quantity, price, stocked))| line(&index.to_string(), &format!("S{index}"), *quantity, *price, *stocked))
            .collect();
        let allocations = lines.iter().filter(|line| line.stocked).flat_map(|line| {
            let north = cut.min(line.quantity);
            [("north", north), ("south", line.quantity - north)]
                .map(|(warehouse, quantity)| Allocation { warehouse: format!("warehouses/{warehouse}"), sku: line.sku.clone(), quantity })
        });
        let allocations = allocations.filter(|allocation| allocation.quantity > 0).collect();
        let bought: i64 = lines.iter().map(|line| line.quantity).sum();
        let placement = placement(lines, tax, shipping);
        let total = placement.total.minor;
        let order = fold(&[Event::Placed(Box::new(placement)), Event::StockHeld { allocations, expire_time: None }]).unwrap();
        let parcels = order.plan_shipments("o").unwrap();
        prop_assert_eq!(parcels.iter().map(|(_, parcel)| parcel.value.minor).sum::<i64>(), total);
        prop_assert!(parcels.iter().all(|(_, parcel)| parcel.value.minor >= 0));
        let packed: i64 = parcels.iter().flat_map(|(_, parcel)| &parcel.lines).map(|line| line.quantity).sum();
        prop_assert_eq!(packed, bought);
    }
}
