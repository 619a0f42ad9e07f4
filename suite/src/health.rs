//! `stoa health`: asks a process for its health as `grpc.health.v1` has it, where nothing else is at hand to ask with.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tonic::transport::Endpoint;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Line {
    /// Address of the process, `http://HOST:PORT`
    #[arg(value_name = "URL")]
    url: String,
    /// Name to ask for; empty for the process as a whole
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
}

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Prints the answer; 1 unless it serves.
pub(crate) async fn run(line: Line) -> anyhow::Result<ExitCode> {
    let endpoint = Endpoint::from_shared(line.url.clone())
        .with_context(|| format!("{} is no address", line.url))?
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE);
    let channel = endpoint.connect().await.with_context(|| format!("{} cannot be reached", line.url))?;
    let asked = HealthCheckRequest { service: line.service };
    let answer = HealthClient::new(channel).check(asked).await;
    let status = answer.map_err(|status| anyhow::anyhow!("{}", status.message()))?.into_inner().status();
    println!("{}", status.as_str_name());
    Ok(if status == ServingStatus::Serving { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
