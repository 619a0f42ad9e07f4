//! The catalogue alone, called as its callers call it: through every layer but the network.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;

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

impl Drop for Shop {
    fn drop(&mut self) {
        self.context.shutdown.cancel();
    }
}

impl Shop {
    pub(crate) async fn open() -> Shop {
        Shop::over(anywhere()).await
    }

    pub(crate) async fn in_folder(folder: &Path) -> Shop {
        Shop::over(surroundings(folder)).await
    }

    async fn over(context: Context) -> Shop {
        unlocked(async || Shop::try_over(context.clone()).await).await
    }

    /// The catalogue in these surroundings, with what it does besides answering.
    pub(crate) async fn try_over(mut context: Context) -> Result<Shop, store::Error> {
        let clock = Clock::manual("2026-01-02T03:04:05Z".parse().unwrap());
        context.clock = clock.clone();
        // Small batches, so that an import of a few hundred lines has several.
        let config = Config { import_batch: 100, ..Config::default() };
        let (_, tasks) = context.mount(catalog::build(config, &context).await?);
        let running = context.clone();
        tokio::spawn(async move { server::supervise(tasks, &running).await });
        Ok(Shop { context, clock })
    }

    /// The catalogue in rows of its own file, wherever the others are.
    pub(crate) async fn embedded_in(folder: &Path) -> Shop {
        Shop::over(Context::new(Storage::Folder(folder.to_owned()), folder, contracts::METHODS, &[7; 32])).await
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

/// The surroundings of a shop that nobody opens again: with documents where the run names a server for them.
fn anywhere() -> Context {
    let mut context = Context::temporary(contracts::METHODS);
    documents(&mut context, None);
    context
}

/// The surroundings of a shop that belongs to a folder.
pub(crate) fn surroundings(folder: &Path) -> Context {
    let mut context = Context::new(Storage::of_test_in(folder), folder, contracts::METHODS, &[7; 32]);
    documents(&mut context, Some(folder));
    context
}

#[cfg(not(feature = "fleet"))]
fn documents(_: &mut Context, _: Option<&Path>) {}

/// A database on the server that `CATALOG_TEST_MONGODB` names: the folder's, or a new one.
#[cfg(feature = "fleet")]
#[allow(clippy::disallowed_methods, reason = "a test is told where its server is")]
fn documents(context: &mut Context, folder: Option<&Path>) {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = || COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
    let Ok(documents) = std::env::var("CATALOG_TEST_MONGODB") else { return };
    let Some(folder) = folder else {
        context.mongodb = Some(format!("{documents}/catalog_{}_{}", std::process::id(), number()));
        return;
    };
    // Another process that is given the folder finds the same.
    let name = folder.file_name().unwrap().to_string_lossy().replace('.', "").to_lowercase();
    context.mongodb = Some(format!("{documents}/catalog_{name}"));
    if let Ok(log) = std::env::var("STORE_TEST_POSTGRES") {
        let (server, _) = log.rsplit_once('/').unwrap();
        let databases = server::Databases::at(format!("{server}/{name}_{{service}}"));
        context.storage = Storage::Postgres(server::Databases { writers: 8, shards: 1, create: true, ..databases });
    }
}

/// The store of a shop that is dropped.
pub(crate) async fn reopened(folder: &Path) -> Store {
    let context = surroundings(folder);
    #[cfg(feature = "fleet")]
    if context.mongodb.is_some() {
        return unlocked(async || context.open("catalog", &catalog::BESIDE_DOCUMENTS).await).await;
    }
    unlocked(async || context.open("catalog", &catalog::MIGRATIONS).await).await
}

/// The store of a shop in rows of its own file that is dropped.
pub(crate) async fn reopened_embedded(folder: &Path) -> Store {
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
