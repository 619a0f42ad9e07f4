//! A connection that breaks at COMMIT leaves the outcome unknown: it is looked up, and there is one effect.
//!
//! Between the store and a real PostgreSQL stands a wire that can be cut at the COMMIT, before the server reads it or after.
#![cfg(feature = "fleet")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use stoa_log::conformance::toy::{self, Event, Failure, Moved, moved, opened};
use stoa_log::{Error, Log, Request};
use store::{Config, Database, Engine, Store, Tx, params, site};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// COMMIT as the protocol writes a simple query.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
/// What the server says when it is done.
const COMMITTED: &[u8] = b"COMMIT\0";

/// What happens to the next COMMIT.
const PASSES: u8 = 0;
const NEVER_ARRIVES: u8 = 1;
const ANSWER_IS_LOST: u8 = 2;

/// A wire to the server, and what happens to the next COMMIT on it.
struct Wire {
    port: u16,
    next: Arc<AtomicU8>,
}

impl Wire {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let next = Arc::new(AtomicU8::new(PASSES));
        let fate = Arc::clone(&next);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&fate)));
            }
        });
        Self { port, next }
    }
}

/// Carries bytes both ways until the connection is cut. A write small enough for one read is assumed, as the test's are.
async fn carry(mut client: TcpStream, mut server: TcpStream, fate: Arc<AtomicU8>) -> std::io::Result<()> {
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let bytes = &asked[..read?];
                if bytes.is_empty() {
                    return Ok(());
                }
                if contains(bytes, COMMIT) {
                    match fate.swap(PASSES, Ordering::SeqCst) {
                        NEVER_ARRIVES => return Ok(()),
                        lost => losing = lost == ANSWER_IS_LOST,
                    }
                }
                server.write_all(bytes).await?;
            }
            read = server.read(&mut answered) => {
                let bytes = &answered[..read?];
                if bytes.is_empty() || (losing && contains(bytes, COMMITTED)) {
                    return Ok(());
                }
                if !losing {
                    client.write_all(bytes).await?;
                }
            }
        }
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// A log whose store is reached over a wire.
async fn log_over_a_wire() -> (Log<Event>, Wire) {
    let Engine::Postgres(database) = store::conformance::engine().await else {
        panic!("STORE_TEST_POSTGRES names no server");
    };
    let (front, rest) = database.url.split_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let wire = Wire::to(server.to_owned()).await;
    let url = format!("{front}@127.0.0.1:{}/{name}", wire.port);
    let config = Config::new("toy", Engine::Postgres(Database { url, ..database.clone() }))
        .migrations([stoa_log::MIGRATIONS, stoa_log::conformance::MIGRATIONS]);
    let log = toy::log(Store::open(config).await.unwrap());
    toy::append(&log, "accounts/a", Some("users/1"), vec![opened("Ada")]).await.unwrap();
    (log, wire)
}

async fn pay_in(log: &Log<Event>, request: Option<Request>) -> Result<Moved, Failure> {
    let writer = log.clone();
    log.once(site!("in_doubt.pay_in"), request, async move |tx: &mut Tx| {
        writer.append_next(tx, "accounts/a", &toy::meta(), None, vec![moved(5)]).await?;
        Ok(Moved { amount: 5 })
    })
    .await
}

async fn balance(log: &Log<Event>) -> i64 {
    let read = log.store().read(async |tx: &mut Tx| -> Result<i64, Error> {
        let row = tx.query_opt("SELECT balance FROM toy_accounts", params![]).await?;
        Ok(row.map(|row| row.get("balance")).transpose()?.unwrap_or(-1))
    });
    read.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn a_commit_in_doubt_is_looked_up_by_its_request_and_has_one_effect() {
    let (log, wire) = log_over_a_wire().await;
    for (round, fate) in (1..).zip([NEVER_ARRIVES, ANSWER_IS_LOST, PASSES]) {
        wire.next.store(fate, Ordering::SeqCst);
        let paid = pay_in(&log, Some(toy::request("users/1", &format!("k{round}"), "5"))).await.unwrap();
        assert_eq!(paid.amount, 5);
        assert_eq!(wire.next.load(Ordering::SeqCst), PASSES, "no COMMIT met its fate");
        assert_eq!(balance(&log).await, 5 * round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn a_commit_in_doubt_without_a_request_is_not_run_again() {
    let (log, wire) = log_over_a_wire().await;
    wire.next.store(ANSWER_IS_LOST, Ordering::SeqCst);
    let told = pay_in(&log, None).await.err().unwrap();
    assert!(matches!(told, Failure::Fault(Error::Store(store::Error::InDoubt { .. }))), "{told:?}");
    assert_eq!(balance(&log).await, 5);
}
