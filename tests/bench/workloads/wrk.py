"""HTTP/1.1 by wrk: as many requests as possible over some connections."""

import re
import subprocess

import processors
from contestants import HOST
from origin import FILES

from . import Workload, of_contestants

# wrk takes the TLS server name from its URL, so the name must resolve. A mount namespace has a hosts file of its own.
WITH_HOSTS = [
    "unshare", "-rm", "sh", "-c",
    f'echo "127.0.0.1 {HOST}" >/tmp/cok-bench-hosts.$$ && mount --bind /tmp/cok-bench-hosts.$$ /etc/hosts && '
    'rm /tmp/cok-bench-hosts.$$ && exec "$@"', "sh",
]
LARGE = 64 << 10
MILLISECONDS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}


def run(url, connections, seconds, *options):
    """Runs wrk on the load's processor. Returns the number of requests, the bytes read, the time in seconds, and p50 and
    p99 in ms."""
    command = [
        *WITH_HOSTS, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s", *options, url
    ]
    with processors.on(processors.LOAD):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    errors = re.search(r"Socket errors:.*|Non-2xx.*", done)
    assert not errors, f"{url}: {errors[0]}"
    requests, took, unit, read, power = re.search(
        r"(\d+) requests in ([\d.]+)(ms|s|m), ([\d.]+)([KMGT]?)B read", done
    ).groups()
    percentiles = {
        part: float(value) * MILLISECONDS[unit]
        for part, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s|m)", done)
    }
    size = float(read) * 1024 ** " KMGT".index(power or " ")
    return int(requests), size, float(took) * MILLISECONDS[unit] / 1000, percentiles["50"], percentiles["99"]


def costs(contestant, used, requests, size):
    """Returns the figures of cost: processor time per request and byte, and memory."""
    return {
        "per_100k": used / requests * 100_000,
        "per_gb": used / (requests * size / 1e9),
        "memory": contestant.memory(),
    }


def measure(path, connections, *options, times=1):
    """`times` is how many times longer than other workloads it takes."""

    def measured(bench, contestant):
        before = contestant.processor_seconds()
        requests, read, took, p50, p99 = run(contestant.url(path), connections, times * bench.seconds, *options)
        used = contestant.processor_seconds() - before
        if FILES[path] >= LARGE:
            # The last requests are still under way at the end.
            requests = read / FILES[path]
        return {"rate": requests / took, "p50": p50, "p99": p99, **costs(contestant, used, requests, FILES[path])}

    return of_contestants(measured)


SMALL = ("rate", "p50", "p99", "per_100k", "memory")
BULK = ("rate", "p99", "per_gb", "memory")
# Too few downloads end for a percentile.
LARGEST = ("rate", "per_gb", "memory")

WORKLOADS = [
    Workload("128 B x1", measure("/128", 1), SMALL, ("rate", "p50", "per_100k"), True),
    Workload("128 B x64", measure("/128", 64), SMALL, ("rate", "p99", "per_100k"), True),
    Workload(
        "128 B x256", measure("/128", 256, times=4), SMALL, ("rate", "p99", "per_100k"), True,
        "Each measurement takes four times as long: else the 256 handshakes at its beginning decide its p99.",
    ),
    Workload("64 KiB x64", measure("/64k", 64), BULK, ("rate", "per_gb"), True),
    Workload("10 MiB x8", measure("/10m", 8), LARGEST, ("rate", "per_gb"), True),
    Workload(
        "new connections x16", measure("/128", 16, "-H", "Connection: close"), SMALL, ("rate", "per_100k"), True,
        "Each request has a TCP connection and a whole TLS handshake of its own.",
    ),
]
