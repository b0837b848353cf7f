"""Which processor runs what, and how much processor time and memory a program takes.

All processes of a contestant run on one processor. The load generator and the service run on another one."""

import contextlib
import os
import time
from pathlib import Path


def _siblings(processor):
    """Returns the hardware threads of a processor's core."""
    path = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
    named = path.read_text().strip() if path.exists() else str(processor)
    ranges = [part.split("-") for part in named.split(",")]
    return {number for first, *last in ranges for number in range(int(first), int(last[0] if last else first) + 1)}


ALL = sorted(os.sched_getaffinity(0))
LOAD = ALL[0]
# Another core, if there is one: two threads of one core would slow each other.
TUNNEL = next((each for each in ALL if each not in _siblings(LOAD)), ALL[-1])


@contextlib.contextmanager
def on(*processors):
    """Pins the programs that start in this context to these processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tree(pid):
    """Returns a process with all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(descendant for child in children for descendant in tree(int(child)))]


def _clock(pid):
    """Returns the processor time of a process in seconds, with its threads that have ended (clock_getcpuclockid(3))."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0


def processor_seconds(pids):
    """Returns the processor time of these processes and their descendants. It is exact to nanoseconds."""
    return sum(_clock(each) for pid in pids for each in tree(pid))


def memory(pids):
    """Returns the resident memory of these processes and their descendants in MiB."""
    total = 0
    for pid in [each for pid in pids for each in tree(pid)]:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total / (1 << 20)


def prefer(pid="self", nice=-20):
    """Puts a session's process group before all others, if it may (sched(7), autogroup). Returns the priority before."""
    group = Path(f"/proc/{pid}/autogroup")
    with contextlib.suppress(OSError):
        before = int(group.read_text().split()[-1])
        group.write_text(str(nice))
        return before
    return 0
