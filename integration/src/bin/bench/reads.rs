//! Products through JSON: one, and a list of twenty.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use integration::{Setup, Stoa};
use tokio::task::JoinSet;

use crate::Bench;
use crate::load::{Load, MEASURED, SHOPPERS, finish, micros_each, millis};

const LIST: &str = "/v1/products?pageSize=20";

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    let folder = bench.folder()?;
    let stoa = Stoa::start(Setup::default().data(folder.path().join("data"))).await?;
    let list = stoa.client().get(LIST).await?.ok()?;
    let name = list["products"][0]["name"].as_str().context("no product")?.to_owned();
    let kinds = [("one", "one product", format!("/v1/{name}")), ("list", "a list of 20", LIST.to_owned())];
    for (figure, what, path) in kinds {
        let load = Load::begin(&stoa, None)?;
        let mut readers = JoinSet::new();
        for _ in 0..SHOPPERS {
            let (mut client, path, load) = (stoa.client(), path.clone(), load.clone());
            readers.spawn(async move {
                while !load.is_over() {
                    let begun = Instant::now();
                    let answer = client.get(&path).await?;
                    ensure!(answer.status == 200, "{}", answer.describe());
                    load.done(begun);
                }
                anyhow::Ok(())
            });
        }
        let used = load.cpu(&stoa, None).await?;
        finish(readers).await?;
        let (count, latency) = load.result();
        let per_second = count as f64 / MEASURED.as_secs_f64();
        println!(
            "{what} by JSON: {per_second:.0}/s, p50 {:.2} ms, p99 {:.2} ms; server CPU {:.0} us each, load generator {:.0} us",
            millis(latency.p50),
            millis(latency.p99),
            micros_each(used.server, count),
            micros_each(used.generator, count),
        );
        let name = |what: &str| format!("reads.{figure}.{what}");
        bench.figures.add(&name("rate"), per_second, "/s");
        bench.figures.add(&name("p50"), millis(latency.p50), "ms");
        bench.figures.add(&name("p99"), millis(latency.p99), "ms");
        bench.figures.add(&name("server_cpu"), micros_each(used.server, count), "us each");
    }
    Ok(())
}
