//! Somebody who shops while others attack: every call must go right.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;

use crate::Stoa;
use crate::shopper::{Shopper, text};

/// Between two rounds: somebody who reads what comes.
const PAUSE: Duration = Duration::from_millis(10);

/// People who shop on connections of their own, until they are asked how it went.
pub struct Bystanders {
    over: Arc<AtomicBool>,
    shoppers: Vec<JoinHandle<Result<Vec<Duration>>>>,
}

impl Bystanders {
    /// So many, each with a cart.
    pub async fn at(stoa: &Stoa, count: usize) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let mut shoppers = vec![];
        for _ in 0..count {
            let mut shopper = Shopper::guest(stoa).await?;
            let sku = shopper.something().await?;
            let cart = text(&shopper.cart("EUR").await?, "name")?;
            let over = Arc::clone(&over);
            shoppers.push(tokio::spawn(async move {
                let mut times = vec![];
                let mut quantity = 0_u64;
                // One round at least, however short the attack.
                while times.is_empty() || !over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let list = shopper.http.get("/v1/products?pageSize=20").await?.ok()?;
                    times.push(begun.elapsed());
                    ensure!(list["products"].as_array().is_some_and(|all| all.len() == 20), "{list}");
                    if quantity < 50 {
                        quantity += 1;
                        shopper.add(&cart, &sku, 1).await.context("a line is added")?;
                    }
                    let begun = Instant::now();
                    let read = shopper.http.get(&format!("/v1/{cart}")).await?.ok()?;
                    times.push(begun.elapsed());
                    ensure!(read["items"][0]["quantity"] == quantity, "{quantity} were added: {read}");
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(times)
            }));
        }
        Ok(Self { over, shoppers })
    }

    /// How long their reads took; the first thing that went wrong is the error.
    pub async fn home(self) -> Result<Vec<Duration>> {
        self.over.store(true, Ordering::Relaxed);
        let mut all = vec![];
        for shopper in self.shoppers {
            all.extend(shopper.await?.context("somebody who shopped meanwhile")?);
        }
        Ok(all)
    }
}
