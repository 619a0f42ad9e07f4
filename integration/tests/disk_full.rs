//! Disk full: the write fails with a clear error, reads go on, nothing acknowledged is lost.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::command_line;
use integration::shopper::{Shopper, request_id, text};
use integration::{Setup, Stoa, skip, until};
use serde_json::json;
use tokio::process::Command;

/// A small file system of its own; unmounted when dropped.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// Needs the right to mount: root, as on the continuous integration.
    async fn mount() -> Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("disk-").tempdir()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=48m", "stoa-disk-full"]).arg(folder.path());
        let ended = command_line::run(&mut mount, Duration::from_secs(10)).await?;
        Ok((ended.code == Some(0)).then_some(Self { folder }))
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes every free byte; deleting the file gives them back.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.path().join("filler");
        let mut file = File::create(&path)?;
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![0; size]).is_err() {
                size /= 2;
            }
        }
        Ok(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the server may still be on its way out.
        let unmounted = std::process::Command::new("umount").arg("-l").arg(self.path()).status();
        if let Err(error) = unmounted {
            eprintln!("{} stays mounted: {error}", self.path().display());
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_clearly_and_loses_nothing() -> Result<()> {
    let Some(disk) = Disk::mount().await? else {
        skip::not_proven("the full disk: a file system cannot be mounted here");
        return Ok(());
    };
    let mut stoa = Stoa::start(Setup::new().data(disk.path().join("data"))).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let sku = shopper.something().await?;
    let cart = text(&shopper.cart("EUR").await?, "name")?;
    let mut acknowledged = shopper.add(&cart, &sku, 1).await?;

    let filler = disk.fill()?;
    let path = format!("/v1/{cart}:addItem");
    // Pages that are allocated already may still take a few writes: each that is acknowledged must stay.
    let mut refused = None;
    for _ in 0..2000 {
        let body = json!({ "sku": sku, "quantity": 1, "requestId": request_id() });
        let answer = shopper.http.post(&path, &body).await?;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
        acknowledged = answer.json()["cart"].clone();
    }
    let refused = refused.context("the disk never got full")?;
    ensure!([429, 503, 507].contains(&refused.status), "{}", refused.describe());
    ensure!(refused.json()["message"].is_string(), "no message: {}", refused.describe());
    ensure!(!refused.describe().contains("/tmp"), "a path is told: {}", refused.describe());

    let read = shopper.http.get(&format!("/v1/{cart}")).await?.ok()?;
    ensure!(read["items"] == acknowledged["items"], "{read} is not {acknowledged}");
    ensure!(shopper.http.get("/v1/products?pageSize=1").await?.status == 200);
    ensure!(stoa.ended()?.is_none(), "the server gave up");

    std::fs::remove_file(filler)?;
    until(Duration::from_secs(20), "writes go on", async || {
        let body = json!({ "sku": sku, "quantity": 1, "requestId": request_id() });
        Ok((shopper.http.again().post(&path, &body).await?.status == 200).then_some(()))
    })
    .await?;
    stoa.kill().await?;
    stoa.restart().await?;
    let after = shopper.http.again().get(&format!("/v1/{cart}")).await?.ok()?;
    let before = acknowledged["items"][0]["quantity"].as_i64().unwrap_or(0);
    let count = after["items"][0]["quantity"].as_i64().unwrap_or(0);
    ensure!(count == before + 1, "{count} pieces, {before} and one were acknowledged");
    until(Duration::from_secs(30), "a clean audit", async || stoa.audit().await.map(Some)).await?;
    Ok(())
}
