"""Trailers pass in both directions, with any HTTP version on each side."""

import pytest

from harness import raw

# An HTTP/1.1 response that announces its trailer (RFC 9110, section 6.6.2).
WITH_TRAILER = (
    b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 8b1a9953\r\n\r\n"
)


@pytest.fixture
def summing(tunnel):
    """A service that sends a trailer. It records the chunked body of the request with its trailers."""

    def answer(head, connection):
        if b"transfer-encoding: chunked" in head.lower():
            connection.settimeout(20)
            recorder.body = b""
            while not recorder.body.endswith(b"\r\n\r\n"):
                recorder.body += raw.read_exactly(connection, 1)
        return WITH_TRAILER

    recorder = raw.Recorder(answer)
    recorder.client = tunnel(recorder.target)
    yield recorder
    recorder.stop()


def test_to_a_visitor_over_streams(summing, multiplexed):
    with multiplexed(summing.client.daemon, summing.client.name) as visitor:
        stream = visitor.request("/", extra=[("te", "trailers")])
        assert stream.read() == b"hello"
        assert stream.trailers == {b"x-sum": b"8b1a9953"}


def test_to_a_visitor_over_http1(summing):
    """A visitor that accepts trailers (TE) gets them."""
    with raw.connect(summing.client.daemon, summing.client.name) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: %s\r\nte: trailers\r\n\r\n" % summing.client.host.encode())
        fields = dict(raw.fields(raw.read_head(connection)))
        assert fields[b"transfer-encoding"] == b"chunked" and fields[b"trailer"] == b"x-sum"
        expected = b"5\r\nhello\r\n0\r\nx-sum: 8b1a9953\r\n\r\n"
        assert raw.read_exactly(connection, len(expected)) == expected


def test_from_a_visitor(summing, multiplexed):
    with multiplexed(summing.client.daemon, summing.client.name) as visitor:
        stream = visitor.request("/", method="POST", end=False, extra=[("trailer", "x-mine")])
        stream.send(b"body")
        stream.send_trailers([(b"x-mine", b"last words")])
        assert stream.read() == b"hello"
    assert summing.body.replace(b"\r\n", b"|").lower() == b"4|body|0|x-mine: last words||"
