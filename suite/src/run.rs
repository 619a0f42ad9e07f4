//! The life of a shop: opened, stocked, listening, drained.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use gateway::Front;
use process::until_asked_to_stop;
use server::{Gauge, Limits, accept, descriptors};
use tokio::net::TcpListener;

use crate::folder::Folder;
use crate::settings::Settings;
use crate::shop::Opened;
use crate::work::Voice;
use crate::{banner, control, stocking};

/// Runs the shop until it is asked to stop, or a part of it fails.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    descriptors::raise();
    let folder = Folder::open(&settings.data)?;
    settings.arm().context("the crash points cannot be armed")?;
    let listener =
        TcpListener::bind(settings.listen).await.with_context(|| format!("cannot listen at {}", settings.listen))?;
    let address = listener.local_addr()?;
    let first_start = folder.is_new();
    folder.set_provider(settings.psp())?;
    let mut opened = Opened::open(&settings, &folder, Some(address)).await?;
    let shop = Arc::clone(&opened.shop);
    let shutdown = shop.context.shutdown.clone();
    until_asked_to_stop(shutdown.clone())?;
    let (told, watching) = settings.watching.start(&shutdown).await?;
    let live = opened.start(watching);
    if !settings.no_sample {
        stocking::sample(&shop, &folder, settings.sample_skus, &Voice::silent()).await?;
    }
    let gauge = Gauge::default();
    let front = Front::new(opened.gateway.clone(), &gauge, settings.watching.metrics.is_none());
    let limits = Limits { drain: settings.windows().drain, ..Limits::default() };
    let listening = tokio::spawn(accept::run(listener, front, limits, gauge, shutdown.clone()));
    let control = control::start(Arc::clone(&shop), &folder, address).await?;

    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{address}")?;
    for line in told {
        writeln!(out, "{line}")?;
    }
    if first_start || opened.operator_password.is_some() {
        let password = opened.operator_password.as_ref();
        out.write_all(banner::first_start(address, &settings.data, password).as_bytes())?;
    }
    out.flush()?;

    shutdown.cancelled().await;
    folder.stopped()?;
    listening.await?;
    control.await?;
    live.ended().await?;
    Ok(ExitCode::SUCCESS)
}
