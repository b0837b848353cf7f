//! The cok-client program.

use std::process::ExitCode;

/// Measured: a tenth fewer processor seconds a request than with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cok_client::cli::main()
}
