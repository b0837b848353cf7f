"""A tunnel across a line that loses packets, over each transport and with each congestion controller at both ends.

The line has a round trip of 20 ms, 200 Mbit/s and a queue of its bandwidth-delay product, in namespaces of its own. The
visitors share a namespace with the daemon, and the service with the client, so that only the tunnel crosses the line.
Each round measures one download alone, then small requests during four downloads. Small requests leave at a steady rate.
Their time counts from the moment when they are due, so that a stall shows in all requests that it delays. This needs
root."""

import contextlib
import time
from pathlib import Path

from figures import percentile
from harness.cok import Daemon
from harness.needs import Lacking
from harness.netns import DAEMON, Network
from harness.nginx import Nginx
from harness.process import wait_for
from harness.visitors import Visitors

from . import Subject, Workload

LINE = {"delay": "10ms", "rate": 200, "queue": 512 << 10}
LOSS, QUICK_LOSS = (0, 1, 2), (0, 2)
# Small requests a second, and the number of visitors that share them: one is free even while others wait for 300 ms.
RATE, VISITORS = 100, 32
# What each download has received, in bytes, before the small requests begin.
UNDER_WAY = 64 << 10
CANDIDATES = [(transport, congestion) for congestion in ("bbr", "cubic") for transport in ("ws", "quic")]


class Tunnel:
    """A daemon and a client with the line between them."""

    def __init__(self, folder, network, origin, transport, congestion):
        self.daemon = Daemon(
            folder / f"{transport}-{congestion}", https=f"{DAEMON}:0", transport=transport, inside=network.internet,
            more=f'[transport]\ncongestion = "{congestion}"\n',
        )
        self.client = self.daemon.client(origin.target, "bench", options=["--congestion", congestion], inside=network.home)

    def stop(self):
        self.client.stop()
        self.daemon.stop()

    def downloads(self, count, seconds):
        """Starts `count` downloads that last `seconds` at most."""
        return [
            self.client.start_curl("/huge", "--output", "/dev/null", "--write-out", "%{size_download}", deadline=seconds)
            for _ in range(count)
        ]

    def small(self, seconds):
        """Sends small requests for `seconds`. Returns their times in ms."""
        visitors = Visitors(self.daemon, self.client.name, "/small", RATE, VISITORS)
        time.sleep(seconds)
        times = visitors.stop()
        assert not visitors.failures, visitors.failures
        return [each * 1000 for each in times]


def throughput(downloads, seconds):
    """Returns the total rate of the downloads in MB/s."""
    return sum(int(curl.communicate(timeout=seconds + 20)[0]) for curl in downloads) / seconds / 1e6


def written(curl):
    """Returns how many bytes a download has passed on."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{curl.pid}/io").read_text().splitlines())
    return int(counts["wchar"])


def during_bulk(tunnel, seconds):
    """Returns the times of small requests during four downloads."""
    downloads = tunnel.downloads(4, 300)
    try:
        wait_for(lambda: all(written(curl) > UNDER_WAY for curl in downloads), "all downloads are under way")
        times = tunnel.small(seconds)
        assert all(curl.poll() is None for curl in downloads), "a download has ended early"
        return times
    finally:
        for curl in downloads:
            curl.kill()
            curl.communicate()


def measure(tunnel, seconds):
    single = throughput(tunnel.downloads(1, seconds), seconds)
    times = during_bulk(tunnel, seconds)
    return {"mb": single, "p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


@contextlib.contextmanager
def subjects(bench):
    """Each loss rate has a network of its own."""
    with contextlib.ExitStack() as stack:
        found = []
        for loss in QUICK_LOSS if bench.quick else LOSS:
            try:
                network = Network()
            except Lacking as why:
                raise AssertionError(f"network namespaces: {why}") from why
            stack.callback(network.delete)
            network.link(**LINE, loss=loss / 100)
            folder = bench.folder / f"lossy-{loss}"
            origin = Nginx(folder / "origin", inside=network.home)
            stack.callback(origin.stop)
            origin.add("small", bytes(128))
            origin.add_sparse("huge", 4 << 30)
            for transport, congestion in CANDIDATES:
                tunnel = Tunnel(folder, network, origin, transport, congestion)
                stack.callback(tunnel.stop)
                found.append(Subject(
                    f"cok, {loss} %, {congestion}, {transport}", lambda tunnel=tunnel: measure(tunnel, bench.seconds),
                    f"{loss} % {congestion}",
                ))
        yield found


WORKLOADS = [
    Workload(
        "lossy line", subjects, ("mb", "p50", "p99"), ("mb", "p99"),
        note=f"One download alone; then {RATE} small requests a second during 4 downloads. Times from 20 ms upwards.",
    ),
]
