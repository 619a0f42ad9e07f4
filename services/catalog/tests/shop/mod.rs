//! The catalogue alone, called as its callers call it: through every layer but the network.

#![allow(dead_code, reason = "each test file uses its part")]

use auth::{Principal, Role, Subject};
use catalog::Config;
use client::{Channel, Outgoing};
use contracts::catalog::v1 as proto;
use contracts::catalog::v1::catalog_service_client::CatalogServiceClient;
use contracts::google::r#type::Money;
use server::{Context, Storage};
use store::{Clock, Store};
use tonic::{Code, Request, Status};

pub(crate) struct Shop {
    pub(crate) context: Context,
    pub(crate) clock: Clock,
}

impl Shop {
    pub(crate) async fn open() -> Shop {
        Shop::over(Context::temporary(contracts::METHODS)).await
    }

    pub(crate) async fn in_folder(folder: &std::path::Path) -> Shop {
        let storage = Storage::Folder(folder.to_owned());
        Shop::over(Context::new(storage, folder, contracts::METHODS, &[7; 32])).await
    }

    async fn over(mut context: Context) -> Shop {
        let clock = Clock::manual("2026-01-02T03:04:05Z".parse().unwrap());
        context.clock = clock.clone();
        let component = unlocked(async || catalog::build(Config::default(), &context).await).await;
        context.mount(component);
        Shop { context, clock }
    }

    pub(crate) fn client(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.context.clients.as_caller("gateway").channel("catalog"))
    }

    pub(crate) fn as_cart(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.context.clients.as_caller("cart").channel("catalog"))
    }

    pub(crate) async fn create(&self, id: &str, product: proto::Product) -> Result<proto::Product, Status> {
        let create = proto::CreateProductRequest {
            product: Some(product),
            product_id: id.to_owned(),
            request_id: uuid::Uuid::now_v7().to_string(),
            validate_only: false,
        };
        Ok(self.client().create_product(operator(create)).await?.into_inner())
    }

    pub(crate) async fn get(&self, name: &str) -> Result<proto::Product, Status> {
        let name = name.to_owned();
        Ok(self.client().get_product(anybody(proto::GetProductRequest { name })).await?.into_inner())
    }

    pub(crate) async fn update(&self, product: proto::Product, mask: &[&str]) -> Result<proto::Product, Status> {
        let update = proto::UpdateProductRequest {
            product: Some(product),
            update_mask: Some(contracts::wkt::FieldMask {
                paths: mask.iter().map(|path| (*path).to_owned()).collect(),
            }),
            ..proto::UpdateProductRequest::default()
        };
        Ok(self.client().update_product(operator(update)).await?.into_inner())
    }

    pub(crate) async fn import(&self, products: Vec<proto::Product>) -> Result<proto::ImportProductsResponse, Status> {
        let lines = products.into_iter().map(|product| proto::ImportProductsRequest { product: Some(product) });
        let stream = futures_util::stream::iter(lines.collect::<Vec<_>>());
        Ok(self.client().import_products(operator(stream)).await?.into_inner())
    }

    pub(crate) async fn search(
        &self,
        search: proto::SearchProductsRequest,
    ) -> Result<proto::SearchProductsResponse, Status> {
        Ok(self.client().search_products(anybody(search)).await?.into_inner())
    }
}

/// The tables of a shop that is dropped.
pub(crate) async fn reopened(folder: &std::path::Path) -> Store {
    let context = Context::new(Storage::Folder(folder.to_owned()), folder, contracts::METHODS, &[7; 32]);
    unlocked(async || context.open("catalog", &catalog::MIGRATIONS).await).await
}

/// Opens what the store's own threads may hold a moment longer than whoever dropped it.
async fn unlocked<T>(mut open: impl AsyncFnMut() -> Result<T, store::Error>) -> T {
    let opened = async {
        loop {
            match open().await {
                Err(store::Error::Locked { .. }) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), opened).await.unwrap()
}

pub(crate) fn operator<T>(message: T) -> Request<T> {
    let subject = Subject { id: "users/operator".to_owned(), role: Role::Operator, session: String::new() };
    Outgoing { principal: Principal::User(subject), ..Outgoing::default() }.request(message)
}

pub(crate) fn anybody<T>(message: T) -> Request<T> {
    Outgoing::default().request(message)
}

pub(crate) fn money(currency: &str, units: i64, cents: i32) -> Money {
    Money { currency_code: currency.to_owned(), units, nanos: cents * 10_000_000 }
}

/// A variant at a price in euros and dollars, in a colour if that is not empty.
pub(crate) fn variant(sku: &str, color: &str, euros: i64) -> proto::Variant {
    let color = Some(color).filter(|color| !color.is_empty());
    let option = |value: &str| proto::VariantOption { name: "color".to_owned(), value: value.to_owned() };
    proto::Variant {
        sku: sku.to_owned(),
        options: color.into_iter().map(option).collect(),
        prices: vec![money("USD", euros + 1, 50), money("EUR", euros, 0)],
        tax_basis_points: 2000,
        weight_grams: 300,
        ..proto::Variant::default()
    }
}

pub(crate) fn product(title: &str, brand: &str, category: &str, variants: Vec<proto::Variant>) -> proto::Product {
    proto::Product {
        title: title.to_owned(),
        description: format!("A {title} for every day"),
        brand: brand.to_owned(),
        categories: vec![format!("categories/{category}")],
        variants,
        ..proto::Product::default()
    }
}

/// Code and reason of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    (status.code(), server::status::reason(&status).unwrap_or_default())
}
