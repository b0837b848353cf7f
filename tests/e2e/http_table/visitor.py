"""One visitor for the tables, over any version. Over HTTP/2 and HTTP/3 it keeps its connection as long as it can."""

from harness import raw
from harness.http2 import Http2
from harness.http3 import Http3
from harness.outcome import Outcome, ask_http1

DEADLINE = 5


class Visitor:
    def __init__(self, daemon, name, version):
        self.daemon, self.name, self.version = daemon, name, version
        self.connection = None

    def leave(self):
        if self.connection:
            self.connection.__exit__()
        self.connection = None

    def ask(self, path, method="GET", fields=(), body=b""):
        """Sends one request. A status of 0 says that no head came."""
        if self.version == "h1":
            return ask_http1(self.daemon, self.name, path, method, fields, body)
        fresh = self.connection is None
        if fresh:
            self.connection = (Http2 if self.version == "h2" else Http3)(self.daemon, self.name)
            if self.version == "h2":
                self.connection.socket.settimeout(DEADLINE)
        try:
            stream = self._send(path, method, fields, body)
            self._wait(stream)
        except (OSError, EOFError, AssertionError):
            self.leave()
            if fresh:
                return Outcome(0, [], b"", False)
            raise
        if not stream.headers:
            return Outcome(0, [], b"", False)
        trailers = list((stream.trailers or {}).items())
        status = int(stream.headers[b":status"])
        return Outcome(status, list(stream.headers.items()), bytes(stream.data), stream.reset is None, trailers)

    def _send(self, path, method, fields, body):
        # Any length is right where the response has no body: the library need not count it.
        more = {"without_body": True} if self.version == "h3" else {}
        stream = self.connection.request(path, method=method, end=not body, extra=fields, **more)
        if self.version == "h2":
            self.connection.connection.streams[stream.id]._track_content_length = lambda *_: None
        if body:
            stream.send(body, end=True)
        return stream

    def _wait(self, stream):
        def over():
            return stream.ended or stream.reset is not None

        if self.version == "h2":
            stream.wait(over)
        else:
            stream.wait(over, "the end", DEADLINE)
            assert over(), f"the connection ended: {stream.visitor.closed}"
