"""One request over any version of HTTP, and whether its response arrived whole."""

import contextlib
from dataclasses import dataclass, field

from . import raw
from .http2 import Http2
from .http3 import Http3

VERSIONS = ["h1", "h2", "h3"]


@dataclass
class Outcome:
    """What a visitor got. `whole` is false if the transfer broke off. `reason` is known over HTTP/1.1 only."""

    status: int
    fields: list
    body: bytes
    whole: bool
    trailers: list = field(default_factory=list)
    reason: bytes = b""

    def values(self, name):
        return [value for key, value in self.fields if key == name]


def ask(daemon, name, version, path="/", method="GET", fields=(), body=b"", bodiless=False):
    """Sends one request over a connection of its own. `fields` are pairs of bytes. A `bodiless` response may have a length
    nevertheless."""
    if version == "h1":
        return ask_http1(daemon, name, path, method, fields, body)
    with (Http2 if version == "h2" else Http3)(daemon, name) as visitor:
        more = {"without_body": True} if bodiless and version == "h3" else {}
        stream = visitor.request(path, method=method, end=not body, extra=fields, **more)
        if body:
            stream.send(body, end=True)
        wait = (lambda condition: stream.wait(condition, "the end")) if version == "h3" else stream.wait
        wait(lambda: stream.ended or stream.reset is not None)
        if not stream.headers:
            return Outcome(0, [], b"", False)
        status = int(stream.headers[b":status"])
        trailers = list((stream.trailers or {}).items())
        return Outcome(status, list(stream.headers.items()), bytes(stream.data), stream.reset is None, trailers)


def ask_http1(daemon, name, path, method, fields, body):
    request = [b"%s %s HTTP/1.1" % (method.encode(), path.encode()), b"host: " + daemon.host(name).encode()]
    request += [b"connection: close"] + [key + b": " + value for key, value in fields]
    request += [b"content-length: %d" % len(body)] * bool(body)
    with raw.connect(daemon, name) as connection:
        # A response may come, and the connection end, before all of the body is sent.
        with contextlib.suppress(OSError):
            connection.sendall(b"\r\n".join(request) + b"\r\n\r\n" + body)
        received = bytearray()
        try:
            while data := connection.recv(65536):
                received += data
        except OSError:
            pass
    return parse(bytes(received), method)


def parse(received, method):
    """Reads a response to the connection's last request. Interim heads are skipped."""
    head, found, rest = received.partition(b"\r\n\r\n")
    if not found:
        return Outcome(0, [], b"", False)
    _, status, reason = (head.split(b"\r\n")[0] + b" ").split(b" ", 2)
    status, pairs = int(status), raw.fields(head)
    if 100 <= status < 200:
        return parse(rest, method)
    outcome = Outcome(status, pairs, rest, True, reason=reason.strip())
    known = dict(pairs)
    if method == "HEAD" or status in (204, 304):
        assert not rest, rest
    elif b"chunked" in known.get(b"transfer-encoding", b""):
        outcome.body, outcome.whole, outcome.trailers = read_chunks(rest)
    elif b"content-length" in known:
        assert len(rest) <= int(known[b"content-length"]), rest
        outcome.whole = len(rest) == int(known[b"content-length"])
    return outcome


def read_chunks(rest):
    """The body, whether its last chunk has come, and its trailers."""
    body = b""
    while True:
        size, found, rest = rest.partition(b"\r\n")
        if not found:
            return body, False, []
        if int(size, 16) == 0:
            return body, rest.endswith(b"\r\n"), raw.fields(b"\r\n" + rest)
        chunk = rest[: int(size, 16)]
        body += chunk
        if rest[len(chunk) :][:2] != b"\r\n":
            return body, False, []
        rest = rest[len(chunk) + 2 :]
