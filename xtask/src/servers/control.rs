//! A server whose tests may kill it: they say so over a connection to the lane that owns it.
//!
//! One line a connection: `kill` ends the server as a power cut would, `start` starts it again with what it has on disk
//! and answers once it takes connections; what else there is, is the server's own. The answer is `done`, with what there is
//! to say, or what went wrong.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

/// A server that can be killed and started again.
pub(crate) trait Restart: Send {
    /// Kills it, without a chance to put anything in order.
    fn kill(&mut self) -> Result<()>;

    /// Starts it again, unless it runs; returns when it takes connections.
    fn start(&mut self) -> Result<()>;

    /// Does what is asked of this kind of server alone; answers in one line.
    fn ask(&mut self, words: &[&str]) -> Result<String> {
        anyhow::bail!("{words:?} is not understood")
    }
}

/// Owns a server and does with it what it is told; dropping it stops the server.
pub(crate) struct Control {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    pub(crate) fn over(mut server: impl Restart + 'static) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let ends = Arc::new(AtomicBool::new(false));
        let ended = ends.clone();
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                if let Err(error) = obey(&mut server, &connection) {
                    println!("    the server's control: {error:#}");
                }
            }
        });
        Ok(Self { address, ends, thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

fn obey(server: &mut impl Restart, connection: &TcpStream) -> Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let outcome = match words[..] {
        ["kill"] => server.kill().map(|()| String::new()),
        ["start"] => server.start().map(|()| String::new()),
        _ => server.ask(&words),
    };
    let answer = outcome.map_or_else(|error| format!("{error:#}"), |said| format!("done {said}").trim_end().to_owned());
    let mut connection = connection;
    Ok(writeln!(connection, "{answer}")?)
}

impl Drop for Control {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // Wakes the thread, which then ends and with it the server.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
