"""Streams: each piece reaches the visitor before the service writes the next one."""

import hashlib

from harness import raw


def test_each_event_arrives_before_the_next_is_written(web, services):
    """The service writes event n+1 only after the visitor has confirmed n, outside the tunnel."""
    with raw.connect(web.daemon, web.name) as connection:
        host = web.daemon.host(web.name).encode()
        connection.sendall(b"GET /steps/h1/200 HTTP/1.1\r\nhost: " + host + b"\r\n\r\n")
        assert b"text/event-stream" in raw.read_head(connection)
        stream = connection.makefile("rb")
        for number in range(200):
            size = int(stream.readline(), 16)
            assert stream.read(size) == b"data: %d\n\n" % number
            stream.readline()
            services.confirm("h1", number)
        assert stream.readline() == b"0\r\n"


def test_each_event_arrives_over_streams(web, services, multiplexed):
    with multiplexed(web.daemon, web.name) as visitor:
        stream = visitor.request("/steps/streams/200")
        for number in range(200):
            assert stream.read(len(b"data: %d\n\n" % number)) == b"data: %d\n\n" % number
            services.confirm("streams", number)
        assert stream.read() == b""


def test_bytes_pass_both_ways_at_once(web, multiplexed):
    """A visitor sends each chunk only after the echo of the previous one."""
    with multiplexed(web.daemon, web.name) as visitor:
        stream = visitor.request("/echo", method="POST", end=False)
        for number in range(100):
            piece = hashlib.sha256(b"%d" % number).digest()
            stream.send(piece)
            assert stream.read(len(piece)) == piece
        stream.send(b"", end=True)
        assert stream.read() == b""
