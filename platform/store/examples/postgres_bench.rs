//! Prints how many transactions a second PostgreSQL makes durable through the store, beside what `pgbench` makes of the same
//! statements on the same server in the same run.
//!
//! `cargo run --release -p store --features fleet --example postgres_bench postgres://postgres@127.0.0.1:5432/postgres
//! [/usr/lib/postgresql/15/bin/pgbench]`; a database is made for each figure and left there. Prints a line a figure, `NAME VALUE
//! UNIT WANTED WORDS...`.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use store::{Config, Database, Engine, Error, Migration, MigrationSet, NewEvent, Store, Tx, params, site};

const TABLES: MigrationSet = MigrationSet::new(
    "bench",
    &[Migration::new(
        1,
        "requests and stock",
        "CREATE TABLE requests (id TEXT NOT NULL PRIMARY KEY, fingerprint BYTEA NOT NULL);
         CREATE TABLE stock (sku TEXT NOT NULL PRIMARY KEY, on_hand BIGINT NOT NULL CHECK (on_hand >= 0))",
    )],
);
const LENGTH: Duration = Duration::from_secs(5);
const SHARDS: u32 = 16;
const CLIENTS: [u32; 3] = [1, 16, 64];
/// Events of so many streams in one transaction, as who has many at once appends them.
const MERGED: [u32; 2] = [64, 256];
const MERGERS: u32 = 2;

/// What the store sends for [`order`], as one who writes SQL by hand would: the same statements, COMMIT behind the append.
const SCRIPT: &str = r"
\set shard random(0, 15)
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
INSERT INTO requests (id, fingerprint) VALUES (gen_random_uuid()::text, '\x07070707070707070707070707070707') ON CONFLICT DO NOTHING;
SELECT on_hand FROM stock WHERE sku = 'skus/' || :client_id;
UPDATE stock SET on_hand = on_hand - 1 WHERE sku = 'skus/' || :client_id AND on_hand >= 1;
WITH counter AS (UPDATE shards SET head = head + 2 WHERE shard = :shard RETURNING head - 2 AS before), name AS (SELECT 'orders/' || gen_random_uuid() AS stream), placed AS (SELECT name.stream, v AS version, counter.before + v AS position FROM counter, name, generate_series(1, 2) AS v) INSERT INTO events (shard, position, stream, version, name, schema_version, occur_time, causation_id, correlation_id, traceparent, subject, payload, checksum) SELECT :shard, position, stream, version, 'stoa.bench.v1.Appended', 1, 1800000000000000, '018f0000-0000-7000-8000-000000000000', '018f0000-0000-7000-8000-000000000000', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', NULL, decode(repeat('2a', 150), 'hex'), 7 FROM placed ORDER BY version;
COMMIT;
";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let Some(server) = arguments.next() else {
        eprintln!("the address of a PostgreSQL server is wanted, with a role that may create databases");
        return Ok(());
    };
    let pgbench = arguments.next();
    for clients in CLIENTS {
        let (store, url) = fresh(&server, &format!("order_{clients}"), clients).await?;
        let rate = measure(&store, clients, |store, task, _| async move {
            store.write(site!("bench.order"), async move |tx| order(tx, task).await).await
        })
        .await?;
        store.close().await;
        println!("orders_{clients} {rate:.0} /s - an order each: request id, look, guarded update, two events");
        if let Some(program) = &pgbench {
            let raw = by_hand(program, &url, clients);
            println!("pgbench_{clients} {raw:.0} /s - the same statements by pgbench");
            let wanted = if clients == 64 { ">=0.9" } else { "-" };
            println!("ratio_{clients} {:.2} - {wanted} the store's rate to that of pgbench", rate / raw);
        }
    }
    for clients in CLIENTS {
        let (store, _) = fresh(&server, &format!("append_{clients}"), clients).await?;
        let rate = measure(&store, clients, |store, _, _| async move {
            let body = async |tx: &mut Tx| {
                tx.append(event(new_name("orders"), 1));
                Ok(())
            };
            store.write(site!("bench.append"), body).await
        })
        .await?;
        println!("events_{clients} {rate:.0} /s - one event each, nothing else");
        if clients == 64 {
            println!("tail {:.0} events/s - read back, checksums verified", tail(&store).await?);
        }
        store.close().await;
    }
    for streams in MERGED {
        let (store, _) = fresh(&server, &format!("merged_{streams}"), MERGERS).await?;
        let rate = measure(&store, MERGERS, move |store, _, _| async move {
            let body = async move |tx: &mut Tx| {
                (0..streams).for_each(|_| tx.append(event(new_name("orders"), 1)));
                Ok(())
            };
            store.write(site!("bench.merged"), body).await
        })
        .await?;
        let rate = rate * f64::from(streams);
        println!(
            "merged_{streams} {rate:.0} events/s >=40000 one event of each of {streams} streams in a transaction, {MERGERS} writers"
        );
        store.close().await;
    }
    Ok(())
}

/// An empty store in a database of its own, with stock for each client.
async fn fresh(server: &str, name: &str, clients: u32) -> Result<(Store, String), Error> {
    let name = format!("bench_{}_{name}", std::process::id());
    store::create_database(server, &name).await?;
    let url = server.rsplit_once('/').map_or_else(|| format!("{server}/{name}"), |(base, _)| format!("{base}/{name}"));
    let database = Database { writers: clients as usize, shards: SHARDS, ..Database::at(url.clone()) };
    let store = Store::open(Config::new("bench", Engine::Postgres(database)).migrations([TABLES])).await?;
    let stock = async move |tx: &mut Tx| {
        for client in 0..clients {
            let sku = format!("skus/{client}");
            tx.execute("INSERT INTO stock (sku, on_hand) VALUES ($1, $2)", params![sku, 1_000_000_000]).await?;
        }
        Ok::<_, Error>(())
    };
    store.write(site!("bench.stock"), stock).await?;
    Ok((store, url))
}

/// What a command does: claim the request id, look, a guarded update, two events.
async fn order(tx: &mut Tx, client: u32) -> Result<(), Error> {
    let sku = format!("skus/{client}");
    tx.execute(
        "INSERT INTO requests (id, fingerprint) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        params![new_name("requests"), [7_u8; 16]],
    )
    .await?;
    tx.query_opt("SELECT on_hand FROM stock WHERE sku = $1", params![&sku]).await?;
    tx.execute("UPDATE stock SET on_hand = on_hand - 1 WHERE sku = $1 AND on_hand >= 1", params![&sku]).await?;
    let stream = new_name("orders");
    tx.append(event(stream.clone(), 1));
    tx.append(event(stream, 2));
    Ok(())
}

fn new_name(collection: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Spread over the shards as names made at random are.
    let number = COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{collection}/{number:016x}-0000-7000-8000-000000000000")
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

async fn measure<F>(
    store: &Store,
    clients: u32,
    body: impl Fn(Store, u32, u64) -> F + Copy + Send + 'static,
) -> Result<f64, Error>
where
    F: Future<Output = Result<(), Error>> + Send,
{
    let started = Instant::now();
    let tasks: Vec<_> = (0..clients)
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
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// Events read back in a second, each checked.
async fn tail(store: &Store) -> Result<f64, Error> {
    let started = Instant::now();
    let read = store.read(async |tx: &mut Tx| {
        let mut read = 0;
        for (shard, head) in (0..).zip(tx.heads().await?) {
            let mut after = 0;
            while after < head {
                let page = tx.tail(shard, after, 1_000).await?;
                let Some(last) = page.last() else { break };
                after = last.position;
                read += page.len();
            }
        }
        Ok::<_, Error>(read)
    });
    Ok(read.await? as f64 / started.elapsed().as_secs_f64())
}

/// Transactions a second of the script; none if it cannot be run.
fn by_hand(pgbench: &str, url: &str, clients: u32) -> f64 {
    let script = std::env::temp_dir().join(format!("stoa-bench-{}.sql", std::process::id()));
    if std::fs::write(&script, SCRIPT).is_err() {
        return f64::NAN;
    }
    let ran = Command::new(pgbench)
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
        .args([format!("--client={clients}"), format!("--time={}", LENGTH.as_secs())])
        .arg(format!("--file={}", script.display()))
        .arg(url)
        .output();
    let _ = std::fs::remove_file(&script);
    let said = ran.map(|ran| String::from_utf8_lossy(&ran.stdout).into_owned()).unwrap_or_default();
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.unwrap_or(f64::NAN)
}
