//! The files a server tells by reflection, put in an order in which imports come first.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use prost::Message;
use prost_reflect::DescriptorPool;

/// What of a file descriptor is needed to order it; the rest stays as bytes.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "3")]
    imports: Vec<String>,
}

/// A file descriptor set whose files are bytes.
#[derive(Clone, PartialEq, Message)]
struct Set {
    #[prost(bytes = "vec", repeated, tag = "1")]
    files: Vec<Vec<u8>>,
}

/// Files by name, each with its imports.
#[derive(Default)]
pub(crate) struct FileSet(BTreeMap<String, (Vec<String>, Vec<u8>)>);

impl FileSet {
    /// Adds an encoded file descriptor; a second one of that name changes nothing.
    pub(crate) fn add(&mut self, bytes: Vec<u8>) -> Result<()> {
        let named = Named::decode(bytes.as_slice())?;
        self.0.insert(named.name, (named.imports, bytes));
        Ok(())
    }

    /// Imports that nobody added.
    pub(crate) fn missing(&self) -> BTreeSet<String> {
        let imports = self.0.values().flat_map(|(imports, _)| imports);
        imports.filter(|name| !self.0.contains_key(*name)).cloned().collect()
    }

    /// The descriptors.
    pub(crate) fn pool(self) -> Result<DescriptorPool> {
        let mut ordered = Set::default();
        let mut done = BTreeSet::new();
        while done.len() < self.0.len() {
            let before = done.len();
            for (name, (imports, bytes)) in &self.0 {
                if !done.contains(name) && imports.iter().all(|import| done.contains(import)) {
                    done.insert(name.clone());
                    ordered.files.push(bytes.clone());
                }
            }
            ensure!(done.len() > before, "the imports go in a circle");
        }
        Ok(DescriptorPool::decode(ordered.encode_to_vec().as_slice())?)
    }
}
