"""Many exchanges at once on one session."""

import concurrent.futures
import contextlib
import hashlib

from harness import raw

MIB = 1 << 20
WINDOW = 256 * 1024


def test_stopped_readers_hold_up_nobody(own_daemon, services, nginx):
    """200 exchanges at once, 20 of whose visitors have stopped reading: the other 180 finish, and memory stays within
    the windows that were granted to the 20."""
    daemon = own_daemon()
    data = bytes(range(256)) * 2048
    digest = nginx.add("half.bin", data)
    nginx.add_sparse("huge.bin", 1 << 30)
    client = daemon.client(nginx.target, "load")
    host = daemon.host("load").encode()

    def fetch(_):
        with raw.connect(daemon, "load", deadline=60) as connection:
            connection.sendall(b"GET /half.bin HTTP/1.1\r\nhost: " + host + b"\r\nconnection: close\r\n\r\n")
            raw.read_head(connection)
            return hashlib.sha256(raw.read_exactly(connection, len(data))).hexdigest()

    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(180) as pool:
        # What a burst of handshakes and buffers leaves in the allocator is not held by the stopped readers.
        assert set(pool.map(fetch, range(180))) == {digest}
        before = {process: process.memory()[0] for process in (daemon.process, client.process)}
        for _ in range(20):
            connection = stack.enter_context(raw.connect(daemon, "load"))
            connection.sendall(b"GET /huge.bin HTTP/1.1\r\nhost: " + host + b"\r\n\r\n")
            raw.read_head(connection)
        assert list(pool.map(fetch, range(180))) == [digest] * 180
        for process in before:
            growth = process.memory()[0] - before[process]
            # The windows, what HTTP and TLS hold for each connection besides, and room for the allocator.
            assert growth < 20 * (WINDOW + 256 * 1024) + 16 * MIB, f"{process.command[0]} grew by {growth}"
        assert daemon.curl("load", "/").stdout == b"<h1>hello</h1>\n"
    client.stop()
