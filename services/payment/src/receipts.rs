//! Webhooks: received once, applied once, in one transaction with what they change.
//!
//! Each message is a stream of its own, `webhooks/{provider}/{event}`, so the same message again finds it there. One
//! about a payment nobody knows yet is parked, and applied when the payment turns up; the lot is bounded. What a message
//! says is merged like an answer: what is known already changes nothing, whatever the order of arrival.

use contracts::payment::v1 as proto;
use log::{Meta, Refusable as _};
use store::{Tx, site};

use crate::error::Error;
use crate::payment::{Attempt, Command, Event, Kind, Outcome, Source};
use crate::teller::{Changed, Teller, decide, load, told};
use crate::webhook::{self, Notice};
use crate::{store as rows, wire};

/// Parked messages tried in one round.
const REDEEM_BATCH: u32 = 64;
const CONFLICT_ATTEMPTS: u32 = 8;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// It was known.
    Duplicate,
    /// It is kept and dealt with, as far as it can be.
    Stored,
}

/// Takes a genuine message.
pub(crate) async fn receive(
    teller: &Teller,
    provider: &str,
    notice: Notice,
    body: Vec<u8>,
    meta: &Meta,
) -> Result<Received, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        let (log, lot, meta) = (teller.log.clone(), teller.config.parked_webhooks, meta.clone());
        let command = command(teller, &notice);
        let (provider, notice, body) = (provider.to_owned(), notice.clone(), body.clone());
        let payment = wire::payment_of_key(&notice.key).to_owned();
        let received = log
            .clone()
            .store()
            .write(site!("payment.ingest_webhook"), async move |tx: &mut Tx| {
                let stream = stream(&provider, &notice.id);
                if log.version(tx, &stream).await? > 0 {
                    return Ok::<_, Error>((Received::Duplicate, None));
                }
                let received = proto::Event::WebhookReceived(proto::WebhookReceived {
                    provider: provider.clone(),
                    event_id: notice.id.clone(),
                    event_type: notice.kind.clone(),
                    provider_key: notice.key.clone(),
                    provider_reference: notice.reference.clone(),
                    body: body.clone(),
                });
                log.append(tx, &stream, 0, &meta, None, vec![received]).await?;
                let applied = apply(&log, tx, &meta, &provider, &notice, &command).await?;
                if applied.is_none() {
                    if rows::parked_webhooks(tx).await? >= i64::from(lot) {
                        return Err(Error::LotFull);
                    }
                    let parked = proto::Event::WebhookParked(proto::WebhookParked {
                        provider: provider.clone(),
                        event_id: notice.id.clone(),
                        reason: "UNKNOWN_PAYMENT".to_owned(),
                    });
                    log.append(tx, &stream, 1, &meta, None, vec![parked]).await?;
                }
                Ok((Received::Stored, applied.flatten()))
            })
            .await;
        match received {
            Ok((received, changed)) => {
                if changed.is_some_and(|changed| changed.sent().is_some()) {
                    teller.hurry(&payment);
                }
                return Ok(received);
            }
            Err(error) if error.is_conflict() && tries < CONFLICT_ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

/// Applies parked messages whose payment is known by now.
pub(crate) async fn redeem(teller: &Teller) -> Result<(), Error> {
    let parked =
        teller.log.store().read(async move |tx: &mut Tx| rows::redeemable_webhooks(tx, REDEEM_BATCH).await).await;
    for (provider, event_id) in parked.map_err(Error::from)? {
        let log = teller.log.clone();
        let stream = stream(&provider, &event_id);
        let entries = {
            let (log, stream) = (log.clone(), stream.clone());
            log.clone().store().read(async move |tx: &mut Tx| Ok::<_, Error>(log.load(tx, &stream).await?)).await?
        };
        let received = entries.iter().find_map(|entry| match &entry.event {
            proto::Event::WebhookReceived(received) => Some(received),
            _ => None,
        });
        let Some(notice) = received.and_then(|received| webhook::parse(&received.body).ok()) else { continue };
        let meta = entries.last().map(|entry| Meta::caused_by("payment", &entry.at)).unwrap_or_default();
        let command = command(teller, &notice);
        let payment = wire::payment_of_key(&notice.key).to_owned();
        let changed = log
            .clone()
            .store()
            .write(site!("payment.ingest_webhook"), async move |tx: &mut Tx| {
                Ok::<_, Error>(apply(&log, tx, &meta, &provider, &notice, &command).await?.flatten())
            })
            .await?;
        if changed.is_some_and(|changed| changed.sent().is_some()) {
            teller.hurry(&payment);
        }
    }
    Ok(())
}

/// What a message says, as a command to an attempt that is filled in once the payment is loaded.
fn command(teller: &Teller, notice: &Notice) -> Command {
    let unknown = || Outcome::Unknown { error: String::new() };
    let outcome = notice.outcome.clone().map_or_else(unknown, |(_, outcome)| outcome);
    teller.settling("", outcome, told(Source::Webhook))
}

/// Applies a message to its payment and says so in the message's stream; nothing if there is no such payment. The inner
/// option is the change it made, if any.
async fn apply(
    log: &log::Log<proto::Event>,
    tx: &mut Tx,
    meta: &Meta,
    provider: &str,
    notice: &Notice,
    command: &Command,
) -> Result<Option<Option<Changed>>, Error> {
    let payment = wire::payment_of_key(&notice.key);
    if payment.is_empty() {
        return Ok(None);
    }
    let loaded = load(log, tx, payment).await?;
    if loaded.payment.attempts.is_empty() {
        return Ok(None);
    }
    let about = |attempt: &&Attempt| match &notice.outcome {
        Some((Kind::Authorize, _)) => attempt.kind == Kind::Authorize,
        Some((kind, _)) => attempt.kind == *kind && attempt.key == notice.key,
        None => false,
    };
    let attempt = loaded.payment.attempts.iter().find(about).map(|attempt| attempt.id.clone());
    let changed = match (attempt, command.clone()) {
        (Some(id), Command::Settle { outcome, said, action_expire_time, authorization_expire_time, .. }) => {
            let command = Command::Settle { attempt: id, outcome, said, action_expire_time, authorization_expire_time };
            Some(decide(log, tx, meta, loaded, &command).await?)
        }
        _ => None,
    };
    let changed = changed.filter(|changed: &Changed| !changed.events.is_empty());
    let outcome = match &changed {
        Some(changed) if changed.events.iter().any(|event| matches!(event, Event::CancelRequested { .. })) => "UNDONE",
        Some(_) => "CHANGED",
        None => "KNOWN",
    };
    let applied = proto::Event::WebhookApplied(proto::WebhookApplied {
        provider: provider.to_owned(),
        event_id: notice.id.clone(),
        payment: payment.to_owned(),
        outcome: outcome.to_owned(),
    });
    log.append_next(tx, &stream(provider, &notice.id), meta, None, vec![applied]).await?;
    Ok(Some(changed))
}

fn stream(provider: &str, event_id: &str) -> String {
    format!("webhooks/{provider}/{event_id}")
}
