"""What a visitor gets for one request over HTTP/1.1, HTTP/2 or HTTP/3."""

import ssl
from dataclasses import dataclass

import h2.exceptions

from . import strict_response
from .http2 import Http2
from .http3 import Http3
from .strict_request import Refused, Short

DEADLINE = 10


@dataclass
class Outcome:
    # None without a response.
    status: int | None
    body: bytes
    whole: bool
    # What no server may send, or that nothing ends.
    wrong: str | None = None


class Http1Visitor:
    def __init__(self, daemon, name):
        self._daemon, self._name = daemon, name
        self._tls = daemon.tls("http/1.1")
        self._host = f"{daemon.host(name)}:{daemon.port}".encode()
        self._connection = None

    def fetch(self, method, target):
        fresh = self._connection is None
        if fresh:
            host = self._daemon.host(self._name)
            # A connection that breaks off must not look as if it had ended in order.
            self._connection = self._tls.wrap_socket(
                self._daemon.connect(DEADLINE), server_hostname=host, suppress_ragged_eofs=False
            )
        data, closed, wrong, response = b"", False, None, None
        try:
            self._connection.sendall(b"%s %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (method, target, self._host))
            while not closed:
                more = self._connection.recv(65536)
                data, closed = data + more, not more
                try:
                    response = strict_response.read(data, 0, method, closed)
                    break
                except Short:
                    pass
        except TimeoutError:
            wrong = "the response does not end"
        except Refused as why:
            wrong = str(why)
        except (ssl.SSLError, OSError):
            closed = True
        if not data and closed and not fresh:
            self.leave()
            return self.fetch(method, target)
        if response and response.end < len(data):
            wrong = f"bytes behind the response: {data!r}"
        if not response or closed or response.value(b"connection") == b"close":
            self.leave()
        if response:
            return Outcome(response.status, response.body, True, wrong)
        return Outcome(None, data, False, wrong)

    def leave(self):
        if self._connection:
            self._connection.close()
        self._connection = None


class Http2Visitor:
    def __init__(self, daemon, name):
        self._daemon, self._name, self._visitor = daemon, name, None

    def fetch(self, method, target):
        wrong, stream = None, None
        try:
            if self._visitor is None:
                self._visitor = Http2(self._daemon, self._name)
                self._visitor.socket.settimeout(DEADLINE)
            stream = self._visitor.request(target, method)
            stream.wait(lambda: stream.ended or stream.reset is not None)
        except TimeoutError:
            wrong = "the response does not end"
        except h2.exceptions.ProtocolError as why:
            wrong = repr(why)
        except (EOFError, OSError) as why:
            wrong = f"the connection broke: {why!r}"
        if wrong or self._visitor.last_stream is not None:
            self.leave()
        if not stream or not stream.headers:
            return Outcome(None, b"", False, wrong)
        return Outcome(int(stream.headers[b":status"]), stream.data, stream.ended and stream.reset is None, wrong)

    def leave(self):
        if self._visitor:
            self._visitor.socket.close()
        self._visitor = None


class UncheckedHttp3(Http3):
    """Leaves lengths to the visitor, since the library knows no 304 with a length (RFC 9110, section 15.4.5)."""

    def _observe(self, h3):
        h3._check_content_length = lambda stream: None
        return h3


class Http3Visitor:
    def __init__(self, daemon, name):
        self._daemon, self._name, self._visitor = daemon, name, None

    def fetch(self, method, target):
        wrong = None
        self._visitor = self._visitor or UncheckedHttp3(self._daemon, self._name)
        stream = self._visitor.request(target, method)
        try:
            stream.wait(lambda: stream.ended or stream.reset is not None, "the end", DEADLINE)
        except AssertionError:
            wrong = "the response does not end"
        if self._visitor.closed:
            wrong = f"the connection broke: {self._visitor.closed}"
        if wrong:
            self.leave()
        if not stream.headers:
            return Outcome(None, b"", False, wrong)
        status, length = int(stream.headers[b":status"]), stream.headers.get(b"content-length")
        whole = stream.ended and stream.reset is None
        if whole and length and method != b"HEAD" and status != 304 and int(length) != len(stream.data):
            wrong = wrong or f"{len(stream.data)} bytes, but the length is {length}"
        return Outcome(status, bytes(stream.data), whole, wrong)

    def leave(self):
        if self._visitor:
            self._visitor.leave()
        self._visitor = None
