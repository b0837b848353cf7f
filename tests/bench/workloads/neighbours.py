"""What visitors notice of others: bulk downloads through the same session, and a visitor that stands still."""

import contextlib
import json

from contestants import HOST, cok

from . import Subject, Workload, generate, stopping, wrk

STREAMS = 4
RATE, CONNECTIONS = 100, 8


def small(bench, daemon):
    """Returns the times of small requests at a fixed rate."""
    counted = generate.visit(
        bench, daemon.port, bench.seconds, f"--connections={CONNECTIONS}", f"--rate={RATE}", "--path=/128"
    )
    return {"p50": counted["p50"], "p99": counted["p99"]}


def small_during_bulk(bench, daemon, name):
    """The same during bulk downloads from a tunnel."""
    with generate.visitors(bench, daemon, STREAMS, name, "/huge", "--hold=download") as bulk:
        figures = small(bench, daemon)
    downloaded = json.loads(bulk.wait_stdout())
    return {**figures, "mb": downloaded["bytes"] / downloaded["seconds"] / 1e6}


@contextlib.contextmanager
def bulk(bench):
    """One session has the tunnel of the small requests and another one. Both carry bulk in turn."""
    with stopping([]) as programs:
        found = []
        for transport in ("ws", "quic"):
            daemon, _ = cok.pair(bench, f"bulk-{transport}", transport, programs, tunnels=())
            programs.append(cok.Many(daemon, bench.origin, ("bench", "bulk")))
            found += [
                Subject(f"{transport}, alone", lambda daemon=daemon: small(bench, daemon), transport),
                *(
                    Subject(
                        f"{transport}, {STREAMS} bulk, {what} tunnel",
                        lambda daemon=daemon, name=name: small_during_bulk(bench, daemon, name), transport,
                    )
                    for what, name in (("same", "bench"), ("another", "bulk"))
                ),
            ]
        yield found


def rate(bench, daemon, stalled):
    with contextlib.ExitStack() as stack:
        if stalled:
            stack.enter_context(generate.visitors(bench, daemon, stalled, "bench", "/huge", "--hold=stalled"))
        requests, _, took, p50, p99 = wrk.run(f"https://{HOST}:{daemon.port}/128", 64, bench.seconds)
    return {"rate": requests / took, "p50": p50, "p99": p99}


@contextlib.contextmanager
def stalled(bench):
    with stopping([]) as programs:
        found = []
        for transport in ("ws", "quic"):
            daemon, _ = cok.pair(bench, f"stalled-{transport}", transport, programs)
            found += [
                Subject(
                    f"{transport}, {what}", lambda daemon=daemon, count=count: rate(bench, daemon, count), transport
                )
                for what, count in (("alone", 0), ("next to a stalled visitor", 1))
            ]
        yield found


WORKLOADS = [
    Workload(
        "small requests next to bulk", bulk, ("p50", "p99", "mb"), ("p50", "p99"),
        note=f"{RATE} small requests a second; bulk is {STREAMS} endless downloads in the same session.",
    ),
    Workload(
        "next to a stalled visitor", stalled, ("rate", "p50", "p99"), ("rate",),
        note="128 B over 64 connections. The stalled visitor reads nothing of an endless response from the same tunnel.",
    ),
]
