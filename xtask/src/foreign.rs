//! Someone else's consumer of our events, in another language, with types generated from the contracts.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::command::{Run, tail};
use crate::paths;
use crate::tools::Had;

/// What the generator is told: JavaScript that needs no compiler.
const TEMPLATE: &str = r#"{"version":"v2","plugins":[{"local":"protoc-gen-es","out":"gen","include_imports":true,
    "opt":["target=js","import_extension=js"]}]}"#;

/// The folder of the consumer, ready to run with `node events.mjs`; its packages are kept, its types always made anew.
pub(crate) fn consumer() -> Result<Had> {
    let folder = paths::tools().join("foreign-1");
    fs::create_dir_all(&folder)?;
    for file in ["events.mjs", "package.json"] {
        fs::copy(paths::root().join("integration/foreign").join(file), folder.join(file))?;
    }
    if !folder.join("node_modules/kafkajs").exists() {
        println!("    installing a foreign consumer into {} (at most 3 minutes)", folder.display());
        let npm = Run::new("install-foreign", "npm")
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
            .folder(&folder)
            .limit(Duration::from_secs(180));
        if let Some(reason) = problem(npm) {
            return Ok(Had::Missing(format!("a foreign consumer cannot be installed: {reason}")));
        }
    }
    let programs = folder.join("node_modules/.bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(programs.clone()).chain(std::env::split_paths(&path)))?;
    let generate = Run::new("generate-foreign", programs.join("buf"))
        .args([Path::new("generate"), &paths::root().join("proto")])
        .args(["--template", TEMPLATE])
        .args([Path::new("--output"), &folder])
        .env("PATH", path);
    Ok(match problem(generate) {
        None => Had::Ready(folder),
        Some(reason) => Had::Missing(format!("types for a foreign consumer cannot be generated: {reason}")),
    })
}

/// Why a command did not do, if it did not.
fn problem(run: Run) -> Option<String> {
    match run.end() {
        Ok(ended) if ended.success => None,
        Ok(ended) => Some(tail(&ended.output, 3)),
        Err(error) => Some(format!("{error:#}")),
    }
}
