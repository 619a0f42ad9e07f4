//! Shops with much in their logs, made through the public API alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::Stoa;
use integration::http::Client;
use integration::shopper::{Shopper, request_id};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::load::SHOPPERS;

/// Stock items that are adjusted, all of them by one call: as many events in one transaction.
pub(crate) const ITEMS: u64 = 1000;

/// Calls in progress at the same time.
const WRITERS: usize = 4;

/// How long one call is repeated.
const PATIENCE: Duration = Duration::from_secs(60);

/// A token is renewed before it runs out.
const TOKEN_AGE: Duration = Duration::from_secs(150);

/// A stocktaking that goes on: every call adds one piece of each item.
#[derive(Clone)]
pub(crate) struct Stocktaking {
    path: String,
    body: Arc<Value>,
    client: Arc<Client>,
    /// Calls that were begun.
    begun: Arc<AtomicU64>,
    /// Calls that were answered well.
    answered: Arc<AtomicU64>,
}

impl Stocktaking {
    /// Over connections like this one.
    pub(crate) async fn begin(client: Client) -> Result<Self> {
        let warehouse = Shopper::operator_over(client.again()).await?.warehouse().await?;
        let adjustments: Vec<Value> = (0..ITEMS).map(|item| json!({ "sku": sku(item), "delta": "1" })).collect();
        Ok(Self {
            path: format!("/v1/{warehouse}/stockItems:batchAdjust"),
            body: Arc::new(json!({ "adjustments": adjustments })),
            client: Arc::new(client),
            begun: Arc::default(),
            answered: Arc::default(),
        })
    }

    /// Calls that were answered well so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    /// Writes until so many calls were begun; each is made until it is answered, over a server that is killed.
    pub(crate) fn write(&self, calls: u64) -> JoinSet<Result<()>> {
        let mut writing = JoinSet::new();
        for _ in 0..WRITERS {
            writing.spawn(self.clone().write_until(calls));
        }
        writing
    }

    async fn write_until(self, calls: u64) -> Result<()> {
        let mut operator: Option<Shopper> = None;
        let mut body = Value::clone(&self.body);
        let mut since = Instant::now();
        while self.begun.fetch_add(1, Ordering::AcqRel) < calls {
            if operator.is_none() || since.elapsed() > TOKEN_AGE {
                since = Instant::now();
                operator = Some(Shopper::operator_over(self.client.again().insisting(PATIENCE)).await?);
            }
            body["requestId"] = json!(request_id());
            let operator = operator.as_mut().context("nobody is signed in")?;
            operator.http.post(&self.path, &body).await?.ok()?;
            self.answered.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Whether each item has exactly the pieces it was told to have: one an answered call.
    pub(crate) async fn judge(&self, stoa: &Stoa) -> Result<()> {
        let (first, last) = (sku(0), sku(ITEMS - 1));
        let stock = Shopper::operator(stoa).await?.availability(&[&first, &last]).await?;
        let wanted = self.answered().to_string();
        for item in stock["availabilities"].as_array().context("no stock")? {
            ensure!(item["available"] == wanted.as_str(), "{wanted} pieces were acknowledged, but {item}");
        }
        Ok(())
    }
}

fn sku(item: u64) -> String {
    format!("COUNTED-{item:04}")
}

/// Orders of so many guests, all confirmed.
pub(crate) async fn orders(stoa: &Stoa, count: usize) -> Result<()> {
    Shopper::operator(stoa).await?.stock("ORDERED", 10, count as i64).await?;
    let mut buying = JoinSet::new();
    for shopper in 0..SHOPPERS {
        let client = stoa.client();
        let mine = count / SHOPPERS + usize::from(shopper < count % SHOPPERS);
        buying.spawn(async move {
            for _ in 0..mine {
                let mut guest = Shopper::guest_over(client.again()).await?;
                let order = guest.buy("EUR", "ORDERED", 1, "tok_ok").await?;
                ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
            }
            anyhow::Ok(())
        });
    }
    crate::load::finish(buying).await
}
