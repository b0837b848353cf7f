"""Attacks, one row each. Honest visitors of the same tunnel and of another one have no error meanwhile, and wait for no answer
longer than a second. The attack is ended in time, and the memory that it took comes back.

`COK_LONG=1` makes the attacks larger, runs every row over both transports, and prints a table."""

import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.cok import GIVE_BACK, TRANSPORTS, Daemon, digest
from harness.hostile.attacked import Attacked
from harness.load import Load, Site
from harness.process import HERE, Process, wait_for

# Honest visitors may wait for a second, and only because of the attack.
pytestmark = pytest.mark.alone

LONG = bool(os.environ.get("COK_LONG"))
SCALE = 5.0 if LONG else 1.0
MIB = 1 << 20
# Honest visits a second.
RATE = 60
# What the daemon may keep after an attack, beyond what it had before, and how long it may take to give the rest back.
KEPT, GIVEN_BACK = 1.1, 16 * MIB
WITHIN = 10
# What the allocator takes for a burst, which differs between runs.
ALLOCATOR = 24 * MIB
# The memory of one more connection, and of one more exchange that moves.
PER_CONNECTION, PER_EXCHANGE = 32 << 10, 256 << 10
# The ceiling of the process for bytes that are held.
CEILING = 64 * MIB
# The limits of the attacked daemon. The waits are short, so that a row does not take a minute.
STALL, HEAD, HANDSHAKE = 3, 2, 2
LIMITS = f"""
handshake_timeout = "{HANDSHAKE}s"
header_timeout = "{HEAD}s"
head_timeout = "{HEAD}s"
stall_timeout = "{STALL}s"
max_buffered = "{CEILING // MIB}MiB"
"""
# A timer may be late by this much on a busy machine.
LATE = 2
ATTACKER = "127.0.0.66"
ATTACKER_KEY = "cok_key-of-the-attacker"


class Row(NamedTuple):
    """`attack` is a function of harness/hostile. `ends` is the time within which the daemon ends the attack, None if it may go
    on without harm."""

    attack: str
    ends: float | None = None
    tunnel: bool = False  # whether it reaches into the tunnel, and so runs over both transports
    # The transport of a case. Of equal rows pytest would make neighbours, and so need another daemon for each of them.
    over: str = ""


FLOOD = 1
# How long the buffers of a connection may take to be full.
FILLS = 2
# How much later the last of 1,000 exchanges begin over QUIC.
BEGINS = 3 if LONG else 0
# When an idle connection gets its GOAWAY, at the latest.
IDLE = 2 * HEAD
# How long the rest of an upload that has its answer is read.
LINGER = 5
ROWS = [
    Row("tcp.silent_before_tls", HANDSHAKE),
    Row("tcp.half_a_hello", HANDSHAKE),
    Row("tcp.noise", FLOOD),
    Row("tcp.handshakes", FLOOD),
    Row("tcp.silent_after_tls", HEAD),
    Row("tcp.many_connections", FLOOD),
    Row("tcp.slow_head", HEAD),
    Row("tcp.blank_lines", FLOOD),
    Row("tcp.pipelined", FLOOD + FILLS + STALL, True),
    Row("tcp.chunks_of_one_byte"),
    Row("tcp.chunk_extensions", FLOOD),
    Row("tcp.slow_uploads", STALL + LINGER, True),
    # Then the connection has as long again for the bytes that its visitor does not take.
    Row("tcp.unread_downloads", 2 * STALL, True),
    Row("tcp.asks_and_leaves", FLOOD, True),
    Row("http2.pings", FLOOD),
    Row("http2.ping_acknowledgements", FLOOD),
    Row("http2.settings", FLOOD),
    Row("http2.settings_acknowledgements", FLOOD),
    Row("http2.priorities", FLOOD),
    Row("http2.priority_updates", FLOOD),
    Row("http2.window_updates", FLOOD),
    Row("http2.window_updates_of_a_stream", FLOOD),
    Row("http2.unknown_frames", FLOOD),
    Row("http2.empty_data", FLOOD),
    Row("http2.padding", FLOOD),
    Row("http2.empty_continuations", FLOOD),
    Row("http2.endless_continuations", FLOOD),
    Row("http2.resets_of_closed_streams", FLOOD),
    Row("http2.rapid_resets", FLOOD, True),
    Row("http2.header_bombs", FLOOD),
    Row("http2.unread_streams", STALL, True),
    # A connection whose streams were all refused is idle.
    Row("http2.unread_connections", IDLE + STALL + BEGINS, True),
    Row("http2.windows_of_one_byte", None, True),
    Row("http2.stalled_uploads", STALL, True),
    Row("http2.unread_uploads", None, True),
    Row("http2.silent_connections", HEAD),
    Row("http2.unacknowledged_ends", IDLE + STALL),
    Row("http2.slow_continuations", HEAD),
    Row("http3.max_push_ids", FLOOD),
    Row("http3.goaways", FLOOD),
    Row("http3.cancelled_pushes", FLOOD),
    Row("http3.priority_updates", FLOOD),
    Row("http3.reserved_frames", FLOOD),
    Row("http3.stream_cancellations", FLOOD),
    Row("http3.table_capacities", FLOOD),
    Row("http3.data_of_one_byte", FLOOD),
    Row("http3.empty_data", FLOOD),
    Row("http3.rapid_resets", None, True),
    Row("http3.unknown_streams"),
    Row("http3.unread_streams", STALL, True),
    Row("http3.stalled_uploads", STALL, True),
    Row("http3.unread_uploads", None, True),
    Row("http3.slow_heads", HEAD),
    Row("tunnel.wrong_keys"),
    Row("tunnel.pings", FLOOD),
    Row("tunnel.pongs", FLOOD),
    Row("tunnel.drains", FLOOD),
    Row("tunnel.empty_messages", FLOOD),
    Row("tunnel.websocket_pings", FLOOD),
    Row("tunnel.names"),
    Row("service.endless_interim_heads"),
    Row("service.endless_bodies"),
    Row("service.single_bytes"),
    Row("service.large_heads"),
    Row("service.no_answers"),
]


def over(transport):
    """Returns the rows of a transport: those that reach into the tunnel, and each second one of the others. A long run has
    all of them."""
    kept = TRANSPORTS.index(transport)
    return [row._replace(over=transport) for number, row in enumerate(ROWS) if LONG or row.tunnel or number % 2 == kept]


CASES = [pytest.param(transport, row, id=f"{transport}-{row.attack}") for transport in TRANSPORTS for row in over(transport)]


class Field:
    """An attacked daemon, with a load of honest visitors to two tunnels of one owner."""

    def __init__(self, folder, transport, limits=LIMITS):
        keys = f'[[keys]]\nname = "attacker"\nsecret_sha256 = "{digest(ATTACKER_KEY)}"\nmax_tunnels = 1000\n'
        self.daemon = Daemon(folder, limits=limits, keys=keys, env=GIVE_BACK, transport=transport)
        self.site = Site(HERE)
        self.clients = [self.daemon.client(self.site.target, name, options=()) for name in ("same", "other")]
        self.load = Load(self.daemon, self.site, self.clients, RATE)
        self.load.catch_up()
        began = time.monotonic()
        time.sleep(2)  # the quiet time to compare with
        self.load.catch_up()
        self.quiet = self.visits(began)
        self.lines = []

    def visits(self, since):
        """Returns the honest visits that were due since then, but those that take a second by themselves."""
        short = lambda visit: visit.due >= since and visit.ended and visit.kind not in ("download", "upload")  # noqa: E731
        return [visit for visit in list(self.load.answered) if short(visit)]

    def stop(self):
        self.load.stop()
        for program in (*self.clients, self.site, self.daemon):
            program.stop()


class Watch(threading.Thread):
    """Notes the most memory that a process has."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.over = process, threading.Event()
        self.before = self.most = process.memory()[0]
        self.start()

    def run(self):
        while not self.over.wait(0.05):
            self.most = max(self.most, self.process.memory()[0])

    def stop(self):
        self.over.set()
        self.join()


@pytest.fixture(scope="module")
def field(request, tmp_path_factory):
    field = Field(tmp_path_factory.mktemp(f"field-{request.param}"), request.param)
    yield field
    if LONG:
        print("\n".join(["", f"{'attack':45}sent KiB  ended s  growth MiB  kept MiB  p99 ms (quiet)", *field.lines]))
    field.stop()


def p99(visits):
    return statistics.quantiles([visit.took for visit in visits], n=100)[-1] * 1000 if len(visits) > 10 else 0


@pytest.mark.parametrize(("field", "row"), CASES, indirect=["field"], scope="module")
def test_attacks(field, row):
    attack(field, row)


def test_connections_from_many_addresses(tmp_path):
    """All of them stand at once, so connections may be idle for as long as by default."""
    field = Field(tmp_path, "ws", limits="")
    try:
        attack(field, Row("tcp.many_addresses", FLOOD))
    finally:
        field.stop()


def attack(field, row):
    """Attacks, and judges what the daemon and its honest visitors make of it."""
    at = Attacked.of(field.daemon, "same", ATTACKER_KEY, ATTACKER, SCALE)
    began, failed = time.monotonic(), len(field.load.failed)
    memory = Watch(field.daemon.process)
    command = [sys.executable, "-m", "harness.hostile.attacker", row.attack, json.dumps(at.fields())]
    attacker = Process(*command, env={"PYTHONPATH": str(Path(__file__).parent)})
    assert attacker.wait_exit(60) == 0, attacker.output()
    outcome = json.loads(attacker.stdout.get(timeout=5))
    field.load.catch_up()
    memory.stop()
    visits, growth = field.visits(began), memory.most - memory.before

    kept = []

    def given_back():
        kept.append(field.daemon.process.memory()[0])
        return kept[-1] < memory.before * KEPT + GIVEN_BACK

    wait_for(given_back, f"{row.attack} gives its memory back: {memory.before} before", WITHIN, every=0.1)
    field.lines.append(
        f"{row.attack:45}{outcome['sent'] / 1024:8.0f}  {outcome['ended'] or 0:7.2f}  {growth / MIB:10.1f}  "
        f"{(kept[-1] - memory.before) / MIB:8.1f}  {p99(visits):.0f} ({p99(field.quiet):.0f}) {outcome['said']}"
    )
    print(field.lines[-1])
    # Honest visitors notice nothing.
    failures = [field.load.describe(visit) for visit in field.load.failed[failed:]]
    assert not failures, failures[:5]
    assert visits
    slowest = max(visits, key=lambda visit: visit.took)
    assert slowest.took - field.load.late < 1, slowest
    if row.ends is not None:
        assert outcome["ended"] is not None, f"it goes on: {outcome}"
        assert outcome["ended"] <= row.ends + LATE, outcome
    room = outcome["connections"] * PER_CONNECTION + min(outcome["exchanges"] * PER_EXCHANGE, CEILING)
    assert growth <= room + ALLOCATOR, f"{growth / MIB:.1f} MiB of {room / MIB:.1f} + 24: {outcome}"
