//! Who kills and starts the engines that a fleet stands on, when a test says so.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// How long an engine may take to do what it is told.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where those listen who do it; none where the lane has nothing to kill.
pub fn controls() -> Option<Vec<String>> {
    let given = std::env::var("STOA_FLEET_CONTROLS").ok()?;
    Some(given.split(' ').map(str::to_owned).collect())
}

/// Says a word to one of them and waits until it is done: `kill`, `start`, or what else that engine understands.
pub async fn tell(control: &str, word: &str) -> Result<()> {
    let mut connection = TcpStream::connect(control).await?;
    connection.write_all(format!("{word}\n").as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, BufReader::new(connection).read_line(&mut answer))
        .await
        .context(word.to_owned())??;
    ensure!(answer.trim() == "done", "{word}: {answer}");
    Ok(())
}
