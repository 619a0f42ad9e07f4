//! Cart in this process, over a store of its own, with small stand-ins for catalog and shipping.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::{Principal, Role, Subject};
use client::{Channel, Outgoing};
use contract::{Money, Table};
use contracts::cart::v1 as cart;
use contracts::cart::v1::cart_service_client::CartServiceClient;
use contracts::catalog::v1 as catalog;
use contracts::catalog::v1::catalog_service_server::{CatalogService, CatalogServiceServer};
use contracts::google::r#type::Money as WireMoney;
use contracts::shipping::v1 as shipping;
use contracts::shipping::v1::shipping_service_server::{ShippingService, ShippingServiceServer};
use server::{Component, Context, status};
use store::Clock;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// A shop of two customers, a guest and an operator.
pub(crate) struct Shop {
    pub(crate) context: Context,
    pub(crate) clock: Clock,
    pub(crate) goods: Arc<Goods>,
}

/// What the stand-ins sell, and how often they were asked.
#[derive(Default)]
pub(crate) struct Goods {
    /// Price in cents, weight, stocked.
    prices: Mutex<BTreeMap<String, (i64, i32, bool)>>,
    pub(crate) variant_calls: AtomicU32,
    pub(crate) price_calls: AtomicU32,
}

impl Goods {
    pub(crate) fn sell(&self, sku: &str, cents: i64, stocked: bool) {
        self.prices.lock().unwrap().insert(sku.to_owned(), (cents, 250, stocked));
    }

    pub(crate) fn withdraw(&self, sku: &str) {
        self.prices.lock().unwrap().remove(sku);
    }

    fn get(&self, sku: &str) -> Result<(i64, i32, bool), Status> {
        let found = self.prices.lock().unwrap().get(sku).copied();
        let unknown =
            || status::rejected(tonic::Code::NotFound, "UNKNOWN_SKU", format!("no {sku}"), [("sku", sku.to_owned())]);
        found.ok_or_else(unknown)
    }
}

pub(crate) const RATE: i32 = 2_000;

impl Shop {
    pub(crate) async fn open() -> Self {
        let start = "2026-03-01T12:00:00Z".parse().unwrap();
        let clock = Clock::manual(start);
        let mut context = Context::temporary(contracts::METHODS);
        context.clock = clock.clone();
        let goods = Arc::new(Goods::default());
        goods.sell("TEA", 499, true);
        goods.sell("CUP", 1_250, true);
        goods.sell("GIFT", 5_000, false);
        for number in 0..2_000 {
            goods.sell(&format!("N-{number}"), 100 + number, true);
        }
        let shelf = Shelf(Arc::clone(&goods));
        let routes = Routes::new(CatalogServiceServer::new(shelf.clone()));
        context.mount(Component::new("catalog", Table(catalog::METHODS), routes));
        let routes = Routes::new(ShippingServiceServer::new(shelf));
        context.mount(Component::new("shipping", Table(shipping::METHODS), routes));
        let component = ::cart::build(::cart::Config::default(), &context).await.unwrap();
        context.mount(component);
        Self { context, clock, goods }
    }

    pub(crate) fn customer(&self) -> Visitor {
        self.visitor("gateway", person("users/1", Role::Customer))
    }

    pub(crate) fn other(&self) -> Visitor {
        self.visitor("gateway", person("users/2", Role::Customer))
    }

    pub(crate) fn guest(&self) -> Visitor {
        self.visitor("gateway", person("guests/1", Role::Guest))
    }

    pub(crate) fn operator(&self) -> Visitor {
        self.visitor("gateway", person("users/op", Role::Operator))
    }

    /// Ordering on its own business, as its sagas call.
    pub(crate) fn ordering(&self) -> Visitor {
        self.visitor("ordering", Principal::Anonymous)
    }

    /// Ordering for a person, as it resolves quotes.
    pub(crate) fn ordering_for(&self, user: &str, role: Role) -> Visitor {
        self.visitor("ordering", person(user, role))
    }

    fn visitor(&self, caller: &'static str, principal: Principal) -> Visitor {
        let client = CartServiceClient::new(self.context.clients.as_caller(caller).channel("cart"));
        Visitor { client, outgoing: Outgoing { principal, ..Outgoing::default() } }
    }

    /// How many events cart has recorded.
    pub(crate) async fn events(&self) -> u64 {
        self.context.hub.source("cart").unwrap().heads().await.unwrap().into_iter().sum()
    }

    pub(crate) fn advance(&self, minutes: u64) {
        self.clock.advance(Duration::from_secs(minutes * 60));
    }
}

fn person(id: &str, role: Role) -> Principal {
    Principal::User(Subject { id: id.to_owned(), role, session: String::new() })
}

/// Somebody who calls cart.
#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) client: CartServiceClient<Channel>,
    pub(crate) outgoing: Outgoing,
}

impl Visitor {
    pub(crate) fn ask<T>(&self, message: T) -> Request<T> {
        self.outgoing.request(message)
    }

    pub(crate) async fn open(&self, ask: cart::GetOrCreateCartRequest) -> Result<cart::Cart, Status> {
        let answer = self.client.clone().get_or_create_cart(self.ask(ask)).await?;
        Ok(answer.into_inner().cart.unwrap())
    }

    pub(crate) async fn cart(&self) -> cart::Cart {
        self.open(cart::GetOrCreateCartRequest::default()).await.unwrap()
    }

    pub(crate) async fn get(&self, name: &str) -> Result<cart::Cart, Status> {
        let ask = cart::GetCartRequest { name: name.to_owned() };
        Ok(self.client.clone().get_cart(self.ask(ask)).await?.into_inner())
    }

    pub(crate) async fn add(&self, ask: cart::AddItemRequest) -> Result<cart::AddItemResponse, Status> {
        Ok(self.client.clone().add_item(self.ask(ask)).await?.into_inner())
    }

    pub(crate) async fn add_all(&self, ask: cart::BatchAddItemsRequest) -> Result<cart::BatchAddItemsResponse, Status> {
        Ok(self.client.clone().batch_add_items(self.ask(ask)).await?.into_inner())
    }

    /// A cart with two lines in it.
    pub(crate) async fn filled(&self) -> cart::Cart {
        let name = self.cart().await.name;
        self.add(add(&name, "TEA", 3)).await.unwrap();
        self.add(add(&name, "CUP", 1)).await.unwrap().cart.unwrap()
    }

    pub(crate) async fn update(&self, ask: cart::UpdateItemRequest) -> Result<cart::CartItem, Status> {
        Ok(self.client.clone().update_item(self.ask(ask)).await?.into_inner())
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<cart::Cart, Status> {
        let ask = cart::RemoveItemRequest { name: name.to_owned(), ..Default::default() };
        Ok(self.client.clone().remove_item(self.ask(ask)).await?.into_inner().cart.unwrap())
    }

    pub(crate) async fn price(&self, cart: &str) -> Result<cart::Quote, Status> {
        self.price_for(cart::PriceCartRequest { cart: cart.to_owned(), ..Default::default() }).await
    }

    pub(crate) async fn price_for(&self, ask: cart::PriceCartRequest) -> Result<cart::Quote, Status> {
        Ok(self.client.clone().price_cart(self.ask(ask)).await?.into_inner().quote.unwrap())
    }

    pub(crate) async fn issue(&self, ask: cart::IssueQuoteRequest) -> Result<cart::Quote, Status> {
        Ok(self.client.clone().issue_quote(self.ask(ask)).await?.into_inner().quote.unwrap())
    }

    pub(crate) async fn resolve(&self, quote: &cart::Quote) -> Result<cart::ResolveQuoteResponse, Status> {
        let ask = cart::ResolveQuoteRequest {
            cart: quote.cart.clone(),
            cart_etag: quote.cart_etag.clone(),
            quote_token: quote.quote_token.clone(),
        };
        Ok(self.client.clone().resolve_quote(self.ask(ask)).await?.into_inner())
    }

    pub(crate) async fn close(&self, name: &str, etag: &str, order: &str) -> Result<cart::Cart, Status> {
        let ask = cart::CloseCartRequest {
            name: name.to_owned(),
            cart_etag: etag.to_owned(),
            order: order.to_owned(),
            request_id: id(),
        };
        Ok(self.client.clone().close_cart(self.ask(ask)).await?.into_inner().cart.unwrap())
    }
}

pub(crate) fn id() -> String {
    Uuid::new_v4().to_string()
}

pub(crate) fn add(cart: &str, sku: &str, quantity: i32) -> cart::AddItemRequest {
    let (cart, sku) = (cart.to_owned(), sku.to_owned());
    cart::AddItemRequest { cart, sku, quantity, request_id: id(), ..Default::default() }
}

pub(crate) fn batch(cart: &str, items: Vec<cart::NewItem>) -> cart::BatchAddItemsRequest {
    cart::BatchAddItemsRequest { cart: cart.to_owned(), items, etag: String::new(), request_id: id() }
}

pub(crate) fn item(sku: &str, quantity: i32, separate_line: bool) -> cart::NewItem {
    cart::NewItem { sku: sku.to_owned(), quantity, separate_line }
}

pub(crate) fn reason(status: &Status) -> String {
    status::reason(status).unwrap_or_default()
}

pub(crate) fn money(currency: &str, minor: i64) -> WireMoney {
    Money::new(currency.parse().unwrap(), minor).into()
}

pub(crate) fn minor(money: &Option<WireMoney>) -> i64 {
    Money::try_from(money.as_ref().unwrap()).unwrap().minor
}

#[derive(Clone)]
struct Shelf(Arc<Goods>);

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("cart does not call this"))
}

#[tonic::async_trait]
impl CatalogService for Shelf {
    async fn batch_get_variants(
        &self,
        request: Request<catalog::BatchGetVariantsRequest>,
    ) -> Result<Response<catalog::BatchGetVariantsResponse>, Status> {
        self.0.variant_calls.fetch_add(1, Ordering::SeqCst);
        let variants = request.into_inner().skus.into_iter().map(|sku| {
            let (_, weight_grams, stocked) = self.0.get(&sku)?;
            Ok(catalog::Variant {
                name: format!("products/{}/variants/1", sku.to_lowercase()),
                product_title: format!("The {sku}"),
                stocked: Some(stocked),
                weight_grams,
                sku,
                ..Default::default()
            })
        });
        let variants = variants.collect::<Result<_, Status>>()?;
        Ok(Response::new(catalog::BatchGetVariantsResponse { variants }))
    }

    async fn resolve_prices(
        &self,
        request: Request<catalog::ResolvePricesRequest>,
    ) -> Result<Response<catalog::ResolvePricesResponse>, Status> {
        self.0.price_calls.fetch_add(1, Ordering::SeqCst);
        let ask = request.into_inner();
        if ask.currency_code == "JPY" {
            return Err(status::failed_precondition("NO_PRICE", "not sold in JPY", []));
        }
        let prices = ask.skus.into_iter().map(|sku| {
            let (cents, weight_grams, stocked) = self.0.get(&sku)?;
            Ok(catalog::ResolvedPrice {
                unit_price: Some(money(&ask.currency_code, cents)),
                tax_basis_points: RATE,
                weight_grams,
                stocked,
                sku,
                ..Default::default()
            })
        });
        let prices = prices.collect::<Result<_, Status>>()?;
        Ok(Response::new(catalog::ResolvePricesResponse { prices, ..Default::default() }))
    }

    async fn get_product(&self, _: Request<catalog::GetProductRequest>) -> Result<Response<catalog::Product>, Status> {
        unused()
    }
    async fn list_products(
        &self,
        _: Request<catalog::ListProductsRequest>,
    ) -> Result<Response<catalog::ListProductsResponse>, Status> {
        unused()
    }
    async fn search_products(
        &self,
        _: Request<catalog::SearchProductsRequest>,
    ) -> Result<Response<catalog::SearchProductsResponse>, Status> {
        unused()
    }
    async fn create_product(
        &self,
        _: Request<catalog::CreateProductRequest>,
    ) -> Result<Response<catalog::Product>, Status> {
        unused()
    }
    async fn update_product(
        &self,
        _: Request<catalog::UpdateProductRequest>,
    ) -> Result<Response<catalog::Product>, Status> {
        unused()
    }
    async fn import_products(
        &self,
        _: Request<Streaming<catalog::ImportProductsRequest>>,
    ) -> Result<Response<catalog::ImportProductsResponse>, Status> {
        unused()
    }
}

#[tonic::async_trait]
impl ShippingService for Shelf {
    async fn quote_rates(
        &self,
        request: Request<shipping::QuoteRatesRequest>,
    ) -> Result<Response<shipping::QuoteRatesResponse>, Status> {
        let ask = request.into_inner();
        let rate = |name: &str, cents: i64| shipping::ShippingRate {
            shipping_service: name.to_owned(),
            price: Some(money(&ask.currency_code, cents)),
            tax_basis_points: RATE,
            ..Default::default()
        };
        let rates = match ask.country_code.as_str() {
            "AQ" => vec![],
            _ => vec![rate("standard", 390 + ask.weight_grams / 1_000), rate("express", 990)],
        };
        Ok(Response::new(shipping::QuoteRatesResponse { rates }))
    }

    async fn create_shipment(
        &self,
        _: Request<shipping::CreateShipmentRequest>,
    ) -> Result<Response<shipping::Shipment>, Status> {
        unused()
    }
    async fn get_shipment(
        &self,
        _: Request<shipping::GetShipmentRequest>,
    ) -> Result<Response<shipping::Shipment>, Status> {
        unused()
    }
    async fn list_shipments(
        &self,
        _: Request<shipping::ListShipmentsRequest>,
    ) -> Result<Response<shipping::ListShipmentsResponse>, Status> {
        unused()
    }
    async fn pack_shipment(
        &self,
        _: Request<shipping::PackShipmentRequest>,
    ) -> Result<Response<shipping::PackShipmentResponse>, Status> {
        unused()
    }
    async fn release_shipment(
        &self,
        _: Request<shipping::ReleaseShipmentRequest>,
    ) -> Result<Response<shipping::ReleaseShipmentResponse>, Status> {
        unused()
    }
    async fn dispatch_shipment(
        &self,
        _: Request<shipping::DispatchShipmentRequest>,
    ) -> Result<Response<shipping::DispatchShipmentResponse>, Status> {
        unused()
    }
    async fn record_tracking(
        &self,
        _: Request<shipping::RecordTrackingRequest>,
    ) -> Result<Response<shipping::RecordTrackingResponse>, Status> {
        unused()
    }
    async fn cancel_shipment(
        &self,
        _: Request<shipping::CancelShipmentRequest>,
    ) -> Result<Response<shipping::CancelShipmentResponse>, Status> {
        unused()
    }
}
