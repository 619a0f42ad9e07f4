//! Carts over RPC: whose they are, what goes in, what is refused and leaves nothing behind.

#![allow(clippy::unwrap_used)]

mod shop;

use std::sync::atomic::Ordering;

use contracts::cart::v1 as cart;
use contracts::wkt::FieldMask;
use shop::{Shop, add, batch, id, item, reason};
use tonic::Code;

fn lines(cart: &cart::Cart) -> Vec<(String, i32)> {
    cart.items.iter().map(|item| (item.sku.clone(), item.quantity)).collect()
}

#[tokio::test]
async fn a_customer_has_one_cart_a_currency() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let first = customer.cart().await;
    assert_eq!((first.customer.as_str(), first.currency_code.as_str()), ("users/1", "EUR"));
    assert_eq!(customer.cart().await, first);
    let pounds = cart::GetOrCreateCartRequest { currency_code: "GBP".to_owned(), ..Default::default() };
    let other = customer.open(pounds).await.unwrap();
    assert_ne!(other.name, first.name);
    assert_ne!(shop.other().cart().await.name, first.name);
    assert_eq!(shop.guest().cart().await.customer, "guests/1");
}

#[tokio::test]
async fn the_reply_of_a_change_is_what_is_read_afterwards() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let cart = customer.filled().await;
    assert_eq!(lines(&cart), [("TEA".to_owned(), 3), ("CUP".to_owned(), 1)]);
    assert_eq!(cart.items[0].title, "The TEA");
    assert_eq!(customer.get(&cart.name).await.unwrap(), cart);

    let tea = cart::CartItem { name: cart.items[0].name.clone(), quantity: 9, ..Default::default() };
    let mask = FieldMask { paths: vec!["quantity".to_owned()] };
    let update = cart::UpdateItemRequest { item: Some(tea), update_mask: Some(mask), ..Default::default() };
    let changed = customer.update(update.clone()).await.unwrap();
    assert_eq!((changed.quantity, changed.sku.as_str()), (9, "TEA"));
    let read = customer.get(&cart.name).await.unwrap();
    assert_eq!((read.items[0].quantity, read.etag.clone()), (9, changed.cart_etag.clone()));
    assert_eq!(customer.update(update).await.unwrap().cart_etag, changed.cart_etag, "nothing changes twice");

    let removed = customer.remove(&cart.items[0].name).await.unwrap();
    assert_eq!(lines(&removed), [("CUP".to_owned(), 1)]);
    assert_eq!(customer.get(&cart.name).await.unwrap(), removed);
    let again = customer.remove(&cart.items[0].name).await.unwrap();
    assert_eq!(again, removed, "one already gone is no error");
}

#[tokio::test]
async fn a_batch_goes_in_whole_by_one_look_at_the_catalogue() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let name = customer.cart().await.name;
    customer.add(add(&name, "N-0", 2)).await.unwrap();
    let asked = shop.goods.variant_calls.load(Ordering::SeqCst);
    let all = vec![item("N-0", 1, true), item("N-0", 3, false), item("N-1", 1, false), item("N-1", 1, true)];
    let added = customer.add_all(batch(&name, all)).await.unwrap();
    let ids: Vec<&str> = added.items.iter().map(|item| item.rsplit('/').next().unwrap()).collect();
    assert_eq!(ids, ["2", "1", "3", "4"]);
    assert_eq!(shop.goods.variant_calls.load(Ordering::SeqCst), asked + 1);
    assert_eq!(added.cart, Some(customer.get(&name).await.unwrap()));

    let bad = customer.add_all(batch(&name, vec![item("N-2", 1, false), item("GONE", 1, false)])).await.unwrap_err();
    assert_eq!((bad.code(), reason(&bad).as_str()), (Code::NotFound, "UNKNOWN_SKU"));
    assert!(bad.message().contains("GONE"), "{bad:?}");
    assert_eq!(added.cart, Some(customer.get(&name).await.unwrap()));
}

#[tokio::test]
async fn two_thousand_lines_fit_and_not_one_more() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let name = customer.cart().await.name;
    let all = (0..2_000).map(|number| item(&format!("N-{}", number % 1_999), 1, true)).collect();
    let added = customer.add_all(batch(&name, all)).await.unwrap();
    assert_eq!(added.items.len(), 2_000);
    assert_eq!(shop.goods.variant_calls.load(Ordering::SeqCst), 2, "at most 1,000 SKUs a call");
    assert_eq!(added.cart, Some(customer.get(&name).await.unwrap()));
    let more = customer.add(add(&name, "TEA", 1)).await.unwrap_err();
    assert_eq!((more.code(), reason(&more).as_str()), (Code::FailedPrecondition, "TOO_MANY_LINES"));

    let quote = customer.price(&name).await.unwrap();
    assert!(quote.quote_token.len() < 64 * 1024, "{}", quote.quote_token.len());
    let resolved = shop.ordering().resolve(&quote).await.unwrap();
    assert_eq!(resolved.quote, Some(quote));
}

#[tokio::test]
async fn somebody_elses_cart_is_answered_like_a_missing_one() {
    let shop = Shop::open().await;
    let cart = shop.customer().filled().await;
    let missing = format!("carts/{}", id());
    let other = shop.other();
    let bytes = |status: tonic::Status, name: &str| {
        let details = String::from_utf8_lossy(status.details()).replace(name, "NAME");
        (status.code(), status.message().replace(name, "NAME"), details)
    };
    let update = |name: &str| {
        let item = cart::CartItem { name: format!("{name}/items/1"), quantity: 5, ..Default::default() };
        cart::UpdateItemRequest { item: Some(item), etag: "1".to_owned(), ..Default::default() }
    };
    let mut seen = vec![];
    for name in [&cart.name, &missing] {
        seen.push([
            bytes(other.get(name).await.unwrap_err(), name),
            bytes(other.add(add(name, "TEA", 1)).await.unwrap_err(), name),
            bytes(other.add(add(name, "GONE", 1)).await.unwrap_err(), name),
            bytes(other.add_all(batch(name, vec![item("TEA", 1, false)])).await.unwrap_err(), name),
            bytes(other.update(update(name)).await.unwrap_err(), name),
            bytes(other.remove(&format!("{name}/items/1")).await.unwrap_err(), name),
            bytes(other.price(name).await.unwrap_err(), name),
        ]);
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].iter().all(|(code, ..)| *code == Code::NotFound));
    assert_eq!(shop.operator().get(&cart.name).await.unwrap(), cart, "operators see every cart");
    assert_eq!(shop.customer().get(&cart.name).await.unwrap(), cart);
}

#[tokio::test]
async fn what_is_no_quantity_or_sku_is_refused_by_name_and_nothing_is_stored() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let cart = customer.filled().await;
    for quantity in [0, -1, i32::MIN, 100_001, i32::MAX] {
        let status = customer.add(add(&cart.name, "TEA", quantity)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{quantity}");
        assert!(status.message().contains("quantity"), "{status:?}");
    }
    for sku in ["", " TEA", "'; DROP TABLE carts", "A\nB", &"A".repeat(65)] {
        let status = customer.add(add(&cart.name, sku, 1)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{sku:?}");
    }
    let unknown = customer.add(add(&cart.name, "NO-SUCH-THING", 1)).await.unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "UNKNOWN_SKU"));
    assert!(unknown.message().contains("NO-SUCH-THING"));
    let much = customer.add(add(&cart.name, "TEA", 100_000)).await.unwrap_err();
    assert_eq!((much.code(), reason(&much).as_str()), (Code::FailedPrecondition, "TOO_MANY_UNITS"));
    for (name, mask) in
        [("carts/x", "quantity"), ("orders/1/items/1", "quantity"), ("", "quantity"), (&cart.items[0].name, "sku")]
    {
        let item = cart::CartItem { name: name.to_owned(), quantity: 5, ..Default::default() };
        let update_mask = Some(FieldMask { paths: vec![mask.to_owned()] });
        let ask = cart::UpdateItemRequest { item: Some(item), update_mask, ..Default::default() };
        assert_eq!(customer.update(ask).await.unwrap_err().code(), Code::InvalidArgument, "{name} {mask}");
    }
    for line in ["9", "01", "+1", "x"] {
        let item = cart::CartItem { name: format!("{}/items/{line}", cart.name), quantity: 5, ..Default::default() };
        let ask = cart::UpdateItemRequest { item: Some(item), ..Default::default() };
        let status = customer.update(ask).await.unwrap_err();
        assert!(matches!(status.code(), Code::NotFound | Code::InvalidArgument), "{line}: {status:?}");
    }
    assert_eq!(customer.get(&cart.name).await.unwrap(), cart);
}

#[tokio::test]
async fn a_currency_nothing_is_sold_in_is_refused() {
    let shop = Shop::open().await;
    for currency in ["XXX", "eur", "EURO", "E R"] {
        let ask = cart::GetOrCreateCartRequest { currency_code: currency.to_owned(), ..Default::default() };
        let status = shop.customer().open(ask).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{currency}");
    }
}

#[tokio::test]
async fn only_operators_open_carts_for_others_and_several() {
    let shop = Shop::open().await;
    let theirs = cart::GetOrCreateCartRequest { customer: "users/1".to_owned(), ..Default::default() };
    let separate = cart::GetOrCreateCartRequest { separate: true, request_id: id(), ..theirs.clone() };
    for ask in [&theirs, &separate] {
        let status = shop.other().open(ask.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    let operator = shop.operator();
    let first = operator.open(theirs.clone()).await.unwrap();
    assert_eq!(first.customer, "users/1");
    assert_eq!(operator.open(theirs.clone()).await.unwrap(), first);
    let second = operator.open(separate.clone()).await.unwrap();
    assert_ne!(second.name, first.name);
    assert_eq!(operator.open(separate).await.unwrap(), second, "a repeat opens no third");
    let unnamed = cart::GetOrCreateCartRequest { separate: true, ..theirs.clone() };
    assert_eq!(operator.open(unnamed).await.unwrap_err().code(), Code::InvalidArgument);
    for customer in ["somebody", "users/", "orders/1", "users/a/b"] {
        let ask = cart::GetOrCreateCartRequest { customer: customer.to_owned(), ..Default::default() };
        assert_eq!(operator.open(ask).await.unwrap_err().code(), Code::InvalidArgument, "{customer}");
    }
    assert_eq!(shop.customer().get(&second.name).await.unwrap(), second, "it is the customer's");
}

#[tokio::test]
async fn nobody_hoards_carts() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let codes = "AED ARS AUD BGN BRL CAD CHF CLP CNY CZK DKK EUR GBP HKD HUF ILS INR ISK JPY KRW MXN";
    let mut opened = 0;
    for code in codes.split(' ') {
        let ask = cart::GetOrCreateCartRequest { currency_code: code.to_owned(), ..Default::default() };
        match customer.open(ask).await {
            Ok(_) => opened += 1,
            Err(status) => {
                assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "TOO_MANY_CARTS"));
            }
        }
    }
    assert_eq!(opened, 20);
}

#[tokio::test]
async fn a_repeat_has_one_effect_and_its_first_answer() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let name = customer.cart().await.name;
    let ask = add(&name, "TEA", 2);
    let first = customer.add(ask.clone()).await.unwrap();
    customer.add(add(&name, "CUP", 1)).await.unwrap();
    shop.goods.withdraw("TEA");
    assert_eq!(customer.add(ask.clone()).await.unwrap(), first);
    let other = cart::AddItemRequest { quantity: 3, ..ask };
    let status = customer.add(other).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
    assert_eq!(lines(&customer.get(&name).await.unwrap()), [("TEA".to_owned(), 2), ("CUP".to_owned(), 1)]);
}

#[tokio::test]
async fn a_stale_etag_is_aborted() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let name = customer.cart().await.name;
    let before = customer.get(&name).await.unwrap();
    let after = customer.add(cart::AddItemRequest { etag: before.etag.clone(), ..add(&name, "TEA", 1) }).await.unwrap();
    let after = after.cart.unwrap();
    for etag in [before.etag.as_str(), "x", "99"] {
        let ask = cart::AddItemRequest { etag: etag.to_owned(), ..add(&name, "TEA", 1) };
        assert_eq!(customer.add(ask).await.unwrap_err().code(), Code::Aborted, "{etag}");
    }
    assert_eq!(customer.get(&name).await.unwrap(), after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_at_once_all_count() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let name = customer.cart().await.name;
    let mut adding = vec![];
    for number in 0..50 {
        let (customer, mut ask) = (customer.clone(), add(&name, "TEA", 1));
        ask.separate_line = number % 2 == 0;
        // Every other one is sent twice, as a browser in doubt does.
        let repeat = ask.clone();
        adding.push(tokio::spawn(async move {
            let (first, second) = tokio::join!(customer.add(ask), customer.add(repeat));
            assert_eq!(first.unwrap(), second.unwrap());
        }));
    }
    for done in adding {
        done.await.unwrap();
    }
    let cart = customer.get(&name).await.unwrap();
    assert_eq!(cart.items.iter().map(|item| item.quantity).sum::<i32>(), 50);
}

#[tokio::test]
async fn a_closed_cart_refuses_and_the_next_one_is_new() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let cart = customer.filled().await;
    let closed = shop.ordering().close(&cart.name, &cart.etag, "orders/1").await.unwrap();
    assert_eq!((closed.state(), closed.order.as_str()), (cart::CartState::Closed, "orders/1"));
    let again = shop.ordering().close(&cart.name, &cart.etag, "orders/1").await.unwrap();
    assert_eq!(again, closed, "closing runs twice");
    let status = customer.add(add(&cart.name, "TEA", 1)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "CART_CLOSED"));
    let status = customer.price(&cart.name).await.unwrap_err();
    assert_eq!(reason(&status), "CART_CLOSED");
    assert_ne!(customer.cart().await.name, cart.name);
    assert_eq!(customer.get(&cart.name).await.unwrap(), closed);
}

#[tokio::test]
async fn a_cart_that_changed_since_it_was_ordered_keeps_what_was_not() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let cart = customer.filled().await;
    customer.add(add(&cart.name, "TEA", 4)).await.unwrap();
    customer.add(add(&cart.name, "GIFT", 1)).await.unwrap();
    let left = shop.ordering().close(&cart.name, &cart.etag, "orders/1").await.unwrap();
    assert_eq!(left.state(), cart::CartState::Open);
    assert_eq!(lines(&left), [("TEA".to_owned(), 4), ("GIFT".to_owned(), 1)]);
    assert_eq!(shop.ordering().close(&cart.name, &cart.etag, "orders/1").await.unwrap(), left);
    assert_eq!(customer.get(&cart.name).await.unwrap(), left);
    let status = shop.ordering().close(&cart.name, "77", "orders/2").await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = shop.ordering().close("carts/none", "1", "orders/2").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}
