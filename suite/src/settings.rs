//! Every setting, its default, and where its value comes from: flag, then environment, then file, then default.
//!
//! The file is TOML with the flags' long names as keys (`listen = "0.0.0.0:8080"`, `window-in-doubt = "30m"`). Values from
//! it pass the same checks as flags, and a key that is no setting is refused.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use server::Windows;
use telemetry::Format;

/// What a shop is run with.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// File of settings, TOML; by default `stoa.toml` in the configuration folder of the user, if it is there
    #[arg(long, global = true, value_name = "FILE", env = "STOA_CONFIG", help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// Folder of everything the shop keeps
    #[arg(long, global = true, value_name = "DIR", env = "STOA_DATA", default_value_os_t = default_data(),
          help_heading = "Settings")]
    pub data: PathBuf,
    /// Map of a fleet: commands ask its processes over the network instead of a data folder
    #[arg(long, global = true, value_name = "FILE", env = "STOA_FLEET", help_heading = "Settings")]
    pub fleet: Option<PathBuf>,
    /// Log lines on standard error: `pretty` for people, `json` for machines
    #[arg(
        long = "log",
        global = true,
        value_name = "FORMAT",
        env = "STOA_LOG",
        default_value = "pretty",
        help_heading = "Settings"
    )]
    pub log: Format,
    /// What is logged, for example `info,store=debug`
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "STOA_LOG_FILTER",
        default_value = "warn,audit=info",
        help_heading = "Settings"
    )]
    pub log_filter: String,
    /// Address to listen at; port 0 takes any, and the first line of output tells which
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "STOA_LISTEN",
        default_value = "127.0.0.1:8080",
        help_heading = "Settings"
    )]
    pub listen: SocketAddr,
    /// Currency of the shop
    #[arg(long, value_name = "CODE", env = "STOA_CURRENCY", default_value = "EUR", help_heading = "Settings")]
    pub currency: contract::Currency,
    /// Stock keeping units of the sample catalogue that an empty shop begins with
    #[arg(long, value_name = "N", env = "STOA_SAMPLE_SKUS", default_value_t = crate::sample::DEFAULT_SKUS,
          help_heading = "Settings")]
    pub sample_skus: usize,
    /// Begin with an empty catalogue
    #[arg(long, env = "STOA_NO_SAMPLE", value_parser = clap::builder::FalseyValueParser::new(),
          help_heading = "Settings")]
    pub no_sample: bool,
    #[command(flatten, next_help_heading = "Settings")]
    mail: notification::Flags,
    #[command(flatten, next_help_heading = "Identity")]
    identity: identity::Flags,
    #[command(flatten)]
    provider: Provider,
    /// How it is watched.
    #[command(flatten)]
    pub watching: process::Watching,
    #[command(flatten)]
    times: process::Times,
    #[command(flatten)]
    faults: Faults,
}

/// The payment provider.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Payment provider")]
struct Provider {
    /// Sandbox provider elsewhere, `http://HOST:PORT`; without one, it is started inside this process
    #[arg(long, value_name = "URL", env = "STOA_PSP")]
    psp: Option<String>,
    #[command(flatten)]
    terms: payment::Terms,
}

/// Faults for tests: a process that dies at a named point, or does wrong.
#[derive(Debug, Clone, Args)]
struct Faults {
    #[command(flatten)]
    deaths: process::Faults,
    /// Switch a planted bug on
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "NAME", hide = true)]
    planted_bug: Option<Bug>,
    /// Have the tables of a later release
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "STEP", hide = true)]
    planted_schema: Option<Schema>,
    /// Fail so many of a hundred calls
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "PERCENT", hide = true, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    planted_failures: u32,
    /// Have a clock that is so many seconds ahead, or behind
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "SECONDS", hide = true, default_value_t = 0, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-86_400..=86_400))]
    planted_clock: i64,
    /// Open a guard
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "NAME", hide = true, value_parser = guard())]
    open_guard: Vec<contract::Guard>,
}

#[cfg(feature = "planted")]
fn guard() -> impl clap::builder::TypedValueParser<Value = contract::Guard> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    let names = PossibleValuesParser::new(contract::Guard::ALL.map(contract::Guard::name));
    names.try_map(|name| contract::Guard::named(&name).ok_or("no guard has this name"))
}

/// How far the tables of the later release have come.
#[cfg(feature = "planted")]
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Schema {
    Expanded,
    Contracted,
}

/// Bugs that the crash matrix must find.
#[cfg(feature = "planted")]
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Bug {
    AckBeforeCommit,
    NewPaymentKey,
    CursorBeforeEffect,
}

impl Settings {
    /// Where the provider is, if it is not in this process.
    pub fn psp(&self) -> Option<&str> {
        self.provider.psp.as_deref()
    }

    /// Without a provider of its own, a shop that is opened for a command has the one it ran with.
    pub fn provider_was(&mut self, url: Option<String>) {
        if self.provider.psp.is_none() {
            self.provider.psp = url;
        }
    }

    /// The times as the services take them.
    pub fn windows(&self) -> Windows {
        self.times.windows()
    }

    /// Payment's configuration, for a provider at this address; `inside` is the key of webhooks of a provider in this process.
    pub fn payment(&self, provider_url: String, inside: Option<String>) -> payment::Config {
        let config = self.provider.terms.config(provider_url);
        match inside {
            Some(webhook_secret) => payment::Config { webhook_secret, ..config },
            None => config,
        }
    }

    /// Identity's configuration.
    pub fn identity(&self) -> identity::Config {
        self.identity.clone().config()
    }

    /// Notification's configuration.
    pub fn notification(&self) -> notification::Config {
        self.mail.clone().config()
    }

    /// Arms the faults that were asked for.
    pub fn arm(&self) -> std::io::Result<()> {
        self.faults.deaths.arm()?;
        #[cfg(feature = "planted")]
        match self.faults.planted_bug {
            Some(Bug::AckBeforeCommit) => store::planted::answer_before_commit(true),
            Some(Bug::NewPaymentKey) => payment::planted::new_key_on_retry(true),
            Some(Bug::CursorBeforeEffect) => bus::planted::cursor_before_effect(true),
            None => {}
        }
        #[cfg(feature = "planted")]
        self.faults.open_guard.iter().for_each(|guard| guard.open());
        #[cfg(feature = "planted")]
        match self.faults.planted_schema {
            Some(Schema::Expanded) => store::planted::as_later_release(store::planted::Schema::Expanded),
            Some(Schema::Contracted) => store::planted::as_later_release(store::planted::Schema::Contracted),
            None => {}
        }
        #[cfg(feature = "planted")]
        server::planted::fail(self.faults.planted_failures);
        #[cfg(feature = "planted")]
        store::planted::clock_off(self.faults.planted_clock);
        Ok(())
    }
}

/// Why the file of settings is not taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("the settings in {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML.
    #[error("{path} is not TOML")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: toml::de::Error,
    },
    /// It names something that is no setting, or gives it no simple value.
    #[error("{path}: {key} {problem}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A file of settings as read: values by the flags' long names.
#[derive(Debug, Default)]
pub struct File {
    path: Option<PathBuf>,
    values: BTreeMap<String, String>,
}

impl File {
    /// The file that was named, or the user's own if there is one.
    pub fn load(named: Option<&Path>) -> Result<Self, FileError> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => match own_file().filter(|path| path.is_file()) {
                Some(path) => path,
                None => return Ok(Self::default()),
            },
        };
        let text = std::fs::read_to_string(&path).map_err(|source| FileError::Read { path: path.clone(), source })?;
        let table: toml::Table =
            toml::from_str(&text).map_err(|source| FileError::Parse { path: path.clone(), source })?;
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
                    return Err(FileError::Key { path, key, problem: "is no text, number or truth value" });
                }
            };
            values.insert(key.replace('_', "-"), value);
        }
        Ok(Self { path: Some(path), values })
    }

    /// The command with the file's values as defaults, so that flags and environment go before them.
    pub fn apply(&self, mut command: clap::Command) -> Result<clap::Command, FileError> {
        for (key, value) in &self.values {
            let wrong =
                |problem| FileError::Key { path: self.path.clone().unwrap_or_default(), key: key.clone(), problem };
            let argument = command.get_arguments().find(|it| it.get_long() == Some(key) && !it.is_hide_set());
            let id = argument.filter(|_| key != "config").map(|it| it.get_id().clone());
            let id = id.ok_or_else(|| wrong("is no setting"))?;
            // Read once at the start of the process.
            let value: &'static str = Box::leak(value.clone().into_boxed_str());
            command = command.mut_arg(id, |argument| argument.default_value(value));
        }
        Ok(command)
    }

    fn holds(&self, long: &str) -> bool {
        self.values.contains_key(long)
    }
}

/// Settings whose values are not shown.
const SECRETS: [&str; 4] = ["webhook-secret", "operator-password", "mail", "otlp-headers"];

/// One line a setting: its value and where that comes from.
pub fn print(command: &clap::Command, matches: &ArgMatches, file: &File) -> String {
    let mut lines = String::new();
    for argument in command.get_arguments() {
        let (Some(long), id) = (argument.get_long(), argument.get_id().as_str()) else { continue };
        if argument.is_hide_set() || ["help", "version"].contains(&long) {
            continue;
        }
        let values = matches.try_get_raw(id).ok().flatten();
        let value: Vec<_> = values.into_iter().flatten().map(|it| it.to_string_lossy().into_owned()).collect();
        let value = value.join(" ");
        let shown = match value.as_str() {
            "" => "(none)".to_owned(),
            secret if SECRETS.contains(&long) && !["folder", "off"].contains(&secret) => "(not shown)".to_owned(),
            value => value.to_owned(),
        };
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag".to_owned(),
            Some(ValueSource::EnvVariable) => {
                format!("environment {}", argument.get_env().unwrap_or_default().to_string_lossy())
            }
            Some(_) if file.holds(long) => {
                format!("file {}", file.path.as_deref().unwrap_or(Path::new("")).display())
            }
            Some(_) | None => "default".to_owned(),
        };
        lines.push_str(&format!("{long:<22} {shown:<44} {source}\n"));
    }
    lines
}

fn default_data() -> PathBuf {
    directories::ProjectDirs::from("", "", "stoa")
        .map_or_else(|| PathBuf::from("stoa-data"), |folders| folders.data_dir().to_owned())
}

fn own_file() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "stoa").map(|folders| folders.config_dir().join("stoa.toml"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{Command, FromArgMatches as _};

    use super::*;

    fn read(file: &File, arguments: &[&str]) -> (Settings, String) {
        let command = file.apply(<Settings as Args>::augment_args(Command::new("stoa"))).unwrap();
        let matches = command.clone().get_matches_from([&["stoa"], arguments].concat());
        (Settings::from_arg_matches(&matches).unwrap(), print(&command, &matches, file))
    }

    fn file(text: &str) -> Result<File, FileError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stoa.toml");
        std::fs::write(&path, text).unwrap();
        File::load(Some(&path))
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let file = file("listen = \"127.0.0.1:9\"\nwindow_in_doubt = \"90s\"\nno-sample = true").unwrap();
        let (settings, shown) = read(&file, &["--listen", "127.0.0.1:10"]);
        assert_eq!(settings.listen.port(), 10);
        assert_eq!(settings.windows().in_doubt, Duration::from_secs(90));
        assert!(settings.no_sample);
        assert_eq!(settings.windows().hold, Duration::from_secs(15 * 60));
        let source = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(source("listen").ends_with("flag"), "{shown}");
        assert!(source("window-in-doubt").contains("stoa.toml"), "{shown}");
        assert!(source("window-hold").ends_with("default"), "{shown}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let (_, shown) = read(&File::default(), &["--operator-password", "swordfish", "--mail", "smtp://a:b@c"]);
        assert!(!shown.contains("swordfish") && !shown.contains("a:b"), "{shown}");
    }

    #[test]
    fn a_key_that_is_no_setting_is_refused() {
        for text in ["port = 80", "config = \"x\"", "crash-point = \"x\""] {
            let file = file(text).unwrap();
            assert!(file.apply(<Settings as Args>::augment_args(Command::new("stoa"))).is_err(), "{text}");
        }
        assert!(file("listen = [1]").is_err());
        assert!(file("listen").is_err());
    }
}
