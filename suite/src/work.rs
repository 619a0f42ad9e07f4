//! What the command line does to a shop, the same whether the shop runs already or is opened for it.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use process::Map;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::folder::{self, Folder};
use crate::settings::Settings;
use crate::shop::{Opened, Shop, Unreached};
use crate::{audit, control, importing, rebuild, stocking, story, traces};

/// A piece of work on a shop.
#[derive(clap::Subcommand, Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Put products, stock or a year of sales from a file into the shop
    Import(importing::Line),
    /// Put the sample catalogue and its stock into the shop; twice within a week is once
    Sample {
        /// Stock keeping units
        #[arg(long, value_name = "N", default_value_t = crate::sample::DEFAULT_SKUS)]
        skus: usize,
    },
    /// Check the books of all services and of the payment provider; exit code 1 names what is wrong
    Audit,
    /// Tell what happened to an order, step by step
    Explain {
        /// Name of the order, `orders/...` or the part behind the slash
        order: String,
    },
    /// Tell what was done in a trace, when and for how long, as far as the processes still hold it
    Trace {
        /// Id of the trace, 32 hexadecimal digits: of the answer's `stoa-trace-id`, of a log line, or told by `explain`
        id: String,
    },
    /// Look at orders as they were
    Orders {
        #[command(subcommand)]
        /// What to look at.
        what: Orders,
    },
    /// Derive all tables of a service (of all services) from its log again
    Rebuild {
        /// Short name of the service, such as `inventory`
        service: Option<String>,
    },
}

/// What to look at.
#[derive(clap::Subcommand, Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Orders {
    /// An order as it was at a moment
    At {
        /// Name of the order, `orders/...` or the part behind the slash
        order: String,
        /// The moment, RFC 3339 such as 2030-01-31T12:00:00Z; now where not given
        #[arg(long, value_name = "TIME")]
        time: Option<jiff::Timestamp>,
    },
}

/// What a piece of work says while it goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Said {
    /// A line of the answer.
    Line(String),
    /// How far it is.
    Progress {
        /// Done so far.
        done: u64,
        /// Of how much; 0 when that is not known.
        total: u64,
        /// In words.
        note: String,
    },
    /// It is over; 1 when something was found wrong.
    Ended(u8),
    /// It could not be done.
    Failed(String),
    /// It could not be done, because a part of the shop does not answer.
    Unreached(String),
}

/// Where a piece of work speaks. A cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Voice(Option<mpsc::Sender<Said>>);

impl Voice {
    /// A voice, and the ear it speaks to.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Said>) {
        let (sender, receiver) = mpsc::channel(64);
        (Self(Some(sender)), receiver)
    }

    /// One that nobody hears.
    pub(crate) fn silent() -> Self {
        Self(None)
    }

    /// Says a line of the answer.
    pub(crate) async fn line(&self, text: impl Into<String>) {
        self.say(Said::Line(text.into())).await;
    }

    /// Says how far the work is.
    pub(crate) async fn progress(&self, done: u64, total: u64, note: impl Into<String>) {
        self.say(Said::Progress { done, total, note: note.into() }).await;
    }

    /// Whether the one who asked has gone away.
    pub(crate) fn unheard(&self) -> bool {
        self.0.as_ref().is_some_and(mpsc::Sender::is_closed)
    }

    async fn say(&self, said: Said) {
        if let Some(sender) = &self.0 {
            // Who asked may have gone away; the work says so itself where it matters.
            let _ = sender.send(said).await;
        }
    }
}

/// The exit code when a part of the shop does not answer, so that nobody takes silence for a finding.
const UNREACHED: u8 = 4;

/// Does the work on an opened shop and says how it ended.
pub(crate) async fn perform(work: Work, shop: &Shop, voice: Voice) {
    let done = match work {
        Work::Import(line) => importing::import(line, shop, &voice).await,
        Work::Sample { skus } => stocking::whole_sample(shop, skus, &voice).await.map(|()| true),
        Work::Audit => audit::audit(shop, &voice).await,
        Work::Explain { order } => story::explain(shop, &name_of(&order), &voice).await,
        Work::Trace { id } => traces::trace(shop, &id, &voice).await,
        Work::Orders { what: Orders::At { order, time } } => story::at(shop, &name_of(&order), time, &voice).await,
        Work::Rebuild { service } => rebuild::rebuild(shop, service.as_deref(), &voice).await,
    };
    let last = match done {
        Ok(true) => Said::Ended(0),
        Ok(false) => Said::Ended(1),
        Err(error) if error.is::<Unreached>() => Said::Unreached(format!("{error:#}")),
        Err(error) => Said::Failed(format!("{error:#}")),
    };
    voice.say(last).await;
}

/// Has the work done by the fleet, by whoever holds the folder, or does it.
pub(crate) async fn answer(work: Work, settings: &Settings) -> anyhow::Result<ExitCode> {
    let work = work.on_this_machine()?;
    if let Some(path) = &settings.fleet {
        let shop = Shop::of_fleet(settings, &Map::load(path)?).await?;
        let (voice, ear) = Voice::new();
        let (code, ()) = tokio::join!(hear(ear), perform(work, &shop, voice));
        return code;
    }
    if let Some(running) = folder::running(&settings.data) {
        let ear = control::ask(&running, &work).await?;
        return hear(ear).await;
    }
    if !settings.data.join("ordering.db").is_file() {
        bail!("there is no shop in {} (--data names another folder)", settings.data.display());
    }
    let folder = Folder::open(&settings.data)?;
    let mut settings = settings.clone();
    settings.provider_was(folder.provider());
    let mut opened = Opened::open(&settings, &folder, None).await?;
    if let Some(password) = &opened.operator_password {
        eprintln!("the operator's password: {}", password.expose());
    }
    let live = if work.needs_all() { opened.start(None) } else { opened.start_provider() };
    let (voice, ear) = Voice::new();
    let (code, ()) = tokio::join!(hear(ear), perform(work, &opened.shop, voice));
    opened.shop.context.shutdown.cancel();
    live.ended().await?;
    code
}

impl Work {
    /// With paths that mean the same to a process that stands in another folder.
    fn on_this_machine(self) -> anyhow::Result<Self> {
        match self {
            Work::Import(line) => Ok(Work::Import(line.absolute().context("the file cannot be found")?)),
            Work::Sample { .. }
            | Work::Audit
            | Work::Explain { .. }
            | Work::Trace { .. }
            | Work::Orders { .. }
            | Work::Rebuild { .. } => Ok(self),
        }
    }

    /// Whether it needs the sagas and consumers of an idle shop.
    fn needs_all(&self) -> bool {
        matches!(self, Work::Import(_) | Work::Sample { .. })
    }
}

/// Prints what is said until the end.
async fn hear(mut ear: mpsc::Receiver<Said>) -> anyhow::Result<ExitCode> {
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::default_spinner());
    let mut sized = false;
    while let Some(said) = ear.recv().await {
        match said {
            Said::Line(line) => bar.suspend(|| println!("{line}")),
            Said::Progress { done, total, note } => {
                if total > 0 && !sized {
                    sized = true;
                    bar.set_length(total);
                    let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {elapsed}  {msg}");
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                }
                bar.set_position(done);
                bar.set_message(note);
            }
            Said::Ended(code) => {
                bar.finish_and_clear();
                return Ok(ExitCode::from(code));
            }
            Said::Failed(error) => {
                bar.finish_and_clear();
                bail!(error);
            }
            Said::Unreached(error) => {
                bar.finish_and_clear();
                eprintln!("stoa: {error}");
                return Ok(ExitCode::from(UNREACHED));
            }
        }
    }
    bail!("the shop ended before the work was done")
}

/// The name of an order that may be given by its last part alone.
fn name_of(order: &str) -> String {
    if order.starts_with("orders/") { order.to_owned() } else { format!("orders/{order}") }
}
