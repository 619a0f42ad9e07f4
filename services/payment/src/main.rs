//! The service payment as a process of a fleet.

use std::process::ExitCode;

use process::Part;

fn main() -> ExitCode {
    process::main("payment", contracts::METHODS, |flags: payment::Flags| {
        Part::new("payment", async move |context| payment::build(flags.config(), &context).await)
    })
}
