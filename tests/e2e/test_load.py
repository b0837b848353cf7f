"""Many exchanges at once on one session."""

import concurrent.futures
import contextlib
import hashlib

import pytest

from harness import raw
from harness.cok import GIVE_BACK
from harness.http2 import Http2
from harness.process import wait_for

# A visitor that the machine slows down counts as one that stands still.
pytestmark = pytest.mark.alone

KIB = 1 << 10
MIB = 1 << 20

# The initial window of each exchange, and the shared budget for growth.
WINDOW = 256 * KIB
BUDGET = 4 * MIB
# The data of an unread exchange, apart from the shared budget. A QUIC stream's window can't grow later, so it is four
# times as large from the start.
HELD = {"ws": WINDOW, "quic": 4 * WINDOW}
# The write buffers of HTTP and TLS for a visitor's connection.
CONNECTION = 128 * KIB
# The allocator keeps some memory after a burst, which differs between runs.
ALLOCATOR = 16 * MIB


@pytest.fixture
def loaded(own_daemon, nginx, transport):
    """A tunnel to two files: one of half a MiB, and one that no visitor reads to the end."""
    limits = f'initial_window = "{WINDOW // KIB}KiB"\nwindow_budget = "{BUDGET // MIB}MiB"'
    daemon = own_daemon(limits=limits, env=GIVE_BACK, transport=transport)
    data = bytes(range(256)) * 2048
    nginx.add("half.bin", data)
    nginx.add_sparse("huge.bin", 1 << 30)
    client = daemon.client(nginx.target, "load")
    client.data = data
    yield client
    client.stop()


def test_stopped_readers_do_not_delay_others(loaded):
    """20 of 200 parallel visitors stop reading. The other 180 exchanges finish, and memory stays within the windows of the
    20."""
    daemon, data = loaded.daemon, loaded.data
    digest, host = hashlib.sha256(data).digest(), loaded.host.encode()

    def fetch(_):
        with raw.connect(daemon, "load", deadline=60) as connection:
            connection.sendall(b"GET /half.bin HTTP/1.1\r\nhost: " + host + b"\r\nconnection: close\r\n\r\n")
            raw.read_head(connection)
            return hashlib.sha256(raw.read_exactly(connection, len(data))).digest()

    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(180) as pool:
        # The allocator keeps memory after a burst of handshakes, which does not count as the stopped readers'.
        assert set(pool.map(fetch, range(180))) == {digest}
        before = {process: process.memory()[0] for process in (daemon.process, loaded.process)}
        for _ in range(20):
            connection = stack.enter_context(raw.connect(daemon, "load"))
            connection.sendall(b"GET /huge.bin HTTP/1.1\r\nhost: " + host + b"\r\n\r\n")
            raw.read_head(connection)
        assert list(pool.map(fetch, range(180))) == [digest] * 180
        allowed = 20 * (HELD[loaded.transport] + CONNECTION) + BUDGET + ALLOCATOR

        def grown():
            # The allocator returns memory of the burst while the daemon serves others.
            assert fetch(None) == digest
            return {process.command[0]: process.memory()[0] - least for process, least in before.items()}

        wait_for(lambda: max(grown().values()) < allowed, f"no more than {allowed} bytes are held: {grown()}")
        assert loaded.curl("/").stdout == b"<h1>hello</h1>\n"


def test_stopped_streams_do_not_delay_others(loaded):
    """The same holds for 200 streams of one visitor's HTTP/2 connection."""
    with Http2(loaded.daemon, "load") as visitor:
        # The connection's window is large, so that only the streams' windows stop them.
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


def test_slow_uploads_do_not_delay_others(web, multiplexed):
    """100 visitors send single bytes without an end, while others upload at full speed."""
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
