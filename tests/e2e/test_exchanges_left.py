"""A visitor that gives up in the moment after its request leaves no exchange behind, whatever has come of its body.

The client waits for open exchanges when it stops, so that one that never ends shows there."""

import contextlib
import struct

import pytest
from harness import raw
from harness.cok import TRANSPORTS
from harness.http3 import Http3, frame as frame3, section
from http_table.frames import DATA, END_HEADERS, END_STREAM, HEADERS, RST, SETTINGS, block, frame
from http_table.origin import Origin, stop_soon
from http_table.visitor import Visitor

TIMES = 6
CANCEL = struct.pack(">I", 8)

# Each request's method, its Content-Length, its body, and whether the visitor says that it ends there.
REQUESTS = {
    "get": (b"GET", None, b"", True),
    "get-open": (b"GET", None, b"", False),
    "empty": (b"POST", b"0", b"", True),
    "empty-open": (b"POST", b"0", b"", False),
    "empty-with-data": (b"POST", b"0", b"hello", True),
    "whole": (b"POST", b"5", b"hello", True),
    "whole-open": (b"POST", b"5", b"hello", False),
    "part": (b"POST", b"9", b"hello", False),
    "part-ended": (b"POST", b"9", b"hello", True),
    "no-length": (b"POST", None, b"hello", True),
    "no-length-open": (b"POST", None, b"hello", False),
}


@pytest.fixture(params=TRANSPORTS)
def left(request, daemon):
    origin = Origin()
    client = daemon.client(origin.target, transport=request.param)
    yield client
    clean = Visitor(daemon, client.name, "h1").ask("/")
    assert (clean.status, clean.body) == (200, b"ok")
    stop_soon(client)
    origin.stop()


def fields(client, method, length):
    authority = client.host.encode()
    head = [(b":method", method), (b":scheme", b"https"), (b":path", b"/"), (b":authority", authority)]
    return head + [(b"content-length", length)] * (length is not None)


@pytest.mark.parametrize("resets", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("name", REQUESTS)
def test_over_http2(daemon, left, name, resets):
    method, length, body, ended = REQUESTS[name]
    end = END_STREAM * ended
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
    data += frame(HEADERS, END_HEADERS | (0 if body else end), 1, block(fields(left, method, length)))
    data += frame(DATA, end, 1, body) if body else b""
    for _ in range(TIMES):
        with raw.connect(daemon, left.name, "h2", 5) as connection:
            connection.sendall(data + (frame(RST, 0, 1, CANCEL) if resets else b""))
            if resets:
                # The answer to a ping comes behind all that went before.
                connection.sendall(frame(6, 0, 0, bytes(8)))
                connection.recv(65536)


@pytest.mark.parametrize("resets", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("name", REQUESTS)
def test_over_http3(daemon, left, name, resets):
    method, length, body, ended = REQUESTS[name]
    data = frame3(HEADERS, section(*fields(left, method, length))) + (frame3(DATA, body) if body else b"")
    with Http3(daemon, left.name) as visitor:
        for _ in range(TIMES if resets else 1):
            stream = visitor.raw(data, end=ended)
            if resets:
                # The library may have forgotten a stream that the daemon has refused.
                with contextlib.suppress(ValueError):
                    stream.stop()
                    if not ended:
                        stream.break_off()


@pytest.mark.parametrize("name", [name for name, (_, length, body, _) in REQUESTS.items() if length or not body])
def test_over_http1(daemon, left, name):
    method, length, body, _ = REQUESTS[name]
    lines = [method + b" / HTTP/1.1", b"Host: " + left.host.encode()] + [b"Content-Length: " + (length or b"")] * bool(length)
    for _ in range(TIMES):
        with raw.connect(daemon, left.name, deadline=5) as connection:
            connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
