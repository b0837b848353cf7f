"""A tunnel across a link that loses packets, over each transport and with each congestion controller at both ends.

The link has a round trip of 20 ms, 200 Mbit/s and a queue of its bandwidth-delay product, in its own namespaces. The
visitors share a namespace with the daemon, and the service with the client, so that only the tunnel crosses the link.
Each round measures one download alone, small requests alone, and small requests during four downloads. Small requests
leave at a steady rate. Their time counts from the moment when they are due, so that a stall shows in all requests that
it delays. The candidates take turns in each round. Throughput is the median of the rounds; percentiles cover the times
of all rounds."""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from harness.cok import Daemon
from harness.netns import DAEMON, Network, Unavailable
from harness.nginx import Nginx
from harness.visitors import Visitors

LINK = {"delay": "10ms", "rate": 200, "queue": 512 << 10}
# Small requests a second, and the number of visitors that share them: one is free even while others wait for 300 ms.
RATE, VISITORS = 100, 32
SMALL = 128

CANDIDATES = [(transport, congestion) for congestion in ("cubic", "bbr") for transport in ("ws", "quic")]


class Tunnel:
    """A daemon and a client with the link between them."""

    def __init__(self, folder, network, origin, transport, congestion):
        name = f"{transport}-{congestion}"
        self.daemon = Daemon(
            folder / name, https=f"{DAEMON}:0", transport=transport, inside=network.internet,
            more=f'[transport]\ncongestion = "{congestion}"\n',
        )
        self.client = self.daemon.client(
            origin.target, "bench", options=["--congestion", congestion], inside=network.home
        )

    def stop(self):
        self.client.stop()
        self.daemon.stop()

    def downloads(self, count, seconds):
        """Starts `count` downloads that last `seconds`. `throughput` waits for them."""
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


def measure(tunnel, seconds):
    """One round: throughput of one download, times of small requests alone and during four downloads."""
    alone = tunnel.small(seconds / 2)
    single = throughput(tunnel.downloads(1, seconds), seconds)
    beside = tunnel.downloads(4, seconds + 1)
    # The downloads have filled the link by now.
    time.sleep(0.5)
    busy = tunnel.small(seconds)
    throughput(beside, seconds + 1)
    return single, alone, busy


def percentiles(times):
    """Returns p50, p95, p99 and the maximum."""
    times = sorted(times)
    return [times[min(len(times) - 1, int(len(times) * part))] for part in (0.5, 0.95, 0.99)] + [times[-1]]


def bench(folder, loss, rounds, seconds):
    """Returns the rows of one loss rate: throughput, and percentiles alone and during downloads."""
    network, running = Network(), []
    try:
        network.link(**LINK, loss=loss)
        origin = Nginx(folder / "origin", inside=network.home)
        running.append(origin)
        origin.add("small", bytes(SMALL))
        origin.add_sparse("huge", 4 << 30)
        tunnels = []
        for candidate in CANDIDATES:
            tunnels.append(Tunnel(folder, network, origin, *candidate))
            running.append(tunnels[-1])
        results = {candidate: [] for candidate in CANDIDATES}
        for _ in range(rounds):
            for candidate, tunnel in zip(CANDIDATES, tunnels):
                results[candidate].append(measure(tunnel, seconds))
    finally:
        for program in reversed(running):
            program.stop()
        network.delete()
    rows = {}
    for candidate, measured in results.items():
        singles, *times = zip(*measured)
        rows[candidate] = [statistics.median(singles)]
        for rounds_of_times in times:
            rows[candidate] += percentiles([each for times_ in rounds_of_times for each in times_])
    return rows


HEADER = """
| loss | congestion | transport | MB/s | alone: p50 | p95 | p99 | max | beside bulk: p50 | p95 | p99 | max |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", type=float, nargs="*", default=[0, 1, 2], help="percent of the packets")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.5, help="each download; small requests alone take half of it")
    parser.add_argument("--quick", action="store_true", help="one short round, without loss and with most of it")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.loss, arguments.rounds, arguments.seconds = [min(arguments.loss), max(arguments.loss)], 1, 2
    print(
        f"{LINK}, load {os.getloadavg()[0]:.2f} before; {arguments.rounds} rounds of {arguments.seconds:g} s; "
        f"{RATE} requests/s of {SMALL} B; times in ms, from 20 ms upwards"
    )
    print(HEADER)
    for loss in arguments.loss:
        with tempfile.TemporaryDirectory() as folder:
            rows = bench(Path(folder), loss / 100, arguments.rounds, arguments.seconds)
        for congestion in dict.fromkeys(congestion for _, congestion in CANDIDATES):
            both = {transport: rows[transport, congestion] for transport in ("ws", "quic")}
            ratio = [quic / ws for quic, ws in zip(both["quic"], both["ws"])]
            for name, row in both.items():
                print(f"| {loss:g} % | {congestion} | {name} | {' | '.join(f'{value:.1f}' for value in row)} |")
            print(f"| {loss:g} % | {congestion} | quic/ws | {' | '.join(f'{value:.2f}' for value in ratio)} |")


if __name__ == "__main__":
    try:
        main()
    except Unavailable as why:
        raise SystemExit(f"the benchmark cannot run: {why}") from None
