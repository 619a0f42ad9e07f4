//! The contract tree judged by `buf`: its lint rules, and whether a reader of the last state can still
//! read this one.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::command::{Run, tail};
use crate::lane::{Context, Outcome};
use crate::tools::{BUF, Had};
use crate::{golden, paths};

/// Lint, breaking changes against main, golden corpus.
pub(crate) fn run(_: &Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    outcome.check("golden corpus of stored events", golden::problems()?);
    let buf = match BUF.get()? {
        Had::Ready(path) => path,
        Had::Missing(reason) => {
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    let judge = |arguments: &[&str]| -> Result<Vec<String>> {
        let ended = Run::new("contracts", &buf)
            .args(arguments)
            // Its cache stays with the tool, so that a read-only home is enough.
            .env("BUF_CACHE_DIR", paths::tools().join("buf-cache"))
            .limit(Duration::from_secs(120))
            .end()?;
        Ok(if ended.success { Vec::new() } else { vec![tail(&ended.output, 60)] })
    };
    outcome.check("buf lint", judge(&["lint"])?);
    outcome.check("buf format", judge(&["format", "--diff", "--exit-code"])?);
    match base() {
        Some(base) => {
            println!("    compared with {base}");
            // An image on both sides: a workspace with a config file compares badly with a bare folder.
            let image = base_image(&buf, &base)?;
            match image {
                Ok(path) => outcome.check("buf breaking", judge(&["breaking", "--against", &path])?),
                Err(problem) => outcome.fail(problem),
            }
        }
        None => println!("    buf breaking: no commit here has contracts yet, nothing can break"),
    }
    Ok(outcome)
}

/// Formats contracts and sources in place.
pub(crate) fn format() -> Result<bool> {
    let formatted = Run::cargo("gen").args(["fmt", "--all"]).end()?.success;
    match BUF.get()? {
        Had::Ready(buf) => {
            let ended = Run::new("gen", buf)
                .args(["format", "--write"])
                .env("BUF_CACHE_DIR", paths::tools().join("buf-cache"))
                .end()?;
            println!("{}", ended.output.trim());
            Ok(formatted && ended.success)
        }
        Had::Missing(reason) => anyhow::bail!(reason),
    }
}

/// The commit whose contracts must stay readable: main as the others have it, else our own main; `None`
/// while it has no contracts.
fn base() -> Option<String> {
    ["origin/main", "main", "HEAD"].into_iter().find_map(|name| {
        let commit = git(&["rev-parse", "--verify", "--quiet", name])?;
        git(&["cat-file", "-e", &format!("{commit}:proto")])?;
        Some(commit)
    })
}

/// Writes the contracts of a commit into a folder of their own and compiles them to an image there.
fn base_image(buf: &std::path::Path, commit: &str) -> Result<Result<String, String>> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("base.tar");
    let paths_there: Vec<&str> = ["proto", "buf.yaml"]
        .into_iter()
        .filter(|path| git(&["cat-file", "-e", &format!("{commit}:{path}")]).is_some())
        .collect();
    let archived = Run::new("contracts", "git")
        .args(["archive", "--format=tar", "-o"])
        .args([archive.as_os_str()])
        .args([commit])
        .args(paths_there)
        .end()?;
    let unpacked = Run::new("contracts", "tar").args(["-xf", "base.tar"]).folder(folder.path()).end()?;
    if !archived.success || !unpacked.success {
        return Ok(Err(format!("cannot read the contracts of {commit}")));
    }
    fs::create_dir_all(paths::target())?;
    let image = paths::target().join("contracts-base.binpb");
    let built = Run::new("contracts", buf)
        .args(["build", "-o"])
        .args([image.as_os_str()])
        .env("BUF_CACHE_DIR", paths::tools().join("buf-cache"))
        .folder(folder.path())
        .end()?;
    Ok(if built.success {
        Ok(image.display().to_string())
    } else {
        Err(format!("the contracts of {commit} do not compile:\n{}", tail(&built.output, 20)))
    })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(paths::root()).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
