"""Many exchanges at once on one session."""

import concurrent.futures
import contextlib
import hashlib

import pytest

from harness import raw
from harness.cok import GIVE_BACK
from harness.http2 import Http2
from harness.process import wait_for

KIB = 1 << 10
MIB = 1 << 20

# What is granted to each exchange at first, and by how much all of them together may grow.
WINDOW = 256 * KIB
BUDGET = 4 * MIB
# What an exchange holds that nobody reads, beside its share of the budget. A QUIC stream's window can't grow later, so it
# is four times as large from the start.
HELD = {"ws": WINDOW, "quic": 4 * WINDOW}
# What HTTP and TLS hold besides for a visitor's connection: a write buffer each.
CONNECTION = 128 * KIB
# What the allocator keeps of a burst differs from run to run.
ALLOCATOR = 16 * MIB


@pytest.fixture
def loaded(own_daemon, nginx, transport):
    """A tunnel to two files: one of half a MiB, and one that is longer than anybody reads."""
    limits = f'initial_window = "{WINDOW // KIB}KiB"\nwindow_budget = "{BUDGET // MIB}MiB"'
    daemon = own_daemon(limits=limits, env=GIVE_BACK, transport=transport)
    data = bytes(range(256)) * 2048
    nginx.add("half.bin", data)
    nginx.add_sparse("huge.bin", 1 << 30)
    client = daemon.client(nginx.target, "load")
    client.data = data
    yield client
    client.stop()


def test_stopped_readers_hold_up_nobody(loaded):
    """200 exchanges at once, 20 of whose visitors have stopped reading: the other 180 finish, and memory stays within
    the windows that were granted to the 20."""
    daemon, data = loaded.daemon, loaded.data
    digest, host = hashlib.sha256(data).digest(), loaded.host.encode()

    def fetch(_):
        with raw.connect(daemon, "load", deadline=60) as connection:
            connection.sendall(b"GET /half.bin HTTP/1.1\r\nhost: " + host + b"\r\nconnection: close\r\n\r\n")
            raw.read_head(connection)
            return hashlib.sha256(raw.read_exactly(connection, len(data))).digest()

    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(180) as pool:
        # What a burst of handshakes and buffers leaves in the allocator is not held by the stopped readers.
        assert set(pool.map(fetch, range(180))) == {digest}
        before = {process: process.memory()[0] for process in (daemon.process, loaded.process)}
        for _ in range(20):
            connection = stack.enter_context(raw.connect(daemon, "load"))
            connection.sendall(b"GET /huge.bin HTTP/1.1\r\nhost: " + host + b"\r\n\r\n")
            raw.read_head(connection)
        assert list(pool.map(fetch, range(180))) == [digest] * 180
        allowed = 20 * (HELD[loaded.transport] + CONNECTION) + BUDGET + ALLOCATOR

        def grown():
            # What the burst of the 180 has left in the allocator goes back as others are served.
            assert fetch(None) == digest
            return {process.command[0]: process.memory()[0] - least for process, least in before.items()}

        wait_for(lambda: max(grown().values()) < allowed, f"no more than {allowed} bytes are held: {grown()}")
        assert loaded.curl("/").stdout == b"<h1>hello</h1>\n"


def test_stopped_streams_hold_up_nobody(loaded):
    """The same for 200 streams of one visitor's HTTP/2 connection."""
    with Http2(loaded.daemon, "load") as visitor:
        # Room in the connection, so that only the streams' own windows stop them.
        visitor.connection.increment_flow_control_window(64 * MIB)
        stopped = [visitor.request("/huge.bin") for _ in range(20)]
        for stream in stopped:
            stream.reading = False
            stream.response()
        going = [visitor.request("/half.bin") for _ in range(180)]
        for stream in going:
            assert stream.read() == loaded.data
        assert not any(stream.ended for stream in stopped)
        for stream in stopped:
            stream.cancel()
        assert visitor.request("/").read() == b"<h1>hello</h1>\n"


def test_slow_uploads_hold_up_nobody(web, multiplexed):
    """100 visitors who send a byte now and then, and never an end, while others upload at full speed."""
    with multiplexed(web.daemon, web.name) as slow, multiplexed(web.daemon, web.name) as fast:
        uploads = [slow.request("/hash", method="POST", end=False) for _ in range(100)]
        for number in range(10):
            for upload in uploads:
                upload.send(b"x")
            stream = fast.request("/hash", method="POST", end=False)
            stream.send(bytes(MIB), end=True)
            assert b'"length": 1048576' in stream.read(), number
        for upload in uploads:
            upload.send(b"", end=True)
            assert b'"length": 10' in upload.read()
