//! `cok-client login`: stores the server and an API key. The key goes to a file of its own that only its owner may read.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use cok_host::private_file;
use cok_host::say;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::config_command::{Edited, path_of};
use super::failure::Usage;
use super::plan::{LONGEST_KEY, check_key, env};
use super::program::called;
use crate::config::FileConfig;
use crate::server::Server;

/// What the name of the key's file ends with: `client.api-key` for `client.toml`, in the same folder.
const EXTENSION: &str = "api-key";

/// How long the question may take to end after Ctrl-C. After another signal it does not.
const END_OF_QUESTION: Duration = Duration::from_millis(300);

/// Where to log in.
#[derive(Debug, clap::Args)]
pub(super) struct LoginArgs {
    /// The server, such as `https://tunnel.example.com` [default: COK_SERVER, or the one of the configuration file]
    #[arg(value_name = "URL")]
    server: Option<String>,
    /// The configuration file. The key goes to a file in the same folder [default: ~/.config/cok/client.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Asks for the key and stores it.
pub(super) fn run(args: &LoginArgs) -> anyhow::Result<()> {
    let path = path_of(args.config.as_deref())?;
    let mut edited = Edited::open(&path)?;
    let server = server(args, edited.config()).map_err(Usage::of)?;
    edited.set("server", &server)?;
    let key_file = path.with_extension(EXTENSION);
    if key_file == path {
        let why = format!("{} is the name of the key's file: name the configuration otherwise", path.display());
        return Err(Usage(why).into());
    }
    let name = key_file.file_name().and_then(|name| name.to_str()).context("the file's name is not UTF-8")?;
    edited.set("api_key_file", name)?;
    // Before the key is asked for: a file that cannot be used is said at once.
    edited.check()?;
    let key = ask(&server)?;
    // First the key, since the configuration names its file.
    write(&key_file, &key)?;
    edited.write()?;
    say!("wrote {} and {}", path.display(), key_file.display());
    if env("COK_API_KEY").is_some() {
        say!("COK_API_KEY is set in this shell, and beats the key that was stored");
    }
    say!("now open a tunnel: {} 3000", called());
    Ok(())
}

fn server(args: &LoginArgs, config: &FileConfig) -> anyhow::Result<String> {
    let named = args.server.clone().or_else(|| env("COK_SERVER"));
    let named = named.or_else(|| config.server.as_ref().map(ToString::to_string));
    let server = named.with_context(|| format!("no server: say {} login https://tunnel.example.com", called()))?;
    Ok(Server::from_str(&server)?.to_string())
}

/// The key, from the terminal without echo, or the first line of a pipe.
fn ask(server: &str) -> anyhow::Result<String> {
    let text = if io::stdin().is_terminal() {
        prompt(format!("API key for {server}: ")).context("cannot ask for the API key")?
    } else {
        let mut line = Vec::new();
        io::stdin().lock().take(LONGEST_KEY).read_until(b'\n', &mut line).context("cannot read the API key")?;
        String::from_utf8_lossy(&line).into_owned()
    };
    check_key(&text).map_err(Usage::of)
}

/// Asks on the terminal. A signal would end the program before the terminal echoes again, also the SIGINT that rpassword makes
/// of Ctrl-C. So signals are caught here, and the terminal gets its settings back.
fn prompt(question: String) -> io::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let before = Settings::of_terminal();
    let answer = runtime.block_on(async {
        let interrupted = interrupt()?;
        let mut asking = spawn_blocking(|| rpassword::prompt_password(question));
        tokio::select! {
            biased;
            () = interrupted => {
                // After Ctrl-C the question ends by itself, and must not change the settings later.
                let _ended = timeout(END_OF_QUESTION, asking).await;
                Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"))
            }
            answer = &mut asking => answer.map_err(io::Error::other)?,
        }
    });
    before.restore();
    runtime.shutdown_background();
    answer
}

/// Becomes ready with the first signal that would end the program.
#[cfg(unix)]
fn interrupt() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (mut hangup, mut quit) = (signal(SignalKind::hangup())?, signal(SignalKind::quit())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    })
}

/// Becomes ready with Ctrl-C.
#[cfg(not(unix))]
fn interrupt() -> io::Result<impl Future<Output = ()>> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}

/// The terminal's settings before the question.
#[cfg(unix)]
struct Settings(Option<(std::fs::File, rustix::termios::Termios)>);

#[cfg(unix)]
impl Settings {
    fn of_terminal() -> Self {
        // rpassword asks there as well.
        let terminal = std::fs::File::open("/dev/tty").ok();
        Self(
            terminal
                .and_then(|terminal| rustix::termios::tcgetattr(&terminal).ok().map(|settings| (terminal, settings))),
        )
    }

    fn restore(&self) {
        if let Some((terminal, settings)) = &self.0 {
            // If the terminal is gone, there is nothing to restore.
            let _gone = rustix::termios::tcsetattr(terminal, rustix::termios::OptionalActions::Now, settings);
        }
    }
}

/// Elsewhere the question restores them itself.
#[cfg(not(unix))]
struct Settings;

#[cfg(not(unix))]
impl Settings {
    fn of_terminal() -> Self {
        Self
    }

    fn restore(&self) {}
}

fn write(path: &Path, key: &str) -> anyhow::Result<()> {
    private_file::write(path, format!("{key}\n").as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
