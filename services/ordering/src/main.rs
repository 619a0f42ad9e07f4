//! The service ordering as a process of a fleet.

use std::process::ExitCode;

use process::Part;

fn main() -> ExitCode {
    process::main("ordering", contracts::METHODS, |flags: ordering::Flags| {
        Part::new("ordering", async move |context| ordering::build(flags.config(), &context).await)
    })
}
