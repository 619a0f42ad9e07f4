//! The planted bug is one: with it a message can be lost. A process of its own, for the switch is
//! global.
#![cfg(feature = "planted-bugs")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bus::{Consumer, Failure, Handler, Hub, LocalBoxFuture, Message, source};
use log::conformance::toy::{self, opened};
use store::{Config, Store, Tx};

/// Fails once, for a moment.
#[derive(Default)]
struct Hiccup {
    failed: AtomicBool,
    applied: AtomicBool,
}

impl Handler for Hiccup {
    fn apply<'a>(&'a self, _tx: &'a mut Tx, _message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            if !self.failed.swap(true, Ordering::Relaxed) {
                return Err(Failure::Transient("once".to_owned()));
            }
            self.applied.store(true, Ordering::Relaxed);
            Ok(())
        })
    }
}

async fn is_applied_after_a_failure() -> bool {
    let open = async || {
        let sets = [log::MIGRATIONS, log::conformance::MIGRATIONS];
        Store::open(Config::new("toy", store::conformance::engine().await).migrations(sets)).await.expect("a store")
    };
    let (log, hub, handler) = (toy::log(open().await), Hub::new(), Arc::new(Hiccup::default()));
    toy::append(&log, "accounts/a", Some("users/1"), vec![opened("Ada")]).await.expect("append");
    hub.publish("toy", source(log));
    let consumer = Consumer::new("hiccup", open().await, hub, &["toy"], handler.clone());
    let caught_up = consumer.clone();
    consumer
        .run(async move {
            caught_up.caught_up().await.expect("caught up");
        })
        .await;
    handler.applied.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_cursor_that_moves_before_its_effect_loses_a_message_and_the_real_one_does_not() {
    assert!(is_applied_after_a_failure().await);
    bus::planted::cursor_before_effect(true);
    assert!(!is_applied_after_a_failure().await);
}
