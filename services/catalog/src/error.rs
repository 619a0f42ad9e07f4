//! Where a rejection and a fault meet: the one place that makes a `Status`.

use contract::Currency;
use log::{Refusable, Refusal};
use server::status;
use tonic::{Code, Status};

use crate::product::Rejection;

/// Why a call of this service fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The domain said no to something about a product.
    #[error("{name}: {rejection}")]
    Rejected { name: String, rejection: Rejection },
    /// The product has changed since the caller read it.
    #[error("{0} has changed")]
    Stale(String),
    /// There is no product or variant of this name.
    #[error("{0} does not exist")]
    Missing(String),
    /// No product for sale has this SKU.
    #[error("SKU {0} is not known")]
    UnknownSku(String),
    /// A variant is not sold in this currency.
    #[error("SKU {sku} has no price in {currency}")]
    NoPrice { sku: String, currency: Currency },
    /// A dry run: everything was checked and nothing is kept.
    #[error("a dry run")]
    DryRun(Box<contracts::catalog::v1::Product>),
    /// The same request was refused before.
    #[error("refused before")]
    Replayed(Refusal),
    /// The log or the store failed.
    #[error(transparent)]
    Log(#[from] log::Error),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Log(error.into())
    }
}

impl Refusable for Error {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Rejected { .. } | Self::Stale(_) | Self::Missing(_) | Self::UnknownSku(_) | Self::NoPrice { .. } => {
                Some(status::refusal_of(&self.status()))
            }
            Self::DryRun(_) | Self::Replayed(_) | Self::Log(_) => None,
        }
    }

    fn replayed(refusal: Refusal) -> Self {
        Self::Replayed(refusal)
    }

    fn is_conflict(&self) -> bool {
        match self {
            Self::Log(log::Error::Store(error)) => error.is_transient(),
            Self::Log(error) => error.is_conflict(),
            Self::Rejected { .. }
            | Self::Stale(_)
            | Self::Missing(_)
            | Self::UnknownSku(_)
            | Self::NoPrice { .. }
            | Self::DryRun(_)
            | Self::Replayed(_) => false,
        }
    }
}

impl Error {
    fn status(&self) -> Status {
        match self {
            Self::Rejected { name, rejection } => rejected(name, rejection),
            Self::Stale(name) => status::stale_etag(name),
            Self::Missing(name) => status::not_found(name),
            Self::UnknownSku(sku) => {
                status::rejected(Code::NotFound, "UNKNOWN_SKU", self.to_string(), [("sku", sku.clone())])
            }
            Self::NoPrice { sku, currency } => status::failed_precondition(
                "CURRENCY_MISMATCH",
                self.to_string(),
                [("sku", sku.clone()), ("currencyCode", currency.to_string())],
            ),
            Self::DryRun(_) => Status::internal("a dry run is answered where it is made"),
            Self::Replayed(refusal) => status::status_of(refusal.clone()),
            Self::Log(error) => status::of_log(error),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.status()
    }
}

fn rejected(name: &str, rejection: &Rejection) -> Status {
    let message = rejection.to_string();
    match rejection {
        Rejection::Missing => status::not_found(name),
        Rejection::Exists => {
            status::rejected(Code::AlreadyExists, "PRODUCT_EXISTS", message, [("product", name.to_owned())])
        }
        Rejection::SkuTaken { sku, product } => status::rejected(
            Code::AlreadyExists,
            "SKU_TAKEN",
            message,
            [("sku", sku.clone()), ("product", product.clone())],
        ),
        Rejection::Invalid(problems) => {
            let violation = |field: &str, text: &str| (format!("product.{field}"), text.to_owned());
            status::invalid_fields(problems.iter().map(|problem| violation(&problem.field, &problem.text)))
        }
    }
}
