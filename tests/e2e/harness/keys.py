"""`cokd key` and the admin socket, as an operator uses them."""

import json
import subprocess
import time

from .process import BIN_DIR


class Keys:
    """The keys of one daemon's configuration, whether or not the daemon runs."""

    def __init__(self, daemon):
        self.daemon = daemon

    def run(self, *arguments, deadline=60):
        command = [BIN_DIR / "cokd", "key", *arguments, "--config", self.daemon.config]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=deadline)

    def do(self, *arguments):
        """Runs a command that must succeed. Returns its standard output."""
        done = self.run(*arguments)
        assert done.returncode == 0, done
        return done.stdout

    def create(self, name, *options):
        """Returns the text of a new key."""
        return self.do("create", "--name", name, *options).strip()

    def list(self):
        return json.loads(self.do("list", "--json"))

    def show(self, key):
        return json.loads(self.do("show", key, "--json"))


def ask(daemon, method, path, body=None, options=()):
    """Asks at the daemon's admin socket. Returns status and text."""
    command = ["curl", "-sS", "--max-time", "20", "--request", method, "--write-out", "\n%{http_code}"]
    command += [] if body is None else ["--data", json.dumps(body)]
    # A path of any length: curl has the limit of the system.
    command += ["--unix-socket", "admin.sock", *options, f"http://localhost{path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, cwd=daemon.state)
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


class Stopwatch:
    """Measures real time from its making on."""

    def __init__(self):
        self.began = time.monotonic()

    def seconds(self):
        return time.monotonic() - self.began
