//! The cok-client program.

use std::process::ExitCode;

/// Blocks of this size and above are the system's. musl's allocator is slow for all sizes.
#[cfg(target_os = "linux")]
const LARGE: usize = if cfg!(target_env = "musl") { cok_allocator::NONE } else { 4096 };

#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: cok_allocator::Allocator<LARGE> = cok_allocator::Allocator;

fn main() -> ExitCode {
    cok_client::cli::main()
}
