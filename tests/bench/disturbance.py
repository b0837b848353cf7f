"""How much other work ran on the processors of a measurement, and what follows from it.

A measurement during which others took more than a share of one processor is repeated. After some repetitions, the least
disturbed one counts. The report shows the number of dropped measurements and those that count although disturbed."""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import processors

TICK = 1 / os.sysconf("SC_CLK_TCK")
REPETITIONS = 3


def _busy(used):
    """Returns the seconds in which these processors did anything, or worked for another virtual machine (proc_stat(5))."""
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in used:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            total += user + nice + system + irq + softirq + steal
    return total * TICK


def _own():
    """Returns the processor seconds of this program and everything that it started."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return processors.processor_seconds([os.getpid()]) + ended.ru_utime + ended.ru_stime


class Others:
    """The share of one processor that other work took since `Others` began."""

    def __init__(self, used):
        self._used = used
        self._began, self._busy, self._own = time.monotonic(), _busy(used), _own()

    def share(self):
        passed = max(time.monotonic() - self._began, TICK)
        return max(0.0, (_busy(self._used) - self._busy - _own() + self._own) / passed)


@dataclass
class Measurement:
    """Figures by name, the share of one processor that others took, and how many earlier tries were dropped."""

    figures: dict
    others: float
    dropped: int
    disturbed: bool


def undisturbed(measure, most, used):
    """Calls `measure` until others took at most the share `most`. Returns the best Measurement."""
    tried = []
    for _ in range(1 + REPETITIONS):
        others = Others(used)
        figures = measure()
        tried.append((others.share(), figures))
        if tried[-1][0] <= most:
            break
    share, figures = min(tried, key=lambda each: each[0])
    return Measurement(figures, share, len(tried) - 1, share > most)
