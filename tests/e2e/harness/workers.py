"""Parallel workers (pytest-xdist). Each has the shared fixtures of its own, and runs its tests one after the other."""

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_CHILD_SUBREAPER = 36


def number():
    """Returns the number of workers. Tests mostly wait, so each processor has two, but no more than four in all."""
    return int(os.environ.get("COK_TEST_WORKERS") or min(4, 2 * len(os.sched_getaffinity(0))))


def adopt():
    """From now on this process gets the children of workers that are killed (prctl(2))."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children():
    """Kills all children of this process. It gets their children, and kills these as well."""
    while found := [int(child) for task in Path("/proc/self/task").iterdir() for child in _children(task)]:
        for child in found:
            # A thread may wait for it as well.
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _children(task):
    try:
        return (task / "children").read_text().split()
    except OSError:
        # The thread has ended meanwhile.
        return []
