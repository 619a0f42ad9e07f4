//! Prices as the cart gets them: resolved, signed, valid for a while.

#![allow(clippy::unwrap_used)]

mod shop;

use std::time::Duration;

use catalog::signature::{Key, Statement, Untrusted, VALIDITY};
use contract::Money;
use contracts::catalog::v1 as proto;
use shop::{Shop, anybody, money, product, refusal, variant};
use store::Tx;
use tonic::{Code, Status};

async fn resolve(shop: &Shop, skus: &[&str], currency: &str) -> Result<proto::ResolvePricesResponse, Status> {
    let request = proto::ResolvePricesRequest {
        skus: skus.iter().map(|sku| (*sku).to_owned()).collect(),
        currency_code: currency.to_owned(),
    };
    Ok(shop.as_cart().resolve_prices(anybody(request)).await?.into_inner())
}

fn wares() -> [(&'static str, proto::Product); 2] {
    let mut postage = product("Postage", "", "services", vec![variant("POST", "", 3)]);
    postage.stocked = Some(false);
    let mut reduced = variant("MUG-R", "red", 12);
    reduced.list_prices = vec![money("EUR", 15, 0)];
    [("mug", product("Mug", "", "mugs", vec![reduced])), ("postage", postage)]
}

#[tokio::test]
async fn a_price_says_what_a_cart_must_know() {
    let shop = Shop::open().await;
    for (id, product) in wares() {
        shop.create(id, product).await.unwrap();
    }
    let reply = resolve(&shop, &["POST", "MUG-R"], "EUR").await.unwrap();
    assert_eq!(
        reply.prices,
        [
            proto::ResolvedPrice {
                sku: "POST".to_owned(),
                variant: "products/postage/variants/POST".to_owned(),
                title: "Postage".to_owned(),
                unit_price: Some(money("EUR", 3, 0)),
                stocked: false,
                tax_basis_points: 2000,
                weight_grams: 300,
                list_price: None,
            },
            proto::ResolvedPrice {
                sku: "MUG-R".to_owned(),
                variant: "products/mug/variants/MUG-R".to_owned(),
                title: "Mug (red)".to_owned(),
                unit_price: Some(money("EUR", 12, 0)),
                stocked: true,
                tax_basis_points: 2000,
                weight_grams: 300,
                list_price: Some(money("EUR", 15, 0)),
            },
        ]
    );
    assert_eq!(refusal(resolve(&shop, &["MUG-R", "CUP"], "EUR").await), (Code::NotFound, "UNKNOWN_SKU".to_owned()));
    let foreign = resolve(&shop, &["MUG-R"], "GBP").await;
    assert_eq!(refusal(foreign), (Code::FailedPrecondition, "CURRENCY_MISMATCH".to_owned()));
    assert_eq!(refusal(resolve(&shop, &["MUG-R"], "XXX").await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn a_signature_is_of_the_stored_key_holds_for_its_prices_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::in_folder(folder.path()).await;
    for (id, product) in wares() {
        shop.create(id, product).await.unwrap();
    }
    let before = resolve(&shop, &["MUG-R", "POST"], "USD").await.unwrap();
    drop(shop);
    let shop = Shop::in_folder(folder.path()).await;
    let after = resolve(&shop, &["MUG-R", "POST"], "USD").await.unwrap();
    assert_eq!(before.key_id, after.key_id, "a restart keeps the key");
    drop(shop);

    let key = stored_key(folder.path()).await;
    assert_eq!(key.id, before.key_id);
    let minor = |price: &proto::ResolvedPrice| Money::try_from(price.unit_price.as_ref().unwrap()).unwrap().minor;
    let statement = Statement {
        currency: "USD".parse().unwrap(),
        time: before.resolve_time.unwrap().try_into().unwrap(),
        prices: before.prices.iter().map(|price| (price.sku.as_str(), minor(price))).collect(),
    };
    let check =
        |statement: &Statement<'_>, age: Duration| key.verify(statement, &before.signature, statement.time + age);
    assert_eq!(check(&statement, Duration::ZERO), Ok(()));
    assert_eq!(check(&statement, VALIDITY), Ok(()));
    assert_eq!(check(&statement, VALIDITY + Duration::from_secs(1)), Err(Untrusted::Expired));
    let cheaper = Statement { prices: vec![("MUG-R", 1), ("POST", 450)], ..statement };
    assert_eq!(check(&cheaper, Duration::ZERO), Err(Untrusted::Forged));
}

async fn stored_key(folder: &std::path::Path) -> Key {
    let store = shop::reopened(folder).await;
    let row = store
        .read(async |tx: &mut Tx| tx.query_opt("SELECT id, secret FROM price_keys", &[]).await)
        .await
        .unwrap()
        .unwrap();
    Key { id: row.get("id").unwrap(), secret: row.get("secret").unwrap() }
}
