//! Publishes TXT records by a program of the operator's. It is called like the hooks of lego's provider `exec`:
//! `program present FQDN VALUE` and `program cleanup FQDN VALUE`.
//!
//! No shell is involved. The program has the daemon's environment and permissions.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::debug;

use super::{BoxFuture, Solver, SolverError, challenge_name, parse_name, propagation};

/// The longest that a call may take. Providers' APIs are slow at times, and some programs wait until the record is
/// visible.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long output is read after the program's end. A process that it started may hold the pipe open.
const LINGER: Duration = Duration::from_secs(1);
/// How many bytes from the end of its output are kept: enough for a message of several lines.
const LONGEST_TAIL: usize = 2048;
/// How many of the last lines an error contains.
const MOST_LINES: usize = 5;

/// The solver.
#[derive(Clone, Debug)]
pub struct Exec {
    fqdn: String,
    program: PathBuf,
    timeout: Duration,
}

impl Exec {
    /// A solver for the challenges of a domain. The program is first examined when it is called.
    pub fn new(domain: &str, program: PathBuf) -> Self {
        Self { fqdn: challenge_name(domain), program, timeout: TIMEOUT }
    }

    async fn call(&self, action: &str, value: &str) -> Result<(), SolverError> {
        let mut command = Command::new(&self.program);
        command.args([action, &self.fqdn, value]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Its own process group, so that everything it starts can be ended with it.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| self.not_started(&error))?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let outcome = timeout(self.timeout, finish(&mut child)).await;
        let what = format!("{} {action} {}", self.program.display(), self.fqdn);
        match outcome {
            Ok(Ok((status, output))) => {
                group.leave();
                debug!(what, %status, output, "the program has ended");
                if status.success() {
                    return Ok(());
                }
                let colon = if output.is_empty() { "" } else { ": " };
                Err(SolverError::Unavailable(format!("{what} ended with {status}{colon}{output}")))
            }
            Ok(Err(error)) => Err(SolverError::Unavailable(format!("{what}: {error}"))),
            Err(_) => {
                let seconds = self.timeout.as_secs_f32();
                Err(SolverError::Unavailable(format!("{what} did not end within {seconds} s and was killed")))
            }
        }
    }

    /// An error that says what the operator can do.
    fn not_started(&self, error: &io::Error) -> SolverError {
        let program = self.program.display();
        let advice = match error.kind() {
            io::ErrorKind::NotFound if self.program.exists() => "the interpreter in its first line does not exist",
            io::ErrorKind::NotFound => "there is no such file",
            io::ErrorKind::PermissionDenied if is_executable(&self.program) => "the daemon's user may not read it",
            io::ErrorKind::PermissionDenied => "it has to be executable: chmod +x",
            io::ErrorKind::ExecutableFileBusy => {
                return SolverError::Unavailable(format!("cannot run {program}: it is being written"));
            }
            io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => {
                return SolverError::Unavailable(format!("cannot run {program}: {error}"));
            }
            _ => "it has to be a program, or a script with a first line such as #!/bin/sh",
        };
        SolverError::Setup(format!("cannot run {program}: {error}: {advice}"))
    }
}

impl Solver for Exec {
    fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.call("present", value))
    }

    fn cleanup<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.call("cleanup", value))
    }

    fn settled<'a>(&'a self, values: &'a [String]) -> BoxFuture<'a, ()> {
        Box::pin(async {
            if let Ok(name) = parse_name(&self.fqdn) {
                propagation::settled(&name, values, None).await;
            }
        })
    }
}

/// The program's process group. Dropping it kills the group, after a time limit or when the caller gives up.
struct Group(Option<Pid>);

impl Group {
    /// Leaves running what the program has started on purpose.
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // All processes may have ended already.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Waits for the program's end. Returns the last lines of its standard error, or of its standard output if that is
/// empty.
async fn finish(child: &mut Child) -> io::Result<(ExitStatus, String)> {
    let (mut output, mut error) = (VecDeque::new(), VecDeque::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let status = {
        // Both pipes are read all the time, or the program would block on a full one.
        let mut reading = std::pin::pin!(async { tokio::join!(tail(stdout, &mut output), tail(stderr, &mut error)) });
        let ended = tokio::select! {
            status = child.wait() => Some(status?),
            _ = &mut reading => None,
        };
        match ended {
            Some(status) => {
                let _held_open = timeout(LINGER, reading).await;
                status
            }
            None => child.wait().await?,
        }
    };
    let said = if error.is_empty() { output } else { error };
    Ok((status, last_lines(said)))
}

/// Reads to the end and keeps the last bytes.
async fn tail(from: Option<impl AsyncRead + Unpin>, kept: &mut VecDeque<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        kept.extend(&buffer[..length]);
        kept.drain(..kept.len().saturating_sub(LONGEST_TAIL));
    }
}

fn last_lines(bytes: VecDeque<u8>) -> String {
    let bytes = Vec::from(bytes);
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(MOST_LINES)..].join("; ")
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Instant;

    use tempfile::TempDir;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn hook(text: &str) -> (TempDir, Exec) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("hook");
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let exec = Exec::new("tunnel.example.com", program);
        (folder, exec)
    }

    /// Retries while another test's fork holds the script open for writing.
    async fn present(exec: &Exec, value: &str) -> Result<(), SolverError> {
        loop {
            match exec.present(value).await {
                Err(SolverError::Unavailable(why)) if why.contains("it is being written") => {}
                result => return result,
            }
        }
    }

    #[tokio::test]
    async fn it_is_called_as_legos_hooks_are() {
        let (folder, exec) =
            hook("#!/bin/sh\n[ -n \"$PATH\" ] && printf '%s\\n' \"$#\" \"$@\" >>\"$(dirname \"$0\")/calls\"\n");
        let value = "-x $(touch gone); \"value\"";
        present(&exec, value).await.unwrap();
        exec.cleanup(value).await.unwrap();
        let calls = fs::read_to_string(folder.path().join("calls")).unwrap();
        let fqdn = "_acme-challenge.tunnel.example.com.";
        assert_eq!(calls, format!("3\npresent\n{fqdn}\n{value}\n3\ncleanup\n{fqdn}\n{value}\n"));
    }

    #[tokio::test]
    async fn a_failure_reports_its_status_and_last_lines() {
        let script = "#!/bin/sh\ni=0; while [ $i -lt 20000 ]; do echo \"line $i\" >&2; echo out; i=$((i+1)); done\n\
                      printf 'token \\377 rejected\\n\\n' >&2; exit 3\n";
        let (_folder, exec) = hook(script);
        let error = present(&exec, "value").await.unwrap_err();
        let SolverError::Unavailable(why) = error else { panic!("{error:?}") };
        assert!(why.contains("hook present _acme-challenge.tunnel.example.com. ended with exit status: 3"), "{why}");
        assert!(why.ends_with("line 19998; line 19999; token \u{fffd} rejected"), "{why}");
        assert!(why.len() < LONGEST_TAIL && !why.contains("line 19995"), "{why}");
        let (_folder, exec) = hook("#!/bin/sh\necho said here; kill -9 $$\n");
        let why = present(&exec, "value").await.unwrap_err().to_string();
        assert!(why.contains("signal: 9") && why.ends_with(": said here"), "{why}");
    }

    #[tokio::test]
    async fn a_slow_program_is_killed_with_everything_it_started() {
        // The grandchild holds a FIFO open for writing, so reading it ends when the grandchild does.
        let (folder, mut exec) = hook("#!/bin/sh\nsleep 600 >\"$(dirname \"$0\")/fifo\" & \nsleep 600\n");
        exec.timeout = Duration::from_millis(500);
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let reader = tokio::task::spawn_blocking(move || fs::read(fifo).unwrap());
        let started = Instant::now();
        let why = present(&exec, "value").await.unwrap_err().to_string();
        assert!(why.contains("did not end within 0.5 s and was killed"), "{why}");
        assert!(started.elapsed() < DEADLINE);
        timeout(DEADLINE, reader).await.expect("the grandchild is gone").unwrap();
    }

    #[tokio::test]
    async fn a_process_left_running_does_not_delay_the_call() {
        let (folder, exec) = hook("#!/bin/sh\nsleep 600 &\necho $! >\"$(dirname \"$0\")/pid\"\n");
        timeout(DEADLINE, present(&exec, "value")).await.unwrap().unwrap();
        let left: i32 = fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
        // This fails if the process is gone.
        rustix::process::kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_program_that_cannot_run_is_an_error_of_the_setup() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("plain"), "#!/bin/sh\n").unwrap();
        fs::write(at("no-interpreter"), "#!/nowhere/sh\n").unwrap();
        fs::write(at("no-program"), "echo no first line\n").unwrap();
        for name in ["no-interpreter", "no-program"] {
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        for (name, part) in [
            ("missing", "there is no such file"),
            ("plain", "executable: chmod +x"),
            ("no-interpreter", "the interpreter"),
            ("no-program", "#!/bin/sh"),
        ] {
            let error = present(&Exec::new("tunnel.example.com", at(name)), "value").await.unwrap_err();
            let SolverError::Setup(why) = error else { panic!("{name}: {error:?}") };
            assert!(why.contains(&at(name).display().to_string()) && why.contains(part), "{why}");
        }
    }
}
