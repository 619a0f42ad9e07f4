//! What it costs when the provider is slow: `parked FOLDER PROVIDER CALLS` authorises so many payments at once with a token
//! that the provider answers late, and prints a line a figure, `NAME VALUE UNIT WORDS...`. Meanwhile somebody reads payments
//! all the time. The service runs in this process and the provider elsewhere, so the memory that grows is the service's and
//! the callers'. `cargo xtask bench -- parked` builds and runs it.

use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use auth::{Principal, Role, Subject};
use client::{Channel, Outgoing};
use contracts::google::r#type::Money;
use contracts::payment::v1 as proto;
use contracts::payment::v1::payment_service_client::PaymentServiceClient;
use server::{Context, Storage};
use tokio::task::JoinSet;

/// Payments that are there to be read.
const READ: usize = 64;
/// Between two reads.
const PAUSE: Duration = Duration::from_millis(5);
/// How long it is read before anything is parked.
const QUIET: Duration = Duration::from_secs(5);
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(50);
/// Less than a caller's fifteen seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(14);

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().ok_or("parked FOLDER PROVIDER CALLS");
    let (place, provider, calls) = (word()?, word()?, word()?.parse()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let folder = tempfile::Builder::new().prefix("parked-").tempdir_in(place)?;
        let context = serve(folder.path(), provider, calls).await?;
        measure(&context, calls).await
    })
}

/// The service with room for so many calls; by default it says no above 4,096, and calls the provider 256 times at once.
async fn serve(folder: &Path, provider_url: String, calls: usize) -> Result<Context, Failed> {
    let context = Context::new(Storage::Folder(folder.to_owned()), folder, contracts::METHODS, &[7; 32]);
    let config = payment::Config { provider_url, calls, call_timeout: CALL_TIMEOUT, ..payment::Config::default() };
    let mut component = payment::build(config, &context).await?;
    component.max_calls = calls + READ;
    let (_, tasks) = context.mount(component);
    let supervised = context.clone();
    tokio::spawn(async move { server::supervise(tasks, &supervised).await });
    Ok(context)
}

async fn measure(context: &Context, calls: usize) -> Result<(), Failed> {
    let ordering = PaymentServiceClient::new(context.clients.as_caller("ordering").channel("payment"));
    for number in 0..READ {
        authorize(ordering.clone(), format!("read-{number}"), "tok_ok").await?;
    }
    let (_, quiet) = read_while(context, async { tokio::time::sleep(QUIET).await }).await?;
    let before = memory()?;
    let begun = Instant::now();
    let ((parked, peak), busy) = read_while(context, park(ordering, calls)).await?;
    let took = begun.elapsed();
    let parked = parked?;
    let each = peak.saturating_sub(before) as f64 / calls as f64;
    println!("calls {calls} calls authorisations asked for at once");
    println!("answered {parked} calls of them authorised in time; the others are in doubt and asked about again");
    println!("time {:.2} s until the last had its answer", took.as_secs_f64());
    println!("memory {each:.1} KiB more at the peak for each call, its caller included");
    println!("quiet_p99 {:.2} ms to read a payment, before", millis(&quiet, 99));
    println!("busy_p50 {:.2} ms to read a payment, meanwhile", millis(&busy, 50));
    println!("busy_p99 {:.2} ms to read a payment, meanwhile", millis(&busy, 99));
    Ok(())
}

/// Asks for all of them at once; how many were authorised, and the most memory this process had meanwhile, in KiB.
async fn park(ordering: PaymentServiceClient<Channel>, calls: usize) -> (Result<usize, Failed>, usize) {
    let mut tasks = JoinSet::new();
    for number in 0..calls {
        tasks.spawn(authorize(ordering.clone(), format!("parked-{number}"), "tok_slow"));
    }
    let (mut authorized, mut peak) = (0, 0);
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = look.tick() => match memory() {
                Ok(now) => peak = peak.max(now),
                Err(error) => return (Err(error), peak),
            },
            ended = tasks.join_next() => match ended {
                None => return (Ok(authorized), peak),
                Some(Ok(Ok(answer))) => authorized += usize::from(answer),
                Some(Ok(Err(error))) => return (Err(error), peak),
                Some(Err(error)) => return (Err(error.into()), peak),
            },
        }
    }
}

/// Asks for one authorisation; whether it stands.
async fn authorize(
    mut ordering: PaymentServiceClient<Channel>,
    name: String,
    token: &'static str,
) -> Result<bool, Failed> {
    let ask = proto::AuthorizePaymentRequest {
        name: format!("payments/{name}"),
        order: format!("orders/{name}"),
        customer: "users/u1".to_owned(),
        amount: Some(Money { currency_code: "EUR".to_owned(), units: 100, nanos: 0 }),
        payment_token: token.to_owned(),
        request_id: request_id(&name),
    };
    let payment = ordering.authorize_payment(ask).await?.into_inner().payment.unwrap_or_default();
    Ok(payment.state() == proto::PaymentState::Authorized)
}

/// Reads payments until `work` is done; what came of it, and how long each read took.
async fn read_while<T>(context: &Context, work: impl Future<Output = T>) -> Result<(T, Vec<Duration>), Failed> {
    let operator = Subject { id: "users/op".to_owned(), role: Role::Operator, session: String::new() };
    let operator = Outgoing { principal: Principal::User(operator), ..Outgoing::default() };
    let mut reader = PaymentServiceClient::new(context.clients.as_caller("gateway").channel("payment"));
    let mut times = Vec::new();
    let mut pace = tokio::time::interval(PAUSE);
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                times.sort_unstable();
                return Ok((done, times));
            }
            _ = pace.tick() => {
                let name = format!("payments/read-{}", times.len() % READ);
                let ask = operator.request(proto::GetPaymentRequest { name });
                let begun = Instant::now();
                reader.get_payment(ask).await?;
                times.push(begun.elapsed());
            }
        }
    }
}

/// This percentile of sorted times, in milliseconds.
fn millis(times: &[Duration], percent: usize) -> f64 {
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default().as_secs_f64() * 1000.0
}

/// What this process has in memory, in KiB.
fn memory() -> Result<usize, Failed> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("/proc tells no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// A request id that follows from a name.
fn request_id(name: &str) -> String {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hex = format!("{hash:016x}{:016x}", hash.rotate_left(32));
    let (one, two, three, four) = (&hex[..8], &hex[8..12], &hex[13..16], &hex[17..20]);
    format!("{one}-{two}-4{three}-8{four}-{}", &hex[20..])
}
