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
    flowing::at_least_once_every_message_has_its_effect_in_stream_order(rig().await).await;
    flowing::redelivery_after_a_crash_is_a_duplicate_and_has_no_effect(rig().await).await;
    flowing::a_gap_is_fetched_before_what_comes_after_it(rig().await).await;
    flowing::no_late_commit_is_skipped_while_many_write(rig().await).await;
    flowing::two_copies_of_a_consumer_have_one_effect(rig().await).await;
    flowing::what_nobody_wants_is_dealt_with_all_the_same(rig().await).await;
    flowing::a_consumer_stopped_in_the_middle_goes_on_where_it_stood(rig().await).await;
    flowing::personal_text_arrives_open_until_its_subject_is_forgotten(rig().await).await;
    flowing::a_paused_consumer_takes_nothing_until_it_resumes(rig().await).await;

    parking::a_transient_failure_is_tried_again_in_its_place(rig().await).await;
    parking::a_poison_message_parks_its_stream_and_no_other(rig().await).await;
    parking::a_panic_is_a_poison_message(rig().await).await;
    parking::redrive_applies_in_order_and_the_stream_flows_again(rig().await).await;
    parking::a_redrive_that_fails_again_keeps_what_is_behind(rig().await).await;
    parking::a_full_lot_stops_the_consumer_and_drops_nothing(rig().await).await;
    parking::what_a_newer_release_wrote_waits_for_who_knows_it(rig().await).await;
    parking::while_old_and_new_copies_run_together_everything_is_applied_once(rig().await).await;
    cases.into_inner()
}
