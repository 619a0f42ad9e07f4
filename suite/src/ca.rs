//! `stoa ca`: certificates for the processes of a fleet, for development; in production something else writes the same files.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tls::authority::Authority;

use crate::shop::{AUDITOR, SERVICES};

/// What to make.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Line {
    /// Make an authority in a folder that has none: `authority.pem`, and its key beside it
    Init {
        /// Folder of the certificates
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// What all ids begin with: `spiffe://DOMAIN/`
        #[arg(long, value_name = "DOMAIN", default_value = "stoa.local")]
        trust_domain: String,
        /// How long the authority is believed
        #[arg(long, value_name = "N", default_value_t = 3650, value_parser = days())]
        days: u32,
    },
    /// Make a key and a certificate for each process named, in place of those it had; running processes take them up
    Issue {
        /// Folder of the certificates
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Short names of services, `gateway`, or `operator` and `audit`, which are the command line's; all where none is named
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// How long the certificates are valid
        #[arg(long, value_name = "N", default_value_t = 30, value_parser = days())]
        days: u32,
    },
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

fn valid(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 3600)
}

/// Makes it, and says what to do with it.
pub(crate) fn run(line: Line) -> anyhow::Result<ExitCode> {
    match line {
        Line::Init { folder, trust_domain, days } => {
            Authority::init(&folder, &trust_domain, valid(days))?;
            let shown = folder.display();
            println!(
                "{shown}/authority.pem is believed for {days} days. Keep {shown}/authority.key where no process is."
            );
            println!("Now `stoa ca issue {shown}` makes the certificates, and the map of the fleet names them:\n");
            println!(
                "[tls]\nauthority_file = \"{shown}/authority.pem\"\ncertificate_file = \"{shown}/{{service}}.pem\""
            );
            println!("key_file = \"{shown}/{{service}}.key\"\ntrust_domain = \"{trust_domain}\"");
        }
        Line::Issue { folder, names, days } => {
            let authority = Authority::open(&folder)?;
            let all = SERVICES.into_iter().chain([auth::GATEWAY, auth::OPERATOR, AUDITOR]);
            let names = if names.is_empty() { all.map(str::to_owned).collect() } else { names };
            for name in names {
                let file = authority.issue(&name, valid(days))?;
                println!("{} is {}, for {days} days", file.display(), tls::id(authority.domain(), &name));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
