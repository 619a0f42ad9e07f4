//! The service orderview as a process of a fleet.

use std::process::ExitCode;

use process::Part;

fn main() -> ExitCode {
    process::main("orderview", contracts::METHODS, |flags: orderview::Flags| {
        Part::new("orderview", async move |context| orderview::build(flags.config(), &context).await)
    })
}
