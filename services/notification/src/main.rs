//! The service notification as a process of a fleet.

use std::process::ExitCode;

use process::Part;

fn main() -> ExitCode {
    process::main("notification", contracts::METHODS, |flags: notification::Flags| {
        Part::new("notification", async move |context| notification::build(flags.config(), &context).await)
    })
}
