//! The payment provider as this service sees it: five calls, and what an answer can mean.
//!
//! A call is definite or it is not: everything that is neither a yes nor a no of the provider is `Unknown`, and only the
//! same key may be used to ask again.

use futures_util::future::BoxFuture;
use store::Site;
use store::crash::{self, Kind as Point};

use crate::payment::Outcome;

/// A provider. Every call with effects carries the key that makes it safe to repeat.
pub(crate) trait Provider: Send + Sync + 'static {
    /// Sets an amount aside.
    fn authorize<'a>(&'a self, ask: &'a Authorize) -> BoxFuture<'a, Outcome>;
    /// Charges part of an authorization.
    fn capture<'a>(&'a self, ask: &'a Move) -> BoxFuture<'a, Outcome>;
    /// Frees an authorization that was not charged.
    fn void<'a>(&'a self, ask: &'a Move) -> BoxFuture<'a, Outcome>;
    /// Gives back part of what was charged.
    fn refund<'a>(&'a self, ask: &'a Move) -> BoxFuture<'a, Outcome>;
    /// What the provider has under our reference.
    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Found>;
}

/// What is asked to be set aside.
#[derive(Clone, Debug)]
pub(crate) struct Authorize {
    pub(crate) key: String,
    /// Our reference: the payment's name.
    pub(crate) reference: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) token: String,
}

/// What is asked of an authorization; key and reference are one.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) key: String,
    /// The provider's id of the authorization.
    pub(crate) authorization: String,
    pub(crate) amount: i64,
}

/// The answer of a query.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// This is what there is.
    Here(Box<Standing>),
    /// Nothing under that reference.
    Nothing,
    /// No answer.
    Unknown(String),
}

/// An authorization and all that was done to it.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// What it says of the attempt that made it.
    pub(crate) authorize: Outcome,
    /// Whether it is void.
    pub(crate) voided: bool,
    /// (key, id) of every capture, void and refund.
    pub(crate) moves: Vec<(String, String)>,
}

impl Standing {
    /// The provider's id of what was done under a key.
    pub(crate) fn done(&self, key: &str) -> Option<Outcome> {
        let mut moves = self.moves.iter();
        moves.find(|(known, _)| known == key).map(|(_, id)| Outcome::Done { reference: id.clone() })
    }
}

const CALLS: [&str; 5] = [
    "payment->provider/authorize",
    "payment->provider/capture",
    "payment->provider/void",
    "payment->provider/refund",
    "payment->provider/find",
];

/// Makes every call of the provider a crash point that a test can list.
pub(crate) fn register() {
    for call in CALLS {
        Site::named(call);
    }
}

/// Makes a call between its two crash points.
pub(crate) async fn called<T>(name: &'static str, call: impl Future<Output = T>) -> T {
    crash::hit(Point::CallBefore, name);
    let answer = call.await;
    crash::hit(Point::CallAfter, name);
    answer
}
