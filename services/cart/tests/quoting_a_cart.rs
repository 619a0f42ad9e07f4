//! Quotes over RPC: what they promise, how long, and to whom.

#![allow(clippy::unwrap_used)]

mod shop;

use std::sync::atomic::Ordering;

use auth::Role;
use contracts::cart::v1 as cart;
use contracts::google::rpc;
use prost::Message as _;
use shop::{Shop, add, id, minor, money, reason};
use tonic::{Code, Status};

/// The new quote that a refusal carries.
fn fresh(status: &Status) -> cart::Quote {
    assert_eq!((status.code(), reason(status).as_str()), (Code::FailedPrecondition, "QUOTE_CHANGED"), "{status:?}");
    let details = rpc::Status::decode(status.details()).unwrap().details;
    details.iter().find_map(|detail| detail.unpack::<cart::Quote>()).unwrap().unwrap()
}

fn issue(cart: &cart::Cart, prices: &[i64]) -> cart::IssueQuoteRequest {
    let lines = cart.items.iter().zip(prices).map(|(item, price)| cart::QuotedPrice {
        item: item.name.clone(),
        unit_price: Some(money(&cart.currency_code, *price)),
    });
    cart::IssueQuoteRequest {
        cart: cart.name.clone(),
        lines: lines.collect(),
        reason: "agreed by telephone".to_owned(),
        etag: String::new(),
        request_id: id(),
    }
}

#[tokio::test]
async fn a_quote_adds_up_and_resolves_to_what_was_promised() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let cart = customer.filled().await;
    let events = shop.events().await;
    let quote = customer.price(&cart.name).await.unwrap();
    // 3 x 4.99 + 12.50 = 27.47; 1 kg goes for 3.91; 20 % of 31.38 is 6.276.
    assert_eq!((minor(&quote.subtotal), minor(&quote.shipping)), (2_747, 391));
    assert_eq!((minor(&quote.tax), minor(&quote.total)), (628, 3_766));
    assert_eq!((quote.cart_etag.as_str(), quote.shipping_service.as_str()), (cart.etag.as_str(), "standard"));
    assert_eq!(quote.lines[0].item, cart.items[0].name);
    let holds = quote.expire_time.unwrap().seconds - quote.issue_time.unwrap().seconds;
    assert_eq!(holds, 15 * 60);

    let resolved = shop.ordering_for("users/1", Role::Customer).resolve(&quote).await.unwrap();
    assert_eq!((resolved.quote.as_ref(), resolved.customer.as_str()), (Some(&quote), "users/1"));
    let resolved = shop.ordering_for("users/op", Role::Operator).resolve(&quote).await.unwrap();
    assert_eq!(resolved.customer, "users/1");
    let status = shop.ordering_for("users/2", Role::Customer).resolve(&quote).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(customer.get(&cart.name).await.unwrap(), cart, "pricing changes nothing");
    assert_eq!(shop.events().await, events, "pricing and resolving write nothing");
}

#[tokio::test]
async fn a_quote_holds_whatever_prices_do_and_two_hold_beside_each_other() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let cart = customer.filled().await;
    let first = customer.price(&cart.name).await.unwrap();
    shop.goods.sell("TEA", 999, true);
    shop.advance(10);
    let express = cart::PriceCartRequest {
        cart: cart.name.clone(),
        shipping_service: "express".to_owned(),
        ..Default::default()
    };
    let second = customer.price_for(express).await.unwrap();
    assert_ne!(minor(&first.total), minor(&second.total));
    assert_eq!(shop.ordering().resolve(&first).await.unwrap().quote, Some(first.clone()));
    assert_eq!(shop.ordering().resolve(&second).await.unwrap().quote, Some(second.clone()));

    shop.advance(5);
    let renewed = fresh(&shop.ordering().resolve(&first).await.unwrap_err());
    assert_eq!(minor(&renewed.subtotal), 3 * 999 + 1_250);
    assert_eq!(shop.ordering().resolve(&second).await.unwrap().quote, Some(second.clone()));
    assert_eq!(shop.ordering().resolve(&renewed).await.unwrap().quote, Some(renewed));
    shop.advance(10);
    let renewed = fresh(&shop.ordering().resolve(&second).await.unwrap_err());
    assert_eq!(renewed.shipping_service, "express", "what was chosen stays chosen");
}

#[tokio::test]
async fn a_quote_of_a_cart_that_changed_since_is_answered_with_the_new_one() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let cart = customer.filled().await;
    let old = customer.price(&cart.name).await.unwrap();
    let changed = customer.add(add(&cart.name, "TEA", 1)).await.unwrap().cart.unwrap();
    for etag in [&cart.etag, &changed.etag] {
        let mixed = cart::Quote { cart_etag: etag.clone(), ..old.clone() };
        let renewed = fresh(&shop.ordering().resolve(&mixed).await.unwrap_err());
        assert_eq!((renewed.cart_etag.as_str(), renewed.lines[0].quantity), (changed.etag.as_str(), 4));
        shop.ordering().resolve(&renewed).await.unwrap();
    }
    let current = customer.price(&cart.name).await.unwrap();
    let stale = cart::Quote { cart_etag: cart.etag.clone(), ..current };
    fresh(&shop.ordering().resolve(&stale).await.unwrap_err());
    for item in &changed.items {
        customer.remove(&item.name).await.unwrap();
    }
    let status = shop.ordering().resolve(&old).await.unwrap_err();
    assert_eq!(reason(&status), "QUOTE_CHANGED", "there is nothing to price, and still it is that");
}

#[tokio::test]
async fn a_forged_quote_is_no_quote() {
    let shop = Shop::open().await;
    let cart = shop.customer().filled().await;
    let quote = shop.customer().price(&cart.name).await.unwrap();
    let theirs = shop.other().filled().await;
    let mut forged = vec!["x".to_owned(), "a.b".to_owned(), format!("{}A", quote.quote_token)];
    let (payload, mac) = quote.quote_token.split_once('.').unwrap();
    forged.push(format!("{mac}.{payload}"));
    forged.push(format!("{payload}."));
    forged.push(quote.quote_token.replacen(
        &quote.quote_token[30..31],
        if &quote.quote_token[30..31] == "A" { "B" } else { "A" },
        1,
    ));
    forged.push(shop.other().price(&theirs.name).await.unwrap().quote_token);
    for token in forged {
        let status =
            shop.ordering().resolve(&cart::Quote { quote_token: token.clone(), ..quote.clone() }).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "QUOTE_INVALID"), "{token}");
    }
    shop.ordering().resolve(&quote).await.unwrap();
}

#[tokio::test]
async fn the_second_tab_of_an_ordered_cart_still_resolves_its_quote() {
    let shop = Shop::open().await;
    let cart = shop.customer().filled().await;
    let quote = shop.customer().price(&cart.name).await.unwrap();
    shop.ordering().close(&cart.name, &cart.etag, "orders/1").await.unwrap();
    assert_eq!(shop.ordering().resolve(&quote).await.unwrap().quote, Some(quote.clone()));
    shop.advance(15);
    let status = shop.ordering().resolve(&quote).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "CART_CLOSED"));
}

#[tokio::test]
async fn what_cannot_be_priced_is_refused_with_its_reason() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let name = customer.cart().await.name;
    let status = customer.price(&name).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "CART_EMPTY"));
    assert_eq!(shop.goods.price_calls.load(Ordering::SeqCst), 0);

    customer.add(add(&name, "TEA", 1)).await.unwrap();
    let far = cart::PriceCartRequest { cart: name.clone(), country_code: "AQ".to_owned(), ..Default::default() };
    assert_eq!(reason(&customer.price_for(far).await.unwrap_err()), "NO_SHIPPING");
    let odd =
        cart::PriceCartRequest { cart: name.clone(), shipping_service: "pigeon".to_owned(), ..Default::default() };
    assert_eq!(customer.price_for(odd).await.unwrap_err().code(), Code::InvalidArgument);
    shop.goods.withdraw("TEA");
    let status = customer.price(&name).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "UNKNOWN_SKU"));
    shop.goods.sell("TEA", i64::MAX, true);
    customer.add(add(&name, "TEA", 1)).await.unwrap();
    assert_eq!(reason(&customer.price(&name).await.unwrap_err()), "AMOUNT_TOO_LARGE");

    let yen = cart::GetOrCreateCartRequest { currency_code: "JPY".to_owned(), ..Default::default() };
    let yen = customer.open(yen).await.unwrap().name;
    customer.add(add(&yen, "CUP", 1)).await.unwrap();
    let status = customer.price(&yen).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "NO_PRICE"));
}

#[tokio::test]
async fn what_has_no_stock_is_not_shipped() {
    let shop = Shop::open().await;
    let customer = shop.customer();
    let name = customer.cart().await.name;
    customer.add(add(&name, "GIFT", 2)).await.unwrap();
    let quote = customer.price(&name).await.unwrap();
    assert_eq!((minor(&quote.subtotal), minor(&quote.shipping), minor(&quote.tax)), (10_000, 0, 2_000));
    assert!(!quote.lines[0].stocked && quote.shipping_service.is_empty());
    assert_eq!(shop.ordering().resolve(&quote).await.unwrap().quote, Some(quote));
}

#[tokio::test]
async fn an_operator_sets_prices_and_nobody_else() {
    let shop = Shop::open().await;
    let cart = shop.customer().filled().await;
    let ask = issue(&cart, &[255, 339]);
    for visitor in [shop.customer(), shop.guest()] {
        assert_eq!(visitor.issue(ask.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let operator = shop.operator();
    let events = shop.events().await;
    let quote = operator.issue(ask.clone()).await.unwrap();
    assert_eq!(minor(&quote.total), 3 * 255 + 339);
    assert_eq!((minor(&quote.tax), minor(&quote.shipping)), (0, 0));
    assert_eq!((quote.issued_by.as_str(), quote.reason.as_str()), ("users/op", "agreed by telephone"));
    assert_eq!(operator.issue(ask).await.unwrap(), quote, "a repeat is the same quote");
    assert_eq!(shop.events().await, events + 1, "prices that an operator set are kept for audit, once");
    let resolved = shop.ordering_for("users/op", Role::Operator).resolve(&quote).await.unwrap();
    assert_eq!((resolved.quote, resolved.customer.as_str()), (Some(quote), "users/1"));
    assert_eq!(shop.customer().get(&cart.name).await.unwrap(), cart, "a quote does not change the cart");
}

#[tokio::test]
async fn prices_that_do_not_fit_the_cart_are_refused() {
    let shop = Shop::open().await;
    let cart = shop.customer().filled().await;
    let operator = shop.operator();
    let good = issue(&cart, &[255, 339]);
    let with = |change: &dyn Fn(&mut cart::IssueQuoteRequest)| {
        let mut ask = cart::IssueQuoteRequest { request_id: id(), ..good.clone() };
        change(&mut ask);
        ask
    };
    let mut fraction = money("EUR", 255);
    fraction.nanos += 5_000_000;
    for (what, ask) in [
        ("a line is missing", with(&|ask| ask.lines.truncate(1))),
        ("a line twice", with(&|ask| ask.lines[1].item = ask.lines[0].item.clone())),
        ("another line", with(&|ask| ask.lines[1].item = format!("{}/items/9", ask.cart))),
        ("another cart's line", with(&|ask| ask.lines[1].item = "carts/x/items/2".to_owned())),
        ("negative", with(&|ask| ask.lines[0].unit_price = Some(money("EUR", -1)))),
        ("three decimals", with(&|ask| ask.lines[0].unit_price = Some(fraction.clone()))),
        ("no price", with(&|ask| ask.lines[0].unit_price = None)),
        ("no reason", with(&|ask| ask.reason.clear())),
    ] {
        assert_eq!(operator.issue(ask).await.unwrap_err().code(), Code::InvalidArgument, "{what}");
    }
    let foreign = operator.issue(with(&|ask| ask.lines[0].unit_price = Some(money("GBP", 1)))).await.unwrap_err();
    assert_eq!((foreign.code(), reason(&foreign).as_str()), (Code::InvalidArgument, "CURRENCY_MISMATCH"));
    let stale = operator.issue(with(&|ask| ask.etag = "1".to_owned())).await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted);
    let huge = operator.issue(with(&|ask| ask.lines[0].unit_price = Some(money("EUR", i64::MAX)))).await.unwrap_err();
    assert_eq!(huge.code(), Code::InvalidArgument);
    let many = shop.customer().add(add(&cart.name, "TEA", 99_997)).await.unwrap().cart.unwrap();
    let huge = operator.issue(issue(&many, &[100_000_000_000_000, 1])).await.unwrap_err();
    assert_eq!(reason(&huge), "AMOUNT_TOO_LARGE", "{huge:?}");
    let free = issue(&many, &[0, 0]);
    assert_eq!(minor(&operator.issue(free).await.unwrap().total), 0);
}

#[tokio::test]
async fn quotes_are_resolved_and_carts_closed_by_ordering_alone() {
    let shop = Shop::open().await;
    let cart = shop.customer().filled().await;
    let quote = shop.customer().price(&cart.name).await.unwrap();
    for visitor in [shop.customer(), shop.operator()] {
        assert_eq!(visitor.resolve(&quote).await.unwrap_err().code(), Code::PermissionDenied);
        let status = visitor.close(&cart.name, &cart.etag, "orders/1").await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
}
