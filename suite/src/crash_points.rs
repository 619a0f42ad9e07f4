//! The points at which a test may kill the process: all that this binary has, not a list kept by hand.

use std::process::ExitCode;

use clap::{Args as _, FromArgMatches as _};
use store::crash::{self, Kind};

use crate::settings::Settings;
use crate::shop::Opened;

/// One line a point, `KIND:NAME`.
pub(crate) async fn print() -> anyhow::Result<ExitCode> {
    // Consumers, sagas and callers name their points when they are built.
    let defaults = Settings::augment_args(clap::Command::new("stoa")).try_get_matches_from(["stoa"])?;
    let shop = Opened::temporary(&Settings::from_arg_matches(&defaults)?).await?;
    // The stores' conformance suites are linked in, and no shop runs them.
    for name in crash::sites().into_iter().filter(|name| !name.starts_with("conformance.")) {
        let kinds = if name.contains("->") {
            [Kind::CallBefore, Kind::CallAfter]
        } else {
            [Kind::CommitBefore, Kind::CommitAfter]
        };
        for kind in kinds {
            println!("{kind}:{name}");
        }
    }
    drop(shop);
    Ok(ExitCode::SUCCESS)
}
