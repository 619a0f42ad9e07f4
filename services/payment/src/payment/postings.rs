//! Double entry: what each event of a payment books. A function of the event alone, and every event's postings sum to
//! zero, so the books do.

use super::Event;

/// An account of the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// Set aside for us at the provider.
    Authorized,
    /// What buyers have pledged.
    Pledged,
    /// What the provider owes us.
    Receivable,
    /// What was charged for goods.
    Sales,
    /// What was given back.
    Refunds,
}

/// One line: positive debits the account, negative credits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting {
    /// Where.
    pub account: Account,
    /// How much, in minor units.
    pub minor: i64,
}

impl Account {
    /// Its name in the books.
    pub fn text(self) -> &'static str {
        match self {
            Account::Authorized => "provider/authorized",
            Account::Pledged => "buyers/pledged",
            Account::Receivable => "provider/receivable",
            Account::Sales => "sales",
            Account::Refunds => "refunds",
        }
    }
}

/// What an event books.
pub fn postings(event: &Event) -> Vec<Posting> {
    let transfer = |from, to, minor: i64| [Posting { account: to, minor }, Posting { account: from, minor: -minor }];
    match event {
        Event::Authorized { amount, .. } => transfer(Account::Pledged, Account::Authorized, *amount).to_vec(),
        Event::Voided { amount, .. } => transfer(Account::Authorized, Account::Pledged, *amount).to_vec(),
        Event::Expired { released: 0 } => vec![],
        Event::Expired { released } => transfer(Account::Authorized, Account::Pledged, *released).to_vec(),
        Event::Captured { amount, .. } => {
            let mut lines = transfer(Account::Authorized, Account::Pledged, *amount).to_vec();
            lines.extend(transfer(Account::Sales, Account::Receivable, *amount));
            lines
        }
        Event::Refunded { amount, .. } => transfer(Account::Receivable, Account::Refunds, *amount).to_vec(),
        Event::Created { .. }
        | Event::Prepared { .. }
        | Event::Sent { .. }
        | Event::Succeeded { .. }
        | Event::Declined { .. }
        | Event::InDoubt { .. }
        | Event::Abandoned { .. }
        | Event::ActionRequired { .. }
        | Event::Failed { .. }
        | Event::CancelRequested { .. }
        | Event::CancelCompleted => vec![],
    }
}
