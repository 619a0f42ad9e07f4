//! A server of the MongoDB protocol: FerretDB as a library in a program of ours, built when it is needed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::control::Restart;
use super::{Home, Owner, Place, Server, Started};
use crate::command::{Run, tail};
use crate::paths;
use crate::tools::turn_of;

/// The first time it downloads and compiles all of FerretDB.
const BUILD: Duration = Duration::from_secs(600);

/// What it is made of.
const FERRETDB: &str = "github.com/FerretDB/FerretDB";

/// The keys of a list, if all of them are texts, before what it does for one key.
const ANY_OF_KEYS: &str = r#"switch v := v.(type) {
		case *types.Document:
			in, _ := v.Get("$in")
			keys, _ := in.(*types.Array)
			if v.Len() != 1 || keys == nil || keys.Len() == 0 {
				break
			}
			for i := range keys.Len() {
				key, isText := must.NotFail(keys.Get(i)).(string)
				if !isText {
					args = nil
					break
				}
				args = append(args, string(must.NotFail(sjson.MarshalSingleValue(key))))
			}
			if args != nil {
				places := strings.TrimSuffix(strings.Repeat("?,", len(args)), ",")
				whereClause = fmt.Sprintf(` WHERE %s IN (%s)`, metadata.IDColumn, places)
			}
		case string, types.ObjectID:"#;

/// A private server that takes part in no replica set and asks nobody who they are.
pub(crate) struct Mongo {
    server: Server,
    port: u16,
    program: PathBuf,
    version: String,
}

impl Mongo {
    pub(crate) fn start() -> Result<Started<Self>> {
        Self::start_in(Place::Lane)
    }

    /// The same in a place of its own, going on with what is there.
    pub(crate) fn start_in(place: Place<'_>) -> Result<Started<Self>> {
        let program = match self::program() {
            Started::Ready(program) => program,
            Started::Missing(reason) => return Ok(Started::Missing(reason)),
        };
        let home = Home::new("mongo", place, &Owner { ids: None })?;
        let port = place.port()?;
        let mut command = Command::new(&program);
        command.current_dir("/").arg("-listen").arg(format!("127.0.0.1:{port}")).arg("-data").arg(&home.folder);
        let server = Server::spawn("mongo", command, Signal::TERM, port, home)?;
        let said = Command::new(&program).arg("-version").output()?;
        ensure!(said.status.success(), "{} does not say its version", program.display());
        let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        Ok(Started::Ready(Self { server, port, program, version }))
    }

    /// Lets it run on.
    pub(crate) fn detach(self) {
        self.server.detach();
    }

    /// Where it is, without a database.
    pub(crate) fn url(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.port)
    }

    /// The program, for tests that kill a server of their own.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// What it says of itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

impl Restart for Mongo {
    fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    fn start(&mut self) -> Result<()> {
        self.server.start()
    }
}

/// The program, built.
pub(super) fn program() -> Started<PathBuf> {
    let turn = turn_of("mongo");
    let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let program = paths::tools().join("mongo/stoa-mongo");
    if !program.exists() {
        println!("    building FerretDB (at most 10 minutes)");
    }
    // Always: it is a matter of seconds when nothing has changed, and never stale.
    match build(&program) {
        Ok(()) => Started::Ready(program),
        Err(error) => Started::Missing(format!("FerretDB cannot be built: {error:#}")),
    }
}

fn build(program: &Path) -> Result<()> {
    let folder = program.parent().context("no folder")?;
    go(&["mod".as_ref(), "download".as_ref(), FERRETDB.as_ref()])?;
    let module = go(&["list".as_ref(), "-m".as_ref(), "-f".as_ref(), "{{.Dir}}".as_ref(), FERRETDB.as_ref()])?;
    let module = Path::new(module.lines().next_back().unwrap_or_default().trim());
    let ours = folder.join("ferretdb");
    let _ = fs::remove_dir_all(&ours);
    copy(module, &ours)?;
    find_by_key(&ours)?;
    let modules = folder.join("go.mod");
    let known = paths::root().join("integration/mongo");
    let text = fs::read_to_string(known.join("go.mod"))?;
    fs::write(&modules, format!("{text}\nreplace {FERRETDB} => {}\n", ours.display()))?;
    fs::copy(known.join("go.sum"), folder.join("go.sum"))?;
    go(&["build".as_ref(), "-modfile".as_ref(), modules.as_ref(), "-o".as_ref(), program.as_ref(), ".".as_ref()])?;
    Ok(())
}

/// Has it look a document up by its key wherever the key is asked for, as MongoDB does. By itself it reads through the whole
/// collection: its index is on the same expression written in another way, and it does not think of it at all where anything is
/// asked for besides the key, as our guarded writes do, or where several keys are. What it finds is still held against all that
/// was asked.
fn find_by_key(module: &Path) -> Result<()> {
    for (file, itself, ours) in [
        ("collection.go", "if params.Filter.Len() == 1 {", "if params.Filter.Len() >= 1 {"),
        ("collection.go", "switch v.(type) {\n\t\tcase string, types.ObjectID:", ANY_OF_KEYS),
        ("metadata/metadata.go", r#"DefaultColumn + "->'$._id'""#, r#"DefaultColumn + "->\"_id\"""#),
    ] {
        let file = module.join("internal/backends/sqlite").join(file);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        ensure!(text.contains(itself), "{} is not what it was", file.display());
        fs::write(&file, text.replace(itself, ours))?;
    }
    Ok(())
}

/// Copies a folder, so that what is in it may be changed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let there = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &there)?;
        } else {
            fs::write(there, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// What `go` answers in the program's folder.
fn go(arguments: &[&OsStr]) -> Result<String> {
    let ended = Run::new("build-mongo", "go")
        .args(arguments)
        .folder(paths::root().join("integration/mongo"))
        .limit(BUILD)
        .end()?;
    ensure!(ended.success, "{}", tail(&ended.output, 3));
    Ok(ended.output)
}
