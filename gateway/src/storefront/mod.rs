//! `stoa.storefront.v1`: one document a page of the web shop, composed of what several services say; and of the same parts
//! the screens of phones ([`mobile`]).
//!
//! Parts are asked for concurrently, each with its own deadline. A part whose service does not answer is what it answered
//! last, marked stale, or missing, marked so (see [`part`]); only the part a page is about, its product or its cart, can make
//! the whole page an error, and only by a definite answer such as `NOT_FOUND`.
//!
//! What belongs to one person (cart, quote) is never kept.

mod mobile;
mod part;

use std::sync::Arc;
use std::time::Duration;

use client::{Channel, Outgoing};
use contracts::{
    cart::v1::{Cart, GetCartRequest, PriceCartRequest, Quote, cart_service_client::CartServiceClient},
    catalog::v1::{
        Facet, GetProductRequest, Product, SearchOrder, SearchProductsRequest, Variant,
        catalog_service_client::CatalogServiceClient,
    },
    inventory::v1::{Availability, BatchGetAvailabilityRequest, inventory_service_client::InventoryServiceClient},
    mobile::v1::mobile_service_server::MobileServiceServer,
    shipping::v1::{QuoteRatesRequest, ShippingRate, shipping_service_client::ShippingServiceClient},
    storefront::v1::{
        AvailabilityPart, CartPart, CheckoutPage, FacetsPart, GetCheckoutPageRequest, GetHomeRequest,
        GetProductPageRequest, HomePage, ProductPage, ProductPart, ProductsPart, QuotePart, RatesPart,
        storefront_service_server::{StorefrontService, StorefrontServiceServer},
    },
};
use server::{Call, Component};
use tonic::{Request, Response, Status, service::Routes};

use part::{Answered, Kept, Now};

/// How long the parts of a page may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// A part that is read.
    pub part: Duration,
    /// The quote, which asks further services.
    pub quote: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { part: Duration::from_millis(300), quote: Duration::from_millis(1500) }
    }
}

/// Products on the first page, and beside a product.
const FEATURED: i32 = 12;
const RELATED: usize = 8;

/// The most SKUs one call of inventory takes.
const MAX_SKUS: usize = 1000;

/// The component that answers `stoa.storefront.v1` and `stoa.mobile.v1`, over the services that the context's registry finds.
pub fn build(deadlines: Deadlines, context: &server::Context) -> Component {
    // The composing is the gateway's own work: it calls as the gateway, for the person it answers.
    let caller = context.clients.as_caller(auth::GATEWAY);
    let clock = context.clock.clone();
    let storefront = Storefront {
        catalog: CatalogServiceClient::new(caller.channel("catalog")),
        cart: CartServiceClient::new(caller.channel("cart")),
        inventory: InventoryServiceClient::new(caller.channel("inventory")),
        shipping: ShippingServiceClient::new(caller.channel("shipping")),
        deadlines,
        now: Box::new(move || clock.now()),
        products: Kept::default(),
        lists: Kept::default(),
        facets: Kept::default(),
        availabilities: Kept::default(),
        rates: Kept::default(),
    };
    let storefront = Arc::new(storefront);
    let routes = Routes::new(StorefrontServiceServer::from_arc(Arc::clone(&storefront)))
        .add_service(MobileServiceServer::from_arc(storefront));
    Component::new("edge", contracts::METHODS, routes)
}

struct Storefront {
    catalog: CatalogServiceClient<Channel>,
    cart: CartServiceClient<Channel>,
    inventory: InventoryServiceClient<Channel>,
    shipping: ShippingServiceClient<Channel>,
    deadlines: Deadlines,
    now: Now,
    products: Kept<Product>,
    lists: Kept<Vec<Product>>,
    facets: Kept<Vec<Facet>>,
    availabilities: Kept<Vec<Availability>>,
    rates: Kept<Vec<ShippingRate>>,
}

#[tonic::async_trait]
impl StorefrontService for Storefront {
    async fn get_home(&self, request: Request<GetHomeRequest>) -> Result<Response<HomePage>, Status> {
        let call = Call::of(&request)?;
        let currency = request.into_inner().currency_code;
        let (featured, navigation) = tokio::join!(self.featured(&call, &currency), self.navigation(&call, &currency));
        Ok(Response::new(HomePage {
            featured: Some(products_part(featured)),
            navigation: Some(FacetsPart { mark: Some(navigation.mark), facets: navigation.value.unwrap_or_default() }),
        }))
    }

    async fn get_product_page(&self, request: Request<GetProductPageRequest>) -> Result<Response<ProductPage>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        let (product, availability, related) = self.product_with(&call, &asked.product, &asked.currency_code).await?;
        Ok(Response::new(ProductPage {
            product: Some(ProductPart { mark: Some(product.mark), product: product.value }),
            availability: Some(availability_part(availability)),
            related: Some(products_part(related)),
        }))
    }

    async fn get_checkout_page(
        &self,
        request: Request<GetCheckoutPageRequest>,
    ) -> Result<Response<CheckoutPage>, Status> {
        let call = Call::of(&request)?;
        let asked = request.into_inner();
        let ((cart, availability), (quote, rates)) =
            tokio::join!(self.cart_and_stock(&call, &asked), self.quote_and_rates(&call, &asked));
        let cart = cart?;
        Ok(Response::new(CheckoutPage {
            cart: Some(CartPart { mark: Some(cart.mark), cart: cart.value }),
            quote: Some(QuotePart { mark: Some(quote.mark), quote: quote.value }),
            rates: Some(RatesPart { mark: Some(rates.mark), rates: rates.value.unwrap_or_default() }),
            availability: Some(availability_part(availability)),
        }))
    }
}

impl Storefront {
    /// A product with its prices in the currency asked for, what can be had of it, and products like it.
    async fn product_with(
        &self,
        call: &Call,
        name: &str,
        currency: &str,
    ) -> Result<(Answered<Product>, Answered<Vec<Availability>>, Answered<Vec<Product>>), Status> {
        let mut product = self.product(call, name).await?;
        if let Some(product) = &mut product.value {
            price_in(product, currency);
        }
        let (availability, related) = match &product.value {
            Some(found) => {
                let skus = stocked_skus(found);
                tokio::join!(self.availability(call, skus), self.related(call, found, currency))
            }
            None => {
                (Answered::missing("inventory", "PRODUCT_MISSING"), Answered::missing("catalog", "PRODUCT_MISSING"))
            }
        };
        Ok((product, availability, related))
    }

    async fn featured(&self, call: &Call, currency: &str) -> Answered<Vec<Product>> {
        let search = SearchProductsRequest {
            currency_code: currency.to_owned(),
            order_by: SearchOrder::Newest.into(),
            page_size: FEATURED,
            ..Default::default()
        };
        let asked = self.catalog.clone().search_products(self.asking(call).request(search)).await;
        part::fallback(
            "catalog",
            &self.now,
            Some((&self.lists, format!("featured {currency}"))),
            asked.map(|found| found.into_inner().products),
        )
    }

    async fn navigation(&self, call: &Call, currency: &str) -> Answered<Vec<Facet>> {
        let search = SearchProductsRequest { currency_code: currency.to_owned(), page_size: 1, ..Default::default() };
        let asked = self.catalog.clone().search_products(self.asking(call).request(search)).await;
        part::fallback(
            "catalog",
            &self.now,
            Some((&self.facets, currency.to_owned())),
            asked.map(|found| found.into_inner().facets),
        )
    }

    async fn product(&self, call: &Call, name: &str) -> Result<Answered<Product>, Status> {
        let asked = self
            .catalog
            .clone()
            .get_product(self.asking(call).request(GetProductRequest { name: name.to_owned() }))
            .await;
        let asked = part::definite(asked)?;
        Ok(part::fallback("catalog", &self.now, Some((&self.products, name.to_owned())), asked))
    }

    async fn related(&self, call: &Call, product: &Product, currency: &str) -> Answered<Vec<Product>> {
        let Some(filter) = alike(product) else {
            return Answered::live("catalog", &self.now, Vec::new());
        };
        let page_size = i32::try_from(RELATED + 1).unwrap_or(i32::MAX);
        let search =
            SearchProductsRequest { filter, currency_code: currency.to_owned(), page_size, ..Default::default() };
        let asked = self.catalog.clone().search_products(self.asking(call).request(search)).await;
        let others = |found: Response<contracts::catalog::v1::SearchProductsResponse>| {
            found.into_inner().products.into_iter().filter(|other| other.name != product.name).take(RELATED).collect()
        };
        part::fallback(
            "catalog",
            &self.now,
            Some((&self.lists, format!("related {} {currency}", product.name))),
            asked.map(others),
        )
    }

    async fn availability(&self, call: &Call, mut skus: Vec<String>) -> Answered<Vec<Availability>> {
        skus.sort_unstable();
        skus.dedup();
        skus.truncate(MAX_SKUS);
        if skus.is_empty() {
            return Answered::live("inventory", &self.now, Vec::new());
        }
        let key = skus.join("\n");
        let asked = self
            .inventory
            .clone()
            .batch_get_availability(self.asking(call).request(BatchGetAvailabilityRequest { skus }))
            .await;
        part::fallback(
            "inventory",
            &self.now,
            Some((&self.availabilities, key)),
            asked.map(|found| found.into_inner().availabilities),
        )
    }

    async fn cart_and_stock(
        &self,
        call: &Call,
        asked: &GetCheckoutPageRequest,
    ) -> (Result<Answered<Cart>, Status>, Answered<Vec<Availability>>) {
        let found =
            self.cart.clone().get_cart(self.asking(call).request(GetCartRequest { name: asked.cart.clone() })).await;
        let cart = match part::definite(found) {
            Ok(found) => part::fallback("cart", &self.now, None, found),
            Err(status) => return (Err(status), Answered::missing("inventory", "CART_MISSING")),
        };
        let availability = match &cart.value {
            Some(cart) => {
                self.availability(
                    call,
                    cart.items.iter().filter(|item| item.stocked).map(|item| item.sku.clone()).collect(),
                )
                .await
            }
            None => Answered::missing("inventory", "CART_MISSING"),
        };
        (Ok(cart), availability)
    }

    async fn quote_and_rates(
        &self,
        call: &Call,
        asked: &GetCheckoutPageRequest,
    ) -> (Answered<Quote>, Answered<Vec<ShippingRate>>) {
        let price = PriceCartRequest {
            cart: asked.cart.clone(),
            country_code: asked.country_code.clone(),
            shipping_service: asked.shipping_service.clone(),
        };
        let priced = self.cart.clone().price_cart(call.forwarding().within(self.deadlines.quote).request(price)).await;
        let priced = priced.and_then(|priced| priced.into_inner().quote.ok_or_else(|| Status::unavailable("no quote")));
        let quote = part::fallback("cart", &self.now, None, priced);
        let rates = match &quote.value {
            Some(quote) => self.rates(call, quote, &asked.country_code).await,
            None => Answered::missing("shipping", "QUOTE_MISSING"),
        };
        (quote, rates)
    }

    /// Rates for what the quote says is sent.
    async fn rates(&self, call: &Call, quote: &Quote, country: &str) -> Answered<Vec<ShippingRate>> {
        let weight_grams =
            quote.lines.iter().map(|line| i64::from(line.weight_grams).saturating_mul(i64::from(line.quantity))).sum();
        let ask = QuoteRatesRequest {
            country_code: country.to_owned(),
            weight_grams,
            currency_code: quote.currency_code.clone(),
            subtotal: quote.subtotal.clone(),
        };
        let key = format!("{ask:?}");
        let asked = self.shipping.clone().quote_rates(self.asking(call).request(ask)).await;
        part::fallback("shipping", &self.now, Some((&self.rates, key)), asked.map(|found| found.into_inner().rates))
    }

    fn asking(&self, call: &Call) -> Outgoing {
        call.forwarding().within(self.deadlines.part)
    }
}

/// A filter for products of the first category, or of the brand.
fn alike(product: &Product) -> Option<String> {
    let quotable = |text: &&str| !text.is_empty() && !text.contains(['"', '\\']);
    let category = product
        .categories
        .first()
        .map(String::as_str)
        .filter(quotable)
        .map(|category| format!("category=\"{category}\""));
    category.or_else(|| Some(product.brand.as_str()).filter(quotable).map(|brand| format!("brand=\"{brand}\"")))
}

/// Shows the price of each variant in the currency asked for, where it has one.
fn price_in(product: &mut Product, currency: &str) {
    for variant in &mut product.variants {
        if let Some(price) = variant.prices.iter().find(|price| price.currency_code == currency) {
            variant.price = Some(price.clone());
        }
    }
}

fn stocked_skus(product: &Product) -> Vec<String> {
    let stocked = product.variants.iter().filter(|variant| is_stocked(product, variant));
    stocked.map(|variant| variant.sku.clone()).collect()
}

fn is_stocked(product: &Product, variant: &Variant) -> bool {
    variant.stocked.or(product.stocked).unwrap_or(true)
}

fn products_part(answered: Answered<Vec<Product>>) -> ProductsPart {
    ProductsPart { mark: Some(answered.mark), products: answered.value.unwrap_or_default() }
}

fn availability_part(answered: Answered<Vec<Availability>>) -> AvailabilityPart {
    AvailabilityPart { mark: Some(answered.mark), availabilities: answered.value.unwrap_or_default() }
}
