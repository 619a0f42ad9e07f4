//! Tables taken over from a scratch store, which is an SQLite file beside this process: page by page.
//!
//! The pages come from the scratch store's reader through a short channel, so no table is held in memory.

use tokio::sync::mpsc;

use super::Session;
use crate::{Error, Row, Store, Tx, Value};

/// Parameters of one statement; the protocol counts them in 16 bits.
const PARAMETERS: usize = 16_384;
/// Rows of one statement, at most.
const ROWS: usize = 512;
/// Pages under way at a time.
const UNDER_WAY: usize = 2;

impl Session {
    /// Makes the tables consist of the rows they have in `scratch`; says how many.
    pub(crate) async fn adopt(&mut self, scratch: &Store, tables: &[&'static str]) -> Result<u64, Error> {
        // Whoever writes to one of them has committed when the lock is given, and whoever comes waits for this transaction.
        for table in tables {
            self.execute(&format!("LOCK TABLE {table} IN EXCLUSIVE MODE"), &[]).await?;
        }
        for table in tables.iter().rev() {
            self.execute(&format!("DELETE FROM {table}"), &[]).await?;
        }
        let mut count = 0;
        for table in tables {
            let (send, mut pages) = mpsc::channel(UNDER_WAY);
            let read = scratch.read(pages_of(table, send));
            let write = async {
                while let Some(page) = pages.recv().await {
                    count += self.insert(table, &page).await?;
                }
                Ok::<_, Error>(())
            };
            let (read, written) = tokio::join!(read, write);
            written?;
            read?;
        }
        Ok(count)
    }

    async fn insert(&mut self, table: &str, page: &[Row]) -> Result<u64, Error> {
        let Some(first) = page.first() else { return Ok(0) };
        let columns: Vec<String> = first.columns().map(|name| format!("\"{name}\"")).collect();
        let rows: Vec<String> = (0..page.len())
            .map(|row| {
                let places = (1..=columns.len()).map(|column| format!("${}", row * columns.len() + column));
                format!("({})", places.collect::<Vec<_>>().join(", "))
            })
            .collect();
        let sql = format!("INSERT INTO {table} ({}) VALUES {}", columns.join(", "), rows.join(", "));
        let values: Vec<Value> = page.iter().flat_map(|row| row.values().iter().cloned()).collect();
        self.execute(&sql, &values).await
    }
}

/// A body that sends a table in pages that fit a statement.
fn pages_of(
    table: &'static str,
    send: mpsc::Sender<Vec<Row>>,
) -> impl AsyncFnMut(&mut Tx) -> Result<(), Error> + Send + 'static {
    async move |tx: &mut Tx| {
        let mut page: Vec<Row> = Vec::new();
        // A receiver that is gone has met an error of its own, which is told instead of this one.
        let gone = |_| Error::Stopped { reason: "nobody takes the rows".to_owned() };
        tx.dump(table, |row| {
            page.push(row);
            let width = page.first().map_or(1, |row| row.values().len().max(1));
            if page.len() < ROWS.min(PARAMETERS / width) {
                return Ok(());
            }
            send.blocking_send(std::mem::take(&mut page)).map_err(gone)
        })
        .await?;
        send.blocking_send(page).map_err(gone)
    }
}
