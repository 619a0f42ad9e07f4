//! What every engine below the log must let it promise; each promise one function, run over a fresh
//! store.
//!
//! `make` opens an empty store whose migrations are [`crate::MIGRATIONS`] and then [`MIGRATIONS`].
//! The functions panic where a promise is broken, as tests do.

mod aggregates;
mod appending;
mod consuming;
mod deriving;
mod newer;
mod persons;
mod requests;
mod scheduling;
pub mod toy;

use store::Store;

/// The tables of the toy service below.
pub const MIGRATIONS: store::MigrationSet = store::MigrationSet::new(
    "toy",
    &[store::Migration::new(
        1,
        "toy",
        "CREATE TABLE toy_accounts (
             name TEXT NOT NULL, subject TEXT NOT NULL, owner TEXT NOT NULL,
             balance BIGINT NOT NULL CHECK (balance >= 0), version BIGINT NOT NULL,
             PRIMARY KEY (name));
         CREATE TABLE toy_entries (
             account TEXT NOT NULL REFERENCES toy_accounts (name), version BIGINT NOT NULL,
             amount BIGINT NOT NULL, occur_time BIGINT NOT NULL,
             PRIMARY KEY (account, version));
         CREATE TABLE toy_fund (
             id BIGINT NOT NULL, total BIGINT NOT NULL CHECK (total >= 0),
             PRIMARY KEY (id));",
    )],
);

/// Runs every promise, each on a store of its own.
pub async fn run(make: impl AsyncFn() -> Store) {
    appending::versions_are_dense_and_a_stale_writer_conflicts(make().await).await;
    appending::a_failed_transaction_leaves_neither_rows_nor_events(make().await).await;
    appending::a_tail_pages_through_dense_positions(make().await).await;
    appending::a_loader_sees_what_its_own_transaction_appended(make().await).await;
    appending::a_commit_wakes_those_who_wait(make().await).await;
    appending::many_writers_leave_every_stream_and_shard_dense(make().await).await;

    requests::a_repeat_gets_the_stored_reply_and_no_second_effect(make().await).await;
    requests::another_body_under_the_same_key_is_refused(make().await).await;
    requests::a_refusal_is_stored_and_its_effects_are_undone(make().await).await;
    requests::a_fault_rolls_the_claim_back(make().await).await;
    requests::a_hundred_in_parallel_have_one_effect(make().await).await;
    requests::keys_are_separate_for_each_principal_and_method(make().await).await;
    requests::old_answers_are_purged_and_young_ones_kept(make().await).await;
    requests::requests_that_come_drop_the_answers_of_old_ones(make().await).await;
    requests::every_answer_is_listed_once_page_by_page(make().await).await;

    aggregates::decisions_see_the_fold_of_the_stream(make().await).await;
    aggregates::a_rejection_appends_nothing_and_is_the_answer_for_ever(make().await).await;
    aggregates::parallel_commands_to_one_aggregate_all_decide_on_the_newest_state(make().await).await;
    aggregates::an_aggregate_can_be_seen_as_it_was(make().await).await;

    persons::personal_text_is_stored_sealed_and_read_open(make().await).await;
    persons::personal_text_without_a_subject_is_refused(make().await).await;
    persons::a_forgotten_persons_text_is_empty_and_nothing_new_is_kept(make().await).await;
    persons::a_sealed_text_moved_to_another_person_does_not_open(make().await).await;

    newer::what_a_newer_release_wrote_is_passed_on_whole_and_open(make().await).await;
    newer::a_stream_with_an_unknown_event_is_not_folded_and_its_rows_stay(make().await).await;

    deriving::rows_follow_their_events_in_one_transaction(make().await).await;
    deriving::emptied_tables_are_rebuilt_byte_equal(make().await).await;
    deriving::a_rebuild_after_an_erasure_gives_the_same_rows(make().await).await;
    deriving::a_check_finds_changed_missing_and_foreign_rows_and_touches_nothing(make().await).await;
    deriving::a_rebuild_during_writes_loses_none(make().await).await;
    deriving::a_row_of_many_streams_is_the_same_in_whatever_order_shards_are_read(make().await).await;

    consuming::the_inbox_tells_new_from_duplicate_from_gap(make().await).await;
    consuming::the_inbox_is_listed_page_by_page(make().await).await;
    consuming::of_two_who_move_one_cursor_only_one_does(make().await).await;
    consuming::the_lot_keeps_order_and_its_bound(make().await).await;
    consuming::a_relay_that_lost_its_shard_cannot_move_on(make().await).await;

    scheduling::a_due_timer_fires_once_with_its_effect(make().await).await;
    scheduling::a_timer_for_an_older_version_does_nothing(make().await).await;
    scheduling::a_failed_firing_leaves_nothing_and_is_tried_again(make().await).await;
    scheduling::a_cancelled_timer_does_not_fire(make().await).await;
    scheduling::a_running_runner_is_woken_by_the_commit_that_schedules(make().await).await;
}
