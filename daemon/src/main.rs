//! The cokd program.

use std::process::ExitCode;

use cok_allocator::{Allocator, NONE};

/// Measured: a tenth less processor time for each request than with the system's allocator. An idle tunnel grew from 27
/// to 43 KiB, and fell to 32 KiB with half the WebSocket read buffer.
#[global_allocator]
static ALLOCATOR: Allocator<NONE> = Allocator;

fn main() -> ExitCode {
    cokd::cli::main()
}
