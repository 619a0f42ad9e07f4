//! The transaction a body works on, the same for both engines.
//!
//! A `Tx` keeps its first error: every later statement gives that error again, and the transaction
//! cannot commit, whether or not the body looked at it. Only a savepoint whose body failed clears the
//! errors inside it.

use jiff::Timestamp;

use crate::{Error, NewEvent, Recorded, Row, Value, sqlite};

/// A transaction in progress; it owns its connection while the body runs.
pub struct Tx {
    pub(crate) session: Session,
    pub(crate) service: &'static str,
    pub(crate) writable: bool,
    /// Whether a part of it can be undone. Where not, a body that wants to undo what it wrote is run again where it can.
    pub(crate) undoable: bool,
    pub(crate) now: Timestamp,
    pub(crate) appended: Vec<NewEvent>,
    /// The stream that was read last, and the version it had.
    pub(crate) seen: Option<(String, u64)>,
    pub(crate) first_error: Option<Error>,
}

pub(crate) enum Session {
    Sqlite(sqlite::Session),
    #[cfg(feature = "fleet")]
    Postgres(crate::postgres::Session),
}

impl Tx {
    /// Runs a statement and says how many rows it changed.
    pub async fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, Error> {
        self.unbroken()?;
        let result = match &mut self.session {
            Session::Sqlite(session) => session.execute(sql, params),
            #[cfg(feature = "fleet")]
            Session::Postgres(session) => session.execute(sql, params).await,
        };
        self.keep(result)
    }

    /// Runs a query and returns all its rows; bound it with LIMIT.
    pub async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        self.each(sql, params, |row| {
            rows.push(row);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Runs a query that finds at most one row; more than one is an error.
    pub async fn query_opt(&mut self, sql: &str, params: &[Value]) -> Result<Option<Row>, Error> {
        let mut rows = self.query(sql, params).await?;
        let row = rows.pop();
        if rows.is_empty() {
            return Ok(row);
        }
        let many = Err(Error::Mismatch {
            column: "*".to_owned(),
            expected: "at most one row",
            found: "several rows".to_owned(),
        });
        self.keep(many)
    }

    /// Runs a query and hands over row after row, so that large results need no memory.
    pub async fn each(
        &mut self,
        sql: &str,
        params: &[Value],
        mut row: impl FnMut(Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.unbroken()?;
        let result = match &mut self.session {
            Session::Sqlite(session) => session.query(sql, params, &mut row),
            #[cfg(feature = "fleet")]
            Session::Postgres(session) => session.query(sql, params, &mut row).await,
        };
        self.keep(result)
    }

    /// Appends an event when the body ends; a version that is not next is found then, as `Error::Conflict`.
    pub fn append(&mut self, event: NewEvent) {
        if self.writable {
            self.appended.push(event);
        } else if self.first_error.is_none() {
            self.first_error = Some(Error::ReadOnly);
        }
    }

    /// The events this transaction has appended so far; no query sees them yet.
    pub fn appended(&self) -> &[NewEvent] {
        &self.appended
    }

    /// The time of this transaction, the same however long it takes.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Makes this the transaction's time, for one that takes over what has happened elsewhere: its events are stored as
    /// having happened then.
    pub fn set_now(&mut self, time: Timestamp) {
        self.now = time;
    }

    /// The name of the store.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Runs `body` so that its failure undoes its rows and events alone and the transaction lives on.
    ///
    /// The inner result is the body's. The outer error means the whole transaction is lost: the engine
    /// failed, or the body met an error and did not report it.
    pub async fn savepoint<T, E, F>(&mut self, body: F) -> Result<Result<T, E>, Error>
    where
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        if !self.undoable {
            return self.unguarded(body).await;
        }
        self.control("SAVEPOINT inside").await?;
        let mark = self.appended.len();
        let outcome = body(self).await;
        let hidden = self.first_error.take();
        match (outcome, hidden) {
            (_, Some(error)) if error.is_fatal() => self.keep(Err(error)),
            (Ok(value), None) => {
                self.control("RELEASE SAVEPOINT inside").await?;
                Ok(Ok(value))
            }
            (Ok(_), Some(error)) => self.keep(Err(error)),
            (Err(reported), _) => {
                self.control("ROLLBACK TO SAVEPOINT inside").await?;
                self.control("RELEASE SAVEPOINT inside").await?;
                self.appended.truncate(mark);
                Ok(Err(reported))
            }
        }
    }

    /// As [`Tx::savepoint`], in the hope that there will be nothing to undo: a savepoint costs a copy of every page that is
    /// changed in it. If there is, the transaction is lost, and its engine runs it again.
    async fn unguarded<T, E, F>(&mut self, body: F) -> Result<Result<T, E>, Error>
    where
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        let (mark, writes) = (self.appended.len(), self.writes());
        let outcome = body(self).await;
        match (outcome, self.first_error.take()) {
            (_, Some(error)) if error.is_fatal() => self.keep(Err(error)),
            (Ok(value), None) => Ok(Ok(value)),
            (Ok(_), Some(error)) => self.keep(Err(error)),
            (Err(reported), _) if self.writes() == writes => {
                self.appended.truncate(mark);
                Ok(Err(reported))
            }
            (Err(_), _) => {
                self.keep(Err(Error::Busy { detail: "something is to be undone, so it runs once more".to_owned() }))
            }
        }
    }

    /// How many statements have run that may have changed something, where the engine counts them.
    fn writes(&self) -> u64 {
        match &self.session {
            Session::Sqlite(session) => session.writes(),
            #[cfg(feature = "fleet")]
            Session::Postgres(_) => 0,
        }
    }

    /// The stored events of a stream from version `from` on, at most `limit`, checksums verified.
    pub async fn events(&mut self, stream: &str, from: u64, limit: u32) -> Result<Vec<Recorded>, Error> {
        let mut events: Vec<Recorded> = Vec::new();
        let service = self.service;
        let from = from.max(1);
        let mut next = from;
        let result = self
            .each(EVENTS_OF_STREAM, &[stream.into(), from.into(), limit.into()], |row| {
                let event = recorded(service, row)?;
                if event.version != next || event.stream != stream {
                    return Err(event.corrupt(service, format!("{stream} version {next} was expected")));
                }
                next += 1;
                events.push(event);
                Ok(())
            })
            .await;
        result?;
        if events.len() < limit as usize {
            // Read to its end by one who knows what stands before `from`.
            self.seen = Some((stream.to_owned(), from - 1 + events.len() as u64));
        }
        Ok(events)
    }

    /// The events of a shard after position `after`, at most `limit`, checksums verified and without holes.
    pub async fn tail(&mut self, shard: u32, after: u64, limit: u32) -> Result<Vec<Recorded>, Error> {
        let mut events: Vec<Recorded> = Vec::new();
        let service = self.service;
        let mut next = after + 1;
        let result = self
            .each(EVENTS_OF_SHARD, &[shard.into(), after.into(), limit.into()], |row| {
                let event = recorded(service, row)?;
                if event.position != next || event.shard != shard {
                    return Err(event.corrupt(service, format!("position {shard}/{next} was expected")));
                }
                next += 1;
                events.push(event);
                Ok(())
            })
            .await;
        result?;
        Ok(events)
    }

    /// Takes a stream until the transaction ends: others who take it wait, so what is read of it next stays so. Who only
    /// reads takes nothing.
    pub async fn take_stream(&mut self, stream: &str) -> Result<(), Error> {
        self.unbroken()?;
        if !self.writable {
            return Ok(());
        }
        let result = match &mut self.session {
            Session::Sqlite(session) => session.take_stream(stream),
            #[cfg(feature = "fleet")]
            Session::Postgres(session) => {
                // Whoever held it may have appended.
                self.seen = None;
                session.take_stream(stream).await
            }
        };
        self.keep(result)
    }

    /// The last version of a stream, 0 if it has none, and without what this transaction has appended.
    ///
    /// The stream whose [`Tx::events`] were read last, and to their end, is not asked again, unless it was taken since: should
    /// somebody have appended meanwhile, or nothing stand before `from`, the next append finds out.
    pub async fn version(&mut self, stream: &str) -> Result<u64, Error> {
        self.unbroken()?;
        if let Some((_, version)) = self.seen.as_ref().filter(|(seen, _)| seen == stream) {
            return Ok(*version);
        }
        let row = self.query_opt(VERSION, &[stream.into()]).await?;
        row.map_or(Ok(0), |row| row.get("version"))
    }

    /// The last position of every shard; the number of shards is its length.
    pub async fn heads(&mut self) -> Result<Vec<u64>, Error> {
        let rows = self.query(HEADS, &[]).await?;
        rows.iter().map(|row| row.get("head")).collect()
    }

    /// A statement that is neither data nor counted, such as SAVEPOINT.
    async fn control(&mut self, sql: &'static str) -> Result<(), Error> {
        self.unbroken()?;
        let result = match &mut self.session {
            Session::Sqlite(session) => session.control(sql),
            #[cfg(feature = "fleet")]
            Session::Postgres(session) => session.control(sql).await,
        };
        self.keep(result)
    }

    pub(crate) fn unbroken(&self) -> Result<(), Error> {
        self.first_error.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn keep<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result
            && self.first_error.is_none()
        {
            self.first_error = Some(error.clone());
        }
        result
    }

    /// Forgets the body that ran last.
    pub(crate) fn reset(&mut self, now: Timestamp) {
        self.now = now;
        self.appended.clear();
        self.seen = None;
        self.first_error = None;
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tx").field("service", &self.service).field("now", &self.now).finish_non_exhaustive()
    }
}

const EVENTS_OF_STREAM: &str = "SELECT shard, position, stream, version, name, schema_version, occur_time, causation_id, \
     correlation_id, traceparent, subject, payload, checksum FROM events \
     WHERE stream = $1 AND version >= $2 ORDER BY version LIMIT $3";
pub(crate) const EVENTS_OF_SHARD: &str = "SELECT shard, position, stream, version, name, schema_version, occur_time, causation_id, \
     correlation_id, traceparent, subject, payload, checksum FROM events \
     WHERE shard = $1 AND position > $2 ORDER BY position LIMIT $3";
const VERSION: &str = "SELECT version FROM events WHERE stream = $1 ORDER BY version DESC LIMIT 1";
const HEADS: &str = "SELECT head FROM shards ORDER BY shard";

/// The event of a row of the two queries above; every column is taken, none is copied.
pub(crate) fn recorded(service: &'static str, row: Row) -> Result<Recorded, Error> {
    let mut cells = Cells { values: row.values.into_iter(), sound: true };
    let event = Recorded {
        shard: cells.number(),
        position: cells.number(),
        stream: cells.text(),
        version: cells.number(),
        name: cells.text(),
        schema: cells.number(),
        occur_time: cells.time(),
        causation: cells.text(),
        correlation: cells.text(),
        traceparent: cells.text(),
        subject: cells.text_or_null(),
        payload: cells.bytes(),
    };
    let checksum = cells.number();
    if cells.sound {
        event.verified(service, checksum)
    } else {
        Err(event.corrupt(service, "a column has a wrong type".to_owned()))
    }
}

/// The columns of an event one after the other; what damage has made of another type is replaced and remembered.
struct Cells {
    values: std::vec::IntoIter<Value>,
    sound: bool,
}

impl Cells {
    fn take<T: Default>(&mut self, convert: impl FnOnce(Value) -> Option<T>) -> T {
        self.values.next().and_then(convert).unwrap_or_else(|| {
            self.sound = false;
            T::default()
        })
    }

    fn number<T: Default + TryFrom<i64>>(&mut self) -> T {
        self.take(|value| if let Value::Int(number) = value { T::try_from(number).ok() } else { None })
    }

    fn text(&mut self) -> String {
        self.take(|value| if let Value::Text(text) = value { Some(text) } else { None })
    }

    fn text_or_null(&mut self) -> Option<String> {
        self.take(|value| match value {
            Value::Null => Some(None),
            Value::Text(text) => Some(Some(text)),
            Value::Int(_) | Value::Real(_) | Value::Bytes(_) | Value::Bool(_) | Value::TooLarge(_) => None,
        })
    }

    fn bytes(&mut self) -> Vec<u8> {
        self.take(|value| if let Value::Bytes(bytes) = value { Some(bytes) } else { None })
    }

    fn time(&mut self) -> Timestamp {
        self.take(|value| if let Value::Int(micros) = value { Timestamp::from_microsecond(micros).ok() } else { None })
    }
}
