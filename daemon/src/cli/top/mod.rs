//! `cokd top`: the tunnels of the running daemon in a terminal, live, with the busiest first.

mod keys;
mod terminal;
mod view;

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::ensure;
use clap::Args;
use http::{Method, StatusCode};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use self::terminal::Terminal;
use self::view::{Act, View};
use super::admin::Daemon;
use super::exit::{block_on, outcome};
use super::live::{Change, DaemonArgs, Live, unanswered};
use crate::admin::SESSIONS;

/// What the help says of the keys.
pub(super) const KEYS: &str = "Keys: q quit, s and S sort by the next or previous column, r the other way round, / filter, \
                               arrows and Page Up/Down choose, t end the session of the chosen tunnel.";
/// The least time between two drawings.
const PACE: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Shows the tunnels until the user quits.
pub(super) fn run(args: &TopArgs) -> ExitCode {
    outcome(block_on(async {
        ensure!(
            terminal::is_there(),
            "top needs a terminal for its input and output; `cokd tunnels --watch` needs none"
        );
        let daemon = args.daemon.daemon()?;
        let live = Live::begin(daemon.clone()).await?;
        show(&daemon, live).await
    }))
}

async fn show(daemon: &Daemon, mut live: Live) -> anyhow::Result<()> {
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(interrupt), Ok(terminate), Ok(hangup)] = &mut ends else { anyhow::bail!("cannot follow signals") };
    let mut resized = signal(SignalKind::window_change())?;
    let mut resumed = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
    let mut terminal = Terminal::enter()?;
    let mut view = View::default();
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_changed, mut said) = (true, SystemTime::UNIX_EPOCH);
    loop {
        tokio::select! {
            change = live.next() => {
                let Some(change) = change else { return Ok(()) };
                match change {
                    Change::Status(status) => view.set_status(*status),
                    Change::Lost(error) => view.say(format!("asking again: {error:#}")),
                    Change::Tunnel(_) | Change::Gone(_) | Change::Traffic(_) => {}
                }
                is_changed = true;
            }
            key = terminal.key() => {
                let Some(key) = key else { return Ok(()) };
                match view.press(key, live.tunnels()) {
                    Some(Act::Quit) => return Ok(()),
                    Some(Act::Suspend) => terminal.suspend()?,
                    Some(Act::EndSession(id)) => view.say(end_session(daemon, &id).await),
                    None => {}
                }
                is_changed = true;
            }
            _ = ticks.tick() => {
                // Ages change by themselves.
                let now = SystemTime::now();
                let is_old = now.duration_since(said).is_ok_and(|age| age >= Duration::from_secs(1));
                if is_changed || is_old {
                    let size = terminal::size();
                    terminal.draw(&view.lines(live.tunnels(), size, now), size)?;
                    (is_changed, said) = (false, now);
                }
            }
            _ = resized.recv() => is_changed = true,
            // Something else may have changed the terminal meanwhile.
            _ = resumed.recv() => {
                terminal.resume()?;
                is_changed = true;
            }
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}

/// Ends a session. Returns what came of it, for people.
async fn end_session(daemon: &Daemon, id: &str) -> String {
    match daemon.ask(Method::DELETE, &format!("{SESSIONS}/{id}"), Vec::new()).await {
        Ok((StatusCode::OK, _)) => "the session was ended; its client may connect again".to_owned(),
        Ok((_, text)) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(error) => format!("{:#}", unanswered(daemon, error)),
    }
}
