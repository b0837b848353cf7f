"""`cok-client login` and `config` write the configuration file, so that a key is neither repeated nor exposed."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios

import pytest

from harness.cok import KEY
from harness.process import BIN_DIR, Process, end, spawn, wait_for

PLAIN = {"PATH": "/usr/bin:/bin"}


def run(*arguments, home=None, stdin="", env=None):
    env = PLAIN | ({"HOME": str(home)} if home else {}) | (env or {})
    command = [BIN_DIR / "cok-client", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=30, env=env)


def test_a_key_from_a_pipe_opens_tunnels(daemon, nginx, tmp_path):
    """Only the first line counts. The key's file is its owner's alone, and an old key is replaced."""
    folder = tmp_path / ".config/cok"
    for stdin in ("cok_old\n", f"{KEY}\nmore\n", KEY):
        result = run("login", daemon.url("", ""), home=tmp_path, stdin=stdin)
        assert result.returncode == 0 and result.stderr == ""
        assert result.stdout.splitlines()[0] == f"wrote {folder}/client.toml and {folder}/client.api-key"
        assert KEY not in result.stdout
    assert sorted(os.listdir(folder)) == ["client.api-key", "client.toml"]
    assert (folder / "client.api-key").read_text() == f"{KEY}\n"
    assert (folder / "client.api-key").stat().st_mode & 0o777 == 0o600
    assert (folder / "client.toml").read_text() == (
        f'server = "{daemon.url("", "")}"\napi_key_file = "client.api-key"\n'
    )
    client = Process(
        BIN_DIR / "cok-client", nginx.target, "--subdomain", "logged-in", "--ca-file", daemon.ca,
        "--connect-to", daemon.https, env=PLAIN | {"HOME": str(tmp_path), "COK_API_KEY": "", "XDG_CONFIG_HOME": ""},
    )
    assert client.wait_stdout() == daemon.url("logged-in", "")
    assert client.stop() == 0


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *command, home):
        self.master, slave = pty.openpty()
        env = PLAIN | {"HOME": str(home)}
        self.child = spawn(command, stdin=slave, stdout=slave, stderr=slave, env=env, preexec_fn=self._own)
        os.close(slave)
        self.shown = b""

    @staticmethod
    def _own():
        # The new session of `spawn` has no terminal yet.
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def read(self):
        """Adds what the program has shown meanwhile. Returns all of it."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                part = os.read(self.master, 65536)
            except OSError:
                break
            self.shown += part
        return self.shown

    def echoes(self):
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def close(self):
        end(self.child)
        os.close(self.master)


@pytest.fixture
def terminal(tmp_path):
    """Returns a function that starts `cok-client login` on a terminal."""
    running = []

    def start():
        running.append(Terminal(BIN_DIR / "cok-client", "login", "https://tunnel.test", home=tmp_path))
        return running[-1]

    yield start
    for program in running:
        program.close()


def test_a_key_is_typed_without_echo(terminal, tmp_path):
    program = terminal()
    wait_for(lambda: b"API key for https://tunnel.test: " in program.read() and not program.echoes(), "the question")
    os.write(program.master, b"cok_typed-key\r")
    wait_for(lambda: b"now open a tunnel" in program.read(), "the end")
    assert program.child.wait(10) == 0 and b"typed-key" not in program.shown
    assert (tmp_path / ".config/cok/client.api-key").read_text() == "cok_typed-key\n"


def test_ctrl_c_leaves_the_terminal_and_the_files_alone(terminal, tmp_path):
    program = terminal()
    wait_for(lambda: b"API key for " in program.read() and not program.echoes(), "the question")
    os.write(program.master, b"cok_ty\x03")
    wait_for(lambda: program.child.poll() is not None, "the end")
    assert program.child.returncode != 0 and program.echoes()
    assert not (tmp_path / ".config").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_leaves_the_terminal_and_the_files_alone(terminal, tmp_path, number):
    program = terminal()
    wait_for(lambda: b"API key for " in program.read() and not program.echoes(), "the question")
    program.child.send_signal(number)
    assert program.child.wait(10) == 1
    wait_for(lambda: b"cannot ask for the API key: interrupted" in program.read(), "the reason")
    assert program.echoes() and (termios.tcgetattr(program.master)[3] & termios.ICANON)
    assert not (tmp_path / ".config").exists()


def test_a_login_that_cannot_work_writes_nothing(tmp_path):
    for arguments, stdin, said in [
        (["login"], KEY, "no server: say cok-client login https://tunnel.example.com"),
        (["login", "http://x"], KEY, "must be https://"),
        (["login", "x.example"], "", "the API key is empty"),
        (["login", "x.example"], "two words\n", "the API key is empty, or not one word"),
        (["login", "x.example", "--config", tmp_path / "my.api-key"], KEY, "is the name of the key's file"),
    ]:
        result = run(*arguments, home=tmp_path, stdin=stdin)
        (line,) = result.stderr.splitlines()
        assert result.returncode == 2 and line.startswith("cok-client: ") and said in line
        assert KEY not in line and not (tmp_path / ".config").exists()
    config = tmp_path / "client.toml"
    config.write_text("serber = 1\n")
    result = run("login", "x.example", "--config", config, home=tmp_path, stdin=KEY)
    assert result.returncode == 2 and f"{config}:1: serber: unknown key" in result.stderr
    assert os.listdir(tmp_path) == ["client.toml"]


def test_config_set_check_and_path(tmp_path):
    home, file = tmp_path, tmp_path / ".config/cok/client.toml"
    assert run("config", "path", home=home).stdout == f"{file}\n"
    assert run("config", "path", "--config", "here.toml").stdout == "here.toml\n"
    missing = run("config", "check", home=home)
    assert missing.returncode == 2 and f"cannot read the configuration {file}" in missing.stderr
    done = run("config", "set", "server=tunnel.test", "tunnels.web.target=3000", home=home)
    assert (done.returncode, done.stdout) == (0, f"wrote {file}\n")
    assert file.read_text() == 'server = "tunnel.test"\n\n[tunnels.web]\ntarget = "3000"\n'
    assert file.stat().st_mode & 0o777 == 0o600
    checked = run("config", "check", home=home)
    assert checked.returncode == 0 and checked.stdout.splitlines()[0] == f"{file}: no mistakes"
    assert "`cok-client login` stores one" in checked.stdout and "tunnels: web" in checked.stdout

    before = file.read_text()
    for setting, said in [
        ("transport=pigeon", "transport: "), ("colour=red", "colour: unknown key"), ("server", "expected KEY=VALUE"),
        (f"api_key={KEY}", "cok-client login"),
    ]:
        refused = run("config", "set", setting, home=home)
        assert refused.returncode == 2 and said in refused.stderr and refused.stdout == "" and KEY not in refused.stderr
        assert file.read_text() == before
    named = ["api_key_file=none", "ca_file=none", "tunnels.docs.serve=none", "tunnels.docs.basic_auth_file=none"]
    assert run("config", "set", *named, home=home).returncode == 0
    checked = run("config", "check", home=home)
    assert checked.returncode == 2 and checked.stdout == ""
    keys = [line.split(": ")[2] for line in checked.stderr.splitlines()]
    assert keys == ["api_key_file", "ca_file", "tunnels.docs.serve", "tunnels.docs.basic_auth_file"]


def test_a_key_in_the_file_gets_a_hint(tmp_path):
    config = tmp_path / "client.toml"
    config.write_text(f'server = "tunnel.test"\napi_key = "{KEY}"\n')
    result = run("3000", "--config", config, home=tmp_path)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and line.startswith(f"cok-client: {config}:2: api_key: ")
    assert "cok-client login" in line and "api_key_file" in line and KEY not in line


def test_without_a_home_tunnels_open(daemon, nginx):
    """Only what is kept there asks for a state directory, and says how to name one."""
    client = Process(
        "env", "-i", BIN_DIR / "cok-client", nginx.target, "--subdomain", "homeless", "--server", daemon.url(""),
        "--connect-to", daemon.https, "--ca-file", daemon.ca, "--api-key", KEY, "--log-format", "json",
    )
    assert client.wait_stdout() == daemon.url("homeless", "")
    assert daemon.curl("homeless").stdout == b"<h1>hello</h1>\n"
    assert client.stop() == 0
    assert not any('"WARN"' in line for line in client.lines), client.output()
    for arguments in (
        ["status"], ["reload"], ["stop"], ["share", "demo", "--server", "x"], ["service", "status"], ["config", "path"],
        ["login", "x.example"], ["3000", "-s", "a", "--server", "x", "--api-key", "k", "--share-links"],
    ):
        result = run(*arguments)
        (line,) = result.stderr.splitlines()
        assert result.returncode == 2 and "there is no home folder" in line, arguments
    dev = subprocess.run(
        [BIN_DIR / "cokd", "dev"], capture_output=True, text=True, check=False, timeout=30, env=PLAIN
    )
    assert dev.returncode == 2 and "there is no home folder; name a place by --state-dir" in dev.stderr


MISTAKES = [
    ["ftp://x"], ["logni"], ["3000", "--transport", "pigeon"], ["3000", "--no-such-flag"], ["3000", "-v", "-q"],
    ["https://192.0.2.1", "--target-ca-file", "/none"], ["3000", "--upgrade", "h2c"], ["3000", "--subdomain", "a.b"],
]


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_the_same_mistake_has_the_same_exit_code(tmp_path, arguments):
    client = run(*arguments, "--server", "x", "--api-key", "k", "--state-dir", tmp_path)
    dev = subprocess.run(
        [BIN_DIR / "cokd", "dev", *arguments, "--https-port", "0", "--state-dir", tmp_path],
        capture_output=True, text=True, check=False, timeout=30, env=PLAIN,
    )
    assert (client.returncode, dev.returncode) == (2, 2), (client.stderr, dev.stderr)


def test_how_much_is_logged(daemon, nginx, tmp_path):
    """-v logs each request, -vv more, and -q nothing while all is well. The address is printed in any case."""
    lines = {}
    for flag in ("-q", "-v", "-vv"):
        client = Process(
            BIN_DIR / "cok-client", nginx.target, "--subdomain", "loud", "--server", daemon.url(""), "--connect-to",
            daemon.https, "--ca-file", daemon.ca, "--state-dir", tmp_path, flag, env={"COK_API_KEY": KEY},
        )
        assert client.wait_stdout() == daemon.url("loud", "")
        assert daemon.curl("loud", "/?seen").stdout == b"<h1>hello</h1>\n"
        assert client.stop() == 0
        lines[flag] = client.lines
    assert lines["-q"] == [daemon.url("loud", "")]
    assert any("GET /" in line for line in lines["-v"])
    assert len(lines["-vv"]) > len(lines["-v"])
