"""cok, over each transport. Its limits act, with rates that one address of a load generator does not reach."""

import contextlib
import itertools

import harness.cok
import processors
from harness.cok import Daemon, digest
from harness.process import BIN_DIR, Process, wait_for

from . import Contestant

RATES = """
[rates]
requests_per_address = "1000000/s"
connections_per_address = "1000000/s"
handshakes_per_address = "1000000/s"
[names]
max_per_key = 10000
"""
_numbers = itertools.count()

# Idle connections stay for as long as a measurement lasts.
LIMITS = 'max_connections_per_address = 20000\nheader_timeout = "10m"'
# The key of the harness allows few sessions.
KEY = "cok_test-key-of-the-benchmark"
KEYS = f"""
[[keys]]
name = "bench"
secret_sha256 = "{digest(KEY)}"
max_tunnels = 10000
max_sessions = 10000
"""


@contextlib.contextmanager
def binaries_of(folder):
    """Starts the programs of another folder in this context."""
    before = harness.cok.BIN_DIR
    harness.cok.BIN_DIR = folder
    try:
        yield
    finally:
        harness.cok.BIN_DIR = before


def daemon(folder, transport="ws", binaries=BIN_DIR, more="", **options):
    """Starts a daemon for load from one address."""
    with binaries_of(binaries):
        return Daemon(folder, limits=LIMITS, keys=KEYS, transport=transport, more=RATES + more, **options)


def tunnel(to, origin, name="bench", binaries=BIN_DIR, **options):
    """Starts a client with one tunnel."""
    with binaries_of(binaries):
        return to.client(origin.target, name, key=KEY, **{"options": (), **options})


class Many:
    """A client with several tunnels to one service in one session."""

    def __init__(self, to, origin, names):
        folder = to.folder / "many"
        folder.mkdir()
        (folder / "key").write_text(KEY)
        (folder / "client.toml").write_text("".join(f'[tunnels.{each}]\ntarget = "{origin.target}"\n' for each in names))
        with processors.on(processors.TUNNEL):
            self.process = Process(
                BIN_DIR / "cok-client", "--config", folder / "client.toml", "--server", to.url(""), "--connect-to",
                to.https, "--ca-file", to.ca, "--api-key-file", folder / "key", "--state-dir", folder / "state",
                "--log-format", "json", "--transport", to.transport, "--inspect", "off",
            )
        processors.prefer(self.process.pid)
        wait_for(lambda: sum('"connected"' in each for each in self.process.lines) == len(names), "all are online")

    def stop(self):
        return self.process.stop()


def pair(bench, name, transport, programs, tunnels=("bench",), used=None, **options):
    """Starts a daemon with a client for each of `tunnels`, on the contestants' processor, and adds them to `programs`.
    `used` are the daemon's processors instead. Returns the daemon and the clients."""
    with processors.on(*(used or [processors.TUNNEL])):
        server = daemon(bench.folder / f"{name}-{next(_numbers)}", transport, **options)
        programs.append(server)
    with processors.on(processors.TUNNEL):
        clients = [tunnel(server, bench.origin, each) for each in tunnels]
        programs.extend(clients)
    for each in programs:
        processors.prefer(each.process.pid)
    return server, clients


def over(transport, binaries=BIN_DIR):
    """Returns what starts cok over a transport."""

    def begin(name, folder, origin):
        server = daemon(folder / "cok", transport, binaries)
        client = tunnel(server, origin, binaries=binaries)
        parts = {"daemon": server.process, "client": client.process}
        contestant = Contestant(name, list(parts.values()), server.port, parts)
        contestant.daemon, contestant.client = server, client
        return contestant

    return begin
