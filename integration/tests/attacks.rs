//! Attacks: floods, bombs and crawlers are ended or bounded, memory too, and whoever shops meanwhile is answered right

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::attack::bystander::Bystanders;
use integration::attack::http1::{Idle, Slow, crawl};
use integration::attack::watch::Memory;
use integration::attack::{Attack, End};
use integration::buyers::Buyers;
use integration::certified::Dialer;
use integration::sold_out::SKU;
use integration::{Fleet, Setup, Stoa, command_line, limits, skip};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connections that attack at the same time.
const ATTACKERS: usize = 4;

/// What each would do if nobody ended it: half a million frames, or as many requests.
const ROUNDS: usize = 5_000;

/// What an attack may cost in memory, MiB: what the attackers' connections may have unread, the buffers between, and what
/// the allocator keeps.
const GROWTH: u64 = 96;

/// What ten thousand connections on which nothing is said may cost, MiB: 16 KiB each.
const IDLE_GROWTH: u64 = 160;

/// A code of HTTP/2: the peer does too much.
const CALM: u32 = 11;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_resets_is_ended() -> Result<()> {
    ended(Attack::RapidReset).await?;
    ended(Attack::PacedReset).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_never_end_are_ended() -> Result<()> {
    ended(Attack::Continuation).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_pings_or_settings_or_window_updates_is_ended() -> Result<()> {
    ended(Attack::Ping).await?;
    ended(Attack::Settings).await?;
    ended(Attack::WindowUpdate).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_frames_that_hold_next_to_nothing_is_ended() -> Result<()> {
    ended(Attack::EmptyData).await?;
    ended(Attack::TinyData).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_whose_answers_are_not_let_through_are_bounded() -> Result<()> {
    ended(Attack::ShutWindow).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_stand_for_more_than_the_limit_cost_nothing_and_reach_nobody() -> Result<()> {
    let (ends, growth) = attacked(Attack::HeaderBomb, 200).await?;
    // Two hundred requests of sixty megabytes each, if somebody wrote them out.
    for end in &ends {
        ensure!(end.closed || end.answered > 0, "not even refused: {end:?}");
    }
    ensure!(growth <= GROWTH, "{growth} MiB: {ends:?}");
    Ok(())
}

/// Every attacker is sent away before the server has read what it said.
async fn ended(attack: Attack) -> Result<()> {
    let (ends, growth) = attacked(attack, ROUNDS).await?;
    for end in &ends {
        ensure!(end.closed, "{} goes on: {end:?}", attack.name());
        ensure!(!end.read_all, "{} was read to its end: {end:?}", attack.name());
        ensure!(end.reason.is_none_or(|reason| reason == CALM), "{}: another reason: {end:?}", attack.name());
    }
    ensure!(growth <= GROWTH, "{}: {growth} MiB: {ends:?}", attack.name());
    Ok(())
}

/// Attacks a shop in which two people shop; all of them come home well.
async fn attacked(attack: Attack, rounds: usize) -> Result<(Vec<End>, u64)> {
    let stoa = Stoa::start(Setup::new()).await?;
    let bystanders = Bystanders::at(&stoa, 2).await?;
    let memory = Memory::of(stoa.pid().context("no process")?)?;
    let attackers: JoinSet<_> = (0..ATTACKERS).map(|_| attack.run(stoa.address(), rounds)).collect();
    let ends = attackers.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let growth = memory.growth_mib();
    bystanders.home().await?;
    is_well(&stoa)?;
    println!("measured: {}: {growth} MiB, {:?}", attack.name(), ends.first());
    Ok((ends, growth))
}

fn is_well(stoa: &Stoa) -> Result<()> {
    ensure!(!stoa.output().contains("panicked"), "{}", stoa.output().tail(40));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crawlers_are_sent_away_and_others_are_served() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let bystanders = Bystanders::at(&stoa, 2).await?;
    let memory = Memory::of(stoa.pid().context("no process")?)?;
    // Headers have ten seconds, a body that falls silent twenty, and every body the time of its method.
    let crowd = async |slow| {
        let ends = crawl(stoa.address(), slow, 300, Duration::from_secs(60)).await?;
        let open = ends.iter().filter(|end| !end.closed).count();
        ensure!(open == 0, "{open} of those with a slow {slow:?} are still there");
        Ok(ends)
    };
    let (headers, _, _) = tokio::try_join!(crowd(Slow::Headers), crowd(Slow::Body), crowd(Slow::Silence))?;
    // Two bytes a second for thirty seconds, and it was not the headers that were bounded but the first request.
    let most = headers.iter().map(|end| end.rounds).max().unwrap_or_default();
    ensure!(most < 40, "{most} bytes of headers were taken");
    let growth = memory.growth_mib();
    ensure!(growth <= GROWTH, "{growth} MiB");
    bystanders.home().await?;
    is_well(&stoa)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_on_which_nothing_is_said_are_closed() -> Result<()> {
    const IDLE: usize = 10_000;
    // The process has to be allowed its own ten thousand, and keeps a thousand files for its stores.
    if limits::raise_open_files() < IDLE as u64 + 2_000 {
        skip::not_proven("ten thousand connections: a process may open fewer files here");
        return Ok(());
    }
    let stoa = Stoa::start(Setup::new()).await?;
    let bystanders = Bystanders::at(&stoa, 2).await?;
    let memory = Memory::of(stoa.pid().context("no process")?)?;
    let idle = Idle::open(stoa.address(), IDLE).await?;
    // Nothing in thirty seconds, and one more to say goodbye; a connection that was not taken up would stay.
    idle.ended(Duration::from_secs(90)).await?;
    let growth = memory.growth_mib();
    ensure!(growth <= IDLE_GROWTH, "{growth} MiB");
    bystanders.home().await?;
    println!("measured: {IDLE} idle connections: {growth} MiB");
    is_well(&stoa)
}

/// What a slow one says before it falls silent: nothing; half a record; a record that was begun.
const HELLOS: [&[u8]; 3] = [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_does_not_come_to_its_end_is_ended_and_the_fleet_goes_on_selling() -> Result<()> {
    let fleet = Fleet::start(command_line::binary()?, None).await?;
    fleet.operator().await?.stock(SKU, 20, 100_000).await?;
    let mut buyers = Buyers::at(&fleet, 2, 1, "tok_ok");
    buyers.more(2).await?;
    let payment = fleet.address(("payment", 0))?;
    // More than may be in the middle of one.
    let crowd: JoinSet<_> = (0..300).map(|turn| slow_handshake(payment, HELLOS[turn % HELLOS.len()])).collect();
    buyers.more(4).await?;
    for ended in crowd.join_all().await {
        ended?;
    }
    // Whoever shows a certificate gets in again.
    let dialer = Dialer::named(&fleet.certificates(), "ordering")?;
    dialer.dial(payment).await?;
    buyers.home().await?;
    fleet.audit().await.map(drop)
}

async fn slow_handshake(address: SocketAddr, hello: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(hello).await?;
    let mut byte = [0];
    // Four seconds, and as much again on a machine that does much else.
    let read = tokio::time::timeout(Duration::from_secs(15), stream.read(&mut byte)).await;
    ensure!(matches!(read, Ok(Ok(0) | Err(_))), "a handshake of {} bytes is waited for: {read:?}", hello.len());
    Ok(())
}
