//! The cokd program.

use std::process::ExitCode;

/// Measured: a tenth fewer processor seconds a request than with the system's allocator, for some 10 KiB more an idle
/// tunnel.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cokd::cli::main()
}
