"""Child processes with recorded output, each stopped by its own handle."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from . import needs

BIN_DIR = Path(os.environ.get("COK_BIN_DIR", "target/release"))

DEADLINE = 20.0

# Every child of this run in the order of their start, so that the children of a failed test can be ended.
children = []


def spawn(command, **options):
    """Starts a program as the leader of a new process group."""
    child = subprocess.Popen([str(part) for part in command], start_new_session=True, **options)
    children.append(child)
    return child


def end(child):
    """Kills a program and all its children."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(DEADLINE)


def wait_for(condition, what, deadline=DEADLINE, every=0.02):
    """Returns the condition's first true value. Fails with `what` if there is none in time."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what}")
        time.sleep(every)


class Here:
    """The suite's own network, as the place of a program or a socket. harness/netns.py has others."""

    def command(self, *command):
        return list(command)

    def enter(self, function):
        return function()


HERE = Here()


class Process:
    """A running program. Its output is recorded, and tests can wait for lines of its JSON log."""

    # Like `children`, for the logs of a failed test.
    started = []

    def __init__(self, *command, env=None, cwd=None, inside=HERE, stdin=subprocess.DEVNULL):
        self.command = [str(part) for part in command]
        # Inside of another place, it is another program that is started.
        needs.program(self.command[0])
        self.lines = []
        self._new = threading.Condition()
        self.stdout = queue.Queue()
        self.popen = spawn(
            inside.command(*self.command),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        Process.started.append(self)
        self._readers = [
            threading.Thread(target=self._read, args=(self.popen.stdout, True), daemon=True),
            threading.Thread(target=self._read, args=(self.popen.stderr, False), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe, is_stdout):
        for raw in pipe:
            line = raw.decode(errors="replace").rstrip("\n")
            with self._new:
                self.lines.append(line)
                self._new.notify_all()
            if is_stdout:
                self.stdout.put(line)
        if is_stdout:
            self.stdout.put(None)

    @property
    def pid(self):
        return self.popen.pid

    def wait_line(self, matches, what, deadline=DEADLINE, start=0):
        """Waits for the first line from `start` on that `matches`. Returns the line and the value of `matches`."""
        end = time.monotonic() + deadline
        seen = start
        with self._new:
            while True:
                while seen < len(self.lines):
                    value = matches(self.lines[seen])
                    if value:
                        return value
                    seen += 1
                ended = not any(reader.is_alive() for reader in self._readers)
                if ended or time.monotonic() > end:
                    why = "any more" if ended else f"within {deadline} s"
                    raise AssertionError(f"{self.command[0]}: no {what} {why}\n{self.output()}")
                # The end of the output wakes no waiter, so this checks for it regularly.
                self._new.wait(0.1)

    def wait_event(self, event, deadline=DEADLINE, start=0, **fields):
        """Waits for the first log line with this event and these fields."""

        def matches(line):
            if not line.startswith("{"):
                return None
            entry = json.loads(line)
            wanted = {"event": event, **fields}
            return entry if all(entry.get(key) == value for key, value in wanted.items()) else None

        return self.wait_line(matches, f"event {event} {fields}", deadline, start)

    def wait_stdout(self, deadline=DEADLINE):
        """Waits for the next line on standard output."""
        with suppress(queue.Empty):
            if (line := self.next_stdout(deadline)) is not None:
                return line
        raise AssertionError(f"{self.command[0]}: no line on standard output\n{self.output()}")

    def next_stdout(self, deadline=None):
        """Returns the next line on standard output, or None after its end."""
        line = self.stdout.get(timeout=deadline)
        if line is None:
            self.stdout.put(None)
        return line

    def wait_exit(self, deadline=DEADLINE):
        """Waits for the exit and all output. Returns the exit code."""
        code = self.popen.wait(deadline)
        for reader in self._readers:
            reader.join(deadline)
        return code

    def output(self, start=0):
        """Returns the last lines, at most from `start` on."""
        return "\n".join(self.lines[start:][-60:])

    def memory(self):
        """Returns resident memory and its peak in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))

    def processor_time(self):
        """Returns its processor time in clock ticks, in user mode and in the kernel."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def reset_peak(self):
        """Resets the peak of `memory`."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def kill(self):
        """Sends SIGKILL."""
        end(self.popen)

    def stop(self, deadline=DEADLINE):
        """Sends SIGTERM, and SIGKILL if the program does not end in time."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(deadline)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.popen.returncode
