//! The provider's behaviour as command-line flags, for every program that starts one.

use std::path::Path;
use std::time::Duration;

use crate::{CONNECTIONS, Config, Webhooks};

/// Flags of the sandbox provider.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// Where webhooks are sent (http://); it can also be set later by PUT /webhook_endpoint.
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    /// Key of the webhook signatures.
    #[arg(
        long,
        value_name = "SECRET",
        env = "STOA_WEBHOOK_SECRET",
        default_value = "sandbox-webhook-secret",
        hide_env_values = true
    )]
    webhook_secret: String,
    /// Send a webhook for every change, not only for the webhook tokens and finished challenges.
    #[arg(long)]
    webhooks_for_all: bool,
    /// How long tok_webhook_late holds its webhooks back, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    late_ms: u64,
    /// How long tok_slow waits with its answer, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 3000)]
    slow_ms: u64,
    /// Connections at once; more wait until one is closed.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS)]
    connections: usize,
    /// Address that customers reach the provider by, if not the one it listens at.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Abort at this commit, after it is on disk and before anyone is answered (for crash tests).
    #[arg(long, value_name = "N", hide = true)]
    abort_at_commit: Option<u64>,
}

impl Flags {
    /// The configuration these flags mean, with the ledger in `data`.
    pub fn config(self, data: &Path) -> Config {
        Config {
            webhook_url: self.webhook_url,
            webhook_secret: self.webhook_secret,
            webhooks: if self.webhooks_for_all { Webhooks::All } else { Webhooks::WebhookTokens },
            late: Duration::from_millis(self.late_ms),
            slow: Duration::from_millis(self.slow_ms),
            connections: self.connections,
            public_url: self.public_url,
            abort_at_commit: self.abort_at_commit,
            ..Config::new(data)
        }
    }
}
