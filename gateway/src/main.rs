//! The gateway as a process of a fleet.

use std::process::ExitCode;

use gateway::Keys;
use process::Part;

fn main() -> ExitCode {
    process::main("gateway", contracts::METHODS, |_: process::NoFlags| {
        Part::door("gateway", async |context| gateway::door(&context, Keys::Elsewhere))
    })
}
