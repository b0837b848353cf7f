"""Requests as lists of fields for HTTP/2 and HTTP/3, and mutants of them that may become more than one request."""

import re
from dataclasses import dataclass, field

from .request_oracle import Sent

NAMES = [
    b"content-length", b"transfer-encoding", b"connection", b"host", b"te", b"upgrade", b"keep-alive",
    b"proxy-connection", b"content_length", b"transfer_encoding", b"Content-Length", b"X-A", b"x a", b"x:a", b"",
    b":path", b":authority", b":method", b":scheme", b":status", b":protocol", b":x", b"x\0", b"x\r\n", b"x\xff",
    b"content-length ", b" transfer-encoding", b"transfer-encoding:", b"cookie", b"expect-nothing", b"trailer",
]
VALUES = [
    b"chunked", b"0", b"1", b"4", b"4, 4", b"+4", b"", b" ", b"close", b"x", b"trailers", b"gzip", b"\0", b"\r",
    b"\n", b"\x7f", b"\xff", b" x ", b"\t", b"websocket",
]
METHODS = [b"HEAD", b"CONNECT", b"TRACE", b"OPTIONS", b"get", b"", b"G T", b"PRI", b"PUT"]
SCHEMES = [b"http", b"HTTPS", b"ftp", b"", b"https://x", b"wss"]
PATHS = [b"", b"*", b"x", b"?q", b"#", b"//x", b"/ x", b"/\t", b"/\0", b"/x#y", b"/\xff", b"https://x/", b"/\x7f"]


@dataclass
class Request:
    fields: list
    body: bytes = b""
    trailers: list = field(default_factory=list)
    # Whether the stream ends in order.
    ended: bool = True

    def sent(self):
        """Returns the requests that these fields contain: one at most."""
        lengths = {value for name, value in self.fields if name == b"content-length"}
        body = self.body
        if lengths:
            if len(lengths) > 1 or not all(re.fullmatch(b"[0-9]+", value) for value in lengths):
                return []
            # A body in transit is whole at its length, and what comes behind it breaks only the stream.
            length = int(lengths.pop())
            if len(body) < length:
                return []
            body = body[:length]
        elif not self.ended:
            return []
        method = dict(self.fields).get(b":method", b"")
        return [Sent(method, value, body) for name, value in self.fields if name == b":path"]


def head(method, authority, target):
    return [(b":method", method), (b":scheme", b"https"), (b":authority", authority), (b":path", target)]


def request(random, authority, target, canary):
    method = random.choice([b"GET", b"POST", b"POST", b"HEAD"])
    fields = [*head(method, authority, target), (b"x-a", b"b")]
    if method != b"POST":
        return Request(fields)
    body = random.choice([b"", b"abcd", b"0\r\n\r\nGET %s HTTP/1.1\r\nHost: x\r\n\r\n" % canary, b"x" * 300])
    if random.random() < 0.6:
        fields.append((b"content-length", b"%d" % len(body)))
    return Request(fields, body, random.choice([[], [], [(b"x-sum", b"1")]]))


def _injection(random, value, canary):
    """Ends a line inside of a value, and perhaps the head."""
    end = random.choice([b"\r\n", b"\n", b"\r", b"\0\r\n", b" HTTP/1.1\r\n"])
    line = random.choice([b"Content-Length: 0", b"Transfer-Encoding: chunked", b"X: y", b"Host: x", b""])
    return value + end + line + random.choice([b"", b"\r\n\r\nGET %s HTTP/1.1\r\nHost: x\r\nX: " % canary])


def _change(random, fields, canary):
    """Makes one change of a list."""
    at = random.randrange(len(fields)) if fields else 0
    name, value = fields[at] if fields else (b"x", b"y")
    extra = (random.choice(NAMES), random.choice([*VALUES, value]))
    place = random.randrange(len(fields) + 1)
    changed = {
        b":method": random.choice(METHODS), b":scheme": random.choice(SCHEMES), b":path": random.choice(PATHS),
        b"content-length": random.choice([b"0", b"1", b"+4", b"4,4", b"", b"5", value + b" "]),
    }.get(name, random.choice(VALUES))
    match random.randrange(8):
        case 0:
            return fields[:at] + fields[at + 1 :]
        case 1:
            return fields[:place] + [(name, value)] + fields[place:]
        case 2 | 3:
            return fields[:place] + [extra] + fields[place:]
        case 4:
            return fields[:at] + [(name, _injection(random, value, canary))] + fields[at + 1 :]
        case 5:
            return fields[:at] + [(_injection(random, name, canary), value)] + fields[at + 1 :]
        case 6:
            return fields[:at] + [(name, changed)] + fields[at + 1 :]
        case 7:
            rest = fields[:at] + fields[at + 1 :]
            return [*rest[:place], (name, value), *rest[place:]]


def mutant(random, authority, target, canary):
    """A mutant of one request."""
    made = request(random, authority, target, canary)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        match random.randrange(10):
            case 0:
                made.body = made.body[: random.randrange(len(made.body) + 1)]
            case 1:
                made.body += random.choice([b"x", b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % canary])
            case 2:
                made.ended = False
            case 3:
                made.trailers = _change(random, made.trailers, canary)
            case _:
                made.fields = _change(random, made.fields, canary)
    return made
