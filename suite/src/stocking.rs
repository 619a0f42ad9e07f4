//! Goods into the shop: products to the catalogue, pieces to the warehouses, through the services' own contracts.
//!
//! Every request id follows from what is asked, so putting the same goods in again, after a crash or by a second import
//! within the week that request ids are kept, changes nothing.

use std::collections::BTreeMap;

use anyhow::Context as _;
use contracts::catalog::v1 as catalog;
use contracts::catalog::v1::catalog_service_client::CatalogServiceClient;
use contracts::google::r#type::Money;
use contracts::inventory::v1::inventory_service_client::InventoryServiceClient;
use contracts::inventory::v1::{AdjustReason, BatchAdjustStockRequest, StockAdjustment};
use futures_util::stream;

use crate::folder::{self, Folder};
use crate::goods::Product;
use crate::sample;
use crate::shop::Shop;
use crate::work::Voice;

/// Products sent in one stream.
pub(crate) const BATCH: usize = 500;
/// Adjustments the contract takes in one call.
const ADJUSTMENTS: usize = 1000;

/// What became of some products.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stocked {
    pub(crate) created: i64,
    pub(crate) updated: i64,
    pub(crate) unchanged: i64,
    /// Place in the batch, from 0, with reason and detail.
    pub(crate) failures: Vec<(usize, String, String)>,
}

/// Puts the sample catalogue into an empty shop; begun once, it is finished by the next start.
pub(crate) async fn sample(shop: &Shop, folder: &Folder, skus: usize, voice: &Voice) -> anyhow::Result<()> {
    match folder.sample() {
        folder::Sample::Loaded => return Ok(()),
        folder::Sample::Begun => {}
        folder::Sample::Absent => {
            let mut client = CatalogServiceClient::new(shop.channel("catalog"));
            let first = catalog::ListProductsRequest { page_size: 1, ..Default::default() };
            let found = client.list_products(Shop::by_operator(first)).await?.into_inner();
            if !found.products.is_empty() {
                return Ok(folder.set_sample(true)?);
            }
            folder.set_sample(false)?;
        }
    }
    whole_sample(shop, skus, voice).await?;
    Ok(folder.set_sample(true)?)
}

/// Puts the sample catalogue into a shop, whatever of it is there already.
pub(crate) async fn whole_sample(shop: &Shop, skus: usize, voice: &Voice) -> anyhow::Result<()> {
    let mut products = sample::products(skus);
    // The catalogue takes a batch while the warehouses receive the one before.
    let mut before: Vec<Product> = Vec::new();
    loop {
        let batch: Vec<Product> = products.by_ref().take(BATCH).collect();
        let (stocked, received) = tokio::join!(list(shop, &batch), arrive(shop, &before, &[], voice));
        received.context("the sample's stock cannot be received")?;
        let stocked = stocked.context("the sample catalogue cannot be loaded")?;
        if let Some((_, reason, detail)) = stocked.failures.first() {
            anyhow::bail!("the sample catalogue is refused: {reason}: {detail}");
        }
        if batch.is_empty() {
            return Ok(());
        }
        before = batch;
    }
}

/// Creates or replaces these products and receives what they say lies in the warehouses.
pub(crate) async fn put(shop: &Shop, products: &[Product], voice: &Voice) -> anyhow::Result<Stocked> {
    let stocked = list(shop, products).await?;
    arrive(shop, products, &stocked.failures, voice).await?;
    Ok(stocked)
}

/// Creates or replaces these products.
async fn list(shop: &Shop, products: &[Product]) -> anyhow::Result<Stocked> {
    let mut stocked = Stocked::default();
    if products.is_empty() {
        return Ok(stocked);
    }
    let mut client = CatalogServiceClient::new(shop.channel("catalog"));
    let messages: Vec<_> =
        products.iter().map(|it| catalog::ImportProductsRequest { product: Some(message(it)) }).collect();
    let reply = client.import_products(Shop::by_operator(stream::iter(messages))).await?.into_inner();
    stocked.created = reply.created_count;
    stocked.updated = reply.updated_count;
    stocked.unchanged = reply.unchanged_count;
    for failure in reply.failures {
        let place = usize::try_from(failure.line - 1).unwrap_or(0);
        stocked.failures.push((place, failure.reason, failure.message));
    }
    Ok(stocked)
}

/// Receives what these products, but for those that were refused, say lies in the warehouses.
async fn arrive(
    shop: &Shop,
    products: &[Product],
    refused: &[(usize, String, String)],
    voice: &Voice,
) -> anyhow::Result<()> {
    let mut arrivals: BTreeMap<&str, Vec<(&str, i64)>> = BTreeMap::new();
    for (place, product) in products.iter().enumerate() {
        if refused.iter().any(|(refused, ..)| *refused == place) {
            continue;
        }
        for variant in &product.variants {
            for stock in variant.stock.iter().filter(|stock| stock.quantity > 0) {
                arrivals.entry(&stock.warehouse).or_default().push((&variant.sku, stock.quantity));
            }
        }
    }
    for (warehouse, pieces) in arrivals {
        receive(shop, warehouse, &pieces).await?;
        if voice.unheard() {
            anyhow::bail!("nobody waits for it any more");
        }
    }
    Ok(())
}

/// Receives pieces in one warehouse.
pub(crate) async fn receive(shop: &Shop, warehouse: &str, pieces: &[(&str, i64)]) -> anyhow::Result<()> {
    let mut client = InventoryServiceClient::new(shop.channel("inventory"));
    for chunk in pieces.chunks(ADJUSTMENTS) {
        let words: String = chunk.iter().map(|(sku, quantity)| format!("\n{sku} {quantity}")).collect();
        let request = BatchAdjustStockRequest {
            parent: format!("warehouses/{warehouse}"),
            adjustments: chunk
                .iter()
                .map(|(sku, quantity)| StockAdjustment { sku: (*sku).to_owned(), delta: *quantity })
                .collect(),
            reason: AdjustReason::Received.into(),
            note: "import".to_owned(),
            request_id: request_id(&format!("receive {warehouse}{words}")),
        };
        client.batch_adjust_stock(Shop::by_operator(request)).await?;
    }
    Ok(())
}

/// A request id that follows from what is asked.
pub(crate) fn request_id(words: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, format!("stoa import {words}").as_bytes()).to_string()
}

fn message(product: &Product) -> catalog::Product {
    let variants = product.variants.iter().map(|variant| catalog::Variant {
        sku: variant.sku.clone(),
        title: variant.title.clone(),
        options: variant
            .options
            .iter()
            .map(|(name, value)| catalog::VariantOption { name: name.clone(), value: value.clone() })
            .collect(),
        prices: variant.prices.iter().map(|price| money(&price.currency, price.minor)).collect(),
        weight_grams: variant.weight_grams,
        tax_basis_points: variant.tax_basis_points,
        ..Default::default()
    });
    catalog::Product {
        name: if product.id.is_empty() { String::new() } else { format!("products/{}", product.id) },
        title: product.title.clone(),
        description: product.description.clone(),
        brand: product.brand.clone(),
        categories: product.categories.iter().map(|id| format!("categories/{id}")).collect(),
        variants: variants.collect(),
        stocked: Some(product.stocked),
        external_id: product.external_id.clone(),
        ..Default::default()
    }
}

/// An amount as the wire has it; a currency nobody knows is refused by the service.
pub(crate) fn money(currency: &str, minor: i64) -> Money {
    match currency.parse() {
        Ok(currency) => Money::from(contract::Money { currency, minor }),
        Err(_) => Money { currency_code: currency.to_owned(), ..Default::default() },
    }
}
