"""The daemon's access log in a file, and systemd's own journal in a place of its own."""

import json
import subprocess

from . import needs
from .process import end, spawn, wait_for

JOURNALD = "/lib/systemd/systemd-journald"
# Its files and sockets are in memory, and end with it.
BOOT = f"mount -t tmpfs journal /run && mkdir -p /run/systemd /run/log/journal && exec {JOURNALD}"


class AccessLog:
    """One file of an access log."""

    def __init__(self, path):
        self.path = path

    def settings(self, more=""):
        """Returns the section of the configuration."""
        return f'[access_log]\nto = "{self.path}"\n{more}\n'

    def text(self):
        return self.path.read_text(encoding="ascii") if self.path.exists() else ""

    def entries(self, **fields):
        """Returns the lines with these fields. Each must be whole."""
        lines = [json.loads(line) for line in self.text().splitlines(keepends=True) if line.endswith("\n")]
        return [entry for entry in lines if all(entry.get(name) == value for name, value in fields.items())]

    def wait(self, count=1, **fields):
        """Waits for as many lines with these fields, and returns the last one."""
        try:
            return wait_for(lambda: self.entries(**fields)[count - 1:], f"{count} lines with {fields}")[-1]
        except AssertionError as why:
            raise AssertionError(f"{why}\n{self.text()[-5000:]}") from None


class Journal:
    """systemd-journald in a mount namespace of its own, as the place of a program. It needs root."""

    def __init__(self):
        needs.root("only root can make mount namespaces")
        for name in (JOURNALD, "journalctl", "unshare", "nsenter"):
            needs.command(name)
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT]
        self.journald = spawn(command, stdin=subprocess.DEVNULL)
        socket = ["test", "-S", "/run/systemd/journal/socket"]
        wait_for(lambda: subprocess.run(self.command(*socket), check=False).returncode == 0, "the journal listens")

    def command(self, *command):
        return ["nsenter", f"--mount=/proc/{self.journald.pid}/ns/mnt", *command]

    def enter(self, function):
        return function()

    def entries(self, pid):
        """Returns the entries of a process."""
        command = self.command("journalctl", "--directory=/run/log/journal", "--output=json", "--no-pager", f"_PID={pid}")
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def stop(self):
        end(self.journald)
