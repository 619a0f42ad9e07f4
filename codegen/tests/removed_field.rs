//! A field that somebody reads cannot be taken out of a contract unnoticed: the reader no longer compiles.

#![allow(clippy::unwrap_used)]

mod sandbox;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sandbox::Sandbox;

const BEFORE: &str = "message Thing { string name = 1 [(buf.validate.field).string.min_len = 1]; int32 size = 2; }";
const AFTER: &str = "message Thing { string name = 1 [(buf.validate.field).string.min_len = 1]; }";
const CALLER: &str =
    "pub fn label(thing: &stoa::test::v1::Thing) -> String { format!(\"{} ({})\", thing.name, thing.size) }";

#[test]
fn removing_a_used_field_breaks_its_caller() {
    let sandbox = Sandbox::new(BEFORE);
    write_crate(&sandbox);

    sandbox.compile().unwrap();
    let before = check(&sandbox);
    assert!(before.status.success(), "{}", text(&before));

    sandbox.write(AFTER);
    sandbox.compile().unwrap();
    let after = check(&sandbox);
    assert!(!after.status.success());
    assert!(text(&after).contains("no field `size` on type"), "{}", text(&after));
}

/// A crate that holds the generated package and one function that reads a field of it.
fn write_crate(sandbox: &Sandbox) {
    let workspace = workspace();
    let manifest = format!(
        "[package]\nname = \"caller\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n
         contract = {{ path = {:?} }}\nprost = \"0.14\"\npbjson = \"0.9\"\nserde = \"1\"\n",
        workspace.join("platform/contract")
    );
    let package = |name: &str| format!("include!({:?});", sandbox.out().join(name));
    let lib = format!(
        "#![allow(warnings)]\npub mod stoa {{ pub mod test {{ pub mod v1 {{ {} }} }} }}\n{CALLER}\n",
        package("stoa.test.v1.rs")
    );
    std::fs::create_dir(sandbox.path().join("src")).unwrap();
    std::fs::write(sandbox.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::write(sandbox.path().join("src/lib.rs"), lib).unwrap();
    // The versions of the project, so that nothing has to be looked up.
    std::fs::copy(workspace.join("Cargo.lock"), sandbox.path().join("Cargo.lock")).unwrap();
}

fn check(sandbox: &Sandbox) -> Output {
    // Beside the real one, so that its lock is not waited for; kept, so that the dependencies are built once.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("removed_field");
    Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet", "--color=never"])
        .current_dir(sandbox.path())
        .env("CARGO_TARGET_DIR", target)
        .output()
        .unwrap()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
