//! Shoppers who buy one thing after the other and take no for an answer: whatever fails once has failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use crate::fleet::Fleet;
use crate::shopper::{Shopper, text};
use crate::sold_out::{Begun, SKU};

/// Buyers at work.
pub struct Buyers {
    done: Begun,
    enough: Arc<AtomicBool>,
    tasks: JoinSet<Result<Vec<String>>>,
    goal: usize,
}

impl Buyers {
    /// So many buyers who pay with this token, at the gateways of a fleet, which has so many copies of it.
    pub fn at(fleet: &Fleet, buyers: usize, gateways: usize, token: &'static str) -> Self {
        let (done, enough, mut tasks) = (Begun::default(), Arc::new(AtomicBool::new(false)), JoinSet::new());
        for place in 0..buyers {
            let door = fleet.client_of(place % gateways.max(1));
            let (done, enough) = (done.clone(), Arc::clone(&enough));
            tasks.spawn(async move {
                let mut orders = Vec::new();
                while !enough.load(Ordering::Relaxed) {
                    let mut shopper = Shopper::guest_over(door.again()).await?;
                    let order = shopper.buy("EUR", SKU, 1, token).await?;
                    ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
                    orders.push(text(&order, "name")?);
                    done.count();
                }
                Ok(orders)
            });
        }
        Self { done, enough, tasks, goal: 0 }
    }

    /// Returns when so many more orders are confirmed; fails as soon as one buyer did.
    pub async fn more(&mut self, orders: usize) -> Result<()> {
        self.goal = self.goal.max(self.done.so_far()) + orders;
        tokio::select! {
            reached = self.done.reach(self.goal) => reached,
            Some(ended) = self.tasks.join_next() => ended?.map(drop).context("a buyer was told no"),
        }
    }

    /// Sends them home; every order they were told is confirmed.
    pub async fn home(mut self) -> Result<Vec<String>> {
        self.enough.store(true, Ordering::Relaxed);
        let mut orders = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            orders.extend(ended?.context("a buyer was told no")?);
        }
        Ok(orders)
    }
}
