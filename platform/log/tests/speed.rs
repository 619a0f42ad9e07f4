//! How fast the log is, printed with the numbers wanted. Run with
//! `cargo test --release -p stoa-log --test speed -- --ignored --nocapture`.

use std::time::Instant;

use stoa_log::Error;
use stoa_log::conformance::toy::{self, Account, moved, opened};
use store::{Config, Site, Store, Tx};

const STREAMS: usize = 1_000;
const EVENTS_PER_STREAM: usize = 500;

fn report(what: &str, events: usize, since: Instant, wanted: f64) {
    let rate = events as f64 / since.elapsed().as_secs_f64();
    println!("{what}: {rate:.0} events/s (wanted {wanted:.0})");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, meaningful in release builds alone"]
async fn the_log_is_fast_enough_to_be_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config::sqlite("toy", folder.path().join("toy.db"))
        .migrations([stoa_log::MIGRATIONS, stoa_log::conformance::MIGRATIONS]);
    let store = Store::open(config).await.expect("a store");
    let log = toy::log(store.clone());

    let total = STREAMS * EVENTS_PER_STREAM;
    let since = Instant::now();
    for number in 0..STREAMS {
        let mut events = vec![opened("Ada")];
        events.extend((1..EVENTS_PER_STREAM).map(|amount| moved(amount as i64)));
        let (stream, subject) = (format!("accounts/{number}"), format!("users/{}", number % 100));
        toy::append(&log, &stream, Some(&subject), events).await.expect("append");
    }
    report("append, 500 a transaction, with rows", total, since, 100_000.0);

    let since = Instant::now();
    let mut after = 0;
    let mut balances: std::collections::HashMap<String, Account> = Default::default();
    loop {
        let reader = log.clone();
        let page = store.read(async move |tx: &mut Tx| reader.tail(tx, 0, after, 4096).await).await;
        let page = page.unwrap_or_else(|error: Error| panic!("{error}"));
        let Some(last) = page.last() else { break };
        after = last.position;
        for entry in &page {
            match balances.get_mut(&entry.at.stream) {
                Some(account) => *account = stoa_log::Aggregate::evolve(std::mem::take(account), &entry.event),
                None => drop(balances.insert(entry.at.stream.clone(), Account::default())),
            }
        }
    }
    assert_eq!(balances.len(), STREAMS);
    report("tail and fold", total, since, 1_000_000.0);

    let since = Instant::now();
    log.rebuild("accounts").await.expect("rebuild");
    report("rebuild", total, since, 300_000.0);

    let since = Instant::now();
    assert_eq!(log.verify("accounts").await.expect("verify"), []);
    report("verify", total, since, 300_000.0);

    let since = Instant::now();
    let writers: Vec<_> = (0..64)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                for _ in 0..500 {
                    let (writer, name) = (log.clone(), format!("accounts/{writer}"));
                    let site = Site::named("toy.append");
                    let appended: Result<u64, Error> = log
                        .store()
                        .write(site, async move |tx: &mut Tx| {
                            let events = vec![moved(1)];
                            writer.append_next(tx, &name, &toy::meta(), None, events).await
                        })
                        .await;
                    appended.expect("append");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writer");
    }
    report("single appends, 64 writers, with rows", 64 * 500, since, 40_000.0);
}
