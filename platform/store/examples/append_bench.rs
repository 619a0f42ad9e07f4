//! Prints how many transactions a second the embedded store makes durable, beside what one flush costs here.
//!
//! `cargo run --release -p store --example append_bench [FOLDER]`; the folder must not be in memory.

use std::{
    fmt,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use store::{Config, Error, Migration, MigrationSet, NewEvent, Store, Tx, params, site};

const TABLES: MigrationSet = MigrationSet::new(
    "bench",
    &[Migration::new(
        1,
        "requests and stock",
        "CREATE TABLE requests (principal TEXT NOT NULL, id TEXT NOT NULL, fingerprint BYTEA NOT NULL, reply BYTEA, PRIMARY KEY (principal, id));
         CREATE TABLE stock (sku TEXT NOT NULL PRIMARY KEY, on_hand BIGINT NOT NULL CHECK (on_hand >= 0), version BIGINT NOT NULL)",
    )],
);
const LENGTH: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = folder.join(format!("append-bench-{}", std::process::id()));
    let made = std::fs::create_dir_all(&folder);
    if let Err(error) = made {
        eprintln!("{}: {error}", folder.display());
        return Ok(());
    }
    println!("one flush of 4 KiB          {:>10.0} us", flush_us(&folder).unwrap_or(f64::NAN));
    for writers in [1, 8, 64, 256] {
        let store =
            Store::open(Config::sqlite("bench", folder.join(format!("append-{writers}.db"))).migrations([TABLES]))
                .await?;
        let rate = measure(&store, writers, |store, _, _| async move {
            store
                .write(site!("bench.append"), async move |tx| {
                    tx.append(event(new_stream(), 1));
                    Ok(())
                })
                .await
        });
        println!("{writers:>4} writers, one event      {}", rate.await?);
        store.close().await;
    }
    let store = Store::open(Config::sqlite("bench", folder.join("streams.db")).migrations([TABLES])).await?;
    let rate = measure(&store, 64, |store, task, round| async move {
        store
            .write(site!("bench.next"), async move |tx| {
                tx.append(event(format!("streams/{task}"), round + 1));
                Ok(())
            })
            .await
    });
    println!("  64 writers, 64 streams     {}", rate.await?);
    store.close().await;
    for writers in [1, 64] {
        let store =
            Store::open(Config::sqlite("bench", folder.join(format!("order-{writers}.db"))).migrations([TABLES]))
                .await?;
        let rate = measure(&store, writers, |store, task, round| async move {
            store.write(site!("bench.order"), async move |tx| order(tx, task, round).await).await
        });
        println!("{writers:>4} writers, an order       {}", rate.await?);
        store.close().await;
    }
    let store = Store::open(Config::sqlite("bench", folder.join("append-64.db")).migrations([TABLES])).await?;
    let started = Instant::now();
    let events = store
        .read(async |tx| {
            let mut after = 0;
            loop {
                let page = tx.tail(0, after, 1_000).await?;
                let Some(last) = page.last() else {
                    return Ok::<_, Error>(after);
                };
                after = last.position;
            }
        })
        .await?;
    println!(
        "tail, checksums verified    {:>10.0} events/s of {events}",
        events as f64 / started.elapsed().as_secs_f64()
    );
    store.close().await;
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}

/// What a command does: claim the request id, look, a guarded update, two events.
async fn order(tx: &mut Tx, task: u64, round: u64) -> Result<(), Error> {
    let id = format!("{task}-{round}");
    let sku = format!("skus/{task}");
    tx.execute(
        "INSERT INTO requests (principal, id, fingerprint) VALUES ($1, $2, $3)",
        params!["users/1", &id, [7_u8; 32]],
    )
    .await?;
    let found = tx.query_opt("SELECT on_hand, version FROM stock WHERE sku = $1", params![&sku]).await?;
    let version = match found {
        Some(row) => row.get::<u64>("version")?,
        None => {
            tx.execute(
                "INSERT INTO stock (sku, on_hand, version) VALUES ($1, $2, $3)",
                params![&sku, 1_000_000_000, 0],
            )
            .await?;
            0
        }
    };
    let update = "UPDATE stock SET on_hand = on_hand - $1, version = version + 2 WHERE sku = $2 AND version = $3 AND on_hand >= $1";
    if tx.execute(update, params![1, &sku, version]).await? != 1 {
        return Err(Error::Conflict { stream: sku, version });
    }
    tx.append(event(sku.clone(), version + 1));
    tx.append(event(sku, version + 2));
    tx.execute(
        "UPDATE requests SET reply = $1 WHERE principal = $2 AND id = $3",
        params![vec![1_u8; 64], "users/1", id],
    )
    .await
    .map(drop)
}

/// A name as new aggregates get it: UUIDv7, so in the order of time.
fn new_stream() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0x018f_0000_0000_0000);
    format!("orders/{:016x}7000a000", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn event(stream: String, version: u64) -> NewEvent {
    NewEvent {
        stream,
        version,
        name: "stoa.bench.v1.Appended",
        schema: 1,
        payload: vec![42; 150],
        subject: None,
        causation: "018f0000-0000-7000-8000-000000000000".to_owned(),
        correlation: "018f0000-0000-7000-8000-000000000000".to_owned(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    }
}

/// What a run came to.
struct Rate {
    per_second: f64,
    cpu_us: f64,
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:>10.0} /s {:>6.1} us of CPU each, callers included", self.per_second, self.cpu_us)
    }
}

/// The CPU time of this process so far, where the system tells it.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // User and system time, in hundredths of a second.
    [11, 12].iter().map(|at| fields.get(*at).and_then(|ticks| ticks.parse().ok()).unwrap_or(f64::NAN)).sum::<f64>()
        / 100.0
}

async fn measure<F>(
    store: &Store,
    writers: u64,
    body: impl Fn(Store, u64, u64) -> F + Copy + Send + 'static,
) -> Result<Rate, Error>
where
    F: Future<Output = Result<(), Error>> + Send,
{
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let tasks: Vec<_> = (0..writers)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut done = 0_u64;
                while started.elapsed() < LENGTH {
                    body(store.clone(), task, done).await?;
                    done += 1;
                }
                Ok::<_, Error>(done)
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await.map_err(|error| Error::Stopped { reason: error.to_string() })??;
    }
    Ok(Rate {
        per_second: done as f64 / started.elapsed().as_secs_f64(),
        cpu_us: (cpu_seconds() - cpu) * 1e6 / done as f64,
    })
}

fn flush_us(folder: &Path) -> std::io::Result<f64> {
    let mut file = File::create(folder.join("flush"))?;
    let started = Instant::now();
    for _ in 0..200 {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / 200.0)
}
