//! Payments, folded from payment's log, held against the orders and against the provider's own ledger.

use std::collections::{BTreeMap, HashMap, HashSet};

use bus::Message;
use contracts::payment::v1::{AttemptKind, Event};

use super::findings::{Findings, Invariant};
use super::logs::Books;
use super::orders::Outcome;
use crate::ledger::{Entry, Kind};

/// One payment.
#[derive(Debug, Default)]
struct Payment {
    order: String,
    currency: String,
    authorized: i64,
    voided: i64,
    captured: i64,
    refunded: i64,
    /// Parcels by the keys of what was charged for them.
    shipments: HashMap<String, String>,
    in_doubt: HashSet<String>,
    attempts: HashMap<String, (AttemptKind, String, String)>,
}

/// Every payment, as far as the log was read.
#[derive(Debug, Default)]
pub(crate) struct Payments {
    by_name: HashMap<String, Payment>,
}

impl Payments {
    /// Applies one event.
    pub(crate) fn note(&mut self, message: &Message, event: &Event) {
        if !message.stream.starts_with("payments/") {
            return;
        }
        let payment = self.by_name.entry(message.stream.clone()).or_default();
        match event {
            Event::PaymentCreated(it) => {
                payment.order.clone_from(&it.order);
                payment.currency.clone_from(&it.currency_code);
            }
            Event::AttemptPrepared(it) => {
                let told = (it.kind(), it.provider_key.clone(), it.shipment.clone());
                payment.attempts.insert(it.attempt.clone(), told);
            }
            Event::AttemptInDoubt(it) => drop(payment.in_doubt.insert(it.attempt.clone())),
            Event::AttemptSucceeded(it) => {
                payment.in_doubt.remove(&it.attempt);
                if let Some((AttemptKind::Capture, key, shipment)) = payment.attempts.get(&it.attempt) {
                    payment.shipments.insert(key.clone(), shipment.clone());
                }
            }
            Event::AttemptDeclined(it) => drop(payment.in_doubt.remove(&it.attempt)),
            Event::AttemptAbandoned(it) => drop(payment.in_doubt.remove(&it.attempt)),
            Event::PaymentActionRequired(it) => drop(payment.in_doubt.remove(&it.attempt)),
            Event::PaymentAuthorized(it) => payment.authorized += it.amount_minor,
            Event::PaymentCaptured(it) => payment.captured += it.amount_minor,
            Event::PaymentVoided(it) => payment.voided += it.amount_minor,
            Event::PaymentRefunded(it) => payment.refunded += it.amount_minor,
            Event::AttemptSent(_)
            | Event::PaymentFailed(_)
            | Event::PaymentExpired(_)
            | Event::CancelRequested(_)
            | Event::CancelCompleted(_)
            | Event::WebhookReceived(_)
            | Event::WebhookApplied(_)
            | Event::WebhookParked(_)
            | Event::SubjectErased(_) => {}
        }
    }
}

/// What the provider has under one of our references.
#[derive(Debug, Default)]
struct Account<'a> {
    /// Authorisations that stand.
    standing: HashSet<&'a str>,
    captured: i64,
    refunded: i64,
    capture_keys: Vec<&'a str>,
}

/// Holds payments, orders and ledger against each other.
pub(crate) fn judge(books: &Books, ledger: anyhow::Result<Vec<Entry>>, findings: &mut Findings) {
    let payments = &books.payments.by_name;
    let mut totals: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
    let mut in_doubt = 0;
    for (name, payment) in payments {
        let Payment { authorized, captured, refunded, .. } = *payment;
        in_doubt += payment.in_doubt.len();
        if captured > authorized || refunded > captured {
            let why = format!("authorised {authorized}, charged {captured}, given back {refunded}");
            findings.broken(Invariant::I4, name, why);
        }
        let mut parcels = HashSet::new();
        for shipment in payment.shipments.values() {
            if !parcels.insert(shipment) {
                findings.broken(Invariant::I2, &payment.order, format!("{shipment} is charged twice"));
            }
        }
        let sums = totals.entry(&payment.currency).or_default();
        sums[0] += authorized;
        sums[1] += captured;
        sums[2] += refunded;
    }
    for (name, order) in &books.orders.by_name {
        let payment = payments.get(&order.payment);
        let charged = payment.map_or(0, |payment| payment.captured);
        if charged != order.captured {
            let why = format!("{} minor units shipped and charged, {charged} known to its payment", order.captured);
            findings.broken(Invariant::I2, name, why);
        }
        let came_to_nothing = matches!(order.outcome, Outcome::Rejected | Outcome::Cancelled);
        if let Some(payment) = payment.filter(|_| came_to_nothing) {
            let kept = payment.captured - payment.refunded;
            let set_aside = payment.authorized - payment.voided - payment.captured;
            if kept != 0 || (set_aside > 0 && payment.captured == 0) {
                let why = format!("came to nothing, but {kept} are kept and {set_aside} set aside");
                findings.broken(Invariant::I3, name, why);
            }
        }
    }
    let words: Vec<String> = totals
        .iter()
        .map(|(code, [authorized, captured, refunded])| {
            format!(
                "{}: authorised {}, charged {}, given back {}",
                code,
                shown(code, *authorized),
                shown(code, *captured),
                shown(code, *refunded)
            )
        })
        .collect();
    findings.checked(Invariant::I3, format!("nothing is kept of orders that came to nothing ({in_doubt} in doubt)"));
    findings.checked(Invariant::I4, if words.is_empty() { "no payments".to_owned() } else { words.join(", ") });
    match ledger {
        Ok(entries) => against_ledger(books, &entries, findings),
        Err(error) => {
            findings
                .checked(Invariant::I2, format!("by the shop's books alone: the provider does not answer ({error:#})"));
        }
    }
}

fn against_ledger(books: &Books, entries: &[Entry], findings: &mut Findings) {
    let mut accounts: HashMap<&str, Account<'_>> = HashMap::new();
    for entry in entries {
        let account = accounts.entry(&entry.authorization_reference).or_default();
        match entry.kind {
            Kind::Authorization | Kind::Challenge => {
                if entry.authorization_status == "authorized" {
                    account.standing.insert(&entry.authorization);
                }
            }
            Kind::Capture => {
                account.captured += entry.amount;
                account.capture_keys.extend(entry.idempotency_key.as_deref());
            }
            Kind::Refund => account.refunded += entry.amount,
            Kind::Void => {}
        }
    }
    let nothing = Account::default();
    for (name, payment) in &books.payments.by_name {
        let account = accounts.get(name.as_str()).unwrap_or(&nothing);
        let order = if payment.order.is_empty() { name } else { &payment.order };
        if account.standing.len() > 1 {
            let why = format!("{} authorisations stand at the provider", account.standing.len());
            findings.broken(Invariant::I2, order, why);
        }
        let mut parcels = HashSet::new();
        for key in &account.capture_keys {
            match payment.shipments.get(*key) {
                Some(shipment) if !parcels.insert(shipment) => {
                    findings.broken(Invariant::I2, order, format!("{shipment} is charged twice at the provider"));
                }
                Some(_) => {}
                None => {
                    findings.broken(Invariant::I2, order, format!("the provider charged under {key}, unknown here"))
                }
            }
        }
        if (account.captured, account.refunded) != (payment.captured, payment.refunded) {
            let why = format!(
                "the provider charged {} and gave back {}, the books say {} and {}",
                account.captured, account.refunded, payment.captured, payment.refunded
            );
            findings.broken(Invariant::I4, order, why);
        }
        let outcome = books.orders.by_name.get(&payment.order).map(|order| order.outcome);
        let came_to_nothing = matches!(outcome, Some(Outcome::Rejected | Outcome::Cancelled));
        if came_to_nothing && account.captured == 0 && !account.standing.is_empty() {
            findings.broken(Invariant::I3, order, "came to nothing, but its authorisation stands at the provider");
        }
    }
    // A provider may serve several shops; what stands under a reference of ours must be known here.
    for (reference, account) in &accounts {
        if reference.starts_with("payments/")
            && !books.payments.by_name.contains_key(*reference)
            && !account.standing.is_empty()
        {
            findings.broken(Invariant::I2, reference, "stands at the provider and is unknown here");
        }
    }
    findings.checked(
        Invariant::I2,
        format!("{} payments as the provider's ledger of {} entries says", accounts.len(), entries.len()),
    );
}

fn shown(code: &str, minor: i64) -> String {
    match code.parse() {
        Ok(currency) => contract::Money { currency, minor }.to_string(),
        Err(_) => minor.to_string(),
    }
}
