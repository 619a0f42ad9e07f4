//! Connects, checks the server's durability, migrates under a lock, and starts the threads.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    str::FromStr as _,
    sync::Arc,
    time::Duration,
};

use deadpool_postgres::{Pool, Runtime, tokio_postgres};
use futures_util::stream::poll_fn;
use tokio::sync::{mpsc, watch};
use tokio_postgres::{Client, error::SqlState};

use super::{
    append::VERSION_TAKEN,
    hints::Hints,
    presence,
    session::typed,
    wire::Wire,
    workers::{Connections, Workers},
};
use crate::{
    Config, Engine, Error, Row, Value,
    job::{QUEUE, Threads},
    migrate::{self, Missing},
    store::{MOST_READERS, Signals},
};

/// The longest a statement of a write may take; a caller's deadline is shorter.
const STATEMENT_LIMIT: Duration = Duration::from_secs(30);
/// The longest a body waits for a connection.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// Held while the tables are brought up to date, so that of many new processes one does it: "stoa" in ASCII.
const MIGRATION_LOCK: i64 = 0x7374_6f61;

pub(crate) async fn open(config: &Config, signals: &Arc<Signals>) -> Result<Threads, Error> {
    let service = config.name;
    let refuse = |detail: String| Error::Open { service, detail };
    let Engine::Postgres(database) = &config.engine else {
        return Err(refuse("the engine is not PostgreSQL".to_owned()));
    };
    let server = |url: &str| {
        let mut server = tokio_postgres::Config::from_str(url).map_err(|error| refuse(error.to_string()))?;
        server.application_name(format!("stoa-{service}"));
        server.connect_timeout(WAIT_LIMIT);
        Ok::<_, Error>(server)
    };
    let wire = |server| Wire::new(server, database.authority.as_deref()).map_err(refuse);
    let own = server(&database.url)?;
    let user = own.get_user().unwrap_or_default().to_owned();
    let own = wire(own)?;
    let owner = match &database.owner_url {
        Some(url) => Some(wire(server(url)?)?),
        None => None,
    };
    let client = owner.as_ref().unwrap_or(&own).connect().await.map_err(|error| refuse(describe(&error)))?;
    let Log { shards, appended } =
        prepare(config, &client, database.shards.max(1), owner.is_some().then_some(user.as_str())).await?;
    signals.head.send_replace(appended);

    let pool = |size: usize, limit: Duration| {
        Pool::builder(own.with_options(format!("-c statement_timeout={}", limit.as_millis())).manager())
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT_LIMIT))
            .create_timeout(Some(WAIT_LIMIT))
            .build()
            .map_err(|error| refuse(error.to_string()))
    };
    let spawn = |name: String, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name).spawn(body).map_err(|error| refuse(format!("no thread: {error}")))
    };
    let readers_count = config.readers.clamp(1, MOST_READERS);
    let writers_count = database.writers.max(1);
    let (readers, read_queue) = async_channel::bounded(QUEUE);
    let (writer, mut write_queue) = mpsc::channel(QUEUE);
    let write_queue = poll_fn(move |context| write_queue.poll_recv(context));
    let connections = |count, statement_limit| {
        Ok::<_, Error>(Connections { pool: pool(count, statement_limit)?, count, statement_limit })
    };
    // Any name will do that no other store on the database has.
    let me = format!("{:016x}", RandomState::new().build_hasher().finish());
    let (there, mut arrived) = watch::channel(());
    let hints = Hints { wire: own.clone(), me, presence: presence::statement(&config.migrations), there };
    // It is known to be there until the connection that says so from now on has said it.
    tokio::spawn(async move {
        let _ = arrived.changed().await;
        drop(client);
    });
    let read = Workers::readers(config, connections(readers_count, config.read_limit)?, hints.clone(), signals);
    let write = Workers::writers(config, connections(writers_count, STATEMENT_LIMIT)?, hints, shards, signals);
    let handles = vec![
        spawn(format!("{service}-read"), Box::new(move || read.run(read_queue)))?,
        spawn(format!("{service}-write"), Box::new(move || write.run(write_queue)))?,
    ];
    Ok(Threads { writer, readers, file: None, handles })
}

struct Log {
    shards: u32,
    appended: u64,
}

/// Checks the server and brings the tables up to date, for this role if it is not the one that owns them.
async fn prepare(config: &Config, client: &Client, shards: u32, role: Option<&str>) -> Result<Log, Error> {
    let service = config.name;
    let failed = |error: tokio_postgres::Error| typed(service, error);
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let row = client.query_one("SELECT current_setting($1)", &[&setting]).await.map_err(failed)?;
        let value: String = row.try_get(0).map_err(failed)?;
        if value == "off" {
            return Err(Error::Open {
                service,
                detail: format!("PostgreSQL runs with {setting} = off: a commit would not be durable"),
            });
        }
    }
    let row = client
        .query_one("SELECT datcollate::text FROM pg_database WHERE datname = current_database()", &[])
        .await
        .map_err(failed)?;
    let collation: String = row.try_get(0).map_err(failed)?;
    if !["C", "POSIX", "C.UTF-8", "C.utf8"].contains(&collation.as_str()) {
        return Err(Error::Open { service, detail: format!("the database sorts by {collation}, not by C") });
    }
    client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await.map_err(failed)?;
    let migrated = async {
        migrate(config, client, shards).await?;
        client.batch_execute(&presence::statement(&config.migrations)).await.map_err(failed)?;
        match role {
            Some(role) => grant(client, role).await.map_err(failed),
            None => Ok(()),
        }
    };
    let migrated = migrated.await;
    client.execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK]).await.map_err(failed)?;
    migrated?;
    let row = client
        .query_one("SELECT count(*), CAST(coalesce(sum(head), 0) AS BIGINT) FROM shards", &[])
        .await
        .map_err(failed)?;
    let (shards, appended): (i64, i64) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    Ok(Log { shards: u32::try_from(shards).unwrap_or(1), appended: u64::try_from(appended).unwrap_or(0) })
}

fn log_tables(shards: u32) -> String {
    format!(
        "CREATE TABLE events (
             shard BIGINT NOT NULL, position BIGINT NOT NULL, stream TEXT NOT NULL, version BIGINT NOT NULL,
             name TEXT NOT NULL, schema_version BIGINT NOT NULL, occur_time BIGINT NOT NULL, causation_id TEXT NOT NULL,
             correlation_id TEXT NOT NULL, traceparent TEXT NOT NULL, subject TEXT, payload BYTEA NOT NULL,
             checksum BIGINT NOT NULL, PRIMARY KEY (shard, position), CONSTRAINT {VERSION_TAKEN} UNIQUE (stream, version));
         CREATE TABLE shards (shard BIGINT NOT NULL PRIMARY KEY, head BIGINT NOT NULL) WITH (fillfactor = 20);
         INSERT INTO shards (shard, head) SELECT n, 0 FROM generate_series(0, {shards} - 1) AS n"
    )
}

async fn migrate(config: &Config, client: &Client, shards: u32) -> Result<(), Error> {
    let service = config.name;
    let failed = |error: tokio_postgres::Error| typed(service, error);
    // The log itself comes before all sets, with the migrations' own table.
    let row = client.query_one("SELECT to_regclass('migrations') IS NOT NULL", &[]).await.map_err(failed)?;
    if !row.try_get::<_, bool>(0).map_err(failed)? {
        let sql = format!("BEGIN; {}; {}; COMMIT", migrate::TABLE, log_tables(shards));
        client.batch_execute(&sql).await.map_err(failed)?;
    }
    let told = "SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = current_schema() \
                AND table_name = 'migrations' AND column_name = 'needs')";
    if !client.query_one(told, &[]).await.and_then(|row| row.try_get::<_, bool>(0)).map_err(failed)? {
        client.batch_execute(migrate::ADD_NEEDS).await.map_err(failed)?;
    }
    let names: Arc<[Box<str>]> = migrate::COLUMNS.map(Box::from).into();
    let mut applied = Vec::new();
    for row in client.query(migrate::APPLIED, &[]).await.map_err(failed)? {
        let values = vec![
            Value::Text(row.try_get(0).map_err(failed)?),
            Value::Int(row.try_get(1).map_err(failed)?),
            Value::Text(row.try_get(2).map_err(failed)?),
            Value::Int(row.try_get(3).map_err(failed)?),
            Value::Int(row.try_get(4).map_err(failed)?),
        ];
        applied.push(Row { columns: Arc::clone(&names), values });
    }
    let plan = migrate::plan(service, &config.migrations, &applied)?;
    plan.tell(service);
    for missing in plan.missing {
        apply(service, client, &missing).await?;
    }
    Ok(())
}

/// One migration in a transaction of its own, unless somebody is there whom it would break.
async fn apply(service: &'static str, client: &Client, missing: &Missing) -> Result<(), Error> {
    let Missing { set, migration, needs } = *missing;
    let refuse = |detail: String| Error::Migration {
        service,
        detail: format!("{set} version {} ({}): {detail}", migration.version, migration.name),
    };
    let older = presence::older_for_long(client, set, needs).await.map_err(|error| typed(service, error))?;
    if let Some((count, least)) = older {
        return Err(refuse(format!(
            "it needs binaries that know version {needs}, and of the processes that have the store open {count} know less \
             (the oldest version {least}): end them, then start this one again"
        )));
    }
    let applied = async {
        client.batch_execute("BEGIN").await?;
        client.batch_execute(migration.sql).await?;
        let (version, needs) = (i64::from(migration.version), i64::from(needs));
        client.execute(migrate::RECORD, &[&set, &version, &migration.name, &migration.checksum(), &needs]).await?;
        client.batch_execute("COMMIT").await
    };
    if let Err(error) = applied.await {
        client.batch_execute("ROLLBACK").await.map_err(|error| typed(service, error))?;
        return Err(refuse(format!("{error:?}")));
    }
    Ok(())
}

/// Lets the service's role read and append what is only ever appended to, and change every table but these; not the tables
/// themselves.
async fn grant(client: &Client, user: &str) -> Result<(), tokio_postgres::Error> {
    const APPENDED: [&str; 2] = ["events", "audit_records"];
    const OWN: [&str; 2] = ["shards", "migrations"];
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let user = quoted(user);
    let tables = client
        .query("SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()", &[])
        .await?
        .iter()
        .map(|row| row.try_get::<_, String>(0))
        .collect::<Result<Vec<_>, _>>()?;
    let mut statements = vec![
        format!("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {user}"),
        format!("GRANT SELECT, UPDATE ON shards TO {user}"),
        format!("GRANT SELECT ON migrations TO {user}"),
    ];
    for table in tables.iter().filter(|table| !OWN.contains(&table.as_str())) {
        let rights =
            if APPENDED.contains(&table.as_str()) { "SELECT, INSERT" } else { "SELECT, INSERT, UPDATE, DELETE" };
        statements.push(format!("GRANT {rights} ON {} TO {user}", quoted(table)));
    }
    // As one transaction: a copy that is running never finds itself without.
    client.batch_execute(&format!("BEGIN; {}; COMMIT", statements.join("; "))).await
}

/// The error with what lies behind it: of a connection that could not be made, that is what one needs to know.
fn describe(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Creates the database `name` on a server unless it is there, sorted as this store wants it; `server` is the address of any
/// database there, with a role that may create others.
pub async fn create_database(server: &str, name: &str) -> Result<(), Error> {
    const SERVICE: &str = "postgres";
    let refuse = |detail: String| Error::Open { service: SERVICE, detail };
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !plain || name.is_empty() {
        return Err(refuse(format!("a database cannot be called {name:?}")));
    }
    let server = tokio_postgres::Config::from_str(server).map_err(|error| refuse(error.to_string()))?;
    let wire = Wire::new(server, None).map_err(refuse)?;
    let client = wire.connect().await.map_err(|error| refuse(describe(&error)))?;
    let create = format!(
        "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' STRATEGY wal_log"
    );
    match client.batch_execute(&create).await {
        Err(error) if error.code() == Some(&SqlState::DUPLICATE_DATABASE) => Ok(()),
        created => created.map_err(|error| typed(SERVICE, error)),
    }
}
