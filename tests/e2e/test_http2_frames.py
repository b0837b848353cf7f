"""Rules of HTTP/2 that a library would keep for us, broken frame by frame (RFC 9113).

A row ends with an error, of the stream or the connection, or is ignored and the next request is answered. The rows do
not look at the code: the h2 library chooses it, and says PROTOCOL_ERROR where the RFC has another. Where the RFC has an
error of the stream, it may be one of the connection (section 5.4.2)."""

import struct
from typing import NamedTuple

import pytest
from harness import raw
from hpack import Encoder

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
CONNECTION, STREAM, IGNORED = "connection", "stream", "ignored"
END_STREAM, END_HEADERS, PADDED, PRIORITISED, ACK = 1, 4, 8, 32, 1
OPEN = END_HEADERS
WHOLE = END_HEADERS | END_STREAM


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Case(NamedTuple):
    name: str
    frames: object  # makes the bytes from a valid GET's and a valid POST's block
    ends: str = IGNORED  # what the error ends


def word(number):
    return struct.pack(">I", number)


def setting(number, value):
    return struct.pack(">HI", number, value)


def block(*fields):
    return Encoder().encode(fields, huffman=False)


def fixed(*frames):
    return lambda get, post: b"".join(frames)


CASES = [
    Case("data-on-stream-0", fixed(frame(DATA, 0, 0, b"a")), CONNECTION),
    Case("headers-on-stream-0", lambda get, post: frame(HEADERS, WHOLE, 0, get), CONNECTION),
    Case("priority-on-stream-0", fixed(frame(PRIORITY, 0, 0, bytes(5))), CONNECTION),
    Case("reset-on-stream-0", fixed(frame(RST, 0, 0, word(8))), CONNECTION),
    Case("settings-on-stream-1", fixed(frame(SETTINGS, 0, 1)), CONNECTION),
    Case("ping-on-stream-1", fixed(frame(PING, 0, 1, bytes(8))), CONNECTION),
    Case("goaway-on-stream-1", fixed(frame(GOAWAY, 0, 1, bytes(8))), CONNECTION),
    Case("continuation-on-stream-0", fixed(frame(CONTINUATION, END_HEADERS, 0)), CONNECTION),
    Case("push-from-client", fixed(frame(PUSH, END_HEADERS, 1, word(2))), CONNECTION),
    Case("data-on-idle", fixed(frame(DATA, 0, 1, b"a")), CONNECTION),
    Case("reset-on-idle", fixed(frame(RST, 0, 1, word(8))), CONNECTION),
    Case("window-on-idle", fixed(frame(WINDOW, 0, 1, word(1))), CONNECTION),
    Case("continuation-on-idle", fixed(frame(CONTINUATION, END_HEADERS, 1)), CONNECTION),
    Case("even-stream", lambda get, post: frame(HEADERS, WHOLE, 2, get), CONNECTION),
    Case("stream-goes-back", lambda get, post: frame(HEADERS, WHOLE, 5, get) + frame(HEADERS, WHOLE, 3, get), CONNECTION),
    Case("data-on-half-closed", lambda get, post: frame(HEADERS, WHOLE, 1, get) + frame(DATA, 0, 1, b"a"), STREAM),
    Case("headers-on-half-closed", lambda get, post: frame(HEADERS, WHOLE, 1, get) * 2, STREAM),
    Case("ping-short", fixed(frame(PING, 0, 0, bytes(7))), CONNECTION),
    Case("ping-long", fixed(frame(PING, 0, 0, bytes(9))), CONNECTION),
    Case("priority-short", fixed(frame(PRIORITY, 0, 1, bytes(4))), STREAM),
    Case("reset-short", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(RST, 0, 1, bytes(3)), CONNECTION),
    Case("settings-odd-size", fixed(frame(SETTINGS, 0, 0, bytes(5))), CONNECTION),
    Case("settings-ack-with-payload", fixed(frame(SETTINGS, ACK, 0, setting(3, 1))), CONNECTION),
    Case("window-short", fixed(frame(WINDOW, 0, 0, bytes(3))), CONNECTION),
    Case("goaway-short", fixed(frame(GOAWAY, 0, 0, bytes(7))), CONNECTION),
    Case("data-too-large", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(DATA, 0, 1, bytes(2**20 * 2)), STREAM),
    Case("enable-push-2", fixed(frame(SETTINGS, 0, 0, setting(2, 2))), CONNECTION),
    Case("initial-window-too-big", fixed(frame(SETTINGS, 0, 0, setting(4, 2**31))), CONNECTION),
    Case("frame-size-too-small", fixed(frame(SETTINGS, 0, 0, setting(5, 16383))), CONNECTION),
    Case("frame-size-too-big", fixed(frame(SETTINGS, 0, 0, setting(5, 2**24))), CONNECTION),
    Case("window-0", fixed(frame(WINDOW, 0, 0, word(0))), CONNECTION),
    Case("window-0-on-stream", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(WINDOW, 0, 1, word(0)), STREAM),
    Case("window-overflow", fixed(frame(WINDOW, 0, 0, word(2**31 - 1))), CONNECTION),
    Case("window-overflow-on-stream", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(WINDOW, 0, 1, word(2**31 - 1)), STREAM),
    Case("headers-depend-on-themselves", lambda get, post: frame(HEADERS, WHOLE | PRIORITISED, 1, word(1) + b"\0" + get), STREAM),
    Case("priority-between-fragments", lambda get, post: frame(HEADERS, END_STREAM, 1, get[:5]) + frame(PRIORITY, 0, 1, bytes(5)), CONNECTION),
    Case("data-between-fragments", lambda get, post: frame(HEADERS, 0, 1, post[:5]) + frame(DATA, 0, 1, b"a"), CONNECTION),
    Case("unknown-between-fragments", lambda get, post: frame(HEADERS, 0, 1, post[:5]) + frame(99, 0, 1), CONNECTION),
    Case("continuation-of-another", lambda get, post: frame(HEADERS, END_STREAM, 1, get[:5]) + frame(CONTINUATION, 4, 3, get[5:]), CONNECTION),
    Case("continuation-behind-end", lambda get, post: frame(HEADERS, WHOLE, 1, get) + frame(CONTINUATION, 4, 1), CONNECTION),
    Case("padding-too-long", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(DATA, PADDED, 1, b"\x05abcd"), CONNECTION),
    Case("headers-padding-too-long", lambda get, post: frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + get), CONNECTION),
    Case("index-0", fixed(frame(HEADERS, WHOLE, 1, b"\x80")), CONNECTION),
    Case("index-beyond-table", fixed(frame(HEADERS, WHOLE, 1, b"\xff\x20")), CONNECTION),
    Case("table-size-too-big", fixed(frame(HEADERS, WHOLE, 1, b"\x3f\xe1\xff\x03")), CONNECTION),
    Case("huffman-with-EOS", fixed(frame(HEADERS, WHOLE, 1, b"\0\x84\xff\xff\xff\xff\x01a")), CONNECTION),
    Case("block-cut-short", lambda get, post: frame(HEADERS, WHOLE, 1, get[:-1]), CONNECTION),
    Case("length-too-long", lambda get, post: frame(HEADERS, OPEN, 1, post + block(("content-length", "5"))) + frame(DATA, 1, 1, b"a"), STREAM),
    Case("length-too-short", lambda get, post: frame(HEADERS, OPEN, 1, post + block(("content-length", "1"))) + frame(DATA, 1, 1, b"abc"), STREAM),
    Case("length-without-data", lambda get, post: frame(HEADERS, WHOLE, 1, post + block(("content-length", "1"))), STREAM),
    *[
        Case(f"field-{name}", lambda get, post, pair=pair: frame(HEADERS, WHOLE, 1, get + block(pair)), STREAM)
        for name, pair in {
            "uppercase": ("Aa", "b"), "connection": ("connection", "close"), "keep-alive": ("keep-alive", "1"),
            "transfer-encoding": ("transfer-encoding", "chunked"), "upgrade": ("upgrade", "h2c"), "te-gzip": ("te", "gzip"),
            "proxy-connection": ("proxy-connection", "close"), "unknown-pseudo": (":x", "y"), "status": (":status", "200"),
            "second-path": (":path", "/"), "second-method": (":method", "GET"), "second-scheme": (":scheme", "https"),
        }.items()
    ],
    Case("no-pseudo", fixed(frame(HEADERS, WHOLE, 1, block(("a", "b")))), STREAM),
    Case("trailers-with-pseudo", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(HEADERS, WHOLE, 1, block((":path", "/"))), STREAM),
    Case("trailers-without-end", lambda get, post: frame(HEADERS, OPEN, 1, post) + frame(HEADERS, OPEN, 1, block(("a", "b"))), STREAM),
    Case("unknown-frame", fixed(frame(99, 255, 0, b"abc"))),
    Case("unknown-setting", fixed(frame(SETTINGS, 0, 0, setting(999, 1)))),
    Case("unknown-flags-of-ping", fixed(frame(PING, 0xFE, 0, bytes(8)))),
    Case("ping-ack-unasked", fixed(frame(PING, ACK, 0, bytes(8)))),
    Case("priority-on-idle", fixed(frame(PRIORITY, 0, 1, bytes(5)))),
    Case("reserved-bit-of-window", fixed(frame(WINDOW, 0, 0, word(2**31 + 1)))),
]


# What the library drops without an error. Priorities are deprecated (RFC 9113, section 5.3.2).
DROPPED = ("headers-depend-on-themselves", "trailers-with-pseudo")


def read_frames(connection):
    while True:
        head = raw.read_exactly(connection, 9)
        payload = raw.read_exactly(connection, int.from_bytes(head[:3], "big"))
        yield head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_frames(daemon, web, case):
    authority = f"{daemon.host(web.name)}:{daemon.port}"
    get, post = (
        block((":method", method), (":scheme", "https"), (":path", "/hash"), (":authority", authority)) for method in ("GET", "POST")
    )
    with raw.connect(daemon, web.name, "h2", deadline=5) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
        try:
            connection.sendall(case.frames(get, post) + (b"" if case.ends != IGNORED else frame(HEADERS, WHOLE, 11, get)))
        except OSError:
            pass
        seen = end_of(connection, IGNORED if case.name in DROPPED else case.ends)
    allowed = {STREAM: (STREAM, CONNECTION), CONNECTION: (CONNECTION,), IGNORED: ("answered",)}
    assert seen in allowed[case.ends] or seen == "answered" and case.name in DROPPED, f"seen: {seen}"


def end_of(connection, expected):
    """What the error ends. An answer counts unless an error comes behind it."""
    answered = False
    try:
        for kind, _, stream, _ in read_frames(connection):
            if kind == RST and stream != 11:
                return STREAM
            if kind == GOAWAY:
                return CONNECTION
            if kind == HEADERS:
                answered = True
                if stream == 11 or expected == IGNORED:
                    break
    except TimeoutError:
        pass
    except (OSError, EOFError):
        return CONNECTION
    return "answered" if answered else "silence"
