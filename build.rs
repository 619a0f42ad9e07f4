//! Compiles `proto/` into the contracts crate; a contract that is wrong stops the build with a list of its faults.

use std::path::Path;

// Cargo tells a build script where to write in no other way.
#[allow(clippy::disallowed_methods)]
fn main() {
    println!("cargo::rerun-if-changed=proto");
    let out_dir = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    if let Err(errors) = codegen::compile(Path::new("proto"), Path::new(&out_dir)) {
        eprintln!("{errors}");
        std::process::exit(1);
    }
}
