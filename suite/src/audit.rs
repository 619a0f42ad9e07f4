//! The audit: what must hold over all services and the payment provider, looked at from outside of each.
//!
//! It reads every log whole (so every checksum too), folds stock, orders and payments by its own arithmetic, has every
//! service compare its tables with its log, and holds against the logs what others know of them: the provider's ledger,
//! answers that callers got, versions that consumers have dealt with. It changes nothing.
//!
//! A shop that runs is not still: what looks broken is looked at again, and told only if it stays so.

mod acknowledged;
mod findings;
mod logs;
mod money;
mod orders;
mod reply;
mod sagas;
mod stock;
mod tables;

use std::time::Duration;

use crate::shop::Shop;
use crate::work::Voice;
use crate::{audit::findings::Findings, ledger};

/// Looks at one shop before what looks broken is believed.
const LOOKS: usize = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(400);

/// Says one line an invariant; true if all hold.
pub(crate) async fn audit(shop: &Shop, voice: &Voice) -> anyhow::Result<bool> {
    let mut findings = look(shop).await?;
    for _ in 1..LOOKS {
        if findings.hold() {
            break;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        findings = look(shop).await?;
    }
    for line in findings.lines() {
        voice.line(line).await;
    }
    Ok(findings.hold())
}

async fn look(shop: &Shop) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let now = shop.context.clock.now();
    // First the ledger: what it has, the logs must come to know, and not the other way round.
    let ledger = ledger::fetch(&shop.provider).await;
    // The services compare their tables while the logs are read: neither waits for the other.
    let (books, tables) = tokio::join!(logs::read(shop, &mut findings), tables::judge(shop));
    let books = books?;
    findings.join(tables);
    books.stock.judge(&mut findings);
    money::judge(&books, ledger, &mut findings);
    orders::judge(&books, &shop.context.windows, now, &mut findings);
    acknowledged::judge(shop, &books, now, &mut findings).await;
    sagas::judge(shop, now, &mut findings).await?;
    Ok(findings)
}
