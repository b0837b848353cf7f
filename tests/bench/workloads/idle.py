"""What stands idle costs the daemon: sessions, tunnels and visitors' connections."""

import contextlib
import time

from contestants import cok
from harness.process import wait_for

from . import Subject, Workload, generate, stopping

COUNT, QUICK = 5000, 500
# The tunnels of a session: 5,000 tunnels are in 125 sessions.
TUNNELS = 40
# How long memory must be steady, in seconds, and how much it may change meanwhile, in bytes.
STEADY, CHANGE = 3, 64 << 10


def settled(process):
    """Returns the resident memory in KiB, once it has changed little over STEADY seconds. The daemon gives memory back after
    connections have been quiet for a second."""
    samples = []

    def is_steady():
        now = time.monotonic()
        samples.append((now, process.memory()[0]))
        recent = [size for at, size in samples if at >= now - STEADY]
        return now - samples[0][0] >= STEADY and max(recent) - min(recent) < CHANGE

    wait_for(is_steady, "the memory is steady", 120, every=0.2)
    return samples[-1][1] / 1024


def measure(bench, transport, hold, count):
    """Returns the daemon's growth for each of `count` that `hold(bench, daemon)` holds."""
    with stopping([]) as programs:
        daemon, _ = cok.pair(bench, "idle", transport, programs)
        # The first ones of all kinds make what later ones share.
        with hold(bench, daemon, 1, "first"):
            before = settled(daemon.process)
            with hold(bench, daemon, count, "more"):
                return {"each": (settled(daemon.process) - before) / count}


def sessions(transport):
    return lambda bench, daemon, count, prefix: generate.sessions(bench, daemon, transport, count, 1, prefix)


def tunnels(bench, daemon, count, prefix):
    return generate.sessions(bench, daemon, "ws", max(1, count // TUNNELS), min(count, TUNNELS), prefix)


def visitors(bench, daemon, count, _prefix):
    return generate.visitors(bench, daemon, count, "bench")


@contextlib.contextmanager
def subjects(bench):
    count = QUICK if bench.quick else COUNT
    yield [
        Subject(f"{count:,} {what}", lambda hold=hold, transport=transport: measure(bench, transport, hold, count), what)
        for what, transport, hold in (
            ("sessions over ws", "ws", sessions("ws")),
            ("sessions over quic", "quic", sessions("quic")),
            (f"tunnels, {TUNNELS} a session", "ws", tunnels),
            ("visitors' connections", "ws", visitors),
        )
    ]


WORKLOADS = [
    Workload(
        "idle cost", subjects, ("each",), ("each",), rounds=2,
        note="Resident memory of the daemon for each, with one tunnel a session where nothing else is said.",
        judged=False,
    ),
]
