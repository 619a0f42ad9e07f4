//! Reads a contract tree: finds its files, compiles them, groups them by package.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, EnumDescriptor, FileDescriptor, MessageDescriptor, ServiceDescriptor};

use crate::errors::{Errors, Problem};

/// Packages that exist to carry options: their messages are read by this compiler and by nobody at run time.
const OPTIONS_ONLY: [&str; 1] = ["buf.validate"];

/// A file, and the path of an element inside it.
type Place = (String, Vec<i32>);

pub(crate) struct Tree {
    pub(crate) pool: DescriptorPool,
    /// The encoded descriptor set of all files and their imports, options included.
    pub(crate) descriptors: Vec<u8>,
    pub(crate) packages: BTreeMap<String, Package>,
    /// Comments by file and path inside it.
    comments: HashMap<Place, Vec<String>>,
}

#[derive(Default)]
pub(crate) struct Package {
    pub(crate) files: Vec<FileDescriptor>,
    /// All messages, nested ones included, entries of maps excluded.
    pub(crate) messages: Vec<MessageDescriptor>,
    pub(crate) enums: Vec<EnumDescriptor>,
    pub(crate) services: Vec<ServiceDescriptor>,
}

impl Tree {
    pub(crate) fn read(root: &Path) -> Result<Self, Errors> {
        let mut paths = Vec::new();
        find(root, &mut paths).map_err(|error| Problem::of_file(root.display().to_string(), error.to_string()))?;
        paths.sort();
        if paths.is_empty() {
            return Err(Problem::of_file(root.display().to_string(), "there is no .proto file here").into());
        }

        let fault = |error: protox::Error| {
            let file = error.file().unwrap_or("proto").to_owned();
            Problem::of_file(file, format!("{error:?}"))
        };
        let mut compiler = protox::Compiler::new([root]).map_err(fault)?;
        compiler.include_imports(true).include_source_info(false);
        let mut problems = Vec::new();
        for path in &paths {
            if let Err(error) = compiler.open_file(path) {
                problems.push(fault(error));
            }
        }
        Errors::unless_empty(problems)?;

        let own: BTreeSet<String> = paths
            .iter()
            .filter_map(|path| Some(path.strip_prefix(root).ok()?.to_string_lossy().replace('\\', "/")))
            .collect();
        let pool = compiler.descriptor_pool();
        let mut tree = Self {
            descriptors: compiler.encode_file_descriptor_set(),
            packages: BTreeMap::new(),
            comments: HashMap::new(),
            pool,
        };
        for file in tree.pool.files().filter(|file| own.contains(file.name())) {
            tree.comments.extend(comments(&file));
            if OPTIONS_ONLY.contains(&file.package_name()) || file.package_name() == "google.protobuf" {
                continue;
            }
            let package = tree.packages.entry(file.package_name().to_owned()).or_default();
            for message in file.messages() {
                package.add(message);
            }
            package.enums.extend(file.enums());
            package.services.extend(file.services());
            package.files.push(file);
        }
        Ok(tree)
    }

    /// The lines of the comment above the element at this path of the file.
    pub(crate) fn comment(&self, file: &str, path: &[i32]) -> Vec<String> {
        self.comments.get(&(file.to_owned(), path.to_vec())).cloned().unwrap_or_default()
    }

    /// Whether code is generated for the package, so that a reference to it stays inside the crate.
    pub(crate) fn generates(&self, package: &str) -> bool {
        self.packages.contains_key(package)
    }
}

impl Package {
    fn add(&mut self, message: MessageDescriptor) {
        if message.is_map_entry() {
            return;
        }
        self.enums.extend(message.child_enums());
        let children: Vec<_> = message.child_messages().collect();
        self.messages.push(message);
        for child in children {
            self.add(child);
        }
    }
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

fn comments(file: &FileDescriptor) -> Vec<(Place, Vec<String>)> {
    let Some(info) = &file.file_descriptor_proto().source_code_info else {
        return Vec::new();
    };
    info.location
        .iter()
        .filter_map(|location| {
            let text = location.leading_comments.as_deref()?;
            Some(((file.name().to_owned(), location.path.clone()), text.lines().map(str::to_owned).collect()))
        })
        .collect()
}
