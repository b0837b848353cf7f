"""Rules of HTTP/2 that a library would keep for us, broken frame by frame (RFC 9113).

A row ends with an error, of the stream or the connection, or is ignored and the next request is answered."""

import struct
from typing import NamedTuple

import pytest
from harness import raw
from hpack import Encoder

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
PROTOCOL, FLOW, CLOSED, SIZE, COMPRESSION = 1, 3, 5, 6, 9
END_STREAM, END_HEADERS, PADDED, PRIORITISED, ACK = 1, 4, 8, 32, 1
OPEN = END_HEADERS
WHOLE = END_HEADERS | END_STREAM


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Case(NamedTuple):
    name: str
    frames: object  # makes the bytes from a valid GET's and a valid POST's block
    codes: tuple = ()  # none: ignored


def word(number):
    return struct.pack(">I", number)


def setting(number, value):
    return struct.pack(">HI", number, value)


def block(*fields):
    return Encoder().encode(fields, huffman=False)


def fixed(*frames):
    return lambda get, post: b"".join(frames)


CASES = [
    Case("data-on-stream-0", fixed(frame(DATA, 0, 0, b"a")), (PROTOCOL,)),
    Case("headers-on-stream-0", lambda get, post: frame(HEADERS, WHOLE, 0, get), (PROTOCOL,)),
    Case("priority-on-stream-0", fixed(frame(PRIORITY, 0, 0, bytes(5))), (PROTOCOL,)),
    Case("reset-on-stream-0", fixed(frame(RST, 0, 0, word(8))), (PROTOCOL,)),
    Case("settings-on-stream-1", fixed(frame(SETTINGS, 0, 1)), (PROTOCOL,)),
    Case("ping-on-stream-1", fixed(frame(PING, 0, 1, bytes(8))), (PROTOCOL,)),
    Case("goaway-on-stream-1", fixed(frame(GOAWAY, 0, 1, bytes(8))), (PROTOCOL,)),
    Case("continuation-on-stream-0", fixed(frame(CONTINUATION, END_HEADERS, 0)), (PROTOCOL,)),
    Case("push-from-client", fixed(frame(PUSH, END_HEADERS, 1, word(2))), (PROTOCOL,)),
    Case("data-on-idle", fixed(frame(DATA, 0, 1, b"a")), (PROTOCOL,)),
    Case("reset-on-idle", fixed(frame(RST, 0, 1, word(8))), (PROTOCOL,)),
    Case("window-on-idle", fixed(frame(WINDOW, 0, 1, word(1))), (PROTOCOL,)),
    Case("continuation-on-idle", fixed(frame(CONTINUATION, END_HEADERS, 1)), (PROTOCOL,)),
    Case("even-stream", lambda get, post: frame(HEADERS, WHOLE, 2, get), (PROTOCOL,)),
    Case("stream-goes-back", lambda get, post: frame(HEADERS, WHOLE, 5, get) + frame(HEADERS, WHOLE, 3, get), (PROTOCOL, CLOSED)),
    Case("data-on-half-closed", lambda get, post: frame(HEADERS, WHOLE, 1, get) + frame(DATA, 0, 1, b"a"), (CLOSED,)),
    Case("headers-on-half-closed", lambda get, post: frame(HEADERS, WHOLE, 1, get) * 2, (CLOSED,)),
    Case("ping-short", fixed(frame(PING, 0, 0, bytes(7))), (SIZE,)),
    Case("ping-long", fixed(frame(PING, 0, 0, bytes(9))), (SIZE,)),
    Case("priority-short", fixed(frame(PRIORITY, 0, 1, bytes(4))), (SIZE,)),
    Case("reset-short", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(RST, 0, 1, bytes(3)), (SIZE,)),
    Case("settings-odd-size", fixed(frame(SETTINGS, 0, 0, bytes(5))), (SIZE,)),
    Case("settings-ack-with-payload", fixed(frame(SETTINGS, ACK, 0, setting(3, 1))), (SIZE,)),
    Case("window-short", fixed(frame(WINDOW, 0, 0, bytes(3))), (SIZE,)),
    Case("goaway-short", fixed(frame(GOAWAY, 0, 0, bytes(7))), (SIZE,)),
    Case("data-too-large", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(DATA, 0, 1, bytes(2**20 * 2)), (SIZE,)),
    Case("enable-push-2", fixed(frame(SETTINGS, 0, 0, setting(2, 2))), (PROTOCOL,)),
    Case("initial-window-too-big", fixed(frame(SETTINGS, 0, 0, setting(4, 2**31))), (FLOW,)),
    Case("frame-size-too-small", fixed(frame(SETTINGS, 0, 0, setting(5, 16383))), (PROTOCOL,)),
    Case("frame-size-too-big", fixed(frame(SETTINGS, 0, 0, setting(5, 2**24))), (PROTOCOL,)),
    Case("window-0", fixed(frame(WINDOW, 0, 0, word(0))), (PROTOCOL,)),
    Case("window-0-on-stream", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(WINDOW, 0, 1, word(0)), (PROTOCOL,)),
    Case("window-overflow", fixed(frame(WINDOW, 0, 0, word(2**31 - 1))), (FLOW,)),
    Case("window-overflow-on-stream", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(WINDOW, 0, 1, word(2**31 - 1)), (FLOW,)),
    Case("headers-depend-on-themselves", lambda get, post: frame(HEADERS, WHOLE | PRIORITISED, 1, word(1) + b"\0" + get), (PROTOCOL, None)),
    Case("priority-between-fragments", lambda get, post: frame(HEADERS, END_STREAM, 1, get[:5]) + frame(PRIORITY, 0, 1, bytes(5)), (PROTOCOL,)),
    Case("data-between-fragments", lambda get, post: frame(HEADERS, 0, 1, post[:5]) + frame(DATA, 0, 1, b"a"), (PROTOCOL,)),
    Case("unknown-between-fragments", lambda get, post: frame(HEADERS, 0, 1, post[:5]) + frame(99, 0, 1), (PROTOCOL,)),
    Case("continuation-of-another", lambda get, post: frame(HEADERS, END_STREAM, 1, get[:5]) + frame(CONTINUATION, 4, 3, get[5:]), (PROTOCOL,)),
    Case("continuation-behind-end", lambda get, post: frame(HEADERS, WHOLE, 1, get) + frame(CONTINUATION, 4, 1), (PROTOCOL,)),
    Case("padding-too-long", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(DATA, PADDED, 1, b"\x05abcd"), (PROTOCOL,)),
    Case("headers-padding-too-long", lambda get, post: frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + get), (PROTOCOL,)),
    Case("index-0", fixed(frame(HEADERS, WHOLE, 1, b"\x80")), (COMPRESSION,)),
    Case("index-beyond-table", fixed(frame(HEADERS, WHOLE, 1, b"\xff\x20")), (COMPRESSION,)),
    Case("table-size-too-big", fixed(frame(HEADERS, WHOLE, 1, b"\x3f\xe1\xff\x03")), (COMPRESSION,)),
    Case("huffman-with-EOS", fixed(frame(HEADERS, WHOLE, 1, b"\0\x84\xff\xff\xff\xff\x01a")), (COMPRESSION,)),
    Case("block-cut-short", lambda get, post: frame(HEADERS, WHOLE, 1, get[:-1]), (COMPRESSION,)),
    Case("length-too-long", lambda get, post: frame(HEADERS, OPEN, 1, post + block(("content-length", "5"))) + frame(DATA, 1, 1, b"a"), (PROTOCOL,)),
    Case("length-too-short", lambda get, post: frame(HEADERS, OPEN, 1, post + block(("content-length", "1"))) + frame(DATA, 1, 1, b"abc"), (PROTOCOL,)),
    Case("length-without-data", lambda get, post: frame(HEADERS, WHOLE, 1, post + block(("content-length", "1"))), (PROTOCOL,)),
    *[
        Case(f"field-{name}", lambda get, post, pair=pair: frame(HEADERS, WHOLE, 1, get + block(pair)), (PROTOCOL,))
        for name, pair in {
            "uppercase": ("Aa", "b"), "connection": ("connection", "close"), "keep-alive": ("keep-alive", "1"),
            "transfer-encoding": ("transfer-encoding", "chunked"), "upgrade": ("upgrade", "h2c"), "te-gzip": ("te", "gzip"),
            "proxy-connection": ("proxy-connection", "close"), "unknown-pseudo": (":x", "y"), "status": (":status", "200"),
            "second-path": (":path", "/"), "second-method": (":method", "GET"), "second-scheme": (":scheme", "https"),
        }.items()
    ],
    Case("no-pseudo", fixed(frame(HEADERS, WHOLE, 1, block(("a", "b")))), (PROTOCOL,)),
    Case("trailers-with-pseudo", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(HEADERS, WHOLE, 1, block((":path", "/"))), (PROTOCOL,)),
    Case("trailers-without-end", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(HEADERS, OPEN, 1, block(("a", "b"))), (PROTOCOL,)),
    Case("unknown-frame", fixed(frame(99, 255, 0, b"abc"))),
    Case("unknown-setting", fixed(frame(SETTINGS, 0, 0, setting(999, 1)))),
    Case("unknown-flags-of-ping", fixed(frame(PING, 0xFE, 0, bytes(8)))),
    Case("ping-ack-unasked", fixed(frame(PING, ACK, 0, bytes(8)))),
    Case("priority-on-idle", fixed(frame(PRIORITY, 0, 1, bytes(5)))),
    Case("reserved-bit-of-window", fixed(frame(WINDOW, 0, 0, word(2**31 + 1)))),
]


def read_frames(connection):
    while True:
        head = raw.read_exactly(connection, 9)
        payload = raw.read_exactly(connection, int.from_bytes(head[:3], "big"))
        yield head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_frames(daemon, web, case):
    authority = f"{daemon.host(web.name)}:{daemon.port}"
    get, post = (
        block((":method", method), (":scheme", "https"), (":path", "/"), (":authority", authority)) for method in ("GET", "POST")
    )
    with raw.connect(daemon, web.name, "h2", deadline=5) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
        try:
            connection.sendall(case.frames(get, post) + (b"" if case.codes else frame(HEADERS, WHOLE, 11, get)))
        except OSError:
            pass
        code = "closed"
        try:
            for kind, _, stream, payload in read_frames(connection):
                if kind == RST and stream != 11:
                    code = struct.unpack(">I", payload)[0]
                    break
                if kind == GOAWAY:
                    code = struct.unpack(">I", payload[4:8])[0]
                    break
                if kind == HEADERS and (stream == 11 or None in case.codes):
                    code = None
                    break
                if kind == HEADERS and case.codes:
                    code = f"answered with {payload[:8].hex()}"
        except TimeoutError:
            code = code if code != "closed" else "silence"
        except (OSError, EOFError):
            pass
    assert code in (case.codes or (None,)), f"seen: {code}"
