//! What an operator may set, its default and its check.

use std::time::Duration;

use server::duration;

/// Configuration of payment.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// Name of the provider, as in `/v1/webhooks/{provider}`.
    pub provider: String,
    /// Where the provider is, `http://host:port`.
    pub provider_url: String,
    /// The secret the provider signs its messages with.
    pub webhook_secret: String,
    /// How long one call to the provider may take; a little less than its callers wait.
    pub call_timeout: Duration,
    /// Calls to the provider at once, in one process; more wait for a place, within `call_timeout`.
    pub calls: usize,
    /// How long the provider remembers a key. What it does not know after that never arrived.
    pub key_window: Duration,
    /// How long after its last try an authorization nobody wants any more may still arrive.
    pub late_window: Duration,
    /// How long an amount stays set aside.
    pub authorization_lifetime: Duration,
    /// Messages kept about payments that are not known.
    pub parked_webhooks: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            provider: "sandbox".to_owned(),
            provider_url: "http://127.0.0.1:8090".to_owned(),
            webhook_secret: "sandbox-webhook-secret".to_owned(),
            call_timeout: Duration::from_secs(8),
            calls: 256,
            key_window: Duration::from_secs(24 * 60 * 60),
            late_window: Duration::from_secs(10),
            authorization_lifetime: Duration::from_secs(7 * 24 * 60 * 60),
            parked_webhooks: 10_000,
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("provider", &self.provider)
            .field("provider_url", &self.provider_url)
            .finish_non_exhaustive()
    }
}

/// The command line of payment as a process of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// Where the sandbox provider is, `http://HOST:PORT`
    #[arg(long, value_name = "URL", env = "STOA_PSP")]
    psp: String,
    #[command(flatten)]
    terms: Terms,
}

impl Flags {
    /// The configuration that was asked for.
    pub fn config(self) -> Config {
        self.terms.config(self.psp)
    }
}

/// What may be set of the conversation with a provider, wherever it is.
#[derive(Clone, clap::Args)]
#[group(skip)]
pub struct Terms {
    /// Key of the webhook signatures of a provider elsewhere
    #[arg(
        long,
        value_name = "SECRET",
        env = "STOA_WEBHOOK_SECRET",
        default_value = "sandbox-webhook-secret",
        hide_env_values = true
    )]
    webhook_secret: String,
    /// How long one call to the provider may take
    #[arg(long, value_name = "TIME", env = "STOA_PSP_TIMEOUT", default_value = "8s", value_parser = duration)]
    psp_timeout: Duration,
    /// Calls to the provider at once, in one process; more wait for a place, within the time of a call
    #[arg(long, value_name = "N", env = "STOA_PSP_CALLS", default_value_t = 256,
          value_parser = clap::value_parser!(u16).range(1..))]
    psp_calls: u16,
    /// How long the provider remembers a key; what it does not know after that never arrived
    #[arg(long, value_name = "TIME", env = "STOA_PSP_KEY_WINDOW", default_value = "24h", value_parser = duration)]
    psp_key_window: Duration,
    /// How long after its last try an authorisation that nobody wants any more may still arrive
    #[arg(long, value_name = "TIME", env = "STOA_PSP_LATE_WINDOW", default_value = "10s", value_parser = duration)]
    psp_late_window: Duration,
}

impl Terms {
    /// The configuration for a provider at this address.
    pub fn config(&self, provider_url: String) -> Config {
        Config {
            provider_url,
            webhook_secret: self.webhook_secret.clone(),
            call_timeout: self.psp_timeout,
            calls: usize::from(self.psp_calls),
            key_window: self.psp_key_window,
            late_window: self.psp_late_window,
            ..Config::default()
        }
    }
}

impl std::fmt::Debug for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms").field("psp_timeout", &self.psp_timeout).finish_non_exhaustive()
    }
}
