"""Floods of frames that bring no exchange forward end their connection within a second. Visitors on the same tunnel do not
notice, and honest programs never meet a limit."""

import contextlib
import struct
import threading
import time

import pytest

from harness import raw
from harness.http2 import Http2

from test_http2_frames import (
    ACK, DATA, HEADERS, OPEN, PADDED, PING, PRIORITY, RST, SETTINGS, WHOLE, WINDOW, block, frame, read_frames, word,
)

GOAWAY, PRIORITY_UPDATE = 7, 0x10
ENHANCE_YOUR_CALM = 0xB
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
# From the first byte of a flood to the end of its connection.
AT_ONCE = 1.0


@contextlib.contextmanager
def undisturbed(daemon, name, path="/"):
    """An honest visitor asks on the same tunnel all the time. It gets every answer, none after more than a second."""
    over, slowest, errors = threading.Event(), [0.0], []

    def ask():
        try:
            with Http2(daemon, name) as visitor:
                while not over.is_set():
                    began = time.monotonic()
                    assert visitor.request(path).read()
                    slowest[0] = max(slowest[0], time.monotonic() - began)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not errors and slowest[0] < AT_ONCE, (errors, slowest)


FLOODS = {
    "ping": frame(PING, 0, 0, bytes(8)),
    "ping-ack": frame(PING, ACK, 0, bytes(8)),
    "settings": frame(SETTINGS, 0, 0),
    "priority": frame(PRIORITY, 0, 3, bytes(5)),
    "priority-update": frame(PRIORITY_UPDATE, 0, 0, word(1) + b"u=3"),
    "window": frame(WINDOW, 0, 0, word(1)),
    "window-of-a-stream": frame(WINDOW, 0, 1, word(1)),
    "unknown": frame(99, 0, 0, b"abc"),
    "empty-data": frame(DATA, 0, 1),
    "padding": frame(DATA, PADDED, 1, b"\x63" + bytes(99)),
    "one-byte-data": frame(DATA, 0, 1, b"a"),
    "resets": frame(RST, 0, 1, word(8)),
    "goaway": frame(GOAWAY, 0, 0, bytes(8)),
}
# The library ends these by itself, some with another code.
OF_THE_LIBRARY = ("empty-data", "goaway", "settings", "padding", "one-byte-data")


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_over_http2_end(daemon, web, flood):
    authority = f"{daemon.host(web.name)}:{daemon.port}"
    post = block((":method", "POST"), (":scheme", "https"), (":path", "/swallow"), (":authority", authority))
    with undisturbed(daemon, web.name, "/hash"), raw.connect(daemon, web.name, "h2", deadline=5) as connection:
        connection.sendall(PREFACE + frame(HEADERS, OPEN, 1, post))
        began = time.monotonic()
        codes = send_and_read(connection, FLOODS[flood] * 200)
        assert time.monotonic() - began < AT_ONCE
    assert codes == [ENHANCE_YOUR_CALM] or flood in OF_THE_LIBRARY, codes


def send_and_read(connection, piece):
    """Repeats a piece until the connection ends. Returns the codes of the GOAWAY frames."""
    codes = []

    def read():
        with contextlib.suppress(OSError, EOFError):
            for kind, _, _, payload in read_frames(connection):
                if kind == GOAWAY:
                    codes.append(struct.unpack_from(">I", payload, 4)[0])

    reader = threading.Thread(target=read)
    reader.start()
    with contextlib.suppress(OSError):
        while reader.is_alive():
            connection.sendall(piece)
    reader.join()
    return codes
