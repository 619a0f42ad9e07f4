//! One SQLite connection: statements in, rows and typed errors out.

use rusqlite::{
    CachedStatement, Connection, ErrorCode, Statement, ToSql, ffi,
    types::{ToSqlOutput, ValueRef},
};

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
};

use jiff::Timestamp;

use crate::{ConstraintKind, Error, NewEvent, Row, Value, event::with_position};

pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) service: &'static str,
    /// By the text of the statement.
    shapes: RefCell<HashMap<Box<str>, Arc<Shape>>>,
    /// Statements run that may have changed something.
    writes: Cell<u64>,
    /// Scratch stores that are attached.
    pub(super) attached: Cell<u32>,
}

/// What can be asked of a statement once and for all. The tables do not change while a store is open.
struct Shape {
    /// For each of SQLite's parameters the `n` of its `$n`: SQLite numbers them in the order they first occur.
    numbers: Box<[usize]>,
    /// The highest of them.
    highest: usize,
    columns: Arc<[Box<str>]>,
    readonly: bool,
}

/// Shapes kept: more than there are texts in a service, less than searches could be put together.
const SHAPES: usize = 512;

/// The only shard of an embedded log.
pub(crate) const SHARD: u32 = 0;

// The version before must be there, or the stream would have a gap.
const APPEND: &str = "INSERT INTO events (shard, position, stream, version, name, schema_version, occur_time, causation_id, \
     correlation_id, traceparent, subject, payload, checksum) \
     SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13 \
     WHERE ?4 = 1 OR EXISTS (SELECT 1 FROM events WHERE stream = ?3 AND version = ?4 - 1)";

impl Session {
    pub(crate) fn new(connection: Connection, service: &'static str) -> Self {
        Self { connection, service, shapes: RefCell::default(), writes: Cell::new(0), attached: Cell::new(0) }
    }

    /// There is one writer, so every stream is its own already.
    #[allow(clippy::unused_self, reason = "the other engine has something to do")]
    pub(crate) fn take_stream(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn execute(&self, sql: &str, params: &[Value]) -> Result<u64, Error> {
        let (mut statement, _) = self.bound(sql, params)?;
        statement.raw_execute().map(|rows| rows as u64).map_err(|error| self.error(error))
    }

    pub(crate) fn query(
        &self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut statement, shape) = self.bound(sql, params)?;
        let width = shape.columns.len();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(|error| self.error(error))? {
            let mut values = Vec::with_capacity(width);
            for column in 0..width {
                values.push(owned(row.get_ref(column).map_err(|error| self.error(error))?));
            }
            each(Row { columns: Arc::clone(&shape.columns), values })?;
        }
        Ok(())
    }

    /// BEGIN, COMMIT, SAVEPOINT and the like.
    pub(crate) fn control(&self, sql: &'static str) -> Result<(), Error> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| self.error(error))?;
        statement.raw_execute().map(drop).map_err(|error| self.error(error))
    }

    /// Writes one event; a version that is taken or not next is a conflict.
    pub(crate) fn append(&self, event: &NewEvent, position: u64, now: Timestamp) -> Result<(), Error> {
        let conflict = || Error::Conflict { stream: event.stream.clone(), version: event.version };
        let too_large =
            |_| Error::Mismatch { column: "version".to_owned(), expected: "at most 2^63-1", found: "more".to_owned() };
        let version = i64::try_from(event.version).map_err(too_large)?;
        let stored_position = i64::try_from(position).map_err(too_large)?;
        let checksum = with_position(event.content(SHARD, now).checksum(), position);
        let mut statement = self.connection.prepare_cached(APPEND).map_err(|error| self.error(error))?;
        let changed = statement.execute(rusqlite::params![
            SHARD,
            stored_position,
            event.stream,
            version,
            event.name,
            event.schema,
            now.as_microsecond(),
            event.causation,
            event.correlation,
            event.traceparent,
            event.subject,
            event.payload,
            checksum,
        ]);
        match changed {
            Ok(1) => Ok(()),
            Ok(_) => Err(conflict()),
            Err(error) => match self.error(error) {
                Error::Constraint { kind: ConstraintKind::Unique, .. } => Err(conflict()),
                error => Err(error),
            },
        }
    }

    /// Whether the engine has rolled the whole transaction back by itself.
    pub(crate) fn is_broken(&self) -> bool {
        self.connection.is_autocommit()
    }

    /// How many statements have run that may have changed something; while it stays the same, nothing has.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.get()
    }

    /// The prepared statement with its parameters bound.
    fn bound(&self, sql: &str, params: &[Value]) -> Result<(CachedStatement<'_>, Arc<Shape>), Error> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| self.error(error))?;
        let shape = self.shape(sql, &statement)?;
        for (index, number) in shape.numbers.iter().copied().enumerate() {
            let Some(value) = params.get(number - 1) else {
                return Err(Error::Mismatch {
                    column: format!("${number}"),
                    expected: "a parameter $1, $2, ...",
                    found: format!("{} parameters", params.len()),
                });
            };
            if let Value::TooLarge(_) = value {
                return Err(Error::Mismatch {
                    column: format!("${number}"),
                    expected: "at most 2^63-1",
                    found: value.kind().to_owned(),
                });
            }
            statement.raw_bind_parameter(index + 1, value).map_err(|error| self.error(error))?;
        }
        if shape.highest != params.len() {
            return Err(Error::Mismatch {
                column: format!("${}", params.len()),
                expected: "every parameter used",
                found: format!("only ${} used", shape.highest),
            });
        }
        if !shape.readonly {
            self.writes.set(self.writes.get() + 1);
        }
        Ok((statement, shape))
    }

    /// Asking SQLite for names costs more than running many a statement, so what was asked once is kept.
    fn shape(&self, sql: &str, statement: &Statement<'_>) -> Result<Arc<Shape>, Error> {
        if let Some(shape) = self.shapes.borrow().get(sql) {
            return Ok(Arc::clone(shape));
        }
        let mut numbers = Vec::with_capacity(statement.parameter_count());
        for index in 1..=statement.parameter_count() {
            let name = statement.parameter_name(index);
            let number = name
                .and_then(|name| name.strip_prefix('$'))
                .and_then(|number| number.parse::<usize>().ok())
                .filter(|number| *number > 0);
            let Some(number) = number else {
                return Err(Error::Mismatch {
                    column: name.unwrap_or("?").to_owned(),
                    expected: "a parameter $1, $2, ...",
                    found: "another name".to_owned(),
                });
            };
            numbers.push(number);
        }
        let shape = Arc::new(Shape {
            highest: numbers.iter().copied().max().unwrap_or(0),
            numbers: numbers.into(),
            columns: statement.column_names().map(Box::from).collect(),
            readonly: statement.readonly(),
        });
        let mut shapes = self.shapes.borrow_mut();
        if shapes.len() >= SHAPES {
            shapes.clear();
        }
        shapes.insert(sql.into(), Arc::clone(&shape));
        Ok(shape)
    }

    pub(crate) fn error(&self, error: rusqlite::Error) -> Error {
        let rusqlite::Error::SqliteFailure(code, message) = &error else {
            return Error::Engine(Arc::new(error));
        };
        let detail = || message.clone().unwrap_or_else(|| code.to_string());
        // The shared-memory file beside the database cannot grow: a full disk, by another name.
        if code.extended_code == ffi::SQLITE_IOERR_SHMSIZE {
            return Error::Full { service: self.service };
        }
        match code.code {
            ErrorCode::ConstraintViolation => match constraint(code.extended_code) {
                Some(kind) => Error::Constraint { kind, detail: detail() },
                None => Error::Engine(Arc::new(error)),
            },
            ErrorCode::DiskFull => Error::Full { service: self.service },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Error::Busy { detail: detail() },
            ErrorCode::OperationInterrupted => Error::Busy { detail: "the read took longer than its limit".to_owned() },
            ErrorCode::ReadOnly => Error::ReadOnly,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Error::Damaged { service: self.service, detail: detail() }
            }
            _ => Error::Engine(Arc::new(error)),
        }
    }
}

/// Whether the operating system failed to read, write or flush: after that nothing about the file is certain.
pub(crate) fn is_io(error: &Error) -> bool {
    if let Error::Engine(source) = error
        && let Some(rusqlite::Error::SqliteFailure(code, _)) = source.downcast_ref::<rusqlite::Error>()
    {
        return code.code == ErrorCode::SystemIoFailure;
    }
    false
}

fn constraint(extended: i32) -> Option<ConstraintKind> {
    match extended {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            Some(ConstraintKind::Unique)
        }
        ffi::SQLITE_CONSTRAINT_CHECK => Some(ConstraintKind::Check),
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Some(ConstraintKind::ForeignKey),
        ffi::SQLITE_CONSTRAINT_NOTNULL => Some(ConstraintKind::NotNull),
        ffi::SQLITE_CONSTRAINT_DATATYPE => Some(ConstraintKind::Type),
        _ => None,
    }
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Real(number) => Value::Real(number),
        // Text that is no UTF-8 is damage; as bytes it fits no text column and is refused where it is read.
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(bytes.to_vec()),
        },
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
            Self::Bool(flag) => ValueRef::Integer(i64::from(*flag)),
            Self::TooLarge(number) => {
                return Err(rusqlite::Error::ToSqlConversionFailure(number.to_string().into()));
            }
        }))
    }
}
