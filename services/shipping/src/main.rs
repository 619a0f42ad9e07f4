//! The service shipping as a process of a fleet.

use std::process::ExitCode;

use process::Part;

fn main() -> ExitCode {
    process::main("shipping", contracts::METHODS, |flags: shipping::Flags| {
        Part::new("shipping", async move |context| shipping::build(flags.config(), &context).await)
    })
}
