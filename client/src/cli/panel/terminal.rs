//! The terminal behind standard error: its size, who uses it, and whether it echoes what is typed.

#[cfg(unix)]
pub(super) use self::unix::{Echo, is_in_use, size, stop_process};

#[cfg(not(unix))]
pub(super) use self::none::{Echo, is_in_use, size, stop_process};

#[cfg(unix)]
mod unix {
    use std::io::stderr;

    use parking_lot::Mutex;
    use rustix::process::{Signal, getpgrp, getpid, kill_process};
    use rustix::termios::{
        LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
    };

    /// The columns and rows. `None` if the terminal does not say.
    pub(in super::super) fn size() -> Option<(usize, usize)> {
        let size = tcgetwinsize(stderr()).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
    }

    /// Whether this process is in the terminal's foreground.
    pub(in super::super) fn is_in_use() -> bool {
        tcgetpgrp(stderr()).is_ok_and(|group| group == getpgrp())
    }

    /// Stops this process as SIGTSTP would, which is caught. SIGTTOU is not, and the system knows the same rule for both: where
    /// no shell could let the process go on, it does not stop. Returns once it goes on.
    pub(in super::super) fn stop_process() {
        // Signals to oneself are always allowed.
        let _sent = kill_process(getpid(), Signal::TTOU);
    }

    /// The settings of the terminal before the panel. What is typed would move the panel's lines, so it is not echoed.
    #[derive(Debug, Default)]
    pub(in super::super) struct Echo(Mutex<Option<Termios>>);

    impl Echo {
        /// Switches the echo off. The process must be in the foreground; the system would stop it otherwise.
        pub(in super::super) fn off(&self) {
            // A shell may have switched it on again.
            let Ok(settings) = tcgetattr(stderr()) else { return };
            if !settings.local_modes.contains(LocalModes::ECHO) {
                return;
            }
            let mut before = self.0.lock();
            let mut silent = settings.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            if tcsetattr(stderr(), OptionalActions::Now, &silent).is_ok() {
                before.get_or_insert(settings);
            }
        }

        /// Restores the settings, and drops what was typed meanwhile.
        pub(in super::super) fn restore(&self) {
            let before = self.0.lock().take();
            if let Some(before) = before.filter(|_| is_in_use()) {
                // If the terminal is gone, there is nothing to restore.
                let _gone = tcflush(stderr(), QueueSelector::IFlush);
                let _gone = tcsetattr(stderr(), OptionalActions::Now, &before);
            }
        }
    }
}

/// Other systems have no panel.
#[cfg(not(unix))]
mod none {
    #[derive(Debug, Default)]
    pub(in super::super) struct Echo;

    impl Echo {
        pub(in super::super) fn off(&self) {}

        pub(in super::super) fn restore(&self) {}
    }

    pub(in super::super) fn size() -> Option<(usize, usize)> {
        None
    }

    pub(in super::super) fn is_in_use() -> bool {
        false
    }

    pub(in super::super) fn stop_process() {}
}
