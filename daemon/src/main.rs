//! The cokd program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cokd::cli::main()
}
