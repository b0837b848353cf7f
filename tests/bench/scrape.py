#!/usr/bin/env python3
"""How long a scrape of the metrics takes while 1,000 tunnels are online and 1,000 requests a second pass.

COK_BIN_DIR names the folder with cokd and cok-generate, and PATH has nginx. It prints one line of JSON. Run it like this:

    PYTHONPATH=tests/e2e COK_BIN_DIR=target/release python3 tests/bench/scrape.py
"""

import argparse
import http.client
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from harness.cok import KEY, Daemon
from harness.nginx import Nginx
from harness.process import BIN_DIR, Process, wait_for


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tunnels", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=50, help="they share the tunnels; default: 50")
    parser.add_argument("--transport", default="quic", choices=["quic", "ws"])
    parser.add_argument("--rate", type=int, default=1000, help="requests a second; default: 1000")
    parser.add_argument("--scrapes", type=int, default=50)
    parser.add_argument("--labels", type=int, default=0, help="tunnels with series of their own; default: 0")
    return parser.parse_args()


def scrape(connection):
    """Returns the time of a scrape in milliseconds, and its length in bytes."""
    began = time.perf_counter()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read()
    return (time.perf_counter() - began) * 1000, len(text)


def main():
    arguments = parse()
    running = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        try:
            nginx = Nginx(folder / "nginx")
            running.append(nginx)
            nginx.add("128", bytes(128))
            daemon = Daemon(folder / "cokd", more=f"[metrics]\ntunnel_labels = {arguments.labels}")
            running.append(daemon)
            sessions = Process(
                BIN_DIR / "cok-generate", "sessions", f"--server={daemon.url('')}", f"--connect-to={daemon.https}",
                f"--ca={daemon.ca}", f"--key={KEY}", f"--transport={arguments.transport}", f"--target={nginx.target}",
                f"--sessions={arguments.sessions}", f"--tunnels={arguments.tunnels // arguments.sessions}", "--prefix=s",
                stdin=subprocess.PIPE,
            )
            running.append(sessions)
            assert sessions.wait_stdout(300) == "ready", sessions.output()
            assert daemon.metric("cok_active_tunnels") == arguments.tunnels
            seconds = arguments.scrapes / 5 + 10
            visits = Process(
                BIN_DIR / "cok-generate", "visit", f"--address={daemon.https}", f"--host={daemon.host('s{}')}",
                f"--hosts={arguments.tunnels}", "--connections=200", f"--rate={arguments.rate}", f"--seconds={seconds}",
                "--path=/128",
            )
            running.append(visits)
            wait_for(lambda: daemon.answered() > arguments.rate, "requests pass", 60)
            connection = http.client.HTTPConnection(daemon.admin, timeout=20)
            taken, before, began = [], daemon.answered(), time.monotonic()
            for _ in range(arguments.scrapes):
                taken.append(scrape(connection))
                time.sleep(0.2)
            rate = (daemon.answered() - before) / (time.monotonic() - began)
            times = [milliseconds for milliseconds, _ in taken]
            print(json.dumps({
                "tunnels": arguments.tunnels, "requests_per_second": round(rate), "bytes": taken[-1][1],
                "median_ms": round(statistics.median(times), 2), "worst_ms": round(max(times), 2),
            }))
        finally:
            for program in reversed(running):
                program.stop()


if __name__ == "__main__":
    main()
