//! How fast the log is by itself: `log_speed FOLDER` measures in a new folder below FOLDER and prints a line a figure,
//! `NAME VALUE UNIT WANTED WORDS...`. `cargo xtask bench appends` builds and runs it.

use std::collections::HashMap;
use std::time::Instant;

use stoa_log::conformance::toy::{self, Account, Event, moved, opened};
use stoa_log::{Aggregate, Error, Log};
use store::{Config, Site, Store, Tx};

const STREAMS: usize = 1_000;
const EVENTS_PER_STREAM: usize = 500;
const TOTAL: usize = STREAMS * EVENTS_PER_STREAM;

/// Writers that append one event at a time, each to a stream of its own.
const WRITERS: usize = 64;
const EVENTS_PER_WRITER: usize = 2_000;

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let place = std::env::args_os().nth(1).ok_or("log_speed FOLDER: where to measure?")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let folder = tempfile::Builder::new().prefix("log-speed-").tempdir_in(place)?;
        let config = Config::sqlite("toy", folder.path().join("toy.db"))
            .migrations([stoa_log::MIGRATIONS, stoa_log::conformance::MIGRATIONS]);
        let log = toy::log(Store::open(config).await?);
        // In this order: what is read was appended before.
        batches(&log).await?;
        tail(&log).await?;
        derived(&log).await?;
        singles(&log).await
    })
}

fn report(name: &str, what: &str, events: usize, since: Instant, wanted: u64) {
    println!("{name} {:.0} events/s >={wanted} {what}", events as f64 / since.elapsed().as_secs_f64());
}

async fn batches(log: &Log<Event>) -> Result<(), Failed> {
    let since = Instant::now();
    for number in 0..STREAMS {
        let mut events = vec![opened("Ada")];
        events.extend((1..EVENTS_PER_STREAM).map(|amount| moved(amount as i64)));
        let (stream, subject) = (format!("accounts/{number}"), format!("users/{}", number % 100));
        toy::append(log, &stream, Some(&subject), events).await?;
    }
    report("batch_appends", "appends, 500 a transaction, with rows", TOTAL, since, 100_000);
    Ok(())
}

async fn tail(log: &Log<Event>) -> Result<(), Failed> {
    let since = Instant::now();
    let (mut after, mut seen) = (0, 0);
    let mut balances: HashMap<String, Account> = HashMap::new();
    loop {
        let reader = log.clone();
        let page: Result<_, Error> =
            log.store().read(async move |tx: &mut Tx| reader.tail(tx, 0, after, 4096).await).await;
        let page = page?;
        let Some(last) = page.last() else { break };
        after = last.position;
        seen += page.len();
        for entry in &page {
            match balances.get_mut(&entry.at.stream) {
                Some(account) => *account = std::mem::take(account).evolve(&entry.event),
                None => drop(balances.insert(entry.at.stream.clone(), Account::default().evolve(&entry.event))),
            }
        }
    }
    report("tail", "tail and fold", seen, since, 1_000_000);
    if (seen, balances.len()) != (TOTAL, STREAMS) {
        return Err(format!("{seen} events of {} streams were read", balances.len()).into());
    }
    Ok(())
}

async fn derived(log: &Log<Event>) -> Result<(), Failed> {
    let since = Instant::now();
    log.rebuild("accounts").await?;
    report("rebuild", "rebuild", TOTAL, since, 300_000);
    let since = Instant::now();
    let differences = log.verify("accounts").await?;
    report("verify", "verify", TOTAL, since, 300_000);
    if !differences.is_empty() {
        return Err(format!("rows are not what the log says: {differences:?}").into());
    }
    Ok(())
}

/// Each append is a transaction with its own acknowledgement; the flush is shared with whoever came meanwhile.
async fn singles(log: &Log<Event>) -> Result<(), Failed> {
    let since = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                let site = Site::named("toy.append");
                for _ in 0..EVENTS_PER_WRITER {
                    let (writer, name) = (log.clone(), format!("accounts/{writer}"));
                    let append = async move |tx: &mut Tx| {
                        writer.append_next(tx, &name, &toy::meta(), None, vec![moved(1)]).await
                    };
                    log.store().write(site, append).await?;
                }
                Ok::<(), Error>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    let what = format!("single appends, {WRITERS} writers, with rows");
    report("single_appends", &what, WRITERS * EVENTS_PER_WRITER, since, 40_000);
    Ok(())
}
