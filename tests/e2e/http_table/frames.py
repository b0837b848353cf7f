"""Requests over HTTP/2 and HTTP/3 as frames, which no library checks before they leave."""

import struct

from hpack import Decoder, Encoder
from harness import raw
from harness.http3 import Http3, frame as frame3, section
from harness.outcome import Outcome

DEADLINE = 5
DATA, HEADERS, RST, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
REFUSED = Outcome(0, [], b"", False)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def read_frames(connection):
    while True:
        head = raw.read_exactly(connection, 9)
        payload = raw.read_exactly(connection, int.from_bytes(head[:3], "big"))
        yield head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, payload


class Visitor2:
    """Sends each request over a connection of its own."""

    def __init__(self, daemon, name):
        self.daemon, self.name = daemon, name

    def leave(self):
        pass

    def send(self, fields, body=(), trailers=None):
        parts = [(HEADERS, block(fields)), *((DATA, data) for data in body)]
        parts += [] if trailers is None else [(HEADERS, block(trailers))]
        data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
        for number, (kind, payload) in enumerate(parts, 1):
            last = number == len(parts)
            # A block above the least limit of a frame goes on in another.
            first, rest = payload[:16384], payload[16384:]
            flags = END_HEADERS * (kind == HEADERS and not rest) | END_STREAM * last
            data += frame(kind, flags, 1, first) + (frame(9, END_HEADERS, 1, rest) if rest else b"")
        with raw.connect(self.daemon, self.name, "h2", DEADLINE) as connection:
            try:
                connection.sendall(data)
                return self._read(connection)
            except TimeoutError:
                raise
            except (OSError, EOFError):
                return REFUSED

    def _read(self, connection):
        status, fields, body, decoder = 0, [], b"", Decoder()
        for kind, flags, stream, payload in read_frames(connection):
            if kind == GOAWAY or (kind == RST and stream == 1):
                return Outcome(status, fields, body, False)
            if stream != 1:
                continue
            if kind == HEADERS:
                pairs = decoder.decode(payload, raw=True)
                answered = int(dict(pairs).get(b":status", status))
                status, fields = (answered, pairs) if answered >= 200 else (status, fields)
            elif kind == DATA:
                body += payload
            if flags & END_STREAM and kind in (HEADERS, DATA):
                return Outcome(status, fields, body, True)


def block(fields):
    return Encoder().encode([(name, value, True) for name, value in fields], huffman=False)


class Visitor3:
    """Keeps its connection while its requests are answered."""

    def __init__(self, daemon, name):
        self.daemon, self.name, self.connection = daemon, name, None

    def leave(self):
        if self.connection:
            self.connection.leave()
        self.connection = None

    def send(self, fields, body=(), trailers=None):
        data = frame3(HEADERS, section(*fields)) + b"".join(frame3(DATA, part) for part in body)
        data += b"" if trailers is None else frame3(HEADERS, section(*trailers))
        self.connection = self.connection or Http3(self.daemon, self.name)
        self.connection.heads.add(self.connection.quic.get_next_available_stream_id())
        stream = self.connection.raw(data, end=True)
        stream.wait(lambda: stream.ended or stream.reset is not None, "the end", DEADLINE)
        whole = stream.ended and stream.reset is None
        if not whole:
            # A late end of the connection would look like the next request's.
            self.leave()
        headers = list((stream.headers or {}).items())
        status = int(dict(headers).get(b":status", 0))
        return Outcome(status, headers, bytes(stream.data), whole)
