//! The service catalog as a process of a fleet.

use std::process::ExitCode;

use process::Part;

fn main() -> ExitCode {
    process::main("catalog", contracts::METHODS, |flags: catalog::Flags| {
        Part::new("catalog", async move |context| catalog::build(flags.config(), &context).await)
    })
}
