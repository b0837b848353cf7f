"""Visitors' connections over HTTP/1.1 between requests. The daemon lets go of most of what they cost once they are quiet, and
they go on as if it had not."""

from contextlib import ExitStack

import pytest

from harness import raw
from harness.cok import GIVE_BACK
from harness.process import wait_for

COUNT, FIRST = 400, 50
# What one may cost. Before it is quiet, it costs twice as much.
MOST = 18 << 10
HOLDS = "max_connections_per_address = 1000"
RATES = '[rates]\nconnections_per_address = "10000/s"\nhandshakes_per_address = "10000/s"\n'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def ask(connection, host, fields=b"", body=b"", times=1):
    request = b"POST / HTTP/1.1\r\nhost: " + host + b"\r\n" + fields + b"content-length: %d\r\n\r\n" % len(body) + body
    connection.sendall(request * times)


def answer(connection):
    """Returns the status of a response whose body is read."""
    head = raw.read_head(connection)
    raw.read_exactly(connection, int(dict(raw.fields(head)).get(b"content-length", 0)))
    return int(head.split(b" ")[1])


@pytest.fixture
def visitors(own_daemon):
    """Opens connections that become quiet, half of them after a request. Returns the daemon, its tunnel and them."""

    def reply(head, connection):
        raw.read_body(head, connection)
        return b"HTTP/1.1 101 Switching Protocols\r\nupgrade: tcp\r\nconnection: upgrade\r\n\r\n" if b"pgrade" in head else ANSWER

    service = raw.Recorder(reply)
    daemon = own_daemon(limits=HOLDS, more=RATES, env=GIVE_BACK)
    client = daemon.client(service.target, options=("--verbose", "--upgrade", "tcp"))
    with ExitStack() as held:

        def open_some(count):
            opened = [held.enter_context(raw.connect(daemon, client.name)) for _ in range(count)]
            for connection in opened[::2]:
                ask(connection, client.host.encode())
                assert answer(connection) == 200
            return opened

        open_some(FIRST)
        before = daemon.process.memory()[0]
        opened = open_some(COUNT)
        wait_for(lambda: daemon.process.memory()[0] - before < COUNT * MOST, "quiet connections cost little")
        yield daemon, client, opened
    client.stop()
    service.stop()


def test_quiet_connections_cost_little_and_go_on(visitors):
    daemon, client, connections = visitors
    host = client.host.encode()
    # One of each pair has had a request.
    pairs = iter(zip(connections[::2], connections[1::2]))
    for connection in next(pairs):
        ask(connection, host, times=3)
        assert [answer(connection) for _ in range(3)] == [200] * 3
    for connection in next(pairs):
        ask(connection, host, body=b"x" * 100_000)
        assert answer(connection) == 200
    for connection in next(pairs):
        connection.sendall(b"\r\nPOST / HTTP/1.1\r\nhost: ")
        connection.sendall(host + b"\r\ncontent-length: 0\r\n\r\n")
        assert answer(connection) == 200
    for connection in next(pairs):
        ask(connection, host, b"connection: upgrade\r\nupgrade: tcp\r\n")
        assert answer(connection) == 101
    for connection in next(pairs):
        connection.sendall(b"GET / HTTP/1.1\nhost: x\n\n")
        assert answer(connection) == 400
        assert connection.recv(1) == b""
    for connection in next(pairs):
        ask(connection, host, b"connection: close\r\n")
        assert answer(connection) == 200 and connection.recv(1) == b""
    for connection in next(pairs):
        # The daemon ends its direction as well.
        connection.unwrap().close()
    daemon.process.popen.terminate()
    for pair in pairs:
        assert [connection.recv(1) for connection in pair] == [b"", b""]
