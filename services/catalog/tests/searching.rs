//! Words, filters, facets and pages.

#![allow(clippy::unwrap_used)]

mod shop;

use contracts::catalog::v1 as proto;
use shop::{Shop, product, refusal, variant};
use tonic::Code;

async fn stocked() -> Shop {
    let shop = Shop::open().await;
    let products = [
        ("mug", product("Red Mug", "Kiln", "mugs", vec![variant("MUG-R", "red", 12), variant("MUG-B", "blue", 25)])),
        ("plate", product("Plate", "Kiln", "plates", vec![variant("PLT-B", "blue", 25)])),
        ("café", product("Café filter", "Brew", "coffee", vec![variant("CF 1", "", 4)])),
        ("shirt", product("Shirt", "Loom", "clothes", vec![variant("SH-R", "red", 60)])),
    ];
    for (id, product) in products {
        let id = if id == "café" { "cafe" } else { id };
        shop.create(id, product).await.unwrap();
    }
    shop
}

fn by(query: &str, filter: &str) -> proto::SearchProductsRequest {
    proto::SearchProductsRequest {
        query: query.to_owned(),
        filter: filter.to_owned(),
        ..proto::SearchProductsRequest::default()
    }
}

fn ids(found: &proto::SearchProductsResponse) -> Vec<&str> {
    found.products.iter().map(|product| product.id.as_str()).collect()
}

fn facet<'a>(found: &'a proto::SearchProductsResponse, field: &str) -> Vec<(&'a str, i32)> {
    let facet = found.facets.iter().find(|facet| facet.field == field);
    facet.map_or_else(Vec::new, |facet| facet.values.iter().map(|value| (value.value.as_str(), value.count)).collect())
}

#[tokio::test]
async fn words_are_found_in_titles_brands_descriptions_and_skus() {
    let shop = stocked().await;
    for (query, expected) in [
        ("mug", vec!["mug"]),
        ("RED mu", vec!["mug"]),
        ("kiln", vec!["mug", "plate"]),
        ("cafe", vec!["cafe"]),
        ("MUG-R", vec!["mug"]),
        ("cf 1", vec!["cafe"]),
        ("every day", vec!["cafe", "mug", "plate", "shirt"]),
        ("teapot", vec![]),
    ] {
        let found = shop.search(by(query, "")).await.unwrap();
        let mut found_ids = ids(&found);
        found_ids.sort_unstable();
        assert_eq!(found_ids, expected, "{query}");
        assert_eq!(found.total_size as usize, expected.len());
    }
}

#[tokio::test]
async fn facets_count_what_matches_words_and_filter() {
    let shop = stocked().await;
    let all = shop.search(by("", "")).await.unwrap();
    assert_eq!(all.total_size, 4);
    assert_eq!(facet(&all, "brand"), [("Kiln", 2), ("Brew", 1), ("Loom", 1)]);
    assert_eq!(facet(&all, "option.color"), [("blue", 2), ("red", 2)]);
    assert_eq!(
        facet(&all, "price"),
        [
            ("price>=0.00 AND price<=9.99", 1),
            ("price>=10.00 AND price<=19.99", 1),
            ("price>=20.00 AND price<=49.99", 2),
            ("price>=50.00 AND price<=99.99", 1),
        ]
    );
    let fields: Vec<&str> = all.facets.iter().map(|facet| facet.field.as_str()).collect();
    assert_eq!(fields, ["brand", "category", "price", "option.color"]);

    let blue = shop.search(by("", "option.color=\"blue\"")).await.unwrap();
    assert_eq!(facet(&blue, "brand"), [("Kiln", 2)]);
    assert_eq!(facet(&blue, "category"), [("categories/mugs", 1), ("categories/plates", 1)]);
    for value in facet(&all, "price") {
        let narrowed = shop.search(by("", value.0)).await.unwrap();
        assert_eq!(narrowed.total_size, value.1, "{} finds what it counts", value.0);
    }
    let narrowed = shop.search(by("kiln", "price>=20 AND price<=30 AND category=categories/plates")).await.unwrap();
    assert_eq!((ids(&narrowed), narrowed.total_size), (vec!["plate"], 1));
}

#[tokio::test]
async fn results_come_in_the_order_and_currency_asked_for() {
    let shop = stocked().await;
    let ordered = |order: proto::SearchOrder| proto::SearchProductsRequest {
        order_by: order.into(),
        currency_code: "USD".to_owned(),
        ..by("", "")
    };
    let cheapest = shop.search(ordered(proto::SearchOrder::PriceAscending)).await.unwrap();
    assert_eq!(ids(&cheapest), ["cafe", "mug", "plate", "shirt"]);
    assert_eq!(cheapest.products[0].variants[0].price, Some(shop::money("USD", 5, 50)));
    let dearest = shop.search(ordered(proto::SearchOrder::PriceDescending)).await.unwrap();
    assert_eq!(ids(&dearest), ["shirt", "plate", "mug", "cafe"]);
    let newest = shop.search(ordered(proto::SearchOrder::Newest)).await.unwrap();
    assert_eq!(ids(&newest), ["shirt", "cafe", "plate", "mug"]);
}

#[tokio::test]
async fn pages_follow_each_other_to_the_end() {
    let shop = stocked().await;
    let (mut seen, mut page_token) = (vec![], String::new());
    loop {
        let page = proto::SearchProductsRequest { page_size: 3, page_token, ..by("day", "") };
        let found = shop.search(page).await.unwrap();
        assert_eq!(found.total_size, 4, "over all pages");
        seen.extend(found.products.iter().map(|product| product.id.clone()));
        page_token = found.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, ["cafe", "mug", "plate", "shirt"]);
}

#[tokio::test]
async fn no_text_is_syntax_and_no_filter_reaches_the_store() {
    let shop = stocked().await;
    for query in [
        "\"",
        "'",
        "mug\"",
        "title:mug",
        "mug OR plate",
        "NEAR(mug plate)",
        "mug*",
        "-mug",
        "^mug",
        "(mug",
        "{title}: mug",
        "mug AND",
        "NOT mug",
        "\0mug",
        "'; DROP TABLE products; --",
        "🫖",
        "a\u{301}",
        "%",
        "mug + plate",
    ] {
        shop.search(by(query, "")).await.unwrap();
    }
    assert_eq!(shop.search(by("* ()", "")).await.unwrap().total_size, 0);
    for filter in ["brand", "price>=x", "nope=1", "brand=\"a", "brand=a' OR 1=1"] {
        assert_eq!(refusal(shop.search(by("", filter)).await).0, Code::InvalidArgument, "{filter}");
    }
    assert_eq!(shop.search(by("", "brand=\"' OR '1'='1\"")).await.unwrap().total_size, 0);
    let currency = proto::SearchProductsRequest { currency_code: "XXX".to_owned(), ..by("", "") };
    assert_eq!(refusal(shop.search(currency).await).0, Code::InvalidArgument);
    assert_eq!(shop.search(by("", "")).await.unwrap().total_size, 4);
}
