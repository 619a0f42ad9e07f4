//! Products: made, read, changed, refused.

#![allow(clippy::unwrap_used)]

mod shop;

use contracts::catalog::v1 as proto;
use shop::{Shop, anybody, money, operator, product, refusal, variant};
use tonic::Code;

fn mug() -> proto::Product {
    product("Mug", "Kiln", "mugs", vec![variant("MUG-RED", "red", 12), variant("MUG-BLUE", "blue", 14)])
}

#[tokio::test]
async fn a_created_product_is_answered_with_names_prices_and_times() {
    let shop = Shop::open().await;
    let created = shop.create("mug", mug()).await.unwrap();
    assert_eq!((created.name.as_str(), created.id.as_str(), created.etag.as_str()), ("products/mug", "mug", "1"));
    assert_eq!((created.state(), created.stocked), (proto::ProductState::Active, Some(true)));
    assert_eq!(created.create_time, Some(shop.clock.now().into()));
    let red = &created.variants[0];
    assert_eq!((red.name.as_str(), red.stocked), ("products/mug/variants/MUG-RED", Some(true)));
    assert_eq!(red.price, Some(money("EUR", 12, 0)));
    assert_eq!(red.prices, [money("EUR", 12, 0), money("USD", 13, 50)]);
    assert_eq!(shop.get("products/mug").await.unwrap(), created);
    assert_eq!(shop.get("products/mug").await.unwrap(), created, "from memory");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_by_name_and_by_sku() {
    let shop = Shop::open().await;
    assert_eq!(refusal(shop.get("products/mug").await), (Code::NotFound, "NOT_FOUND".to_owned()));
    shop.create("mug", mug()).await.unwrap();
    let batch = |names: &[&str], skus: &[&str]| {
        let texts = |from: &[&str]| from.iter().map(|text| (*text).to_owned()).collect();
        let request = proto::BatchGetVariantsRequest { names: texts(names), skus: texts(skus) };
        let mut client = shop.client();
        async move { client.batch_get_variants(anybody(request)).await.map(tonic::Response::into_inner) }
    };
    let found = batch(&["products/mug/variants/MUG-BLUE"], &["MUG-RED", "MUG-BLUE"]).await.unwrap().variants;
    let skus: Vec<(&str, &str)> = found.iter().map(|each| (each.sku.as_str(), each.product_title.as_str())).collect();
    assert_eq!(skus, [("MUG-BLUE", "Mug"), ("MUG-RED", "Mug"), ("MUG-BLUE", "Mug")]);
    let unknown = (Code::NotFound, "UNKNOWN_SKU".to_owned());
    assert_eq!(refusal(batch(&[], &["MUG-RED", "CUP"]).await), unknown);
    let missing = (Code::NotFound, "NOT_FOUND".to_owned());
    assert_eq!(refusal(batch(&["products/mug/variants/cup"], &[]).await), missing);
    shop.update(proto::Product { state: 2, ..proto::Product { name: "products/mug".into(), ..mug() } }, &["state"])
        .await
        .unwrap();
    assert_eq!(refusal(batch(&[], &["MUG-RED"]).await), unknown, "archived is not for sale");
    assert_eq!(batch(&["products/mug/variants/MUG-RED"], &[]).await.unwrap().variants.len(), 1);
}

#[tokio::test]
async fn a_product_that_is_not_sound_is_refused_field_by_field() {
    let shop = Shop::open().await;
    let without_price = proto::Variant { prices: vec![], ..variant("A", "", 1) };
    let fraction = proto::Variant {
        prices: vec![contracts::google::r#type::Money { nanos: 5_000_000, ..money("EUR", 1, 0) }],
        ..variant("A", "", 1)
    };
    for (broken, field) in [
        (proto::Product { title: String::new(), ..mug() }, "product.title"),
        (proto::Product { variants: vec![], ..mug() }, "product.variants"),
        (proto::Product { variants: vec![without_price], ..mug() }, "product.variants[0].prices"),
        (proto::Product { variants: vec![fraction], ..mug() }, "product.variants[0].prices[0]"),
    ] {
        let status = shop.create("mug", broken).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{} is not about {field}", status.message());
    }
    assert_eq!(refusal(shop.get("products/mug").await).0, Code::NotFound, "nothing is stored");
}

#[tokio::test]
async fn an_id_and_a_sku_are_taken_once() {
    let shop = Shop::open().await;
    shop.create("mug", mug()).await.unwrap();
    assert_eq!(refusal(shop.create("mug", mug()).await), (Code::AlreadyExists, "PRODUCT_EXISTS".to_owned()));
    assert_eq!(refusal(shop.create("cup", mug()).await), (Code::AlreadyExists, "SKU_TAKEN".to_owned()));
}

#[tokio::test]
async fn the_same_request_id_creates_once_and_a_dry_run_never() {
    let shop = Shop::open().await;
    let create = |validate_only| proto::CreateProductRequest {
        product: Some(mug()),
        product_id: String::new(),
        request_id: "0194f5e0-0000-7000-8000-000000000001".to_owned(),
        validate_only,
    };
    let dry = shop.client().create_product(operator(create(true))).await.unwrap().into_inner();
    assert_eq!(refusal(shop.get(&dry.name).await).0, Code::NotFound);
    let first = shop.client().create_product(operator(create(false))).await.unwrap().into_inner();
    let again = shop.client().create_product(operator(create(false))).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = proto::CreateProductRequest { product_id: "other".to_owned(), ..create(false) };
    let reused = shop.client().create_product(operator(other)).await;
    assert_eq!(refusal(reused), (Code::InvalidArgument, "REQUEST_ID_REUSED".to_owned()));
}

#[tokio::test]
async fn an_update_changes_the_fields_of_its_mask_for_whoever_has_read_the_latest() {
    let shop = Shop::open().await;
    let created = shop.create("mug", mug()).await.unwrap();
    let cup = proto::Product { title: "Cup".to_owned(), brand: "Other".to_owned(), ..created.clone() };
    let updated = shop.update(cup.clone(), &["title"]).await.unwrap();
    assert_eq!((updated.title.as_str(), updated.brand.as_str(), updated.etag.as_str()), ("Cup", "Kiln", "2"));
    assert_eq!(shop.get("products/mug").await.unwrap(), updated, "memory is not older than the answer");
    assert_eq!(refusal(shop.update(cup.clone(), &["title"]).await), (Code::Aborted, "STALE_ETAG".to_owned()));
    let unread = proto::Product { etag: String::new(), ..cup.clone() };
    assert_eq!(shop.update(unread.clone(), &["title"]).await.unwrap().etag, "2", "nothing changes");
    assert_eq!(refusal(shop.update(unread.clone(), &["colour"]).await).0, Code::InvalidArgument);
    let missing = proto::Product { name: "products/none".to_owned(), ..unread };
    assert_eq!(refusal(shop.update(missing, &["title"]).await).0, Code::NotFound);
}

#[tokio::test]
async fn changing_takes_an_operator() {
    let shop = Shop::open().await;
    let update = proto::UpdateProductRequest {
        product: Some(proto::Product { name: "products/mug".to_owned(), ..mug() }),
        ..proto::UpdateProductRequest::default()
    };
    let answer = shop.client().update_product(anybody(update)).await;
    assert_eq!(refusal(answer).0, Code::Unauthenticated);
}

#[tokio::test]
async fn a_list_goes_by_name_page_by_page_within_its_filter() {
    let shop = Shop::open().await;
    for id in ["a", "b", "c", "d"] {
        let brand = if id == "b" { "Other" } else { "Kiln" };
        shop.create(id, product("Mug", brand, "mugs", vec![variant(id, "", 5)])).await.unwrap();
    }
    let archived = proto::Product { name: "products/d".to_owned(), state: 2, ..proto::Product::default() };
    shop.update(archived, &["state"]).await.unwrap();
    let list = |filter: &str, page_token: &str| {
        let (filter, page_token) = (filter.to_owned(), page_token.to_owned());
        let request = proto::ListProductsRequest { page_size: 1, page_token, filter };
        let mut client = shop.client();
        async move { client.list_products(anybody(request)).await.map(tonic::Response::into_inner) }
    };
    let filter = "brand=\"Kiln\" AND category=\"categories/mugs\"";
    let first = list(filter, "").await.unwrap();
    assert_eq!(first.products[0].id, "a");
    let second = list(filter, &first.next_page_token).await.unwrap();
    assert_eq!((second.products[0].id.as_str(), second.next_page_token.as_str()), ("c", ""));
    assert_eq!(refusal(list("", &first.next_page_token).await).0, Code::InvalidArgument, "another filter's token");
    assert_eq!(refusal(list("brand", "").await).0, Code::InvalidArgument);
    let hidden = "state=PRODUCT_STATE_ARCHIVED";
    assert_eq!(refusal(list(hidden, "").await), (Code::PermissionDenied, "OPERATORS_ONLY".to_owned()));
    let request = proto::ListProductsRequest { filter: hidden.to_owned(), ..proto::ListProductsRequest::default() };
    let seen = shop.client().list_products(operator(request)).await.unwrap().into_inner();
    assert_eq!(seen.products.iter().map(|each| each.id.as_str()).collect::<Vec<_>>(), ["d"]);
}
