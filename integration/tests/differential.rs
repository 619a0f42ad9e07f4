//! Differential: ten thousand requests to ours and to Envoy; the same reaches the service and the same class of status comes back

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use integration::differential::{Case, Cases, Doors, INTENDED, Outcome, Reached, Seen};
use integration::skip;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use tokio::task::JoinSet;

/// How many requests.
const CASES: usize = 10_000;
/// Of which the first is made; another one is another ten thousand.
const SEED: u64 = 20_261_201;
/// Requests at the same time.
const AT_ONCE: usize = 16;
/// What stands for a message that no service could read.
const UNREADABLE: &str = "unreadable";
/// Differences that may be meant.
const MOST_INTENDED: usize = 15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_and_envoy_agree_on_ten_thousand_requests_but_for_what_a_specification_decides() -> Result<()> {
    let Some(envoy) = std::env::var_os("STOA_ENVOY").map(PathBuf::from) else {
        skip::not_proven("STOA_ENVOY does not say where Envoy is");
        return Ok(());
    };
    let place = |name: &str| std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set"));
    let (gateway, descriptors) = (place("STOA_GATEWAY")?, place("STOA_GALLERY")?);
    let pool = DescriptorPool::decode(&*std::fs::read(&descriptors)?)?;
    let folder = tempfile::tempdir()?;
    let doors = Arc::new(Doors::open(&gateway, &envoy, &descriptors, folder.path()).await?);

    let mut cases = Cases::new(pool.clone(), SEED);
    let mut tally = Tally::default();
    let mut asked = JoinSet::new();
    for _ in 0..CASES {
        if asked.len() == AT_ONCE {
            tally.count(&pool, asked.join_next().await.context("nothing was asked")???)?;
        }
        let (case, doors) = (cases.another()?, Arc::clone(&doors));
        asked.spawn(async move {
            let (ours, envoy) = tokio::try_join!(doors.ours.ask(&case), doors.envoy.ask(&case))?;
            anyhow::Ok((case, ours, envoy))
        });
    }
    while let Some(one) = asked.join_next().await {
        tally.count(&pool, one??)?;
    }
    tally.judge()
}

/// What came of all.
#[derive(Default)]
struct Tally {
    asked: usize,
    right: usize,
    arrived: usize,
    same_bytes: usize,
    intended: BTreeMap<&'static str, usize>,
    /// What nobody means, with an example each.
    unexplained: BTreeMap<String, (usize, String)>,
}

impl Tally {
    fn count(&mut self, pool: &DescriptorPool, (case, ours, envoy): (Case, Outcome, Outcome)) -> Result<()> {
        self.asked += 1;
        let arrived = ours.reached.is_some() && envoy.reached.is_some();
        self.arrived += usize::from(arrived);
        self.same_bytes += usize::from(arrived && ours.reached == envoy.reached);
        if case.odd.is_none() {
            self.right += 1;
            ensure!(ours.reached.is_some(), "a right request did not arrive: {case:?}: {ours:?}");
        }
        let upstream = match (&ours.reached, &envoy.reached) {
            (Some(ours), Some(envoy)) => ours == envoy || meaning(pool, ours)? == meaning(pool, envoy)?,
            (ours, envoy) => ours.is_none() && envoy.is_none(),
        };
        if upstream && ours.class() == envoy.class() {
            return Ok(());
        }
        let seen = |outcome: &Outcome| {
            let message = outcome.reached.as_ref().map(|reached| meaning(pool, reached)).transpose()?;
            anyhow::Ok(Seen::new(outcome, message.map(|(_, message)| message)))
        };
        let (one, other) = (seen(&ours)?, seen(&envoy)?);
        ensure!(
            one.message.as_ref().is_none_or(|message| message != UNREADABLE),
            "ours handed on what cannot be read: {case:?}"
        );
        if let Some(intended) = INTENDED.iter().find(|intended| intended.is(&case, &one, &other)) {
            *self.intended.entry(intended.what).or_default() += 1;
            return Ok(());
        }
        let seen = |outcome: &Outcome| format!("{:?} {}", outcome.status, outcome.reached.is_some());
        let key = format!("{:?}: ours {}, Envoy {}", case.odd, seen(&ours), seen(&envoy));
        let means = |outcome: &Outcome| outcome.reached.as_ref().map(|reached| meaning(pool, reached));
        let body = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(300).collect::<String>();
        let example = format!(
            "{} {} {:?} {}\n      ours: {} {:?}\n      Envoy: {} {:?}",
            case.verb,
            case.target,
            case.headers,
            body(&case.body),
            body(&ours.body),
            means(&ours),
            body(&envoy.body),
            means(&envoy),
        );
        self.unexplained.entry(key).or_insert((0, example)).0 += 1;
        Ok(())
    }

    fn judge(self) -> Result<()> {
        println!("{} requests, {} of them right", self.asked, self.right);
        println!("{} arrived through both, {} of these byte for byte the same", self.arrived, self.same_bytes);
        for intended in &INTENDED {
            let times = self.intended.get(intended.what).copied().unwrap_or(0);
            println!("{times} times meant: {}; {}", intended.what, intended.decided_by);
        }
        let told: Vec<String> = self
            .unexplained
            .iter()
            .map(|(key, (times, example))| format!("{times} times {key}\n   {example}"))
            .collect();
        ensure!(told.is_empty(), "{} differences that nobody means:\n{}", told.len(), told.join("\n"));
        ensure!(INTENDED.len() <= MOST_INTENDED, "{} differences are meant", INTENDED.len());
        for intended in &INTENDED {
            ensure!(self.intended.contains_key(intended.what), "there is no such difference: {}", intended.what);
        }
        // That the requests are what they are meant to be.
        ensure!(self.right > CASES * 2 / 5 && self.arrived > CASES / 2, "too few arrived");
        ensure!(self.asked - self.arrived > CASES / 5, "too few were refused");
        Ok(())
    }
}

/// What a message says, whatever the order of its fields.
fn meaning(pool: &DescriptorPool, reached: &Reached) -> Result<(String, Value)> {
    let method = pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .find(|method| reached.method == format!("/{}/{}", method.parent_service().full_name(), method.name()));
    let method = method.with_context(|| format!("no method {}", reached.method))?;
    let bytes = reached.message.clone().with_context(|| format!("no message for {}", reached.method))?;
    let Ok(message) = DynamicMessage::decode(method.input(), bytes) else {
        return Ok((reached.method.clone(), Value::from(UNREADABLE)));
    };
    ensure!(message.unknown_fields().next().is_none(), "unknown fields for {}", reached.method);
    Ok((reached.method.clone(), serde_json::to_value(message)?))
}
