//! The gateway as a process: of a fleet, or in front of one server of anybody's.

use std::process::ExitCode;

fn main() -> ExitCode {
    if gateway::standalone::is_asked(std::env::args_os()) { gateway::standalone::main() } else { of_a_fleet() }
}

#[cfg(feature = "fleet")]
fn of_a_fleet() -> ExitCode {
    process::main("gateway", contracts::METHODS, |_: process::NoFlags| {
        process::Part::door("gateway", async |context| gateway::door(&context, gateway::Keys::Elsewhere))
    })
}

/// Without the engines of a fleet there is only the other kind, whose command line says what is missing.
#[cfg(not(feature = "fleet"))]
fn of_a_fleet() -> ExitCode {
    gateway::standalone::main()
}
