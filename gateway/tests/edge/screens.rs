//! Screens of phones are the parts of pages, cut down; what is not live is named.

use contracts::{
    catalog::v1::{Facet, FacetValue, Product, SearchProductsResponse, Variant},
    google::r#type::Money,
    inventory::v1::{Availability, BatchGetAvailabilityResponse},
};
use serde_json::{Value, json};
use tonic::Status;

use crate::rig::Rig;

const SEARCH: &str = "/stoa.catalog.v1.CatalogService/SearchProducts";
const GET_PRODUCT: &str = "/stoa.catalog.v1.CatalogService/GetProduct";
const AVAILABILITY: &str = "/stoa.inventory.v1.InventoryService/BatchGetAvailability";

fn money(currency: &str, units: i64) -> Money {
    Money { currency_code: currency.to_owned(), units, nanos: 0 }
}

fn variant(number: usize) -> Variant {
    let units = i64::try_from(number).unwrap();
    Variant {
        sku: format!("A-{number}"),
        title: format!("variant {number} of many, which has a name as long as nobody would want to read it"),
        prices: vec![money("EUR", units), money("USD", units + 1)],
        price: Some(money("EUR", units)),
        ..Default::default()
    }
}

/// A product as large as one may be in what a screen shows.
fn large(name: &str) -> Product {
    // Letters without a pattern, so that they do not vanish when they are compressed.
    let mut state = name.len() as u64 + u64::from(name.as_bytes()[name.len() - 1]);
    let mut letter = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
    };
    let mut text = move |length: usize| -> String { (0..length).map(|_| letter()).collect() };
    Product {
        name: name.to_owned(),
        title: text(200),
        brand: text(100),
        description: text(10_000),
        image_uri: format!("https://images.example/{}", text(400)),
        variants: (1..=200).map(variant).collect(),
        ..Default::default()
    }
}

fn found(products: usize) -> SearchProductsResponse {
    let value = |value: &str| FacetValue { value: value.to_owned(), title: String::new(), ..Default::default() };
    let facet = |field: &str, values: &[&str]| Facet {
        field: field.to_owned(),
        values: values.iter().map(|it| value(it)).collect(),
        ..Default::default()
    };
    SearchProductsResponse {
        products: (0..products).map(|number| large(&format!("products/{number}"))).collect(),
        facets: vec![
            facet("brand", &["Acme", "say \"so\"", "Zenith"]),
            facet("category", &["categories/kitchen"]),
            facet("price", &["price>=1"]),
        ],
        ..Default::default()
    }
}

fn reasons(screen: &Value) -> Vec<(&str, &str, &str)> {
    let marks = screen["notLive"].as_array().map(Vec::as_slice).unwrap_or_default();
    marks
        .iter()
        .map(|it| {
            let of = |key: &str| it[key].as_str().unwrap_or_default();
            (of("service"), of("status"), of("reason"))
        })
        .collect()
}

#[tokio::test]
async fn the_first_screen_is_few_fields_and_says_what_is_not_live() {
    let rig = Rig::new().await;
    rig.answer(SEARCH, &found(12));
    let screen = rig.get("/v1/mobile/home?currencyCode=USD").await.json();
    assert_eq!(screen["featured"].as_array().map(Vec::len), Some(12));
    let first = &screen["featured"][0];
    assert_eq!(
        (&first["product"], &first["fromPrice"]),
        (&json!("products/0"), &json!({"currencyCode": "USD", "units": "2"}))
    );
    assert_eq!(first["title"].as_str().map(|title| title.chars().count()), Some(80));
    assert_eq!(first.get("description"), None);
    let ways: Vec<&str> =
        screen["navigation"].as_array().unwrap().iter().filter_map(|it| it["filter"].as_str()).collect();
    assert_eq!(ways, ["category=\"categories/kitchen\"", "brand=\"Acme\"", "brand=\"Zenith\""]);
    assert_eq!(screen.get("notLive"), None, "{screen}");

    rig.refuse(SEARCH, Status::unavailable("down"));
    let screen = rig.get("/v1/mobile/home?currencyCode=USD").await.json();
    assert_eq!(screen["featured"].as_array().map(Vec::len), Some(12));
    let stale = ("catalog", "PART_STATUS_STALE", "UNAVAILABLE");
    assert_eq!(reasons(&screen), [stale, stale]);
    let screen = rig.get("/v1/mobile/home?currencyCode=EUR").await.json();
    let missing = ("catalog", "PART_STATUS_MISSING", "UNAVAILABLE");
    assert_eq!((screen.get("featured"), reasons(&screen)), (None, vec![missing, missing]));
}

#[tokio::test]
async fn the_screen_of_a_product_tells_what_can_be_had_and_what_it_leaves_out() {
    let rig = Rig::new().await;
    rig.answer(GET_PRODUCT, &large("products/1"));
    rig.answer(SEARCH, &found(9));
    let left = [("A-1", 7), ("A-2", 3)].map(|(sku, available)| Availability { sku: sku.to_owned(), available });
    rig.answer(AVAILABILITY, &BatchGetAvailabilityResponse { availabilities: left.to_vec() });
    let screen = rig.get("/v1/mobile/products/1?currencyCode=EUR").await.json();
    assert_eq!((&screen["choiceCount"], screen["choices"].as_array().map(Vec::len)), (&json!(200), Some(30)));
    let stock: Vec<&str> = (0..3).filter_map(|at| screen["choices"][at]["stock"].as_str()).collect();
    assert_eq!(stock, ["STOCK_LEVEL_AVAILABLE", "STOCK_LEVEL_LOW", "STOCK_LEVEL_OUT"]);
    assert_eq!(screen["description"].as_str().map(|text| text.chars().count()), Some(600));

    rig.refuse(AVAILABILITY, Status::internal("broken"));
    let another = rig.get("/v1/mobile/products/1?currencyCode=USD").await.json();
    assert_eq!(reasons(&another), [("inventory", "PART_STATUS_STALE", "INTERNAL")], "what is known stands in");
}

#[tokio::test]
async fn the_largest_screens_fit_into_eight_kibibytes() {
    let rig = Rig::new().await;
    rig.answer(GET_PRODUCT, &large("products/1"));
    rig.answer(SEARCH, &found(12));
    rig.answer(AVAILABILITY, &BatchGetAvailabilityResponse::default());
    for screen in ["/v1/mobile/home", "/v1/mobile/products/1"] {
        let answer = rig.send("GET", screen, &[("accept-encoding", "gzip")], "").await;
        assert_eq!((answer.status, answer.header("content-encoding")), (200, "gzip"), "{screen}");
        let bytes = answer.body.len();
        assert!(bytes > 1024 && bytes <= 8 << 10, "{screen}: {bytes} bytes");
    }
}

#[tokio::test]
async fn a_product_that_does_not_exist_is_the_screens_answer() {
    let rig = Rig::new().await;
    rig.refuse(GET_PRODUCT, server::status::not_found("products/1"));
    assert_eq!(rig.get("/v1/mobile/products/1").await.status, 404);
}
