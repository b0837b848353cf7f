"""A real terminal: a tmux server of its own, with one window. Tests type into it and read what it shows."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import termios
from pathlib import Path

from .process import wait_for

# Says whether the terminal echoes.
MODE = "stty -a | tr ' ' '\\n' | grep -xE -e '-?echo' | sed s/^/mode=/"


def is_free(screen):
    """Whether the shell has the terminal again, with its usual settings."""
    screen.type(MODE)
    shown = screen.match("^mode=-?echo")
    return "mode=echo" in shown


def child_of(terminal):
    """The process that the terminal's shell has started."""
    shell = terminal.tmux("display-message", "-p", "#{pane_pid}").strip()
    return int(Path(f"/proc/{shell}/task/{shell}/children").read_text().split()[0])


class Terminal:
    """A terminal of this size. It runs a shell, in which `run` starts programs as a user does."""

    def __init__(self, columns=110, rows=30, env=None):
        # The path of a socket must be short.
        self.folder = tempfile.mkdtemp(prefix="cok-tmux-")
        environment = {key: value for key, value in os.environ.items() if key not in ("TMUX", "NO_COLOR", "RUST_LOG")}
        environment |= {"LC_ALL": "C.UTF-8", "PS1": "$ ", "TZ": "UTC", **(env or {})}
        self.environment = environment
        self.tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows),
            "bash", "--norc", "--noprofile", "-i",
        )
        self.wait("$")

    def tmux(self, *arguments):
        command = ["tmux", "-u", "-S", f"{self.folder}/socket", *arguments]
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=20
        ).stdout

    def run(self, *command):
        """Types a command line."""
        self.type(shlex.join(str(part) for part in command))

    def type(self, text):
        self.tmux("send-keys", "-l", text)
        self.keys("Enter")

    def keys(self, *names):
        """Presses keys, by tmux's names for them."""
        self.tmux("send-keys", *names)

    def resize(self, columns, rows):
        """Returns once the system knows the new size. tmux takes its time for that."""
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))
        tty = self.tmux("display-message", "-p", "#{pane_tty}").strip()
        with open(tty, "rb", buffering=0, opener=lambda path, flags: os.open(path, flags | os.O_NOCTTY)) as terminal:
            wait_for(lambda: termios.tcgetwinsize(terminal) == (rows, columns), "the terminal's new size")

    def shown(self, *options):
        """Returns the text that is visible. With `-S -`, the scrollback comes first."""
        return self.tmux("capture-pane", "-p", *options)

    def history(self):
        return self.shown("-S", "-")

    def wait(self, text, count=None):
        """Waits until the terminal shows a text, or shows it so many times. Returns what it shows."""

        def found():
            shown = self.shown()
            return shown if (text in shown if count is None else shown.count(text) == count) else None

        try:
            return wait_for(found, f"the terminal shows {text!r}")
        except AssertionError as why:
            raise AssertionError(f"{why}\n{self.history()}") from None

    def match(self, pattern):
        """Waits until a line that the terminal shows matches. Returns what it shows."""

        def found():
            shown = self.shown()
            return shown if re.search(pattern, shown, re.MULTILINE) else None

        try:
            return wait_for(found, f"the terminal shows a match of {pattern!r}")
        except AssertionError as why:
            raise AssertionError(f"{why}\n{self.history()}") from None

    def stop(self):
        subprocess.run(
            ["tmux", "-S", f"{self.folder}/socket", "kill-server"], capture_output=True, check=False, timeout=20
        )
        shutil.rmtree(self.folder, ignore_errors=True)
