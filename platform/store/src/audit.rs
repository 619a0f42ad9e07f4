//! Looks at everything a store holds, for an operator or a test: every checksum, every position, every stream.

use crate::{
    Error, Store, Tx, params,
    tx::{EVENTS_OF_SHARD, Session, recorded},
};

/// What an audit of a store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// The events whose checksums fit and whose positions are dense.
    pub events: u64,
    /// One sentence for each thing that is wrong, at most a hundred.
    pub problems: Vec<String>,
}

/// Problems told; whoever has more than that needs no longer list.
const TOLD: usize = 100;
/// Events in one read, so that no snapshot is held for long.
const PAGE: u32 = 1_000;

// Versions are unique in a stream, so their number and the last one tell whether any is missing.
const BROKEN_STREAMS: &str = "SELECT stream, count(*) AS events, min(version) AS first, max(version) AS last FROM events \
     GROUP BY stream HAVING min(version) <> 1 OR max(version) <> count(*) ORDER BY stream LIMIT 100";

impl Store {
    /// Reads the whole log and checks the engine's own structures; it changes nothing and goes on after what it finds.
    pub async fn audit(&self) -> Result<Audit, Error> {
        let mut audit = Audit::default();
        let heads = self.read(async |tx: &mut Tx| tx.heads().await).await?;
        for (shard, head) in (0_u32..).zip(heads) {
            self.audit_shard(shard, head, &mut audit).await?;
        }
        let found = self
            .read(async |tx: &mut Tx| {
                let mut found = Vec::new();
                for row in tx.query(BROKEN_STREAMS, &[]).await? {
                    let (stream, events): (String, u64) = (row.get("stream")?, row.get("events")?);
                    let (first, last): (u64, u64) = (row.get("first")?, row.get("last")?);
                    found.push(format!("stream {stream} has {events} events with versions from {first} to {last}"));
                }
                found.extend(engine(tx).await?);
                Ok::<_, Error>(found)
            })
            .await;
        match found {
            Ok(found) => audit.problems.extend(found),
            Err(error @ Error::Damaged { .. }) => audit.problems.push(error.to_string()),
            Err(error) => return Err(error),
        }
        audit.problems.truncate(TOLD);
        Ok(audit)
    }

    async fn audit_shard(&self, shard: u32, head: u64, audit: &mut Audit) -> Result<(), Error> {
        let mut after = 0;
        while after < head && audit.problems.len() < TOLD {
            let page = self.read(async move |tx: &mut Tx| look(tx, shard, after).await).await;
            match page {
                Ok(page) if page.last == after => {
                    audit.problems.push(format!("shard {shard} ends at {after} and its counter says {head}"));
                    return Ok(());
                }
                Ok(page) => {
                    audit.events += page.events;
                    audit.problems.extend(page.problems);
                    after = page.last;
                }
                Err(error @ Error::Damaged { .. }) => {
                    audit.problems.push(error.to_string());
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

struct Page {
    events: u64,
    last: u64,
    problems: Vec<String>,
}

/// One page of a shard; what is wrong is noted and passed over.
async fn look(tx: &mut Tx, shard: u32, after: u64) -> Result<Page, Error> {
    let service = tx.service();
    let mut page = Page { events: 0, last: after, problems: Vec::new() };
    tx.each(EVENTS_OF_SHARD, params![shard, after, PAGE], |row| {
        let position: u64 = row.get("position")?;
        if position != page.last + 1 {
            page.problems.push(format!("shard {shard} has no event at position {}", page.last + 1));
        }
        page.last = position;
        match recorded(service, row) {
            Ok(_) => page.events += 1,
            Err(error) => page.problems.push(error.to_string()),
        }
        Ok(())
    })
    .await?;
    Ok(page)
}

/// What only the engine can say of itself.
async fn engine(tx: &mut Tx) -> Result<Vec<String>, Error> {
    match &tx.session {
        Session::Sqlite(_) => {
            let mut found = Vec::new();
            for row in tx.query("PRAGMA integrity_check(20)", &[]).await? {
                let line: String = row.get("integrity_check")?;
                if line != "ok" {
                    found.push(line);
                }
            }
            for row in tx.query("PRAGMA foreign_key_check", &[]).await? {
                found.push(format!("a row of {} refers to nothing", row.get::<String>("table")?));
            }
            Ok(found)
        }
        #[cfg(feature = "fleet")]
        Session::Postgres(_) => Ok(Vec::new()),
    }
}
