//! Every value of notification and its default.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How notification behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where mail goes.
    pub transport: Transport,
    /// The sender of every mail, `name <address>` or an address.
    pub from: String,
    /// How often a mail is tried before it is given up.
    pub max_attempts: u32,
    /// The first pause after a failure; it doubles from there.
    pub retry_first: Duration,
    /// The longest pause after a failure.
    pub retry_most: Duration,
    /// Mails handed over at the same time.
    pub concurrency: usize,
    /// Mails handed over between two commits that say so.
    pub batch: u32,
    /// How long mails are gathered once there is one, so that a busy shop means larger batches rather than more of them.
    pub gather: Duration,
}

/// Where mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One `.eml` file a mail in this folder; relative to the data folder unless absolute.
    Folder(PathBuf),
    /// To a mail server, such as `smtps://user:password@mail.example.com`.
    Smtp {
        /// As lettre's `from_url` takes it.
        url: String,
    },
    /// Nowhere: events of other services make no mail, for replays of history. Addresses are still remembered.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            transport: Transport::Folder(PathBuf::from("mail")),
            from: "Stoa <shop@stoa.local>".to_owned(),
            max_attempts: 10,
            retry_first: Duration::from_secs(2),
            retry_most: Duration::from_secs(15 * 60),
            concurrency: 4,
            batch: 512,
            gather: Duration::from_millis(100),
        }
    }
}

/// The command line of notification.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// Where mail goes: `folder` (as .eml files in the data folder), `off`, or `smtp://USER:PASSWORD@HOST:PORT`
    #[arg(long, value_name = "WHERE", env = "STOA_MAIL", default_value = "folder", hide_env_values = true)]
    mail: Transport,
}

impl Flags {
    /// The configuration that was asked for.
    pub fn config(self) -> Config {
        Config { transport: self.mail, ..Config::default() }
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "folder" => Ok(Config::default().transport),
            "off" => Ok(Transport::Off),
            url if url.starts_with("smtp://") || url.starts_with("smtps://") => {
                Ok(Transport::Smtp { url: url.to_owned() })
            }
            // Not repeated: it may hold a password all the same.
            _ => Err("neither `folder`, `off` nor smtp://...".to_owned()),
        }
    }
}
