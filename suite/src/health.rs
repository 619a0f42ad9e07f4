//! `stoa health`: asks a process for its health as `grpc.health.v1` has it, where nothing else is at hand to ask with.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use process::Map;
use tls::Trust;
use tonic::transport::Endpoint;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::shop::SERVICES;

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(crate) struct Line {
    /// Address of the process: `http://HOST:PORT`, or `https://HOST:PORT` with the certificates that the map of --fleet names
    #[arg(value_name = "URL")]
    url: String,
    /// Whose certificate to show, where one has to be shown
    #[arg(long = "as", value_name = "NAME", default_value = auth::OPERATOR,
          value_parser = clap::builder::PossibleValuesParser::new(SERVICES.into_iter().chain([auth::OPERATOR])))]
    own: String,
    /// Name to ask for; empty for the process as a whole
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
}

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Prints the answer; 1 unless it serves.
pub(crate) async fn run(line: Line, fleet: Option<&Path>) -> anyhow::Result<ExitCode> {
    let endpoint = Endpoint::from_shared(line.url.clone())
        .with_context(|| format!("{} is no address", line.url))?
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE);
    let connected = if line.url.starts_with("https://") {
        let own = SERVICES.into_iter().find(|name| *name == line.own).unwrap_or(auth::OPERATOR);
        // A name that is no service's is asked of whoever answers.
        let asked = SERVICES.into_iter().find(|name| *name == line.service);
        client::certified(endpoint, own, trust(fleet)?.of(own)?, asked).await
    } else {
        endpoint.connect().await
    };
    let channel = connected.with_context(|| format!("{} cannot be reached", line.url))?;
    let asked = HealthCheckRequest { service: line.service };
    let answer = HealthClient::new(channel).check(asked).await;
    let told = answer.map_err(|status| anyhow::anyhow!("{}", status.message()));
    let hint =
        || format!("{} does not speak plain gRPC; a process with a certificate is asked with https://", line.url);
    let told = if line.url.starts_with("https://") { told } else { told.with_context(hint) };
    let status = told?.into_inner().status();
    println!("{}", status.as_str_name());
    Ok(if status == ServingStatus::Serving { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn trust(fleet: Option<&Path>) -> anyhow::Result<Trust> {
    let fleet = fleet.context("https:// needs certificates: name the map of the fleet with --fleet")?;
    let trust = Map::load(fleet)?.trust()?;
    trust.with_context(|| format!("{} names no certificates: it has no [tls]; ask with http://", fleet.display()))
}
