//! The contract compiler: a tree of `.proto` files in, Rust and contract tables out.
//!
//! A contract that is wrong does not build: every method says who may call it and whether it may be repeated, every route
//! is reachable, every field rule fits its field. All faults are collected before any of them is reported, each with its
//! file and its method or field. No `protoc` and no network take part.
//!
//! For every package `a.b.v1` the output folder gets a file `a.b.v1.rs` with its messages, their JSON, clients, servers,
//! rules, events and its `METHODS`; besides `methods.rs`, `json.rs` and `descriptors.bin` for the tree as a whole.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod emit;
mod errors;
mod names;
mod options;
mod routes;
mod rules;
mod tree;

use std::path::Path;

pub use errors::{Errors, Problem};

/// Compiles every `.proto` below `proto_root` and writes Rust to `out_dir`.
pub fn compile(proto_root: &Path, out_dir: &Path) -> Result<(), Errors> {
    let tree = tree::Tree::read(proto_root)?;
    let contract = check::check(&tree)?;
    for (name, content) in emit::files(&tree, &contract)? {
        let path = out_dir.join(&name);
        std::fs::write(&path, content)
            .map_err(|error| Problem::of_file(path.display().to_string(), error.to_string()))?;
    }
    Ok(())
}
