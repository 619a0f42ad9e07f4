//! The `stoa` program: one process that is the whole shop, and the operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    stoa::command::main()
}
