//! Turns a checked contract into files of Rust.

mod events;
mod messages;
mod personal;
mod services;
mod tables;
mod validate;

use std::collections::BTreeMap;

use crate::check::Contract;
use crate::errors::Errors;
use crate::tree::Tree;

/// All files by name.
pub(crate) fn files(tree: &Tree, contract: &Contract) -> Result<BTreeMap<String, Vec<u8>>, Errors> {
    let mut files = BTreeMap::new();
    let mut sources = messages::emit(tree)?;
    let ruled = validate::ruled(tree, contract);
    let personal = personal::reachable(tree, contract);
    for (name, package) in &tree.packages {
        let source = sources.entry(name.clone()).or_default();
        // Methods of these traits reach through the box of a message that contains itself; a path to them would not.
        source.push_str("\n#[allow(unused_imports)]\nuse ::contract::{Personal as _, Validate as _};\n");
        validate::emit(tree, contract, package, &ruled, source);
        personal::emit(tree, package, &personal, source);
        events::emit(contract, name, source);
        services::emit(tree, package, source);
        tables::package(contract, name, source);
    }
    for (name, source) in sources {
        files.insert(format!("{name}.rs"), source.into_bytes());
    }
    files.insert("methods.rs".to_owned(), tables::methods(contract).into_bytes());
    files.insert("json.rs".to_owned(), tables::json(tree).into_bytes());
    files.insert("descriptors.bin".to_owned(), tree.descriptors.clone());
    Ok(files)
}
