//! Opens a store's file: lock, version, settings read back, migrations, threads.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::mpsc;

use super::{
    Session, dialect,
    lock::{self, Lock},
    readers::Reader,
    session::SHARD,
    writer::Writer,
};
use crate::{
    Config, Engine, Error, Migration, MigrationSet, Tx, Value,
    job::{QUEUE, Threads},
    migrate::{self, Missing},
    store::{MOST_READERS, Signals},
    tx,
};

/// The first release whose WAL is free of the reset race of 3.7.0 to 3.51.2.
const OLDEST: i32 = 3_051_003;

/// How long what is written is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// For good, whatever dies.
    Durable,
    /// As long as the store is open.
    Temporary,
    /// As long as everything goes well.
    Scratch,
}

/// What outlives every thread: the lock, and for a temporary store its files.
pub(crate) struct Guard {
    // The order of the fields is the order in which they go: the files before the lock.
    _files: Option<TemporaryFiles>,
    _lock: Lock,
    /// Readers hold it shared while they run a body; the writer takes it alone to empty the WAL.
    pub(crate) running: RwLock<()>,
}

/// Blocking; the caller runs it off the async workers.
pub(crate) fn open(config: &Config, signals: &Arc<Signals>) -> Result<Threads, Error> {
    let service = config.name;
    let refuse = |detail: String| Error::Open { service, detail };
    if rusqlite::version_number() < OLDEST {
        return Err(refuse(format!("SQLite {} can damage a WAL; 3.51.3 is the oldest allowed", rusqlite::version())));
    }
    let fresh = |folder: &Option<PathBuf>| temporary_path(service, folder.clone().unwrap_or_else(std::env::temp_dir));
    let (path, keeping) = match &config.engine {
        Engine::Sqlite { path } => (path.clone(), Keeping::Durable),
        Engine::Temporary { folder } => (fresh(folder), Keeping::Temporary),
        Engine::Scratch { folder } => (fresh(folder), Keeping::Scratch),
        #[cfg(feature = "fleet")]
        Engine::Postgres(_) => return Err(refuse("PostgreSQL has no file".to_owned())),
    };
    let lock = Lock::take(service, &path, lock::PATIENCE)?;
    let files = (keeping != Keeping::Durable).then(|| TemporaryFiles(path.clone()));
    if files.is_none() {
        remove_leftovers(service, &path);
    }
    make_private(&path).map_err(|error| refuse(format!("{}: {error}", path.display())))?;
    let guard = Arc::new(Guard { _files: files, _lock: lock, running: RwLock::new(()) });

    let session = connect(service, &path, keeping, true)?;
    migrate(config, &session)?;
    let head = head(&session)?;
    signals.head.send_replace(head);

    let mut handles = Vec::new();
    let spawn = |name: String, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name).spawn(body).map_err(|error| refuse(format!("no thread: {error}")))
    };
    let (readers, queue) = async_channel::bounded(QUEUE);
    for number in 1..=config.readers.clamp(1, MOST_READERS) {
        let session = connect(service, &path, keeping, false)?;
        set(&session, "PRAGMA query_only = ON")?;
        let reader = Reader::new(config, session, queue.clone(), Arc::clone(signals), Arc::clone(&guard))?;
        handles.push(spawn(format!("{service}-read-{number}"), Box::new(move || reader.run()))?);
    }
    let (writer, queue) = mpsc::channel(QUEUE);
    let thread = Writer::new(config, session, head, queue, Arc::clone(signals), guard)?;
    handles.push(spawn(format!("{service}-write"), Box::new(move || thread.run()))?);
    Ok(Threads { writer, readers, file: Some(path), handles })
}

/// A connection with every setting the durability of the store rests on, each read back.
fn connect(service: &'static str, path: &Path, keeping: Keeping, writer: bool) -> Result<Session, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|error| Error::Open { service, detail: format!("{}: {error}", path.display()) })?;
    connection.set_prepared_statement_cache_capacity(256);
    // Plans must not depend on the values bound: otherwise a statement with a parameter in its LIMIT is compiled anew each
    // time it runs, which was a fifth of the writer's time.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(|error| Error::Open { service, detail: error.to_string() })?;
    let session = Session::new(connection, service);
    let (journal, synchronous) = match keeping {
        Keeping::Durable => ("wal", "2"),
        Keeping::Temporary => ("wal", "0"),
        Keeping::Scratch => ("off", "0"),
    };
    check(&session, &format!("PRAGMA journal_mode = {journal}"), "PRAGMA journal_mode", journal)?;
    check(&session, &format!("PRAGMA synchronous = {synchronous}"), "PRAGMA synchronous", synchronous)?;
    check(&session, "PRAGMA foreign_keys = ON", "PRAGMA foreign_keys", "1")?;
    check(&session, "PRAGMA temp_store = MEMORY", "PRAGMA temp_store", "2")?;
    // What is overwritten or deleted in a page is gone from it: a key of a person that was destroyed must not be found in the
    // file. Pages that become free as a whole keep what was in them, which costs no write more.
    check(&session, "PRAGMA secure_delete = FAST", "PRAGMA secure_delete", "2")?;
    // Only our own threads meet here, while the WAL is set up or recovered.
    set(&session, "PRAGMA busy_timeout = 5000")?;
    // The writer thread checkpoints itself, because SQLite's own checkpoint swallows its errors.
    set(&session, "PRAGMA wal_autocheckpoint = 0")?;
    // In KiB. The system's own cache stands behind it, and a process holds nine stores of several connections. A scratch
    // store writes whole tables, and not for long.
    let cache = match (writer, keeping) {
        (true, Keeping::Scratch) => 32_768,
        (true, Keeping::Durable | Keeping::Temporary) => 4096,
        (false, _) => 1024,
    };
    set(&session, &format!("PRAGMA cache_size = -{cache}"))?;
    // A page read back wrong is an error at once, not a wrong row later.
    set(&session, "PRAGMA cell_size_check = ON")?;
    Ok(session)
}

fn set(session: &Session, pragma: &str) -> Result<(), Error> {
    session.query(pragma, &[], &mut |_| Ok(()))
}

fn check(session: &Session, pragma: &str, ask: &str, wanted: &str) -> Result<(), Error> {
    set(session, pragma)?;
    let mut found = String::new();
    session.query(ask, &[], &mut |row| {
        found = match row.values().first() {
            Some(Value::Text(text)) => text.clone(),
            Some(Value::Int(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        Ok(())
    })?;
    if found == wanted {
        Ok(())
    } else {
        Err(Error::Open { service: session.service, detail: format!("{pragma} has no effect: it is {found}") })
    }
}

/// The log itself is a set of its own, before all others.
const LOG: MigrationSet = MigrationSet::new(
    "store",
    &[Migration::new(
        1,
        "events and shards",
        // The rows live in the primary key's tree, in the order they are tailed.
        "CREATE TABLE events (
             shard BIGINT NOT NULL, position BIGINT NOT NULL, stream TEXT NOT NULL, version BIGINT NOT NULL,
             name TEXT NOT NULL, schema_version BIGINT NOT NULL, occur_time BIGINT NOT NULL, causation_id TEXT NOT NULL,
             correlation_id TEXT NOT NULL, traceparent TEXT NOT NULL, subject TEXT, payload BYTEA NOT NULL,
             checksum BIGINT NOT NULL, PRIMARY KEY (shard, position), UNIQUE (stream, version)) WITHOUT ROWID;
         CREATE TABLE shards (shard BIGINT NOT NULL PRIMARY KEY, head BIGINT NOT NULL);
         INSERT INTO shards (shard, head) VALUES (0, 0)",
    )],
);

fn migrate(config: &Config, session: &Session) -> Result<(), Error> {
    set(session, migrate::TABLE)?;
    let mut told = false;
    session.query("SELECT name FROM pragma_table_info('migrations') WHERE name = 'needs'", &[], &mut |_| {
        told = true;
        Ok(())
    })?;
    if !told {
        set(session, migrate::ADD_NEEDS)?;
    }
    let mut sets = vec![LOG];
    sets.extend(&config.migrations);
    let mut applied = Vec::new();
    session.query(migrate::APPLIED, &[], &mut |row| {
        applied.push(row);
        Ok(())
    })?;
    let plan = migrate::plan(config.name, &sets, &applied)?;
    plan.tell(config.name);
    for Missing { set: set_name, migration, needs } in plan.missing {
        let explain = |error: Error| Error::Migration {
            service: config.name,
            detail: format!("{set_name} version {} ({}): {error}", migration.version, migration.name),
        };
        session.control("BEGIN IMMEDIATE").map_err(explain)?;
        for statement in dialect::statements(migration.sql) {
            set(session, &statement).map_err(explain)?;
        }
        let Migration { version, name, .. } = *migration;
        let params = [set_name.into(), version.into(), name.into(), migration.checksum().into(), needs.into()];
        session.execute(migrate::RECORD, &params).map_err(explain)?;
        session.control("COMMIT").map_err(explain)?;
    }
    Ok(())
}

/// The last position, and that the counter and the events agree on it.
fn head(session: &Session) -> Result<u64, Error> {
    let mut found: (u64, u64) = (0, 0);
    let sql = "SELECT head, coalesce((SELECT max(position) FROM events WHERE events.shard = shards.shard), 0) AS last \
               FROM shards WHERE shard = $1";
    session.query(sql, &[SHARD.into()], &mut |row| {
        found = (row.get("head")?, row.get("last")?);
        Ok(())
    })?;
    if found.0 == found.1 {
        Ok(found.0)
    } else {
        let detail = format!("the counter says {} events, the last one is at {}", found.0, found.1);
        Err(Error::Damaged { service: session.service, detail })
    }
}

/// The transaction of a thread; bodies use it one after the other.
pub(super) fn transaction(config: &Config, session: Session, writable: bool) -> Tx {
    Tx {
        session: tx::Session::Sqlite(session),
        service: config.name,
        writable,
        undoable: !writable,
        now: config.clock.now(),
        appended: Vec::new(),
        seen: None,
        first_error: None,
    }
}

/// Made before SQLite makes it, so that only the owner can read it: it may hold secrets.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = fs::File::options();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

struct TemporaryFiles(PathBuf);

impl Drop for TemporaryFiles {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// A store and the files SQLite and the lock keep beside it.
fn remove(store: &Path) {
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mut name = store.as_os_str().to_owned();
        name.push(suffix);
        // What is not there need not go.
        let _ = fs::remove_file(name);
    }
}

/// `ordering.scratch-4711-3`, unique in this machine as long as the process lives.
fn temporary_path(service: &str, folder: PathBuf) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!("{}{}-{number}", scratch_prefix(service), std::process::id()))
}

fn scratch_prefix(service: &str) -> String {
    format!("{service}.scratch-")
}

/// Removes rebuilds that a killed process left beside its store. One that is locked is in use and stays.
fn remove_leftovers(service: &'static str, store: &Path) {
    let folder = store.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let prefix = scratch_prefix(service);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_store = name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix))
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') && !rest.is_empty());
        if is_store && Lock::take(service, &entry.path(), Duration::ZERO).is_ok() {
            remove(&entry.path());
        }
    }
}
