//! The service inventory as a process of a fleet.

use std::process::ExitCode;

use process::Part;

fn main() -> ExitCode {
    process::main("inventory", contracts::METHODS, |flags: inventory::Flags| {
        Part::new("inventory", async move |context| inventory::build(flags.config(), &context).await)
    })
}
