//! The service cart as a process of a fleet.

use std::process::ExitCode;

use process::Part;

fn main() -> ExitCode {
    process::main("cart", contracts::METHODS, |flags: cart::Flags| {
        Part::new("cart", async move |context| cart::build(flags.config(), &context).await)
    })
}
