//! What every way between producers and consumers must promise; each promise one function.
//!
//! `open` opens an empty store whose migrations are [`log::MIGRATIONS`], [`log::conformance::MIGRATIONS`]
//! and [`MIGRATIONS`]; `connect` makes the log of the toy service known to a hub under the name
//! `toy`. The functions panic where a promise is broken, as tests do.

pub mod brokers;
mod flowing;
mod frozen;
mod parking;
mod rig;

use std::sync::atomic::{AtomicU32, Ordering};

use log::Log;
use log::conformance::toy::Event;
use store::Store;

use crate::Hub;

/// The table the consumer under test writes: what was applied, in which order.
pub const MIGRATIONS: store::MigrationSet = store::MigrationSet::new(
    "bus_toy",
    &[store::Migration::new(
        1,
        "applied",
        "CREATE TABLE applied (
             turn BIGINT NOT NULL, stream TEXT NOT NULL, version BIGINT NOT NULL,
             content TEXT NOT NULL, PRIMARY KEY (turn), UNIQUE (stream, version))",
    )],
);

/// Runs every promise, each on stores of its own; says how many there are.
pub async fn run(open: impl AsyncFn() -> Store, connect: impl AsyncFn(Log<Event>, &Hub)) -> u32 {
    let cases = AtomicU32::new(0);
    let rig = async || {
        cases.fetch_add(1, Ordering::Relaxed);
        rig::Rig::new(open().await, open().await, &connect).await
    };
    macro_rules! case {
        ($module:ident::$case:ident) => {
            println!("    {}", stringify!($case));
            $module::$case(rig().await).await
        };
    }
    case!(flowing::at_least_once_every_message_has_its_effect_in_stream_order);
    case!(flowing::redelivery_after_a_crash_is_a_duplicate_and_has_no_effect);
    case!(flowing::a_gap_is_fetched_before_what_comes_after_it);
    case!(flowing::no_late_commit_is_skipped_while_many_write);
    case!(flowing::two_copies_of_a_consumer_have_one_effect);
    case!(flowing::what_nobody_wants_is_dealt_with_all_the_same);
    case!(flowing::a_consumer_stopped_in_the_middle_goes_on_where_it_stood);
    case!(flowing::personal_text_arrives_open_until_its_subject_is_forgotten);
    case!(flowing::a_paused_consumer_takes_nothing_until_it_resumes);

    case!(parking::a_transient_failure_is_tried_again_in_its_place);
    case!(parking::a_poison_message_parks_its_stream_and_no_other);
    case!(parking::a_panic_is_a_poison_message);
    case!(parking::redrive_applies_in_order_and_the_stream_flows_again);
    case!(parking::a_redrive_that_fails_again_keeps_what_is_behind);
    case!(parking::a_full_lot_stops_the_consumer_and_drops_nothing);
    case!(parking::what_a_newer_release_wrote_waits_for_who_knows_it);
    case!(parking::what_waits_behind_nothing_goes_on_by_itself);
    case!(parking::while_old_and_new_copies_run_together_everything_is_applied_once);
    cases.into_inner()
}
