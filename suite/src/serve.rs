//! Some of the services in a process of their own, as a part of a fleet.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use gateway::Keys;
use process::{Map, Part, Surroundings};

use crate::folder::Folder;
use crate::settings::Settings;
use crate::shop::SERVICES;

/// What to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Line {
    /// Services to run in this process, by their short names; `gateway` is the door and the pages composed for it
    #[arg(required = true, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    names: Vec<String>,
    /// Map of the fleet, TOML: `secret_file`, and `[services]` with where each service is
    #[arg(long, value_name = "FILE", env = "STOA_FLEET")]
    fleet: PathBuf,
    /// Where this copy of a single service listens, if the map does not name one address alone; port 0 takes any
    #[arg(long, value_name = "ADDR:PORT", env = "STOA_BIND")]
    bind: Option<SocketAddr>,
    /// Where others reach this copy, if not where it listens: what it tells the registry, where the map names one
    #[arg(long, value_name = "ADDR:PORT", env = "STOA_ADVERTISE")]
    advertise: Option<SocketAddr>,
    #[command(flatten)]
    notice: process::Notice,
}

const DOOR: &str = "gateway";

fn names() -> impl Iterator<Item = &'static str> {
    SERVICES.into_iter().chain([DOOR])
}

/// Runs the services until asked to stop, or until a part of one fails.
pub(crate) async fn run(line: Line, settings: Settings) -> anyhow::Result<ExitCode> {
    let map = Map::load(&line.fleet)?;
    settings.arm().context("the crash points cannot be armed")?;
    let folder = Folder::open(&settings.data)?;
    let here: Vec<&'static str> = names().filter(|name| line.names.iter().any(|wanted| wanted == name)).collect();
    if let (Some(_), [_, _, ..]) = (line.bind.or(line.advertise), &*here) {
        anyhow::bail!("--bind and --advertise are for a process of one service");
    }
    let keys = if here.contains(&"identity") { Keys::Here } else { Keys::Elsewhere };
    let parts = here.iter().map(|name| Ok(part(name, keys, &settings)?.bind(line.bind).advertise(line.advertise)));
    let parts = parts.collect::<anyhow::Result<Vec<Part>>>()?;
    let surroundings = Surroundings {
        map,
        data: folder.path().to_owned(),
        windows: settings.windows(),
        watching: settings.watching.clone(),
        notice: line.notice.notice,
        methods: contracts::METHODS,
    };
    process::run(surroundings, parts).await?;
    Ok(ExitCode::SUCCESS)
}

fn part(name: &'static str, keys: Keys, settings: &Settings) -> anyhow::Result<Part> {
    let currency = settings.currency;
    Ok(match name {
        "identity" => {
            let config = settings.identity();
            Part::new(name, async move |context| identity::build(config, &context).await)
        }
        "catalog" => {
            let config = catalog::Config { currency, ..Default::default() };
            Part::new(name, async move |context| catalog::build(config, &context).await)
        }
        "inventory" => Part::new(name, async |context| inventory::build(inventory::Config::default(), &context).await),
        "cart" => {
            let config = cart::Config { currency, ..Default::default() };
            Part::new(name, async move |context| cart::build(config, &context).await)
        }
        "ordering" => Part::new(name, async |context| ordering::build(ordering::Config::default(), &context).await),
        "payment" => {
            let provider = settings.psp().context("payment needs its provider: set --psp or STOA_PSP")?;
            let config = settings.payment(provider.to_owned(), None);
            Part::new(name, async move |context| payment::build(config, &context).await)
        }
        "shipping" => Part::new(name, async |context| shipping::build(shipping::Config::default(), &context).await),
        "notification" => {
            let config = settings.notification();
            Part::new(name, async move |context| notification::build(config, &context).await)
        }
        "orderview" => Part::new(name, async |context| orderview::build(orderview::Config::default(), &context).await),
        DOOR => Part::door(name, async move |context| gateway::door(&context, keys)).bind(Some(settings.listen)),
        unknown => anyhow::bail!("{unknown} is no service"),
    })
}
