//! A shop of ten processes on PostgreSQL, with Kafka between them: checkouts, what they cost, and what each process holds.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::fleet::{Copy, GATEWAY, Plan, SERVICES, engines};
use integration::machine::{self, Memory};
use integration::shopper::Shopper;
use integration::{Fleet, until};

use super::{Given, missing};
use crate::Bench;
use crate::checkouts::Buying;
use crate::figures::Wanted;
use crate::generated::Stocktaking;
use crate::load::{finish, micros_each};

/// What a process that does nothing should hold at most.
const IDLE_MIB: f64 = 15.0;
/// From the first answer: until then a process has work of its own.
const IDLE_AFTER: Duration = Duration::from_secs(3);

/// Calls of a thousand events each, for a log that is worth a rebuild.
const CALLS: u64 = 300;
/// Events folded in a second, at least.
const REBUILD: f64 = 100_000.0;

const AUDIT: Duration = Duration::from_secs(180);

/// Checkouts as fast as they go, with CPU and memory by process.
pub(crate) async fn checkouts(bench: &mut Bench) -> Result<()> {
    let given = Given::read();
    let Some(fleet) = start(&given, "checkouts").await? else { return Ok(()) };
    tokio::time::sleep(IDLE_AFTER).await;
    let idle = held(&fleet)?;
    let buying = Buying::begin(Shopper::operator_over(fleet.client()).await?, None).await?;
    let processes = processes(&fleet, &given)?;
    let used = buying.load.clocks(|| {
        let mut times: Vec<Duration> =
            processes.iter().map(|(_, pid)| machine::cpu_time_of_family(*pid)).collect::<Result<_>>()?;
        // Ours alone: the fleet's processes are our children.
        times.push(machine::cpu_time(std::process::id())?);
        Ok(times)
    });
    let used = used.await?;
    let loaded = held(&fleet)?;
    let sales = buying.end().await?;
    sales.tell("fleet.checkouts", bench);
    tell_cpu(&processes, &used, sales.count, bench);
    tell_memory(&idle, &loaded, bench);
    ensure!(fleet.provider.ledger().await?.doubled().is_empty(), "charged twice");
    until(AUDIT, "a clean audit", async || fleet.audit().await.map(Some)).await?;
    Ok(())
}

/// The tables of a service made again from its log, which is in PostgreSQL.
pub(crate) async fn rebuild(bench: &mut Bench) -> Result<()> {
    let given = Given::read();
    let Some(fleet) = start(&given, "rebuild").await? else { return Ok(()) };
    finish(Stocktaking::begin(fleet.client()).await?.write(CALLS)).await?;
    let ended = fleet.ask(&["rebuild", "inventory"]).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    println!("{}", ended.output.trim());
    ensure!(ended.output.contains("; 0 rows were other before"), "rows were not what the log says");
    let rate = ended.output.split_once(" events/s").and_then(|(before, _)| before.rsplit(' ').next());
    let rate = rate.context("no rate")?.parse()?;
    bench.figures.judged("fleet.rebuild.inventory", rate, "events/s", Wanted::AtLeast(REBUILD));
    Ok(())
}

/// A fleet with databases of its own; nothing where a server is missing.
async fn start(given: &Given, name: &str) -> Result<Option<Fleet>> {
    let (Some(binary), Some(databases)) = (&given.binary, &given.databases) else {
        missing("PostgreSQL");
        return Ok(None);
    };
    let Some(kafka) = &given.kafka else {
        missing("Kafka");
        return Ok(None);
    };
    let kafka = format!("{kafka}/{name}-{}", std::process::id());
    let engines = engines(Some(&databases.replace("{fleet}", name)), Some(("kafka", &kafka)))?;
    let plan = Plan { engines: &engines, own_windows: true, ..Plan::default() };
    Ok(Some(Fleet::start_as(Path::new(binary).to_owned(), &plan).await?))
}

/// What uses the CPU beside us: the fleet's own processes, who serves them, and the payment provider.
fn processes(fleet: &Fleet, given: &Given) -> Result<Vec<(String, u32)>> {
    let own = fleet.running().into_iter().map(|copy| Ok((copy.0.to_owned(), fleet.pid(copy)?)));
    let mut all = own.collect::<Result<Vec<_>>>()?;
    all.extend(given.processes.iter().cloned());
    all.push(("provider".to_owned(), fleet.provider.pid().context("no provider")?));
    Ok(all)
}

/// CPU a checkout: each process, then the load generator, and the fleet's own ten added up.
fn tell_cpu(processes: &[(String, u32)], used: &[Duration], count: u64, bench: &mut Bench) {
    let each = |used: Duration| micros_each(used, count) / 1000.0;
    let names = processes.iter().map(|(name, _)| name.as_str()).chain(["load generator"]);
    println!("CPU a checkout:");
    let mut fleets = Duration::ZERO;
    for (name, used) in names.zip(used) {
        println!("  {name:<14} {:>7.2} ms", each(*used));
        bench.figures.add(&format!("fleet.checkouts.cpu.{}", name.replace(' ', "_")), each(*used), "ms each");
        if SERVICES.contains(&name) || name == GATEWAY {
            fleets += *used;
        }
    }
    println!("  the fleet's ten together {:.2} ms", each(fleets));
    bench.figures.add("fleet.checkouts.cpu", each(fleets), "ms each");
}

fn held(fleet: &Fleet) -> Result<Vec<(Copy, Memory)>> {
    fleet.running().into_iter().map(|copy| Ok((copy, machine::memory(fleet.pid(copy)?)?))).collect()
}

/// What each process holds: resident, which counts the pages of the program's file that all ten share in full for each;
/// with its share of them; and what is its own.
fn tell_memory(idle: &[(Copy, Memory)], loaded: &[(Copy, Memory)], bench: &mut Bench) {
    println!("memory in MiB: resident / with its share of what is shared / its own");
    let shown = |it: &Memory| {
        format!("{:.1} / {:.1} / {:.1}", mib(it.resident_kib), mib(it.proportional_kib), mib(it.private_kib))
    };
    for (((name, _), idle), (_, loaded)) in idle.iter().zip(loaded) {
        println!("  {name:<14} idle {:>20}   loaded {:>20}", shown(idle), shown(loaded));
        let figure = |when: &str| format!("fleet.memory.{when}.{name}");
        bench.figures.judged(&figure("idle"), mib(idle.resident_kib), "MiB", Wanted::AtMost(IDLE_MIB));
        bench.figures.judged(&figure("idle_share"), mib(idle.proportional_kib), "MiB", Wanted::AtMost(IDLE_MIB));
        bench.figures.add(&figure("loaded"), mib(loaded.resident_kib), "MiB");
        bench.figures.add(&figure("loaded_share"), mib(loaded.proportional_kib), "MiB");
    }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
