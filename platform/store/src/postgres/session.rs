//! One pooled PostgreSQL connection: statements in, rows and typed errors out.

use std::{borrow::Cow, pin::pin, sync::Arc};

use deadpool_postgres::{Object, tokio_postgres};
use futures_util::{TryStreamExt as _, future::join};
use tokio_postgres::{
    error::SqlState,
    types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked},
};

use crate::{ConstraintKind, Error, Row, Value};

/// How a write begins; versions are decided by constraints and guarded updates, not by the isolation.
pub(super) const WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
/// How a read begins: every statement sees the same moment.
pub(super) const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

pub(crate) struct Session {
    pub(super) client: Object,
    service: &'static str,
    /// BEGIN, until it has been sent with the first statement.
    begin: Option<Cow<'static, str>>,
}

impl Session {
    pub(super) fn new(client: Object, service: &'static str, begin: Cow<'static, str>) -> Self {
        Self { client, service, begin: Some(begin) }
    }

    /// Whether a transaction was begun, and so must be ended.
    pub(super) fn has_begun(&self) -> bool {
        self.begin.is_none()
    }

    /// BEGIN, if it is still to be sent. It travels in front of the statement, without a round trip of its own.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        match self.begin.take() {
            Some(begin) => self.client.batch_execute(&begin).await.map_err(|error| self.error(error)),
            None => Ok(()),
        }
    }

    pub(crate) async fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, Error> {
        let statement = self.client.prepare_cached(sql).await.map_err(|error| self.error(error))?;
        counted(statement.params().len(), params)?;
        let run = self.client.execute_raw(&statement, params);
        let changed = match self.begin.take() {
            Some(begin) => {
                let (begun, changed) = join(self.client.batch_execute(&begin), run).await;
                begun.and(changed)
            }
            None => run.await,
        };
        changed.map_err(|error| self.error(error))
    }

    pub(crate) async fn query(
        &mut self,
        sql: &str,
        params: &[Value],
        each: &mut dyn FnMut(Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let statement = self.client.prepare_cached(sql).await.map_err(|error| self.error(error))?;
        counted(statement.params().len(), params)?;
        let columns: Arc<[Box<str>]> = statement.columns().iter().map(|column| Box::from(column.name())).collect();
        let run = self.client.query_raw(&statement, params);
        let rows = match self.begin.take() {
            Some(begin) => {
                let (begun, rows) = join(self.client.batch_execute(&begin), run).await;
                begun.and(rows)
            }
            None => run.await,
        };
        let mut rows = pin!(rows.map_err(|error| self.error(error))?);
        while let Some(row) = rows.try_next().await.map_err(|error| self.error(error))? {
            let values = (0..columns.len()).map(|column| value(&row, column)).collect::<Result<_, _>>()?;
            each(Row { columns: Arc::clone(&columns), values })?;
        }
        Ok(())
    }

    /// Waits for others who hold the stream, by a lock that goes with the transaction. The lock's number is a digest of the
    /// name: two streams of the same number wait for each other, which is slow and never wrong.
    pub(crate) async fn take_stream(&mut self, stream: &str) -> Result<(), Error> {
        self.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", &[stream.into()]).await.map(drop)
    }

    /// SAVEPOINT and the like.
    pub(crate) async fn control(&mut self, sql: &'static str) -> Result<(), Error> {
        self.begin().await?;
        self.client.batch_execute(sql).await.map_err(|error| self.error(error))
    }

    pub(super) fn error(&self, error: tokio_postgres::Error) -> Error {
        typed(self.service, error)
    }
}

fn counted(wanted: usize, params: &[Value]) -> Result<(), Error> {
    if wanted == params.len() {
        return Ok(());
    }
    Err(Error::Mismatch {
        column: format!("${}", params.len()),
        expected: "every parameter used, and given",
        found: format!("{wanted} used"),
    })
}

/// The engine's error in the words both engines share. Names of constraints differ, kinds do not.
pub(super) fn typed(service: &'static str, error: tokio_postgres::Error) -> Error {
    if error.is_closed() {
        return Error::Busy { detail: "the connection was lost".to_owned() };
    }
    let Some(state) = error.code() else {
        let source = std::error::Error::source(&error);
        if let Some(unfit) = source.and_then(|source| source.downcast_ref::<Unfit>()) {
            let found = unfit.to_string();
            return Error::Mismatch { column: "parameter".to_owned(), expected: "the type of its column", found };
        }
        // The wire broke in the middle of something, or there is nobody at its end: the server's fault it is not, nor ours.
        if source.is_some_and(|source| source.is::<std::io::Error>()) {
            return Error::Busy { detail: error.to_string() };
        }
        return Error::Engine(Arc::new(error));
    };
    let constraint = |kind| {
        // The message may quote values; the name of the constraint does not.
        let name = error.as_db_error().and_then(|error| error.constraint().or(error.column())).unwrap_or_default();
        Error::Constraint { kind, detail: name.to_owned() }
    };
    match state {
        state if *state == SqlState::UNIQUE_VIOLATION => constraint(ConstraintKind::Unique),
        state if *state == SqlState::CHECK_VIOLATION => constraint(ConstraintKind::Check),
        state if *state == SqlState::FOREIGN_KEY_VIOLATION => constraint(ConstraintKind::ForeignKey),
        state if *state == SqlState::NOT_NULL_VIOLATION => constraint(ConstraintKind::NotNull),
        state if *state == SqlState::READ_ONLY_SQL_TRANSACTION => Error::ReadOnly,
        state if *state == SqlState::DISK_FULL => Error::Full { service },
        state if *state == SqlState::DATA_CORRUPTED || *state == SqlState::INDEX_CORRUPTED => {
            Error::Damaged { service, detail: error.to_string() }
        }
        state
            if [
                SqlState::T_R_SERIALIZATION_FAILURE,
                SqlState::T_R_DEADLOCK_DETECTED,
                SqlState::LOCK_NOT_AVAILABLE,
                SqlState::QUERY_CANCELED,
                SqlState::TOO_MANY_CONNECTIONS,
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
            ]
            .contains(state) =>
        {
            Error::Busy { detail: error.to_string() }
        }
        _ => Error::Engine(Arc::new(error)),
    }
}

fn value(row: &tokio_postgres::Row, column: usize) -> Result<Value, Error> {
    fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
        row: &'a tokio_postgres::Row,
        column: usize,
        make: impl FnOnce(T) -> Value,
    ) -> Result<Value, Error> {
        let found: Option<T> = row.try_get(column).map_err(|error| Error::Engine(Arc::new(error)))?;
        Ok(found.map_or(Value::Null, make))
    }
    let Some(described) = row.columns().get(column) else {
        return Ok(Value::Null);
    };
    match *described.type_() {
        Type::INT8 => get(row, column, Value::Int),
        Type::INT4 => get(row, column, |number: i32| Value::Int(i64::from(number))),
        Type::INT2 => get(row, column, |number: i16| Value::Int(i64::from(number))),
        Type::BOOL => get(row, column, Value::Bool),
        Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR | Type::UNKNOWN => get(row, column, Value::Text),
        Type::BYTEA => get(row, column, Value::Bytes),
        Type::FLOAT8 => get(row, column, Value::Real),
        Type::FLOAT4 => get(row, column, |number: f32| Value::Real(f64::from(number))),
        ref other => Err(Error::Mismatch {
            column: described.name().to_owned(),
            expected: "BIGINT, TEXT, BYTEA or BOOLEAN; CAST sums to BIGINT",
            found: other.name().to_owned(),
        }),
    }
}

/// A parameter that does not fit its column.
#[derive(Debug, thiserror::Error)]
#[error("{found} for a column of type {wanted}")]
struct Unfit {
    found: &'static str,
    wanted: String,
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match (self, ty) {
            (Self::Null, _) => Ok(IsNull::Yes),
            (Self::Int(number), &Type::INT8) => number.to_sql(ty, out),
            (Self::Int(number), &Type::INT4) => i32::try_from(*number)?.to_sql(ty, out),
            (Self::Int(number), &Type::INT2) => i16::try_from(*number)?.to_sql(ty, out),
            // SQLite reads its booleans as numbers; a row of a rebuild carries them here.
            (Self::Int(number @ (0 | 1)), &Type::BOOL) => (*number == 1).to_sql(ty, out),
            (Self::Bool(flag), &Type::BOOL) => flag.to_sql(ty, out),
            (Self::Bool(flag), &Type::INT8) => i64::from(*flag).to_sql(ty, out),
            (Self::Text(text), &(Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR | Type::UNKNOWN)) => {
                text.to_sql(ty, out)
            }
            (Self::Bytes(bytes), &Type::BYTEA) => bytes.to_sql(ty, out),
            (Self::Real(number), &Type::FLOAT8) => number.to_sql(ty, out),
            (Self::Int(_) | Self::Bool(_) | Self::Text(_) | Self::Bytes(_) | Self::Real(_) | Self::TooLarge(_), _) => {
                Err(Box::new(Unfit { found: self.kind(), wanted: ty.name().to_owned() }))
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wire_that_breaks_is_no_fault_of_the_engine() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = format!("postgres://stoa@{nobody}/stoa");
        let Err(error) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await else {
            panic!("somebody is there")
        };
        assert!(matches!(typed("test", error), Error::Busy { .. }));
    }
}
