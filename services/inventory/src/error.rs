//! Where a rejection and a fault meet: the one place that makes a `Status`.

use log::{Refusable, Refusal};
use server::status;
use tonic::{Code, Status};

use crate::reservation::Rejection;

/// Why a call of this service fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The domain said no to something about a reservation.
    #[error("{name}: {rejection}")]
    Rejected { name: String, rejection: Rejection },
    /// An adjustment would leave less on the shelf than is promised.
    #[error("{item} has {free} units that are not promised")]
    TooFew { item: String, free: i64 },
    /// A dry run: everything was checked and nothing is kept.
    #[error("a dry run")]
    DryRun(Box<contracts::inventory::v1::StockItem>),
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
            Self::Rejected { .. } | Self::TooFew { .. } => Some(status::refusal_of(&self.status())),
            Self::DryRun(_) | Self::Replayed(_) | Self::Log(_) => None,
        }
    }

    fn replayed(refusal: Refusal) -> Self {
        Self::Replayed(refusal)
    }

    fn is_conflict(&self) -> bool {
        match self {
            Self::Log(log::Error::Store(error)) => error.is_transient() || crate::store::is_guarded_off(error),
            Self::Log(error) => error.is_conflict(),
            Self::Rejected { .. } | Self::TooFew { .. } | Self::DryRun(_) | Self::Replayed(_) => false,
        }
    }
}

impl Error {
    fn status(&self) -> Status {
        match self {
            Self::Rejected { name, rejection } => rejected(name, rejection),
            Self::TooFew { item, free } => status::failed_precondition(
                "STOCK_PROMISED",
                format!("{item} has only {free} units that are neither held nor sold"),
                [("stockItem", item.clone()), ("free", free.to_string())],
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
    let resource = ("reservation", name.to_owned());
    let skus = |skus: &[String]| ("skus", skus.join(","));
    let message = rejection.to_string();
    match rejection {
        Rejection::Missing => status::not_found(name),
        Rejection::OutOfStock(lacking) => {
            status::failed_precondition("OUT_OF_STOCK", message, [resource, skus(lacking)])
        }
        Rejection::StockGone(lacking) => status::failed_precondition("STOCK_GONE", message, [resource, skus(lacking)]),
        Rejection::Closed => status::failed_precondition("RESERVATION_CLOSED", message, [resource]),
        Rejection::WrongState(_) => status::failed_precondition("WRONG_STATE", message, [resource]),
        Rejection::TooMany { sku, .. } => {
            let reason = "TOO_MANY_UNITS";
            status::rejected(Code::FailedPrecondition, reason, message, [resource, ("sku", sku.clone())])
        }
    }
}
