"""Frames and heads: sections 3 to 5, and the codes of section 8."""

import itertools
import json
import struct

# Section 3: types of frames.
CONNECT, CONNECT_ACK, DRAIN, BIND, BOUND, REFUSED, UNBIND = 1, 2, 3, 4, 5, 6, 7
REQUEST, RESPONSE, DATA, TRAILERS, RESET, WINDOW_UPDATE = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15
PING, PONG, ERROR = 0xF0, 0xF1, 0xFF
END = 0x01
SKIPPED = range(0x80, 0xF0)

# Section 8: codes of Reset.
NO_ERROR, CANCELLED, UNPROCESSED, LOCAL_REFUSED, LOCAL_TIMEOUT, LOCAL_BROKEN = range(6)

WINDOW = 262144
MOST_BODY = 16373


def encode(kind, payload=b"", flags=0):
    return struct.pack(">BBBI", 1, kind, flags, len(payload)) + payload


def encode_json(kind, message, tunnel=None):
    number = b"" if tunnel is None else struct.pack(">I", tunnel)
    return encode(kind, number + json.dumps(message).encode())


def decode(buffer):
    """Takes whole frames off a bytearray: type, flags and payload of each."""
    while len(buffer) >= 7:
        version, kind, flags, length = struct.unpack_from(">BBBI", buffer)
        assert version == 1, version
        if len(buffer) < 7 + length:
            return
        payload = bytes(buffer[7 : 7 + length])
        del buffer[: 7 + length]
        yield kind, flags, payload


class Reader:
    """Reads the parts of a payload in order."""

    def __init__(self, payload):
        self.payload, self.at = payload, 0

    def take(self, length):
        part = self.payload[self.at : self.at + length]
        assert len(part) == length, "the payload ends too early"
        self.at += length
        return part

    def number(self, length):
        return int.from_bytes(self.take(length), "big")

    def fields(self):
        return [(self.take(self.number(2)), self.take(self.number(2))) for _ in range(self.number(2))]


def encode_fields(fields):
    parts = [struct.pack(">H", len(fields))]
    for part in itertools.chain.from_iterable(fields):
        parts.append(struct.pack(">H", len(part)) + part)
    return b"".join(parts)


def encode_response(status, reason, fields, microseconds=0):
    """A response head. This client does not measure the time to its first byte."""
    return struct.pack(">HIB", status, microseconds, len(reason)) + reason + encode_fields(fields)


class Request:
    """A request head, behind the id of its exchange."""

    def __init__(self, payload):
        reader = Reader(payload)
        self.tunnel = reader.number(4)
        self.method = reader.take(reader.number(1))
        self.target = reader.take(reader.number(2))
        self.scheme = ("http", "https")[reader.number(1)]
        self.authority = reader.take(reader.number(2))
        self.fields = reader.fields()
        assert reader.at == len(payload), "bytes behind the last field"
