"""What a request costs the daemon over each HTTP version, with the same connections and streams.

The visitors run on the load's processor, so their own cost does not count."""

import contextlib

import processors
from contestants import cok

from . import Subject, Workload, generate, h2load, stopping


def measure(bench, daemon, run):
    before = processors.processor_seconds([daemon.process.pid])
    requests, seconds, p50, p99 = run(bench, daemon.port)
    used = processors.processor_seconds([daemon.process.pid]) - before
    return {"rate": requests / seconds, "p50": p50, "p99": p99, "daemon_100k": used / requests * 100_000}


def over_http2(bench, port):
    requests, p50, p99 = h2load.run(bench, port)
    return requests, bench.seconds, p50, p99


def over_http3(bench, port):
    counted = generate.visit(
        bench, port, bench.seconds, f"--connections={h2load.CONNECTIONS}", f"--streams={h2load.STREAMS}", "--path=/128",
        mode="http3",
    )
    return counted["requests"], bench.seconds, counted["p50"], counted["p99"]


@contextlib.contextmanager
def subjects(bench):
    with stopping([]) as programs:
        daemon, _ = cok.pair(bench, "http3", "ws", programs)
        yield [
            Subject(f"cok, {name}", lambda run=run: measure(bench, daemon, run))
            for name, run in (("HTTP/2", over_http2), ("HTTP/3", over_http3))
        ]


WORKLOADS = [
    Workload(
        "HTTP/3 against HTTP/2, 8x32", subjects, ("rate", "p50", "p99", "daemon_100k"), ("rate", "daemon_100k"),
        note="The processor time is the daemon's alone; the tunnel is a WebSocket.",
    ),
]
