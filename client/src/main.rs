//! The cok-client program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cok_client::cli::main()
}
