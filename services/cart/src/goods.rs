//! What a cart asks of others: catalog for variants and prices, shipping for rates.
//!
//! What a SKU *is* is remembered for a short while, because the same few things are put into many carts. What it *costs* is
//! asked every time.

use std::collections::HashMap;
use std::sync::Arc;

use client::{Caller, Channel};
use contract::{Currency, Money};
use contracts::catalog::v1 as catalog;
use contracts::catalog::v1::catalog_service_client::CatalogServiceClient;
use contracts::google::rpc;
use contracts::google::r#type::Money as WireMoney;
use contracts::shipping::v1 as shipping;
use contracts::shipping::v1::shipping_service_client::ShippingServiceClient;
use moka::future::Cache;
use prost::Message as _;
use server::{Call, status};
use tonic::{Code, Status};

use crate::config::Config;
use crate::quote::{Carriage, Offer};

/// SKUs that one call to the catalogue may name.
const MOST_SKUS: usize = 1_000;

/// The other services as cart uses them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Goods {
    catalog: CatalogServiceClient<Channel>,
    shipping: ShippingServiceClient<Channel>,
    variants: Cache<String, Arc<Variant>>,
}

/// What a SKU is.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) stocked: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// Nothing is sold under this SKU.
    #[error("nothing is sold as {0:?}")]
    UnknownSku(String),
    /// The other service said no, in words that are for the caller.
    #[error("{}", .0.message())]
    Refused(Status),
    /// The other service failed.
    #[error("{service} failed: {status}")]
    Failed { service: &'static str, status: Status },
}

impl Unanswered {
    /// What the caller of cart is told.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::UnknownSku(sku) => {
                status::rejected(Code::NotFound, "UNKNOWN_SKU", self.to_string(), [("sku", sku.clone())])
            }
            Self::Refused(status) => status.clone(),
            Self::Failed { service, status } => match status.code() {
                Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled => {
                    let message = format!("{service} does not answer now");
                    status::unavailable(message, std::time::Duration::from_millis(200))
                }
                _ => status::fault(service, self),
            },
        }
    }
}

impl Goods {
    pub(crate) fn new(caller: &Caller, config: &Config) -> Self {
        let variants =
            Cache::builder().max_capacity(config.variants_at_most).time_to_live(config.variants_kept).build();
        Self {
            catalog: CatalogServiceClient::new(caller.channel("catalog")),
            shipping: ShippingServiceClient::new(caller.channel("shipping")),
            variants,
        }
    }

    /// What these SKUs are: all of them, or the first that is nothing.
    pub(crate) async fn variants(
        &self,
        call: &Call,
        skus: impl Iterator<Item = &str>,
    ) -> Result<HashMap<String, Arc<Variant>>, Unanswered> {
        let mut found: HashMap<String, Arc<Variant>> = HashMap::new();
        let mut unknown: Vec<String> = vec![];
        let mut seen = std::collections::HashSet::new();
        for sku in skus.filter(|sku| seen.insert(*sku)) {
            match self.variants.get(sku).await {
                Some(variant) => {
                    found.insert(sku.to_owned(), variant);
                }
                None => unknown.push(sku.to_owned()),
            }
        }
        for skus in unknown.chunks(MOST_SKUS) {
            let ask = catalog::BatchGetVariantsRequest { names: vec![], skus: skus.to_vec() };
            let answer = self.catalog.clone().batch_get_variants(call.itself().request(ask)).await;
            let answer = answer.map_err(|status| of_catalog(status, skus))?.into_inner();
            for variant in answer.variants {
                let known = Arc::new(Variant {
                    title: title(&variant),
                    name: variant.name,
                    stocked: variant.stocked.unwrap_or(true),
                });
                self.variants.insert(variant.sku.clone(), Arc::clone(&known)).await;
                found.insert(variant.sku, known);
            }
            if let Some(missing) = skus.iter().find(|sku| !found.contains_key(*sku)) {
                return Err(Unanswered::UnknownSku(missing.clone()));
            }
        }
        Ok(found)
    }

    /// What these SKUs cost now, each named once.
    pub(crate) async fn offers(
        &self,
        call: &Call,
        skus: Vec<String>,
        currency: Currency,
    ) -> Result<HashMap<String, Offer>, Unanswered> {
        let ask = catalog::ResolvePricesRequest { skus: skus.clone(), currency_code: currency.code().to_owned() };
        let answer = self.catalog.clone().resolve_prices(call.itself().request(ask)).await;
        let answer = answer.map_err(|status| match of_catalog(status, &skus) {
            // The cart exists: it is something in it that is sold no more.
            Unanswered::UnknownSku(sku) => {
                let message = format!("{sku:?} is not sold any more");
                Unanswered::Refused(status::failed_precondition("UNKNOWN_SKU", message, [("sku", sku)]))
            }
            other => other,
        })?;
        let mut offers = HashMap::new();
        for price in answer.into_inner().prices {
            let offer = Offer {
                price: amount("catalog", price.unit_price.as_ref(), currency)?,
                basis_points: rate(price.tax_basis_points),
                weight: price.weight_grams.max(0),
                stocked: price.stocked,
            };
            offers.insert(price.sku, offer);
        }
        match skus.into_iter().find(|sku| !offers.contains_key(sku)) {
            Some(sku) => Err(broken("catalog", format!("no price of {sku:?} in the answer"))),
            None => Ok(offers),
        }
    }

    /// What sending costs: by the service named, or the cheapest.
    pub(crate) async fn carriage(
        &self,
        call: &Call,
        country: &str,
        service: &str,
        weight: i64,
        subtotal: Money,
    ) -> Result<Carriage, Unanswered> {
        let ask = shipping::QuoteRatesRequest {
            country_code: country.to_owned(),
            weight_grams: weight,
            currency_code: subtotal.currency.code().to_owned(),
            subtotal: Some(subtotal.into()),
        };
        let answer = self.shipping.clone().quote_rates(call.itself().request(ask)).await;
        let rates = match answer {
            Ok(answer) => answer.into_inner().rates,
            // A weight or a worth beyond what the contract of shipping knows.
            Err(status) if status.code() == Code::InvalidArgument => vec![],
            Err(status) => return Err(answered("shipping", status)),
        };
        if rates.is_empty() {
            let message = "nothing is sent there, or not so much";
            let details = [("country", country.to_owned()), ("weightGrams", weight.to_string())];
            return Err(Unanswered::Refused(status::failed_precondition("NO_SHIPPING", message, details)));
        }
        let chosen = rates.iter().find(|rate| service.is_empty() || rate.shipping_service == service);
        let Some(chosen) = chosen else {
            let names: Vec<&str> = rates.iter().map(|rate| rate.shipping_service.as_str()).collect();
            let problem = format!("must be one of {}", names.join(", "));
            return Err(Unanswered::Refused(status::invalid_argument("shipping_service", problem)));
        };
        Ok(Carriage {
            price: amount("shipping", chosen.price.as_ref(), subtotal.currency)?,
            basis_points: rate(chosen.tax_basis_points),
            service: chosen.shipping_service.clone(),
            country: country.to_owned(),
        })
    }
}

/// The product's title with what sets the variant apart.
fn title(variant: &catalog::Variant) -> String {
    let options: Vec<&str> = variant.options.iter().map(|option| option.value.as_str()).collect();
    let own = if variant.title.is_empty() { options.join(", ") } else { variant.title.clone() };
    let mut title = match (variant.product_title.as_str(), own.as_str()) {
        ("", "") => variant.sku.clone(),
        ("", own) => own.to_owned(),
        (product, "") => product.to_owned(),
        (product, own) if product == own => product.to_owned(),
        (product, own) => format!("{product}, {own}"),
    };
    if let Some((end, _)) = title.char_indices().nth(500) {
        title.truncate(end);
    }
    title
}

fn amount(service: &'static str, money: Option<&WireMoney>, currency: Currency) -> Result<i64, Unanswered> {
    let money = money.ok_or_else(|| broken(service, "a price is missing".to_owned()))?;
    let money = Money::try_from(money).map_err(|error| broken(service, error.to_string()))?;
    if money.currency != currency || money.minor < 0 {
        return Err(broken(service, format!("{money} is no price in {currency}")));
    }
    Ok(money.minor)
}

fn rate(basis_points: i32) -> u32 {
    u32::try_from(basis_points).unwrap_or(0)
}

fn broken(service: &'static str, detail: String) -> Unanswered {
    Unanswered::Failed { service, status: Status::internal(detail) }
}

fn of_catalog(status: Status, asked: &[String]) -> Unanswered {
    if status.code() == Code::NotFound {
        return Unanswered::UnknownSku(named_in(&status, asked));
    }
    answered("catalog", status)
}

fn answered(service: &'static str, status: Status) -> Unanswered {
    match status.code() {
        Code::FailedPrecondition => Unanswered::Refused(status),
        _ => Unanswered::Failed { service, status },
    }
}

/// The one of the SKUs asked for that a refusal is about: the one in its details, else the longest in its words.
fn named_in(status: &Status, asked: &[String]) -> String {
    if let [only] = asked {
        return only.clone();
    }
    let details = rpc::Status::decode(status.details()).unwrap_or_default().details;
    let infos = details.iter().filter_map(|detail| detail.unpack::<rpc::ErrorInfo>()?.ok());
    let said: Vec<String> = infos.flat_map(|info| info.metadata.into_values()).collect();
    let exact = asked.iter().find(|sku| said.contains(sku));
    let spoken = || asked.iter().filter(|sku| status.message().contains(sku.as_str())).max_by_key(|sku| sku.len());
    exact.or_else(spoken).cloned().unwrap_or_default()
}
