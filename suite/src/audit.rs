//! The audit: what must hold over all services and the payment provider, looked at from outside of each.
//!
//! It reads every log whole (so every checksum too), folds stock, orders and payments by its own arithmetic, has every
//! service compare its tables with its log, and holds against the logs what others know of them: the provider's ledger,
//! answers that callers got, versions that consumers have dealt with. It changes nothing.
//!
//! A shop in one process and a fleet are asked the same questions, through the contract that operators have; only the logs of
//! services in this process are read where they are. Of several copies of a service one is asked: they share what is looked at.
//!
//! A shop that runs is not still: what looks broken is looked at again, and told only if it stays so. Who does not answer is
//! asked again too; then nothing is said but that, for silence is no finding.

mod acknowledged;
mod findings;
mod logs;
mod money;
mod orders;
mod sagas;
mod stock;
mod tables;

use std::time::Duration;

use crate::shop::{Shop, Unreached};
use crate::work::Voice;
use crate::{audit::findings::Findings, ledger};

/// Pauses between the looks at one shop before what looks broken in all of them is believed, and before one that does not
/// answer is given up.
const PAUSES_MS: [u64; 3] = [400, 800, 1600];

/// Says one line an invariant; true if all hold.
pub(crate) async fn audit(shop: &Shop, voice: &Voice) -> anyhow::Result<bool> {
    let (mut seen, mut away) = (PAUSES_MS.into_iter(), PAUSES_MS.into_iter());
    let mut before: Option<Findings> = None;
    let findings = loop {
        let pause = match look(shop).await {
            Ok(mut findings) => {
                if let Some(earlier) = &before {
                    findings.stayed(earlier);
                }
                let Some(pause) = seen.next().filter(|_| !findings.hold()) else { break findings };
                before = Some(findings);
                pause
            }
            Err(error) if error.is::<Unreached>() => match away.next() {
                Some(pause) => pause,
                None => return Err(error),
            },
            Err(error) => return Err(error),
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    };
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
    findings.join(tables?);
    books.stock.judge(now, &mut findings);
    money::judge(&books, ledger, &mut findings);
    orders::judge(&books, &shop.context.windows, now, &mut findings);
    acknowledged::judge(shop, &books, now, &mut findings).await?;
    sagas::judge(shop, now, &mut findings).await?;
    Ok(findings)
}
