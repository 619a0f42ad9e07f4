//! The service identity as a process of a fleet.

use std::process::ExitCode;

use process::Part;

fn main() -> ExitCode {
    process::main("identity", contracts::METHODS, |flags: identity::Flags| {
        Part::new("identity", async move |context| identity::build(flags.config(), &context).await)
    })
}
