"""The whole path, measured against nginx and haproxy as two TLS hops.

The load generator (wrk) and the service (nginx) share one processor; all tunnel processes share the other. The
candidates take turns in each round, so that a drift of the machine's speed slows all of them. The figures are medians:
compare them as ratios within one run. Everything is on loopback and bounded in time."""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

import harness.cok
from harness.cok import Daemon
from harness.nginx import Nginx
from harness.ports import free_port
from harness.process import BIN_DIR, Process, wait_for

LOAD_CPU, TUNNEL_CPU = "0", "1"
HOST = "bench.tunnel.test"
TICKS = os.sysconf("SC_CLK_TCK")

# name, path, connections
WORKLOADS = [
    ("128 B x64", "/128", 64),
    ("128 B x256", "/128", 256),
    ("64 KiB x64", "/64k", 64),
    ("10 MiB x8", "/10m", 8),
]


@contextlib.contextmanager
def on(cpu):
    """Pins the processes that start in this context to processor `cpu`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(cpu)})
    yield
    os.sched_setaffinity(0, before)


def tree(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in tree(int(child)))]


def processor_seconds(processes):
    total = 0
    for process in processes:
        for pid in tree(process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


class Cok:
    name = "cok"
    binaries = BIN_DIR

    def __init__(self, folder, origin):
        harness.cok.BIN_DIR = self.binaries
        # The limits act, but the load generator is one address.
        self.daemon = Daemon(folder / self.name, more='[rates]\nrequests_per_address = "1000000/s"')
        self.client = self.daemon.client(origin.target, "bench", options=())
        self.processes = [self.daemon.process, self.client.process]
        self.port = self.daemon.port


def certificate(folder):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=bench.tunnel.test", "-addext", "subjectAltName=DNS:bench.tunnel.test",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())


class TwoNginx:
    name = "nginx, two hops"

    def __init__(self, folder, origin):
        folder = folder / "two-nginx"
        folder.mkdir()
        certificate(folder)
        outer, inner = free_port(), free_port()
        self.processes = []
        for name, port, upstream, scheme in [
            ("inner", inner, f"127.0.0.1:{origin.port}", "http"),
            ("outer", outer, f"127.0.0.1:{inner}", "https"),
        ]:
            config = folder / f"{name}.conf"
            config.write_text(
                f"""
daemon off; worker_processes 1; user root; pid {folder}/{name}.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off; client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;
    fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
    keepalive_requests 100000000;
    upstream next {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_protocols TLSv1.3;
        location / {{
            proxy_pass {scheme}://next; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
            proxy_set_header Host $host; proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse on;
        }}
    }}
}}
"""
            )
            self.processes.append(Process("nginx", "-c", config, "-p", folder, "-e", "stderr"))
        self.port = outer


class TwoHaproxy:
    name = "haproxy, two hops"

    def __init__(self, folder, origin):
        folder = folder / "two-haproxy"
        folder.mkdir()
        certificate(folder)
        outer, inner = free_port(), free_port()
        self.processes = []
        for name, port, server in [
            ("inner", inner, f"127.0.0.1:{origin.port}"),
            ("outer", outer, f"127.0.0.1:{inner} ssl verify none alpn h2"),
        ]:
            config = folder / f"{name}.cfg"
            config.write_text(
                f"""
global
    nbthread 1
    maxconn 4000
    ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend in
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem alpn h2,http/1.1
    default_backend next
backend next
    server one {server}
"""
            )
            self.processes.append(Process("haproxy", "-db", "-f", config))
        self.port = outer


CANDIDATES = [Cok, TwoNginx, TwoHaproxy]


def other_build(folder):
    """Another build of cok as a candidate, such as the one before a change."""
    return type("Other", (Cok,), {"name": f"cok of {folder.name}", "binaries": folder.resolve()})


def answers(candidate):
    probe = subprocess.run(
        ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", f"{HOST}:{candidate.port}:127.0.0.1",
         f"https://{HOST}:{candidate.port}/128"],
        capture_output=True, check=False,
    )
    return probe.stdout == b"200"


# wrk takes the TLS server name from its URL, so the name must resolve: wrk runs in a mount namespace with its own hosts file.
WITH_HOSTS = [
    "unshare", "-rm", "sh", "-c",
    f'echo "127.0.0.1 {HOST}" >/tmp/cok-bench-hosts.$$ && mount --bind /tmp/cok-bench-hosts.$$ /etc/hosts && '
    'rm /tmp/cok-bench-hosts.$$ && exec "$@"', "sh",
]


def measure(candidate, path, connections, seconds):
    """Returns requests/s, p99 in ms, processor seconds per 100,000 requests and per GB."""
    before = processor_seconds(candidate.processes)
    result = subprocess.run(
        [*WITH_HOSTS, "taskset", "-c", LOAD_CPU, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency",
         "--timeout", "30s", f"https://{HOST}:{candidate.port}{path}"],
        capture_output=True, text=True, check=True, timeout=seconds + 60,
    ).stdout
    used = processor_seconds(candidate.processes) - before
    errors = re.search(r"Socket errors:.*|Non-2xx.*", result)
    assert not errors, f"{candidate.name} {path}: {errors[0]}"
    requests = int(re.search(r"(\d+) requests in", result)[1])
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", result).groups()
    p99 = float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
    size = {"/128": 128, "/64k": 65536, "/10m": 10 << 20}[path]
    return requests / seconds, p99, used / requests * 100_000, used / (requests * size / 1e9)


def idle_memory(folder, origin, tunnels=200):
    """Returns the daemon's memory for each idle tunnel, in KiB."""
    daemon = Daemon(folder / "idle")
    first = daemon.client(origin.target, "idle-first")
    before = daemon.process.memory()[0]
    config = folder / "idle" / "client.toml"
    names = "".join(f'[tunnels.idle-{n}]\ntarget = "{origin.target}"\n' for n in range(tunnels))
    config.write_text(names)
    many = Process(
        BIN_DIR / "cok-client", "--config", config, "--server", daemon.url(""), "--connect-to", daemon.https,
        "--ca-file", daemon.ca, "--api-key-file", first.key_file, "--state-dir", folder / "idle" / "state-many",
        "--log-format", "json",
    )
    wait_for(lambda: sum('"connected"' in line for line in many.lines) == tunnels, "all tunnels are online")
    cost = (daemon.process.memory()[0] - before) / tunnels / 1024
    for process in (many, first, daemon):
        process.stop()
    return cost


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=None, help="names of candidates, in part")
    parser.add_argument("--workloads", nargs="*", default=None, help="names of workloads, in part")
    parser.add_argument("--against", type=Path, help="a folder with cokd and cok-client of another build")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with on(LOAD_CPU):
            origin = Nginx(folder / "origin")
        origin.add("128", bytes(128))
        origin.add("64k", bytes(65536))
        origin.add("10m", bytes(10 << 20))
        wanted = [c for c in CANDIDATES if not arguments.only or any(part in c.name for part in arguments.only)]
        if arguments.against:
            wanted.append(other_build(arguments.against))
        workloads = [
            w for w in WORKLOADS if not arguments.workloads or any(part in w[0] for part in arguments.workloads)
        ]
        candidates = []
        try:
            for candidate in wanted:
                with on(TUNNEL_CPU):
                    candidates.append(candidate(folder, origin))
                wait_for(lambda: answers(candidates[-1]), f"{candidate.name} answers")
            print(f"load {os.getloadavg()[0]:.2f} before; medians of {arguments.rounds} rounds of {arguments.seconds} s")
            print(f"{'':12}{'':20}{'req/s':>9}{'p99 ms':>9}{'CPU s/100k':>12}{'CPU s/GB':>10}{'req/s ratio':>13}")
            for name, path, connections in workloads:
                results = {candidate.name: [] for candidate in candidates}
                for _ in range(arguments.rounds):
                    for candidate in candidates:
                        results[candidate.name].append(measure(candidate, path, connections, arguments.seconds))
                medians = {c: [statistics.median(column) for column in zip(*rows)] for c, rows in results.items()}
                first = medians[candidates[0].name][0]
                for candidate, (rate, p99, per_100k, per_gb) in medians.items():
                    print(
                        f"{name:12}{candidate:20}{rate:9.0f}{p99:9.1f}{per_100k:12.2f}{per_gb:10.2f}"
                        f"{first / rate:12.2f}x"
                    )
            if not arguments.only:
                print(f"an idle tunnel costs the daemon {idle_memory(folder, origin):.0f} KiB")
        finally:
            for candidate in candidates:
                for process in candidate.processes:
                    process.stop()
            origin.stop()


if __name__ == "__main__":
    main()
