//! Descriptors from a file, read again when it changes.

use std::{io, path::Path, path::PathBuf, time::Duration};

use transcode::service::BoxError;

use super::Maker;

/// The longest file, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The file's content.
pub(super) async fn read(file: &Path) -> Result<Vec<u8>, BoxError> {
    let told = |error: io::Error| format!("cannot read {}: {error}", file.display());
    let length = tokio::fs::metadata(file).await.map_err(told)?.len();
    if length > MAX_BYTES {
        return Err(format!("{} has more than {MAX_BYTES} bytes", file.display()).into());
    }
    Ok(tokio::fs::read(file).await.map_err(told)?)
}

/// Takes every later content into use that is good; one that is not is told once, and what is in use stays.
pub(super) async fn follow(maker: Maker, file: PathBuf, mut held: Vec<u8>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stamp = None;
    loop {
        looks.tick().await;
        // A file that is being replaced may be absent for a moment.
        let Ok(found) = tokio::fs::metadata(&file).await else { continue };
        let now = (found.modified().ok(), found.len());
        if stamp.replace(now) == Some(now) {
            continue;
        }
        match read(&file).await {
            Ok(content) if content == held => {}
            Ok(content) => {
                if let Err(error) = maker.tell(&content) {
                    tracing::warn!(error = &*error, file = %file.display(), "the file is not taken; what was read before stays");
                }
                held = content;
            }
            Err(error) => tracing::warn!(error = &*error, "the descriptors cannot be read; those read before stay"),
        }
    }
}
