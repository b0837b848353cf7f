//! How each command begins and ends: its runtime, its exit code and its last message.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use cok_client::cli::exit_code;
use cok_client::logging;

use crate::config::ConfigError;
use crate::host::memory;
pub(super) use crate::host::unit::DEFAULT_CONFIG;

/// Something failed at run time.
pub(super) const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub(super) const USAGE: u8 = 2;
/// Time limit for blocking work at exit, such as disk writes. The system's resolver can't be stopped and may take
/// longer, while the next daemon waits for this process to exit.
const LAST_WRITES: Duration = Duration::from_secs(1);

pub(super) fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().on_thread_park(memory::give_back).build().context("cannot start")?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(LAST_WRITES);
    result
}

pub(super) fn outcome(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::complain(&format!("cokd: {error:#}").replace('\n', " "));
            ExitCode::from(exit_code(&error))
        }
    }
}

pub(super) fn wrong(error: &ConfigError) -> ExitCode {
    logging::complain(&error.to_string());
    ExitCode::from(if error.may_pass() { FAILED } else { USAGE })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_that_is_blocked_does_not_hold_up_the_end() {
        let began = Instant::now();
        let served = block_on(async {
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(600)));
            Ok(())
        });
        assert!(served.is_ok() && began.elapsed() < Duration::from_secs(60));
    }
}
