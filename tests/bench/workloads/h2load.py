"""HTTP/2 by h2load: as many requests as possible over 8 connections with 32 streams each."""

import re
import subprocess

import processors
from contestants import HOST
from figures import percentile
from origin import FILES

from . import Workload, of_contestants, wrk

CONNECTIONS, STREAMS = 8, 32


def run(bench, port, path="/128"):
    """Runs h2load on the load's processor. Returns the number of requests, and p50 and p99 in ms."""
    log = bench.folder / "h2load.log"
    log.unlink(missing_ok=True)
    command = [
        "h2load", "-t1", f"-c{CONNECTIONS}", f"-m{STREAMS}", f"-D{bench.seconds}", f"--connect-to=127.0.0.1:{port}",
        f"--log-file={log}", f"https://{HOST}:{port}{path}",
    ]
    with processors.on(processors.LOAD):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=bench.seconds + 60).stdout
    requests, failed = map(int, re.search(r"(\d+) succeeded, (\d+) failed", done).groups())
    statuses = re.search(r"status codes: (\d+) 2xx, (.*)", done)
    assert "0 3xx, 0 4xx, 0 5xx" in statuses[2] and requests and failed <= CONNECTIONS * STREAMS, done
    # Each line has the start, the status, and the time in microseconds.
    times = [int(line.split()[2]) / 1000 for line in log.read_text().splitlines()]
    return requests, percentile(times, 0.5), percentile(times, 0.99)


def measure(bench, contestant):
    before = contestant.processor_seconds()
    requests, p50, p99 = run(bench, contestant.port)
    used = contestant.processor_seconds() - before
    return {"rate": requests / bench.seconds, "p50": p50, "p99": p99, **wrk.costs(contestant, used, requests, FILES["/128"])}


WORKLOADS = [Workload("HTTP/2 8x32", of_contestants(measure), wrk.SMALL, ("rate", "p99", "per_100k"), True)]
