"""cok, over each transport. Its limits act, with rates that one address of a load generator does not reach."""

import contextlib

import harness.cok
from harness.cok import Daemon, digest
from harness.process import BIN_DIR

from . import Contestant

RATES = """
[rates]
requests_per_address = "1000000/s"
connections_per_address = "1000000/s"
handshakes_per_address = "1000000/s"
[names]
max_per_key = 10000
"""
LIMITS = "max_connections_per_address = 20000"
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
