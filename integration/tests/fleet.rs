//! Fleet: ten processes are one shop; each is killed in the middle of a sale and nothing is lost or doubled

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use integration::fleet::SERVICES;
use integration::shopper::{Shopper, request_id, text};
use integration::sold_out::{PATIENCE, SKU, SOON, kills};
use integration::{Fleet, command_line, skip, until};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_goes_through_ten_processes_with_files() -> Result<()> {
    sale(Fleet::start(command_line::binary()?, None).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_every_process_with_files_change_no_total() -> Result<()> {
    kills(Fleet::start(command_line::binary()?, None).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_goes_through_ten_processes_with_databases() -> Result<()> {
    let Some((binary, database)) = databases("a") else { return Ok(()) };
    sale(Fleet::start(binary, Some(&database)).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_every_process_with_databases_change_no_total() -> Result<()> {
    let Some((binary, database)) = databases("b") else { return Ok(()) };
    kills(Fleet::start(binary, Some(&database)).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_goes_through_ten_processes_with_kafka_between_them() -> Result<()> {
    let (Some((binary, database)), Some(kafka)) = (databases("c"), kafka("c")) else { return Ok(()) };
    sale(Fleet::start_with(binary, Some(&database), Some(("kafka", &kafka))).await?).await?;
    a_foreign_consumer_reads_the_order(&kafka).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_every_process_with_kafka_between_them_change_no_total() -> Result<()> {
    let (Some((binary, database)), Some(kafka)) = (databases("d"), kafka("d")) else { return Ok(()) };
    kills(Fleet::start_with(binary, Some(&database), Some(("kafka", &kafka))).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_goes_through_ten_processes_with_rabbitmq_between_them() -> Result<()> {
    let (Some((binary, database)), Some(rabbitmq)) = (databases("e"), rabbitmq("e")) else { return Ok(()) };
    sale(Fleet::start_with(binary, Some(&database), Some(("rabbitmq", &rabbitmq))).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_every_process_with_rabbitmq_between_them_change_no_total() -> Result<()> {
    let (Some((binary, database)), Some(rabbitmq)) = (databases("f"), rabbitmq("f")) else { return Ok(()) };
    kills(Fleet::start_with(binary, Some(&database), Some(("rabbitmq", &rabbitmq))).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_ended_is_refused_at_once_also_while_redis_is_stopped() -> Result<()> {
    let Some((binary, redis)) = redis() else { return Ok(()) };
    let fleet = Fleet::start_on(binary, &redis.map).await?;
    ends_at_once(&fleet).await.context("with Redis")?;
    {
        let _stopped = redis.stop()?;
        for _ in 0..3 {
            ends_at_once(&fleet).await.context("without Redis")?;
        }
    }
    for _ in 0..3 {
        ends_at_once(&fleet).await.context("with Redis again")?;
    }
    Ok(())
}

/// Two sessions of one customer: one is ended, and neither request before nor after is answered wrongly.
async fn ends_at_once(fleet: &Fleet) -> Result<()> {
    let mut ended = Shopper::customer_over(fleet.client().insisting(PATIENCE)).await?;
    let mut other = Shopper::customer_over(fleet.client().insisting(PATIENCE)).await?;
    let sessions = format!("/v1/{}/sessions", ended.user);
    let list = ended.http.get(&sessions).await?.ok()?;
    let session = text(&list["sessions"][0], "name")?;
    let revoke = serde_json::json!({ "requestId": request_id() });
    ended.http.post(&format!("/v1/{session}:revoke"), &revoke).await?.ok()?;
    for _ in 0..20 {
        let refused = ended.http.get(&sessions).await?;
        ensure!(refused.status == 401, "it is let in: {}", refused.describe());
    }
    other.http.get(&format!("/v1/{}/sessions", other.user)).await?.ok()?;
    Ok(())
}

/// A Redis of the lane, as the map names it, and its process.
struct Redis {
    map: String,
    process: rustix::process::Pid,
}

/// Lets the server go on when it is dropped.
struct Stopped(rustix::process::Pid);

impl Redis {
    fn stop(&self) -> Result<Stopped> {
        rustix::process::kill_process(self.process, rustix::process::Signal::STOP)?;
        Ok(Stopped(self.process))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

/// The binary with the fleet's engines, and the Redis to run it with.
fn redis() -> Option<(PathBuf, Redis)> {
    let given = std::env::var_os("STOA_FLEET_BIN").zip(std::env::var("STOA_FLEET_REDIS").ok());
    let process = std::env::var("STOA_FLEET_REDIS_PROCESS").ok().and_then(|id| id.parse().ok());
    let process = process.and_then(rustix::process::Pid::from_raw);
    let (Some((binary, map)), Some(process)) = (given, process) else {
        skip::not_proven("a fleet with Redis: no binary built for it, or no server");
        return None;
    };
    Some((PathBuf::from(binary), Redis { map, process }))
}

#[tokio::test]
async fn no_service_is_let_into_anothers_database() -> Result<()> {
    let Some((_, database)) = databases("a") else { return Ok(()) };
    for role in SERVICES {
        for owner in SERVICES {
            let (base, name) = database.rsplit_once('/').context("postgres://role@host/database")?;
            let url = format!("{}/{}", base.replace("{service}", role), name.replace("{service}", owner));
            let opened = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
            match (role == owner, opened) {
                (true, Ok(_)) => {}
                (true, Err(error)) => bail!("{role} is not let into its own database: {error}"),
                (false, Ok(_)) => bail!("{role} is let into the database of {owner}"),
                (false, Err(error)) => {
                    let denied = tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE;
                    ensure!(error.code() == Some(&denied), "{role} into {owner}: {error}");
                }
            }
        }
    }
    Ok(())
}

/// The binary with the fleet's engines, and where the databases of this fleet are.
fn databases(fleet: &str) -> Option<(PathBuf, String)> {
    let given = std::env::var_os("STOA_FLEET_BIN").zip(std::env::var("STOA_FLEET_DATABASES").ok());
    let Some((binary, database)) = given else {
        skip::not_proven("a fleet on PostgreSQL: no binary built for it, or no server");
        return None;
    };
    Some((PathBuf::from(binary), database.replace("{fleet}", fleet)))
}

/// Where Kafka is, with a prefix for this fleet's topics.
fn kafka(fleet: &str) -> Option<String> {
    let Ok(address) = std::env::var("STOA_FLEET_KAFKA") else {
        skip::not_proven("a fleet with Kafka: there is none");
        return None;
    };
    Some(format!("{address}/fleet-{fleet}-{}", std::process::id()))
}

/// Where RabbitMQ is, with a virtual host for this fleet.
fn rabbitmq(fleet: &str) -> Option<String> {
    let Ok(address) = std::env::var("STOA_FLEET_RABBITMQ") else {
        skip::not_proven("a fleet with RabbitMQ: there is none");
        return None;
    };
    Some(address.replace("{fleet}", fleet))
}

/// A program in another language, with the contracts alone, reads the order from Kafka; but what is a person's it cannot.
async fn a_foreign_consumer_reads_the_order(kafka: &str) -> Result<()> {
    let Some(folder) = std::env::var_os("STOA_FOREIGN") else {
        skip::not_proven("a foreign consumer of events: it is not installed");
        return Ok(());
    };
    let (servers, prefix) = kafka.split_once('/').context("host:port/PREFIX")?;
    let mut command = tokio::process::Command::new("node");
    command.current_dir(folder).kill_on_drop(true);
    command.args(["events.mjs", servers, &format!("{prefix}.ordering"), &format!("{prefix}.foreign")]);
    command.arg("stoa.ordering.v1.OrderConfirmed");
    let ended = tokio::time::timeout(PATIENCE, command.output()).await.context("it did not end")??;
    let said = String::from_utf8_lossy(&ended.stdout);
    ensure!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    let events = said.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let placed = events.iter().find(|event| event["type"] == "stoa.ordering.v1.OrderPlaced");
    let placed = placed.with_context(|| format!("no order was placed: {said}"))?;
    ensure!(placed["source"] == "/services/ordering" && placed["sealed"] == "true", "{placed}");
    ensure!(placed["subject"] == placed["data"]["order"] && placed["key"] == placed["subject"], "{placed}");
    ensure!(placed["data"]["lines"][0]["quantity"] == 2, "{placed}");
    let token = placed["data"]["paymentToken"].as_str().unwrap_or_default();
    ensure!(token.starts_with("sealed:"), "a payment token lies open: {placed}");
    Ok(())
}

async fn sale(fleet: Fleet) -> Result<()> {
    let mut operator = fleet.operator().await?;
    operator.stock(SKU, 20, 5).await?;
    let mut shopper = Shopper::customer_over(fleet.client().insisting(PATIENCE)).await?;
    let order = shopper.buy("EUR", SKU, 2, "tok_ok").await?;
    ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "not confirmed: {order}");
    let name = text(&order, "name")?;
    operator.ship(&name, SOON).await?;
    let shipped = shopper.await_order(&name, &["ORDER_STATE_SHIPPED"], SOON).await?;
    ensure!(shipped["total"] == order["total"]);
    // The read side has folded what ordering told it over the network.
    let version = text(&shipped, "version")?;
    let view = until(SOON, "the view", async || {
        let view = shopper.http.again().get(&format!("/v1/{name}/view?minVersion={version}")).await?.ok()?;
        Ok((view["state"] == "ORDER_STATE_SHIPPED").then_some(view))
    })
    .await?;
    ensure!(view["total"] == order["total"], "{view}");
    let taken = fleet.provider.ledger().await?.taken();
    ensure!(taken.len() == 1 && taken.values().all(|sum| *sum > 0), "nothing was taken: {taken:?}");
    Ok(())
}
