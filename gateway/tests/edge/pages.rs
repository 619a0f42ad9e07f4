//! Pages are composed of what answers, and say what does not.

use auth::Role;
use contracts::{
    cart::v1::{Cart, CartItem, PriceCartResponse, Quote, QuoteLine},
    catalog::v1::{Facet, Product, SearchProductsResponse, Variant},
    google::r#type::Money,
    inventory::v1::{Availability, BatchGetAvailabilityResponse},
    shipping::v1::{QuoteRatesRequest, QuoteRatesResponse, ShippingRate},
};
use prost::Message as _;
use serde_json::json;
use tonic::Status;

use crate::rig::Rig;

const SEARCH: &str = "/stoa.catalog.v1.CatalogService/SearchProducts";
const GET_PRODUCT: &str = "/stoa.catalog.v1.CatalogService/GetProduct";
const AVAILABILITY: &str = "/stoa.inventory.v1.InventoryService/BatchGetAvailability";
const GET_CART: &str = "/stoa.cart.v1.CartService/GetCart";
const PRICE_CART: &str = "/stoa.cart.v1.CartService/PriceCart";
const RATES: &str = "/stoa.shipping.v1.ShippingService/QuoteRates";

fn euros(units: i64) -> Money {
    Money { currency_code: "EUR".to_owned(), units, nanos: 0 }
}

fn product(name: &str) -> Product {
    let variant = Variant {
        sku: "A-1".to_owned(),
        prices: vec![euros(3), Money { currency_code: "USD".to_owned(), units: 4, nanos: 0 }],
        ..Default::default()
    };
    Product { name: name.to_owned(), brand: "Acme".to_owned(), variants: vec![variant], ..Default::default() }
}

fn found() -> SearchProductsResponse {
    let facets = vec![Facet { field: "brand".to_owned(), ..Default::default() }];
    SearchProductsResponse {
        products: vec![product("products/1"), product("products/2")],
        facets,
        total_size: 2,
        ..Default::default()
    }
}

#[tokio::test]
async fn the_home_page_is_live_then_stale_and_says_so() {
    let rig = Rig::new().await;
    rig.answer(SEARCH, &found());
    let page = rig.get("/v1/storefront/home").await.json();
    assert_eq!(page["featured"]["mark"]["status"], "PART_STATUS_LIVE", "{page}");
    assert_eq!(page["featured"]["products"].as_array().map(Vec::len), Some(2));
    assert_eq!(page["navigation"]["facets"][0]["field"], "brand");
    rig.refuse(SEARCH, Status::internal("broken"));
    let page = rig.get("/v1/storefront/home").await.json();
    assert_eq!(
        (&page["featured"]["mark"]["status"], &page["featured"]["mark"]["reason"]),
        (&json!("PART_STATUS_STALE"), &json!("INTERNAL"))
    );
    assert_eq!(page["featured"]["products"].as_array().map(Vec::len), Some(2));
    assert!(page["featured"]["mark"]["asOfTime"].is_string());
    let page = rig.get("/v1/storefront/home?currencyCode=USD").await.json();
    assert_eq!(page["featured"]["mark"]["status"], "PART_STATUS_MISSING", "another question has no answer from before");
}

#[tokio::test]
async fn a_product_page_has_stock_and_likes_and_prices_in_the_currency_asked_for() {
    let rig = Rig::new().await;
    rig.answer(GET_PRODUCT, &product("products/1"));
    rig.answer(SEARCH, &found());
    rig.answer(
        AVAILABILITY,
        &BatchGetAvailabilityResponse { availabilities: vec![Availability { sku: "A-1".to_owned(), available: 7 }] },
    );
    let page = rig.get("/v1/storefront/products/1?currencyCode=USD").await.json();
    assert_eq!(
        page["product"]["product"]["variants"][0]["price"],
        json!({"currencyCode": "USD", "units": "4"}),
        "{page}"
    );
    assert_eq!(page["availability"]["availabilities"], json!([{"sku": "A-1", "available": "7"}]));
    assert_eq!(page["related"]["products"].as_array().map(Vec::len), Some(1), "not the product itself");
    rig.refuse(AVAILABILITY, Status::internal("broken"));
    let page = rig.get("/v1/storefront/products/1").await.json();
    assert_eq!(
        (&page["product"]["mark"]["status"], &page["availability"]["mark"]["status"]),
        (&json!("PART_STATUS_LIVE"), &json!("PART_STATUS_STALE"))
    );
}

#[tokio::test]
async fn a_product_that_does_not_exist_is_the_pages_answer() {
    let rig = Rig::new().await;
    rig.refuse(GET_PRODUCT, server::status::not_found("products/1"));
    assert_eq!(rig.get("/v1/storefront/products/1").await.status, 404);
}

#[tokio::test]
async fn a_checkout_page_belongs_to_its_caller_and_is_never_kept() {
    let rig = Rig::new().await;
    let path = "/v1/storefront/carts/1/checkout";
    assert_eq!(rig.get(path).await.status, 401, "a cart needs somebody");
    let token = format!("Bearer {}", rig.token("guests/1", Role::Guest));
    let headers = [("authorization", token.as_str())];
    let item = CartItem {
        name: "carts/1/items/1".to_owned(),
        sku: "A-1".to_owned(),
        quantity: 2,
        stocked: true,
        ..Default::default()
    };
    rig.answer(
        GET_CART,
        &Cart { name: "carts/1".to_owned(), currency_code: "EUR".to_owned(), items: vec![item], ..Default::default() },
    );
    let line = QuoteLine { sku: "A-1".to_owned(), quantity: 2, weight_grams: 250, ..Default::default() };
    let quote = Quote {
        quote_token: "q".to_owned(),
        lines: vec![line],
        subtotal: Some(euros(6)),
        total: Some(euros(9)),
        currency_code: "EUR".to_owned(),
        ..Default::default()
    };
    rig.answer(PRICE_CART, &PriceCartResponse { quote: Some(quote) });
    rig.answer(
        RATES,
        &QuoteRatesResponse {
            rates: vec![ShippingRate { shipping_service: "standard".to_owned(), ..Default::default() }],
        },
    );
    rig.answer(AVAILABILITY, &BatchGetAvailabilityResponse::default());
    let page = rig.send("GET", path, &headers, "").await.json();
    for part in ["cart", "quote", "rates", "availability"] {
        assert_eq!(page[part]["mark"]["status"], "PART_STATUS_LIVE", "{part} {page}");
    }
    let seen = rig.seen.lock().unwrap().clone();
    assert!(
        seen.iter().all(|seen| { seen.identity.principal.subject().is_some_and(|subject| subject.id == "guests/1") })
    );
    let rates = seen.iter().find(|seen| seen.path == RATES).unwrap();
    assert_eq!(QuoteRatesRequest::decode(rates.message.clone()).unwrap().weight_grams, 500);

    rig.refuse(PRICE_CART, Status::internal("broken"));
    let page = rig.send("GET", path, &headers, "").await.json();
    assert_eq!(
        (&page["cart"]["mark"]["status"], &page["quote"]["mark"]["status"]),
        (&json!("PART_STATUS_LIVE"), &json!("PART_STATUS_MISSING"))
    );
    rig.refuse(GET_CART, server::status::not_found("carts/1"));
    assert_eq!(rig.send("GET", path, &headers, "").await.status, 404, "another's cart is no cart");
}
