//! What else goes on in a shop: somebody keeps the catalogue up to date, somebody comes and goes, and some play what a shop
//! is used for: orders that are sent and come back in part, that are cancelled, that nobody pays for.
//!
//! Both insist, and hold each answer against what they know: a product is what was last written to it, and a session that
//! was ended lets nobody in from that moment on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};

use crate::acts::{Act, Stage};
use crate::fleet::Fleet;
use crate::http::{Client, STALE};
use crate::ledger::Provider;
use crate::server::OPERATOR;
use crate::shopper::{Shopper, request_id, text};
use crate::until;

/// How long they repeat one call.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often each of them begins something at most: who never rests would leave two cores little for those who buy.
const EVERY: Duration = Duration::from_millis(500);

/// What is played again and again, at each door by somebody.
const ACTS: [Act; 5] = [Act::Sale, Act::Refusals, Act::Cart, Act::Provider, Act::Goods];

/// Why an act may come to nothing: on a busy machine an order waits half a minute for stock and is refused, as said.
const WAITED: &str = "REJECT_REASON_STOCK_TIMEOUT";

/// They at work.
pub(super) struct Around {
    enough: Arc<AtomicBool>,
    at_work: JoinSet<Result<(&'static str, u64)>>,
}

impl Around {
    /// They begin.
    pub(super) async fn begin(fleet: &Fleet) -> Result<Self> {
        let enough = Arc::new(AtomicBool::new(false));
        let mut at_work = JoinSet::new();
        let keeper = Shopper::operator_over(fleet.client_of(0).insisting(PATIENCE)).await?;
        at_work.spawn(keep(keeper, fleet.client_of(1).insisting(PATIENCE), Arc::clone(&enough)));
        for door in 0..2 {
            at_work.spawn(act(fleet.client_of(door), Arc::clone(&fleet.provider), door, Arc::clone(&enough)));
        }
        let asking = Shopper::operator_over(fleet.client_of(0).insisting(PATIENCE)).await?;
        at_work.spawn(explain(asking, Arc::clone(&enough)));
        at_work.spawn(come_and_go(fleet.client_of(1).insisting(PATIENCE), Arc::clone(&enough)));
        Ok(Self { enough, at_work })
    }

    /// They end; an error if one of them was answered wrongly.
    pub(super) async fn end(self) -> Result<()> {
        self.enough.store(true, Ordering::Relaxed);
        for ended in self.at_work.join_all().await {
            let (what, times) = ended?;
            println!("meanwhile: {times} times {what}");
        }
        Ok(())
    }
}

/// Lets a turn begin no sooner than [`EVERY`] after the last one.
fn turns() -> Interval {
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns
}

/// Writes to a product at one door and reads it at the other.
async fn keep(mut keeper: Shopper, door: Client, enough: Arc<AtomicBool>) -> Result<(&'static str, u64)> {
    let sku = format!("KEPT-{}", uuid::Uuid::new_v4().simple());
    keeper.stock(&sku, 5, 1).await?;
    let found = keeper.http.get(&format!("/v1/products:batchGetVariants?skus={sku}")).await?.ok()?;
    let product = text(&found["variants"][0], "product")?;
    let mut times = 0;
    let reader = door;
    let mut turns = turns();
    while !enough.load(Ordering::Relaxed) {
        turns.tick().await;
        times += 1;
        let words = format!("as it is after {times} changes");
        let path = format!("/v1/{product}?requestId={}", request_id());
        let mut changed = keeper.http.patch(&path, &json!({ "description": words })).await?;
        if changed.status == 401 {
            // A token that has run out is refused at the door of sign-ins too.
            keeper = Shopper::sign_in(keeper.http.anonymous(), OPERATOR.0, OPERATOR.1).await?;
            changed = keeper.http.patch(&path, &json!({ "description": words })).await?;
        }
        ensure!(changed.status == 200, "{}", changed.describe());
        let read = fresh(&reader, &format!("/v1/{product}")).await?;
        ensure!(read["description"] == words, "after {times} changes: {read}");
    }
    Ok(("a product was changed, and read at the other door as it was written", times))
}

/// What the service itself answers: an answer that stands in for one that it cannot give is marked, and may be old.
async fn fresh(reader: &Client, path: &str) -> Result<Value> {
    until(PATIENCE, "an answer that is not old", async || {
        let answer = reader.again().get(path).await?;
        if answer.headers.contains_key(STALE) { Ok(None) } else { answer.ok().map(Some) }
    })
    .await
}

/// Plays one act after the other; each holds what must hold whatever died meanwhile.
async fn act(
    door: Client,
    provider: Arc<Provider>,
    first: usize,
    enough: Arc<AtomicBool>,
) -> Result<(&'static str, u64)> {
    let stage = Stage { client: &door, provider: &provider, patience: PATIENCE };
    let mut times = 0;
    let mut turns = turns();
    for act in ACTS.into_iter().cycle().skip(first) {
        if enough.load(Ordering::Relaxed) {
            break;
        }
        turns.tick().await;
        match act.play(&stage).await {
            Err(error) if format!("{error:#}").contains(WAITED) => println!("{act:?} came to nothing: {WAITED}"),
            played => {
                played?;
                times += 1;
            }
        }
    }
    Ok(("an order was sent and partly returned, or cancelled, or not paid, or a cart filled, or goods received", times))
}

/// Has a newest order explained: what one service does for it is asked of all.
async fn explain(mut asking: Shopper, enough: Arc<AtomicBool>) -> Result<(&'static str, u64)> {
    let mut times = 0;
    let mut turns = turns();
    while !enough.load(Ordering::Relaxed) {
        turns.tick().await;
        let list = asking.http.get("/v1/orders?pageSize=1").await?;
        if list.status == 401 {
            asking = Shopper::sign_in(asking.http.anonymous(), OPERATOR.0, OPERATOR.1).await?;
            continue;
        }
        let list = list.ok()?;
        let Some(order) = list["orders"][0]["name"].as_str() else { continue };
        let told = asking.http.get(&format!("/v1/{order}:explain")).await?.ok()?;
        // What cannot be told now is named.
        let holds = |part: &str| told[part].as_array().is_some_and(|parts| !parts.is_empty());
        ensure!(holds("steps") || holds("missing"), "{order}: {told}");
        times += 1;
    }
    Ok(("an order was explained", times))
}

/// Signs in, ends the session, and is not let in any more.
async fn come_and_go(door: Client, enough: Arc<AtomicBool>) -> Result<(&'static str, u64)> {
    let mut times = 0;
    let mut turns = turns();
    while !enough.load(Ordering::Relaxed) {
        turns.tick().await;
        let mut visitor = Shopper::customer_over(door.again()).await?;
        let sessions = format!("/v1/{}/sessions", visitor.user);
        let list = visitor.http.get(&sessions).await?.ok()?;
        let session = text(&list["sessions"][0], "name").context("no session")?;
        let revoke = json!({ "requestId": request_id() });
        let revoked = visitor.http.post(&format!("/v1/{session}:revoke"), &revoke).await?;
        // Who asks again after a lost answer does so with a token of the session that has ended.
        ensure!([200, 401].contains(&revoked.status), "{}", revoked.describe());
        let refused = visitor.http.get(&sessions).await?;
        ensure!(refused.status == 401, "a session that was ended is let in: {}", refused.describe());
        times += 1;
    }
    Ok(("a session was ended, and let nobody in from then on", times))
}
