//! From wire to command to log and back. Nothing is decided here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use contract::Money;
use contracts::payment::v1 as proto;
use contracts::payment::v1::payment_service_server::PaymentService;
use log::Meta;
use server::{Call, status};
use store::{Site, Tx, site};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::payment::{Cancel, Command, Event, Kind, Outcome, Payment, Rejection, Said, Source};
use crate::receipts::{self, Received};
use crate::teller::{Changed, Loaded, Teller, decide, load};
use crate::{webhook, wire};

/// What is kept of a call's time for its answer.
const MARGIN: Duration = Duration::from_millis(150);
const DEFAULT_PAGE: usize = 50;
const SIGNATURE: &str = "stoa-signature";

/// The handlers. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    pub(crate) teller: Teller,
}

impl Rpc {
    /// One command under its request id, then the call to the provider that it needs, answered with the payment and the
    /// attempt as they are when the outcome is known or the caller's time is over. The same request again goes on with
    /// the same attempt.
    async fn perform<M>(
        &self,
        call: Call,
        site: &'static Site,
        request: Option<log::Request>,
        name: String,
        make: M,
    ) -> Result<(Loaded, String), Status>
    where
        M: FnMut(&Payment) -> Result<Command, Error> + Send + 'static,
    {
        let (teller, meta, name_of) = (self.teller.clone(), call.meta(), name.clone());
        let waited = call.deadline.checked_sub(MARGIN).unwrap_or(call.deadline);
        let written: Arc<OnceLock<String>> = Arc::default();
        let known = Arc::clone(&written);
        // One task from the claim to the result: between them nothing of the caller's can be cut off.
        let answered = call.clone();
        let performed = call.detached(async move {
            let (attempt, fresh) = claim(&teller, site, request, &name, &meta, make).await?;
            let attempt = known.get_or_init(|| attempt).clone();
            let loaded = match (fresh, attempt.is_empty()) {
                (true, _) => answered.aside(teller.drive(&name, &attempt, &meta)).await?,
                (false, false) => answered.aside(teller.resume(&name, &attempt, &meta)).await?,
                (false, true) => teller.load(&name).await?,
            };
            Ok((loaded, attempt))
        });
        match tokio::time::timeout_at(waited, performed).await {
            Ok(performed) => performed,
            Err(_) => match written.get() {
                Some(attempt) => Ok((self.teller.load(&name_of).await?, attempt.clone())),
                None => Err(Status::deadline_exceeded("the payment could not be written down in time")),
            },
        }
    }
}

/// Decides one command under its request id. Answers the attempt it is about, and whether this very call wrote it down; a
/// repeat finds it written down.
async fn claim<M>(
    teller: &Teller,
    site: &'static Site,
    request: Option<log::Request>,
    name: &str,
    meta: &Meta,
    mut make: M,
) -> Result<(String, bool), Error>
where
    M: FnMut(&Payment) -> Result<Command, Error> + Send + 'static,
{
    let fresh = Arc::new(AtomicBool::new(false));
    let (log, name, meta, wrote) = (teller.log.clone(), name.to_owned(), meta.clone(), fresh.clone());
    let claimed: Result<proto::Attempt, Error> = teller
        .log
        .once(site, request, async move |tx: &mut Tx| {
            let loaded = load(&log, tx, &name).await?;
            let command = make(&loaded.payment)?;
            let changed = decide(&log, tx, &meta, loaded, &command).await?;
            wrote.store(changed.sent().is_some(), Ordering::Relaxed);
            Ok(proto::Attempt { name: attempt_of(&changed, &command), ..proto::Attempt::default() })
        })
        .await;
    Ok((claimed?.name, fresh.load(Ordering::Relaxed)))
}

/// The attempt a command is about: the one it wrote down last, or the one that did the same before.
fn attempt_of(changed: &Changed, command: &Command) -> String {
    let written = changed.events.iter().rev().find_map(|event| match event {
        Event::Prepared { attempt, .. } => Some(attempt.clone()),
        _ => None,
    });
    let attempts = &changed.loaded.payment.attempts;
    let before = || match command {
        Command::Authorize { .. } => attempts.first(),
        Command::Capture { shipment, .. } => {
            attempts.iter().rev().find(|attempt| attempt.shipment == *shipment && !attempt.is_void())
        }
        Command::Refund { return_id, .. } => {
            attempts.iter().rev().find(|attempt| attempt.return_id == *return_id && !attempt.is_void())
        }
        Command::Cancel { .. } => {
            attempts.last().filter(|attempt| attempt.is_open() && matches!(attempt.kind, Kind::Void | Kind::Refund))
        }
        Command::Expire { .. } | Command::Resend { .. } | Command::Settle { .. } | Command::Continue => None,
    };
    written.or_else(|| before().map(|attempt| attempt.id.clone())).unwrap_or_default()
}

/// A positive amount of money.
fn amount(money: Option<&contracts::google::r#type::Money>) -> Result<Money, Status> {
    let money = money.ok_or_else(|| status::invalid_argument("amount", "is required"))?;
    let money = Money::try_from(money).map_err(|error| status::invalid_argument("amount", error.to_string()))?;
    if money.minor <= 0 {
        return Err(status::invalid_argument("amount", "must be more than 0"));
    }
    Ok(money)
}

/// An amount must be in the payment's own currency.
fn same_currency(payment: &Payment, money: Money) -> Result<(), Error> {
    if payment.currency.is_empty() || payment.currency == money.currency.code() {
        Ok(())
    } else {
        Err(Error::CurrencyMismatch { name: payment.name.clone() })
    }
}

fn attempt_reply(loaded: &Loaded, id: &str) -> Option<proto::Attempt> {
    let attempt = loaded.payment.attempt(id)?;
    Some(wire::attempt(&loaded.payment, attempt, &loaded.traces))
}

fn payment_reply(loaded: &Loaded) -> Option<proto::Payment> {
    Some(wire::payment(&loaded.payment, loaded.version))
}

#[tonic::async_trait]
impl PaymentService for Rpc {
    async fn authorize_payment(
        &self,
        request: Request<proto::AuthorizePaymentRequest>,
    ) -> Result<Response<proto::AuthorizePaymentResponse>, Status> {
        let call = Call::of(&request)?;
        let ask = request.into_inner();
        let money = amount(ask.amount.as_ref())?;
        let key = call.request(&ask, &ask.request_id);
        let command = Command::Authorize {
            order: ask.order,
            customer: ask.customer,
            currency: money.currency.code().to_owned(),
            amount: money.minor,
            token: ask.payment_token,
            provider: self.teller.config.provider.clone(),
        };
        let (loaded, _) = self
            .perform(call, site!("payment.authorize_payment"), key, ask.name, move |_: &Payment| Ok(command.clone()))
            .await?;
        Ok(Response::new(proto::AuthorizePaymentResponse { payment: payment_reply(&loaded) }))
    }

    async fn capture_payment(
        &self,
        request: Request<proto::CapturePaymentRequest>,
    ) -> Result<Response<proto::CapturePaymentResponse>, Status> {
        let call = Call::of(&request)?;
        let ask = request.into_inner();
        let money = amount(ask.amount.as_ref())?;
        let key = call.request(&ask, &ask.request_id);
        let shipment = ask.shipment;
        let (loaded, attempt) = self
            .perform(call, site!("payment.capture_payment"), key, ask.name, move |payment: &Payment| {
                same_currency(payment, money)?;
                Ok(Command::Capture { shipment: shipment.clone(), amount: money.minor })
            })
            .await?;
        Ok(Response::new(proto::CapturePaymentResponse {
            payment: payment_reply(&loaded),
            attempt: attempt_reply(&loaded, &attempt),
        }))
    }

    async fn cancel_payment(
        &self,
        request: Request<proto::CancelPaymentRequest>,
    ) -> Result<Response<proto::CancelPaymentResponse>, Status> {
        let call = Call::of(&request)?;
        let ask = request.into_inner();
        let key = call.request(&ask, &ask.request_id);
        let name = ask.name.clone();
        let (order, reason) = (ask.order, ask.reason);
        let cancel = move |_: &Payment| Ok(Command::Cancel { order: order.clone(), reason: reason.clone() });
        let (loaded, _) = self.cancel(call, key, name, cancel).await?;
        Ok(Response::new(proto::CancelPaymentResponse { payment: payment_reply(&loaded) }))
    }

    async fn refund_payment(
        &self,
        request: Request<proto::RefundPaymentRequest>,
    ) -> Result<Response<proto::RefundPaymentResponse>, Status> {
        let call = Call::of(&request)?;
        let ask = request.into_inner();
        let money = amount(ask.amount.as_ref())?;
        let key = call.request(&ask, &ask.request_id);
        let actor = call.subject().map(|subject| subject.id.clone()).unwrap_or_default();
        let (return_id, reason) = (ask.return_id, ask.reason);
        let (loaded, attempt) = self
            .perform(call, site!("payment.refund_payment"), key, ask.name, move |payment: &Payment| {
                same_currency(payment, money)?;
                Ok(Command::Refund {
                    amount: money.minor,
                    return_id: return_id.clone(),
                    reason: reason.clone(),
                    actor: actor.clone(),
                })
            })
            .await?;
        Ok(Response::new(proto::RefundPaymentResponse {
            payment: payment_reply(&loaded),
            attempt: attempt_reply(&loaded, &attempt),
        }))
    }

    async fn get_payment(
        &self,
        request: Request<proto::GetPaymentRequest>,
    ) -> Result<Response<proto::Payment>, Status> {
        let call = Call::of(&request)?;
        let name = request.into_inner().name;
        let loaded = self.teller.load(&name).await?;
        if loaded.version == 0 || !call.owns(&loaded.payment.customer) {
            return Err(status::not_found(&name));
        }
        Ok(Response::new(wire::payment(&loaded.payment, loaded.version)))
    }

    async fn list_attempts(
        &self,
        request: Request<proto::ListAttemptsRequest>,
    ) -> Result<Response<proto::ListAttemptsResponse>, Status> {
        let call = Call::of(&request)?;
        let list = request.into_inner();
        let cursor = call.cursor(&list.parent, &list.page_token)?;
        let after: usize = cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
        let limit = usize::try_from(list.page_size).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_PAGE);
        let loaded = self.teller.load(&list.parent).await?;
        if loaded.version == 0 {
            return Err(status::not_found(&list.parent));
        }
        let attempts = &loaded.payment.attempts;
        let end = after.saturating_add(limit).min(attempts.len());
        let page = attempts.iter().take(end).skip(after);
        let cursor = (end < attempts.len()).then(|| end.to_string());
        Ok(Response::new(proto::ListAttemptsResponse {
            attempts: page.map(|attempt| wire::attempt(&loaded.payment, attempt, &loaded.traces)).collect(),
            next_page_token: call.page_token(&list.parent, cursor.as_deref()),
        }))
    }

    async fn reconcile_payment(
        &self,
        request: Request<proto::ReconcilePaymentRequest>,
    ) -> Result<Response<proto::ReconcilePaymentResponse>, Status> {
        let call = Call::of(&request)?;
        let ask = request.into_inner();
        let key = call.request(&ask, &ask.request_id);
        let (teller, meta, name) = (self.teller.clone(), call.meta(), ask.name.clone());
        let waited = call.deadline.checked_sub(MARGIN).unwrap_or(call.deadline);
        let answered = call.clone();
        let reconciled = call.detached(async move {
            let log = teller.log.clone();
            let claimed = name.clone();
            let _: proto::Payment = teller
                .log
                .once(site!("payment.reconcile_payment"), key, async move |tx: &mut Tx| {
                    let loaded = load(&log, tx, &claimed).await?;
                    if loaded.version == 0 {
                        return Err(Error::Rejected { name: claimed.clone(), rejection: Rejection::Missing });
                    }
                    Ok(proto::Payment::default())
                })
                .await?;
            Ok(answered.aside(teller.reconcile(&name, &meta)).await?)
        });
        let (loaded, resolved) = match tokio::time::timeout_at(waited, reconciled).await {
            Ok(reconciled) => reconciled?,
            Err(_) => (self.teller.load(&ask.name).await?, 0),
        };
        Ok(Response::new(proto::ReconcilePaymentResponse {
            payment: payment_reply(&loaded),
            resolved_count: i32::try_from(resolved).unwrap_or(i32::MAX),
        }))
    }

    async fn resolve_in_doubt(
        &self,
        request: Request<proto::ResolveInDoubtRequest>,
    ) -> Result<Response<proto::ResolveInDoubtResponse>, Status> {
        let call = Call::of(&request)?;
        let ask = request.into_inner();
        let outcome = match ask.resolution() {
            proto::AttemptResolution::Succeeded if ask.provider_reference.is_empty() => {
                return Err(status::invalid_argument("provider_reference", "is needed for what succeeded"));
            }
            proto::AttemptResolution::Succeeded => Outcome::Done { reference: ask.provider_reference.clone() },
            proto::AttemptResolution::Declined => Outcome::Declined { code: "operator".to_owned() },
            proto::AttemptResolution::NotFound => Outcome::NotFound,
            proto::AttemptResolution::Unspecified => {
                return Err(status::invalid_argument("resolution", "must be said"));
            }
        };
        let (name, attempt) = wire::attempt_parts(&ask.name);
        let in_doubt = {
            let (name, attempt) = (name.clone(), attempt.clone());
            move |payment: &Payment| {
                let reject = |rejection| Error::Rejected { name: name.clone(), rejection };
                let missing = || {
                    let unknown = payment.state.is_none();
                    reject(if unknown { Rejection::Missing } else { Rejection::NoSuchAttempt(attempt.clone()) })
                };
                let found = payment.attempt(&attempt).ok_or_else(missing)?;
                let in_doubt = found.state == crate::payment::AttemptState::InDoubt;
                if in_doubt { Ok(()) } else { Err(reject(Rejection::NotInDoubt)) }
            }
        };
        let actor = call.subject().map(|subject| subject.id.clone()).unwrap_or_default();
        let said = Said { source: Source::Operator, actor, note: ask.note.clone() };
        let command = self.teller.settling(&attempt, outcome, said);
        let loaded = if ask.validate_only {
            let loaded = self.teller.load(&name).await?;
            in_doubt(&loaded.payment)?;
            let reject = |rejection| Error::Rejected { name: name.clone(), rejection };
            let events = loaded.payment.decide(&command).map_err(reject)?;
            let now = loaded.payment.update_time.unwrap_or_default();
            let payment = events.iter().fold(loaded.payment, |payment, event| payment.evolve(event, now));
            Loaded { payment, ..loaded }
        } else {
            let key = call.request(&ask, &ask.request_id);
            self.perform(call, site!("payment.resolve_in_doubt"), key, name, move |payment: &Payment| {
                in_doubt(payment)?;
                Ok(command.clone())
            })
            .await?
            .0
        };
        Ok(Response::new(proto::ResolveInDoubtResponse {
            payment: payment_reply(&loaded),
            attempt: attempt_reply(&loaded, &attempt),
        }))
    }

    async fn ingest_webhook(
        &self,
        request: Request<proto::IngestWebhookRequest>,
    ) -> Result<Response<proto::IngestWebhookResponse>, Status> {
        let call = Call::of(&request)?;
        let headers: Vec<_> = request.metadata().get_all(SIGNATURE).iter().cloned().collect();
        let ingest = request.into_inner();
        let body = ingest.body.map(|body| body.data).unwrap_or_default();
        let config = &self.teller.config;
        let now = self.teller.log.store().clock().now();
        let genuine = ingest.provider == config.provider
            && match headers.as_slice() {
                [only] => only
                    .to_str()
                    .is_ok_and(|header| webhook::verify(&config.webhook_secret, header, &body, now).is_ok()),
                _ => false,
            };
        if !genuine {
            tracing::warn!(target: "audit", provider = ingest.provider, "a webhook without a genuine signature");
            let message = "the message bears no genuine signature";
            return Err(status::rejected(tonic::Code::Unauthenticated, "BAD_SIGNATURE", message, []));
        }
        let notice = webhook::parse(&body)
            .map_err(|problem| status::invalid_argument("body", format!("is no message of the provider: {problem}")))?;
        let (teller, meta) = (self.teller.clone(), call.meta());
        let received = call
            .detached(async move { Ok(receipts::receive(&teller, &ingest.provider, notice, body, &meta).await?) })
            .await?;
        Ok(Response::new(proto::IngestWebhookResponse { duplicate: received == Received::Duplicate }))
    }
}

impl Rpc {
    /// As `perform`, but an attempt that is open already is not waited for: the reconciler finishes the cancel.
    async fn cancel<M>(
        &self,
        call: Call,
        request: Option<log::Request>,
        name: String,
        make: M,
    ) -> Result<(Loaded, String), Status>
    where
        M: FnMut(&Payment) -> Result<Command, Error> + Send + 'static,
    {
        let answer = self.perform(call, site!("payment.cancel_payment"), request, name, make).await?;
        if answer.0.payment.cancel == Cancel::Requested {
            self.teller.hurry(&answer.0.payment.name);
        }
        Ok(answer)
    }
}
