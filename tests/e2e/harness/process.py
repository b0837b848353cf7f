"""Child processes, whose output is kept, and which are stopped by their own handles."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

BIN_DIR = Path(os.environ.get("COK_BIN_DIR", "target/release"))

DEADLINE = 20.0

# Every child of this run in the order of their start, so that those of a test that failed can be ended.
children = []


def spawn(command, **options):
    """Starts a program as the leader of a process group of its own."""
    child = subprocess.Popen([str(part) for part in command], start_new_session=True, **options)
    children.append(child)
    return child


def end(child):
    """Kills a program with all that it has started itself."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(DEADLINE)


def wait_for(condition, what, deadline=DEADLINE, every=0.02):
    """Returns the condition's first true value; fails, saying `what`, if there is none in time."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what}")
        time.sleep(every)


class Here:
    """Where the suite itself runs, as the place of a program or a socket; harness/netns.py has others."""

    def command(self, *command):
        return list(command)

    def enter(self, function):
        return function()


HERE = Here()


class Process:
    """A running program. Each line it prints is kept; JSON lines of its log can be waited for."""

    # As `children`, for the logs of a failed test.
    started = []

    def __init__(self, *command, env=None, cwd=None, inside=HERE, stdin=subprocess.DEVNULL):
        self.command = [str(part) for part in command]
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
        """The first line from `start` on for which `matches` returns something true, and that value."""
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
                # Nobody reports that the output has ended; it is asked for now and then.
                self._new.wait(0.1)

    def wait_event(self, event, deadline=DEADLINE, start=0, **fields):
        """The first log line with this event and these fields."""

        def matches(line):
            if not line.startswith("{"):
                return None
            entry = json.loads(line)
            wanted = {"event": event, **fields}
            return entry if all(entry.get(key) == value for key, value in wanted.items()) else None

        return self.wait_line(matches, f"event {event} {fields}", deadline, start)

    def wait_stdout(self, deadline=DEADLINE):
        """The next line on standard output."""
        with suppress(queue.Empty):
            if (line := self.next_stdout(deadline)) is not None:
                return line
        raise AssertionError(f"{self.command[0]}: no line on standard output\n{self.output()}")

    def next_stdout(self, deadline=None):
        """The next line on standard output, or nothing once that has ended."""
        line = self.stdout.get(timeout=deadline)
        if line is None:
            self.stdout.put(None)
        return line

    def wait_exit(self, deadline=DEADLINE):
        """The exit code, once all output is in."""
        code = self.popen.wait(deadline)
        for reader in self._readers:
            reader.join(deadline)
        return code

    def output(self, start=0):
        """The last lines, at most from `start` on."""
        return "\n".join(self.lines[start:][-60:])

    def memory(self):
        """Resident memory and its peak, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))

    def processor_time(self):
        """In clock ticks, in user mode and in the kernel."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def reset_peak(self):
        """Lets the peak of `memory` start anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def kill(self):
        """SIGKILL, which nothing can prepare for."""
        end(self.popen)

    def stop(self, deadline=DEADLINE):
        """SIGTERM, and SIGKILL if that does not help in time."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(deadline)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.popen.returncode
