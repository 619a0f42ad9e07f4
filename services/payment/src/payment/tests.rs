//! Given, when, then; and the laws of money.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::postings::postings;
use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn authorize() -> Command {
    Command::Authorize {
        order: "orders/o".into(),
        customer: "users/u".into(),
        currency: "EUR".into(),
        amount: 100,
        token: "tok".into(),
        provider: "sandbox".into(),
    }
}

fn settle(attempt: &str, outcome: Outcome) -> Command {
    Command::Settle {
        attempt: attempt.into(),
        outcome,
        said: Said { source: Source::Answer, actor: String::new(), note: String::new() },
        action_expire_time: NOW,
        authorization_expire_time: Timestamp::MAX,
    }
}

fn done(attempt: &str) -> Command {
    settle(attempt, Outcome::Done { reference: format!("ref-{attempt}") })
}

fn unknown(attempt: &str) -> Command {
    settle(attempt, Outcome::Unknown { error: "timeout".into() })
}

fn declined(attempt: &str) -> Command {
    settle(attempt, Outcome::Declined { code: "no".into() })
}

fn action(attempt: &str) -> Command {
    settle(
        attempt,
        Outcome::ActionRequired { reference: "auth".into(), uri: "http://psp".into(), challenge: "chl".into() },
    )
}

fn capture(shipment: &str, amount: i64) -> Command {
    Command::Capture { shipment: shipment.into(), amount }
}

fn refund(return_id: &str, amount: i64) -> Command {
    Command::Refund { amount, return_id: return_id.into(), reason: String::new(), actor: String::new() }
}

fn cancel() -> Command {
    Command::Cancel { order: "orders/o".into(), reason: "test".into() }
}

fn apply(payment: Payment, command: &Command) -> Payment {
    let events = payment.decide(command).unwrap();
    events.iter().fold(payment, |payment, event| payment.evolve(event, NOW))
}

fn given(commands: &[Command]) -> Payment {
    commands.iter().fold(Payment::named("payments/o"), apply)
}

#[test]
fn an_authorization_is_written_down_before_it_is_sent_under_a_key_made_of_its_name() {
    let events = Payment::named("payments/o").decide(&authorize()).unwrap();
    assert!(matches!(&events[1], Event::Prepared { key, .. } if key == "payments/o/authorize-1"));
    assert!(matches!(&events[2], Event::Sent { tries: 1, .. }));
    assert!(given(&[authorize()]).in_doubt());
}

#[test]
fn authorizing_again_changes_nothing_and_other_terms_are_refused() {
    let payment = given(&[authorize()]);
    assert_eq!(payment.decide(&authorize()), Ok(vec![]));
    let mut other = authorize();
    if let Command::Authorize { amount, .. } = &mut other {
        *amount = 99;
    }
    assert_eq!(payment.decide(&other), Err(Rejection::OtherTerms));
}

#[test]
fn a_doubt_is_asked_about_again_under_the_same_key() {
    let payment = given(&[authorize(), unknown("1"), Command::Resend { attempt: "1".into() }]);
    assert_eq!((payment.attempts.len(), payment.attempts[0].tries), (1, 2));
    assert_eq!(apply(payment, &done("1")).state, Some(State::Authorized));
}

#[test]
fn an_outcome_told_twice_or_late_changes_nothing() {
    let payment = given(&[authorize(), done("1")]);
    for command in [done("1"), unknown("1"), declined("1"), action("1"), settle("1", Outcome::NotFound)] {
        assert_eq!(payment.decide(&command), Ok(vec![]), "{command:?}");
    }
}

#[test]
fn a_buyer_who_acts_makes_the_payment_authorized_and_one_who_declines_makes_it_fail() {
    let waiting = given(&[authorize(), action("1")]);
    assert_eq!((waiting.state, waiting.in_doubt()), (Some(State::RequiresAction), false));
    assert_eq!(apply(waiting.clone(), &done("1")).state, Some(State::Authorized));
    let failed = apply(waiting, &declined("1"));
    assert_eq!((failed.state, failed.decline_code.as_str()), (Some(State::Failed), "no"));
}

#[test]
fn a_cancel_before_any_authorization_refuses_it_for_ever() {
    let closed = given(&[cancel(), authorize()]);
    assert_eq!((closed.state, closed.cancel, closed.attempts.len()), (Some(State::Failed), Cancel::Completed, 0));
}

#[test]
fn a_cancel_while_in_doubt_waits_and_then_voids_what_the_provider_did() {
    let waiting = given(&[authorize(), unknown("1"), cancel()]);
    assert_eq!((waiting.cancel, waiting.attempts.len()), (Cancel::Requested, 1));
    let voiding = apply(waiting, &done("1"));
    assert_eq!((voiding.state, voiding.attempts[1].kind), (Some(State::Authorized), Kind::Void));
    let voided = apply(voiding, &done("2"));
    assert_eq!((voided.state, voided.cancel), (Some(State::Voided), Cancel::Completed));
}

#[test]
fn a_yes_after_the_payment_was_closed_is_recorded_and_undone() {
    let abandoned = given(&[authorize(), unknown("1"), cancel(), settle("1", Outcome::NotFound)]);
    assert_eq!((abandoned.state, abandoned.cancel), (Some(State::Failed), Cancel::Completed));
    let late = given(&[authorize(), unknown("1"), cancel(), settle("1", Outcome::NotFound), done("1")]);
    assert_eq!((late.state, late.cancel), (Some(State::Authorized), Cancel::Requested));
    assert_eq!(late.attempts[1].kind, Kind::Void);
    let declined = given(&[authorize(), declined("1"), done("1"), done("2")]);
    assert_eq!((declined.state, declined.cancel), (Some(State::Voided), Cancel::Completed));
}

#[test]
fn a_cancel_of_what_is_charged_frees_the_rest_and_refunds() {
    let payment = given(&[authorize(), done("1"), capture("s", 60), done("2"), cancel()]);
    assert_eq!((payment.balance.voided, payment.attempts.len()), (40, 4));
    let refunded = apply(payment, &done("4"));
    assert_eq!((refunded.state, refunded.cancel), (Some(State::Refunded), Cancel::Completed));
    assert_eq!(refunded.balance, Balance { authorized: 100, voided: 40, captured: 60, refunded: 60 });
}

#[test]
fn a_cancel_of_a_payment_that_waits_for_its_buyer_ends_failed_and_one_that_ran_out_expired() {
    let failed = given(&[authorize(), action("1"), cancel(), done("2")]);
    assert_eq!((failed.state, failed.cancel), (Some(State::Failed), Cancel::Completed));
    let expired = given(&[authorize(), action("1"), Command::Expire { now: NOW }, done("2")]);
    assert_eq!((expired.state, expired.cancel), (Some(State::Expired), Cancel::Completed));
}

#[test]
fn a_refused_void_is_tried_again_only_when_told_to() {
    let refused = given(&[authorize(), done("1"), cancel(), declined("2")]);
    assert_eq!((refused.cancel, refused.attempts.len()), (Cancel::Requested, 2));
    assert_eq!(refused.decide(&cancel()), Ok(vec![]));
    let again = given(&[authorize(), done("1"), cancel(), declined("2"), Command::Continue, done("3")]);
    assert_eq!((again.state, again.cancel), (Some(State::Voided), Cancel::Completed));
}

#[test]
fn a_shipment_is_charged_once() {
    let payment = given(&[authorize(), done("1"), capture("s", 60)]);
    assert_eq!(payment.decide(&capture("s", 60)), Ok(vec![]));
    assert_eq!(payment.decide(&capture("s", 59)), Err(Rejection::OtherAmount("s".into())));
    assert_eq!(payment.decide(&capture("t", 41)), Err(Rejection::TooMuch { left: 40, asked: 41 }));
    let declined = apply(payment, &declined("2"));
    assert_eq!(declined.decide(&capture("s", 60)).unwrap().len(), 2);
}

#[test]
fn what_is_not_charged_is_freed_without_a_call_until_all_of_it_is() {
    let part = given(&[authorize(), done("1"), refund("r", 30)]);
    assert_eq!((part.state, part.balance.voided, part.in_doubt()), (Some(State::Authorized), 30, false));
    assert_eq!(part.decide(&refund("r", 30)), Ok(vec![]));
    assert_eq!(part.decide(&capture("s", 71)), Err(Rejection::TooMuch { left: 70, asked: 71 }));
    let whole = apply(part, &refund("q", 70));
    assert!(whole.in_doubt());
    assert_eq!(apply(whole, &done("3")).state, Some(State::Voided));
}

#[test]
fn a_refund_takes_what_is_charged_first() {
    let payment = given(&[authorize(), done("1"), capture("s", 60), done("2"), refund("r", 80)]);
    assert_eq!((payment.balance.voided, payment.attempts[3].amount), (20, 60));
    assert_eq!(payment.decide(&refund("r", 80)), Ok(vec![]));
    assert_eq!(payment.decide(&refund("q", 21)), Err(Rejection::TooMuch { left: 20, asked: 21 }));
}

#[test]
fn a_cancelled_payment_is_neither_charged_nor_refunded() {
    let payment = given(&[authorize(), done("1"), cancel()]);
    assert_eq!(payment.decide(&capture("s", 1)), Err(Rejection::Cancelled));
    assert_eq!(payment.decide(&refund("r", 1)), Err(Rejection::Cancelled));
}

fn commands() -> impl Strategy<Value = Command> {
    let attempt = || (1_u8..7).prop_map(|id| id.to_string());
    prop_oneof![
        Just(authorize()),
        Just(cancel()),
        Just(Command::Continue),
        Just(Command::Expire { now: NOW }),
        (0_u8..4, 1_i64..80).prop_map(|(shipment, amount)| capture(&shipment.to_string(), amount)),
        (0_u8..4, 1_i64..80).prop_map(|(id, amount)| refund(&id.to_string(), amount)),
        attempt().prop_map(|id| done(&id)),
        attempt().prop_map(|id| done(&id)),
        attempt().prop_map(|id| declined(&id)),
        attempt().prop_map(|id| unknown(&id)),
        attempt().prop_map(|id| action(&id)),
        attempt().prop_map(|attempt| Command::Resend { attempt }),
    ]
}

proptest! {
    /// Whatever is asked and told in whatever order: nothing is charged twice, keys are never shared, the books balance,
    /// and a completed cancel leaves a net of zero.
    #[test]
    fn money_is_conserved(commands in prop::collection::vec(commands(), 0..40)) {
        let mut payment = Payment::named("payments/o");
        let mut books: BTreeMap<postings::Account, i64> = BTreeMap::new();
        for command in &commands {
            for event in payment.decide(command).unwrap_or_default() {
                let lines = postings(&event);
                prop_assert_eq!(lines.iter().map(|line| line.minor).sum::<i64>(), 0);
                for line in lines {
                    *books.entry(line.account).or_default() += line.minor;
                }
                payment = payment.evolve(&event, NOW);
            }
            let balance = payment.balance;
            prop_assert!(0 <= balance.refunded && balance.refunded <= balance.captured);
            prop_assert!(balance.captured + balance.voided <= balance.authorized, "{balance:?}");
            prop_assert!(balance.authorized <= 100);
        }
        let balance = payment.balance;
        let booked = |account| books.get(&account).copied().unwrap_or(0);
        prop_assert_eq!(booked(postings::Account::Authorized), balance.open());
        prop_assert_eq!(booked(postings::Account::Receivable), balance.captured - balance.refunded);
        if payment.cancel == Cancel::Completed {
            prop_assert_eq!((balance.open(), balance.captured), (0, balance.refunded));
        }
        let mut keys: Vec<&str> = payment.attempts.iter().map(|attempt| attempt.key.as_str()).collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(keys.len(), all);
    }
}
