//! Gateways in front of one and the same service: ours, Envoy and grpc-gateway, each as it is by itself.
//!
//! Gateway, service and load generator are processes of their own. What counts is the CPU time of the gateway's process for one
//! request: it is a matter of the program, where the rate and the times are one of the machine and of who else is at work on
//! it. Rounds take turns between the gateways, so that what the machine does meanwhile falls on all of them. Every answer
//! is compared byte for byte with one whose meaning was looked at, and the service holds every request against what was
//! sent; one that is not right leaves no numbers.

pub(crate) mod backend;
mod load;
mod messages;
mod subject;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use integration::machine;
use prost_reflect::DescriptorPool;

use crate::Bench;
use crate::figures::{Figures, Wanted};
use crate::load::{micros_each, millis};
use load::Work;
use subject::{Backend, Kind, Subject};

/// How often each is started; the middle counts.
const STARTS: usize = 7;
/// How often each kind of work goes around.
const ROUNDS: usize = 3;
/// Connections that say nothing.
const IDLE: usize = 1000;

/// What a request may cost of what it costs Envoy.
const SHARES: [(&str, f64); 5] = [("get", 0.40), ("list", 0.12), ("create", 0.40), ("upload", 0.20), ("stream", 0.25)];
/// What ours may hold while nobody asks, resident.
const IDLE_MIB: f64 = 10.0;
/// What ours may hold for a connection that was answered and is silent.
const CONNECTION_KIB: f64 = 16.0;
/// How long ours may take from its start to its first answer.
const START_MS: f64 = 15.0;

/// What one gateway did of one kind of work, all rounds together.
#[derive(Default)]
struct Done {
    times: Vec<Duration>,
    /// CPU of gateway, service and load generator.
    used: [Duration; 3],
}

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    let descriptors = std::env::var_os("STOA_GATEWAY_DESCRIPTORS").map(PathBuf::from);
    let descriptors = descriptors.context("STOA_GATEWAY_DESCRIPTORS is not there: cargo xtask bench -- gateway")?;
    let pool = DescriptorPool::decode(&*std::fs::read(&descriptors)?)?;
    let works: Vec<Arc<Work>> = Work::all(&pool)?.into_iter().map(Arc::new).collect();
    let folder = bench.folder()?;
    let backend = Backend::start().await?;
    let mut subjects = Vec::new();
    for kind in Kind::ALL {
        match Subject::new(kind, backend.address, &descriptors, folder.path())? {
            Some(subject) => subjects.push(subject),
            None => println!("not measured: {} is not there", kind.name()),
        }
    }
    for subject in &mut subjects {
        at_rest(&mut bench.figures, subject, &works[0]).await?;
    }
    let mut most = vec![0; subjects.len()];
    for work in &works {
        let done = rounds(work, &subjects, &backend, &mut most).await?;
        tell(&mut bench.figures, work.name, done);
    }
    for (subject, most) in subjects.iter().zip(most) {
        let mib = most as f64 / 1024.0;
        println!("{} loaded: {mib:.1} MiB resident", subject.kind.name());
        bench.figures.add(&format!("gateway.memory.{}.loaded", subject.kind.name()), mib, "MiB");
    }
    Ok(())
}

/// Its start, and what it holds while nobody asks.
async fn at_rest(figures: &mut Figures, subject: &mut Subject, work: &Work) -> Result<()> {
    let name = subject.kind.name();
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(subject.start(work).await?);
    }
    starts.sort();
    let start = millis(starts[STARTS / 2]);
    // At rest means after the start's own work is over, not before.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let alone = subject.memory()?;
    let right = work.learn(subject.door).await?;
    let silent = load::idle(work, subject.door, &right, IDLE).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let crowded = subject.memory()?;
    drop(silent);
    let idle = alone.resident_kib as f64 / 1024.0;
    let more = crowded.proportional_kib.saturating_sub(alone.proportional_kib);
    let connection = more as f64 / IDLE as f64;
    println!(
        "{name}: first answer after {start:.1} ms ({:.1} to {:.1}); at rest {idle:.1} MiB resident, {:.1} with its share, \
         {:.1} written; {connection:.1} KiB for each of {IDLE} silent connections",
        millis(starts[0]),
        millis(starts[STARTS - 1]),
        alone.proportional_kib as f64 / 1024.0,
        alone.private_kib as f64 / 1024.0,
    );
    for (what, value, unit, goal) in [
        ("start", start, "ms", START_MS),
        ("idle", idle, "MiB", IDLE_MIB),
        ("connection", connection, "KiB", CONNECTION_KIB),
    ] {
        let figure = format!("gateway.rest.{name}.{what}");
        match subject.kind {
            Kind::Stoa => figures.judged(&figure, value, unit, Wanted::AtMost(goal)),
            Kind::Envoy | Kind::GrpcGateway => figures.add(&figure, value, unit),
        }
    }
    Ok(())
}

/// One kind of work, the gateways taking turns.
async fn rounds(
    work: &Arc<Work>,
    subjects: &[Subject],
    backend: &Backend,
    most: &mut [u64],
) -> Result<Vec<(Kind, Done)>> {
    let mut rights: Vec<Option<Bytes>> = Vec::new();
    for subject in subjects {
        rights.push(if subject.kind.does(work) { Some(work.learn(subject.door).await?) } else { None });
    }
    let mut done: Vec<(Kind, Done)> = subjects.iter().map(|subject| (subject.kind, Done::default())).collect();
    for round in 0..ROUNDS {
        for turn in 0..subjects.len() {
            let index = (turn + round) % subjects.len();
            let (subject, Some(right)) = (&subjects[index], &rights[index]) else { continue };
            let pids = [subject.pid()?, backend.pid, std::process::id()];
            let clocks = || pids.iter().map(|pid| machine::cpu_time(*pid)).collect();
            let run = work.run(subject.door, right, clocks).await;
            let (times, used) = run.with_context(|| format!("{} in front: {}", subject.kind.name(), work.name))?;
            let all = &mut done[index].1;
            all.times.extend(times);
            all.used.iter_mut().zip(used).for_each(|(all, used)| *all += used);
            most[index] = most[index].max(subject.memory()?.resident_kib);
        }
    }
    done.retain(|(kind, _)| kind.does(work));
    Ok(done)
}

fn tell(figures: &mut Figures, work: &str, done: Vec<(Kind, Done)>) {
    let cost = |done: &Done| micros_each(done.used[0], done.times.len() as u64);
    let envoy = done.iter().find(|(kind, _)| *kind == Kind::Envoy).map(|(_, done)| cost(done));
    for (kind, mut done) in done {
        let name = kind.name();
        done.times.sort();
        let at = |part: f64| {
            let index = (done.times.len() as f64 * part) as usize;
            millis(done.times.get(index).copied().unwrap_or_default())
        };
        let (each, count) = (cost(&done), done.times.len());
        let rate = count as f64 / done.used[0].as_secs_f64();
        let share = envoy.map(|envoy| each / envoy);
        println!(
            "{work:<8} {name:<12} {each:>9.1} us of CPU each, {} of Envoy's; {rate:>7.0} a CPU-second; p50 {:.2} ms, p99 {:.2} \
             ms; {count} answers; CPU of gateway, service, generator {:.1}, {:.1}, {:.1} s",
            share.map_or("?".to_owned(), |share| format!("{share:.2}")),
            at(0.5),
            at(0.99),
            done.used[0].as_secs_f64(),
            done.used[1].as_secs_f64(),
            done.used[2].as_secs_f64(),
        );
        let figure = |what: &str| format!("gateway.{work}.{name}.{what}");
        figures.add(&figure("cpu"), each, "us");
        figures.add(&figure("rate"), rate, "/CPU-s");
        figures.add(&figure("p50"), at(0.5), "ms");
        figures.add(&figure("p99"), at(0.99), "ms");
        let goal = SHARES.iter().find(|(name, _)| *name == work).map(|(_, goal)| *goal);
        match (kind, share, goal) {
            (Kind::Stoa, Some(share), Some(goal)) => {
                figures.judged(&figure("of_envoy"), share, "", Wanted::AtMost(goal));
            }
            (Kind::Stoa | Kind::GrpcGateway, Some(share), _) => figures.add(&figure("of_envoy"), share, ""),
            (_, _, _) => {}
        }
    }
}
