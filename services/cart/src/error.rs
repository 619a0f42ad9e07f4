//! Where a rejection and a fault meet: the one place that makes a `Status`.

use contracts::cart::v1::Quote;
use log::{Refusable, Refusal};
use server::status;
use tonic::{Code, Status};

use crate::cart::Rejection;
use crate::goods::Unanswered;
use crate::{quote, wire};

/// Why a call of this service fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The cart said no.
    #[error("{cart}: {rejection}")]
    Rejected { cart: String, rejection: Rejection },
    /// The cart cannot be priced.
    #[error("{cart}: {rejection}")]
    Unpriced { cart: String, rejection: quote::Rejection },
    /// There is none, or none that the caller may know of.
    #[error("{0} does not exist")]
    Missing(String),
    /// The cart changed since the caller read it.
    #[error("{0} has changed since it was read")]
    Stale(String),
    /// A field does not fit the cart.
    #[error("{field} {problem}")]
    Invalid { field: String, problem: String },
    /// A price is in another currency than the cart.
    #[error("{cart} is in {currency}, and {field} is not")]
    OtherCurrency { cart: String, currency: String, field: String },
    /// The customer has as many open carts as one may have.
    #[error("{customer} has {most} open carts, and may not have more")]
    TooManyCarts { customer: String, most: i64 },
    /// The quote token was not signed here for this cart.
    #[error("the quote is not one of this shop for {0}")]
    Forged(String),
    /// The quote does not hold any more; with the one that does, if the cart can be priced.
    #[error("the quote of {cart} does not hold any more")]
    QuoteChanged { cart: String, quote: Option<Box<Quote>> },
    /// Another service said no, or nothing.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
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
            Self::Rejected { .. }
            | Self::Unpriced { .. }
            | Self::Missing(_)
            | Self::Stale(_)
            | Self::OtherCurrency { .. }
            | Self::TooManyCarts { .. }
            | Self::Unanswered(Unanswered::UnknownSku(_) | Unanswered::Refused(_)) => {
                Some(status::refusal_of(&self.status()))
            }
            Self::Invalid { .. }
            | Self::Forged(_)
            | Self::QuoteChanged { .. }
            | Self::Unanswered(Unanswered::Failed { .. })
            | Self::Replayed(_)
            | Self::Log(_) => None,
        }
    }

    fn replayed(refusal: Refusal) -> Self {
        Self::Replayed(refusal)
    }

    fn is_conflict(&self) -> bool {
        match self {
            Self::Log(error) => error.is_conflict(),
            Self::Rejected { .. }
            | Self::Unpriced { .. }
            | Self::Missing(_)
            | Self::Stale(_)
            | Self::Invalid { .. }
            | Self::OtherCurrency { .. }
            | Self::TooManyCarts { .. }
            | Self::Forged(_)
            | Self::QuoteChanged { .. }
            | Self::Unanswered(_)
            | Self::Replayed(_) => false,
        }
    }
}

impl Error {
    fn status(&self) -> Status {
        let message = self.to_string();
        match self {
            Self::Rejected { cart, rejection } => rejected(cart, rejection),
            Self::Unpriced { cart, rejection } => unpriced(cart, *rejection),
            Self::Missing(name) => status::not_found(name),
            Self::Stale(cart) => status::stale_etag(cart),
            Self::Invalid { field, problem } => status::invalid_argument(field, problem),
            Self::OtherCurrency { cart, currency, field } => {
                let details = [("cart", cart.clone()), ("currency", currency.clone()), ("field", field.clone())];
                status::rejected(Code::InvalidArgument, "CURRENCY_MISMATCH", message, details)
            }
            Self::TooManyCarts { customer, most } => {
                let details = [("customer", customer.clone()), ("most", most.to_string())];
                status::rejected(Code::ResourceExhausted, "TOO_MANY_CARTS", message, details)
            }
            Self::Forged(cart) => {
                status::rejected(Code::InvalidArgument, "QUOTE_INVALID", message, [("cart", cart.clone())])
            }
            Self::QuoteChanged { cart, quote } => {
                let status = status::failed_precondition("QUOTE_CHANGED", message, [("cart", cart.clone())]);
                match quote {
                    Some(quote) => status::with_detail(&status, "stoa.cart.v1.Quote", quote.as_ref()),
                    None => status,
                }
            }
            Self::Unanswered(unanswered) => unanswered.status(),
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

fn rejected(cart: &str, rejection: &Rejection) -> Status {
    let resource = ("cart", cart.to_owned());
    let message = rejection.to_string();
    match rejection {
        Rejection::Missing => status::not_found(cart),
        Rejection::Closed { order } => {
            status::failed_precondition("CART_CLOSED", message, [resource, ("order", order.clone())])
        }
        Rejection::TooManyLines => status::failed_precondition("TOO_MANY_LINES", message, [resource]),
        Rejection::Units { sku, .. } => {
            status::failed_precondition("TOO_MANY_UNITS", message, [resource, ("sku", sku.clone())])
        }
        Rejection::NoSuchLine { line } => status::not_found(&wire::item_name(cart, *line)),
    }
}

fn unpriced(cart: &str, rejection: quote::Rejection) -> Status {
    let resource = ("cart", cart.to_owned());
    let message = rejection.to_string();
    match rejection {
        quote::Rejection::Empty => status::failed_precondition("CART_EMPTY", message, [resource]),
        quote::Rejection::TooLarge => status::failed_precondition("AMOUNT_TOO_LARGE", message, [resource]),
        quote::Rejection::Negative | quote::Rejection::Unfit => status::fault("pricing", &rejection),
    }
}
