//! The workspace as cargo describes it: packages, their dependencies, their sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{Dependency, DependencyKind, Metadata, MetadataCommand, Package, PackageId};

use crate::paths;

/// The folders of a package that hold Rust sources.
const SOURCE_FOLDERS: [&str; 4] = ["src", "tests", "benches", "examples"];

/// What cargo knows of the workspace.
pub(crate) struct Workspace {
    metadata: Metadata,
}

/// One Rust source of ours.
pub(crate) struct Source {
    /// Relative to the repository's root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Workspace {
    /// Asks cargo; the lock file is not changed by the question.
    pub(crate) fn load() -> Result<Self> {
        let metadata =
            MetadataCommand::new().current_dir(paths::root()).exec().context("cargo metadata does not answer")?;
        Ok(Self { metadata })
    }

    /// The packages of the repository.
    pub(crate) fn members(&self) -> Vec<&Package> {
        self.metadata.workspace_packages()
    }

    /// The packages in a folder of the repository, such as `services`.
    pub(crate) fn members_in(&self, folder: &str) -> Vec<&Package> {
        self.members().into_iter().filter(|package| place(package).starts_with(folder)).collect()
    }

    /// The names of the members that a member depends on itself, in any way.
    pub(crate) fn edges(&self, package: &Package) -> BTreeSet<String> {
        let members: BTreeSet<&str> = self.members().iter().map(|member| member.name.as_str()).collect();
        package
            .dependencies
            .iter()
            .filter(|dependency| dependency.path.is_some())
            .map(|dependency| dependency.name.clone())
            .filter(|name| members.contains(name.as_str()))
            .collect()
    }

    /// Whether a package needs another for more than its tests.
    pub(crate) fn builds_on(&self, package: &Package, other: &str) -> bool {
        let needed =
            |dependency: &&Dependency| dependency.name == other && dependency.kind != DependencyKind::Development;
        package.dependencies.iter().any(|dependency| needed(&dependency))
    }

    /// Everything built when this package alone is tested, as names of members.
    pub(crate) fn built_with(&self, package: &Package) -> BTreeSet<String> {
        let graph: BTreeMap<&PackageId, &Vec<PackageId>> = self
            .metadata
            .resolve
            .iter()
            .flat_map(|resolve| &resolve.nodes)
            .map(|node| (&node.id, &node.dependencies))
            .collect();
        let mut seen: BTreeSet<&PackageId> = BTreeSet::new();
        let mut open = vec![&package.id];
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(graph.get(id).into_iter().flat_map(|next| next.iter()));
            }
        }
        self.members()
            .into_iter()
            .filter(|member| seen.contains(&member.id))
            .map(|member| member.name.to_string())
            .collect()
    }
}

/// The folder of a package, relative to the repository's root; empty for the root package.
pub(crate) fn place(package: &Package) -> PathBuf {
    let folder = package.manifest_path.parent().map(|path| path.as_std_path()).unwrap_or(Path::new(""));
    folder.strip_prefix(paths::root()).unwrap_or(folder).to_owned()
}

/// The sources of a package, its build script included.
pub(crate) fn sources(package: &Package) -> Result<Vec<Source>> {
    let folder = paths::root().join(place(package));
    let mut found = Vec::new();
    for name in SOURCE_FOLDERS {
        collect(&folder.join(name), &["rs"], &mut found)?;
    }
    let script = folder.join("build.rs");
    if script.is_file() {
        found.push(script);
    }
    found.into_iter().map(read).collect()
}

/// Every text file below a folder of the repository whose name ends in one of the extensions.
pub(crate) fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    collect(folder, extensions, &mut found)?;
    found.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Result<Source> {
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let path = path.strip_prefix(paths::root()).map(Path::to_owned).unwrap_or(path);
    Ok(Source { path, text })
}

fn collect(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                collect(&path, extensions, found)?;
            }
        } else if path.extension().and_then(|end| end.to_str()).is_some_and(|end| extensions.contains(&end)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}
