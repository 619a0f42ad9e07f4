//! Flash sale: ten thousand buyers at one moment for a hundred pieces; and again over twenty kills of the server.

use anyhow::Result;
use integration::Setup;
use integration::flash_sale::{self, Plan};

use crate::Bench;
use crate::figures::Wanted;

const BUYERS: usize = 10_000;
const PIECES: usize = 100;
const KILLS: usize = 20;

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    for (name, kills) in [("flash_sale", 0), ("flash_sale_killed", KILLS)] {
        let folder = bench.folder()?;
        // The times of a real shop, not those of tests.
        let setup = Setup::default().data(folder.path().join("data"));
        let plan = Plan { buyers: BUYERS, pieces: PIECES, kills, setup };
        let sale = flash_sale::hold(&plan).await?;
        let seconds = sale.time.as_secs_f64();
        let per_second = BUYERS as f64 / seconds;
        println!(
            "{BUYERS} buyers (ready in {:.0} s), {PIECES} pieces, {kills} kills: all settled in {seconds:.1} s ({per_second:.0} purchases/s, \
             {PIECES} confirmed and {} sold out), at most {} in flight; server CPU {:.1} s, buyers' CPU {:.1} s",
            sale.preparing.as_secs_f64(),
            BUYERS - PIECES,
            sale.in_flight,
            sale.server_cpu.as_secs_f64(),
            sale.buyers_cpu.as_secs_f64(),
        );
        let figure = |what: &str| format!("{name}.{what}");
        bench.figures.add(&figure("time"), seconds, "s");
        bench.figures.add(&figure("purchases"), per_second, "/s");
        bench.figures.judged(&figure("in_flight"), sale.in_flight as f64, "requests", Wanted::AtLeast(1000.0));
        bench.figures.add(&figure("server_cpu"), sale.server_cpu.as_secs_f64(), "s");
    }
    Ok(())
}
