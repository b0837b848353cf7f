"""One visitor for the tables, over any version. Over HTTP/2 and HTTP/3 it keeps its connection as long as it can."""

import h2.exceptions
from harness import raw
from harness.http2 import Http2
from harness.http3 import Http3
from harness.outcome import Outcome, parse

DEADLINE = 5


class Visitor:
    def __init__(self, daemon, name, version):
        self.daemon, self.name, self.version = daemon, name, version
        self.connection = None

    def leave(self):
        if self.connection:
            self.connection.__exit__()
        self.connection = None

    def ask(self, path, method="GET", fields=(), body=b"", chunked=False):
        """Sends one request. `chunked` says that it names no length. A status of 0 says that no head came."""
        if self.version == "h1":
            with raw.connect(self.daemon, self.name, deadline=DEADLINE) as connection:
                return ask_plainly(connection, self.daemon.host(self.name), path, method, fields, body, chunked)
        if body and not chunked:
            fields = [*fields, (b"content-length", b"%d" % len(body))]
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
        return Outcome(status, stream.pairs, bytes(stream.data), stream.ended, trailers)

    def _send(self, path, method, fields, body):
        # Any length is right where the response has no body: the library need not count it.
        more = {"without_body": True} if self.version == "h3" else {}
        stream = self.connection.request(path, method=method, end=not body, extra=fields, **more)
        keep_pairs(stream)
        if self.version == "h2":
            self.connection.connection.streams[stream.id]._track_content_length = lambda *_: None
        if body and self.version == "h3":
            stream.send(body, end=True)
        elif body:
            self._upload(stream, body)
        return stream

    def _upload(self, stream, body):
        """Sends a body until the daemon has answered. An early answer stops it."""
        connection = self.connection.connection
        while body and not stream.ended and stream.reset is None:
            try:
                room = min(connection.local_flow_control_window(stream.id), connection.max_outbound_frame_size)
                if room:
                    connection.send_data(stream.id, body[:room], end_stream=len(body) <= room)
                    body = body[room:]
                    self.connection.flush()
                    continue
            except h2.exceptions.StreamClosedError:
                return
            self.connection.receive()

    def _wait(self, stream):
        def over():
            return stream.ended or stream.reset is not None

        if self.version == "h2":
            stream.wait(over)
        else:
            stream.wait(over, "the end", DEADLINE)
            assert over(), f"the connection ended: {stream.visitor.closed}"


def keep_pairs(stream):
    """Keeps the final head's fields as pairs, since some come twice."""
    handle, stream.pairs = stream.handle, []

    def keep(event):
        handle(event)
        if stream.headers and not stream.pairs:
            stream.pairs = list(event.headers)

    stream.handle = keep


def ask_plainly(connection, host, path, method="GET", fields=(), body=b"", chunked=False):
    """Sends one request over an HTTP/1.1 connection, which then closes."""
    lines = [b"%s %s HTTP/1.1" % (method.encode(), path.encode()), b"host: " + host.encode(), b"connection: close"]
    lines += [name + b": " + value for name, value in fields]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
        pieces = [body[at : at + 5000] for at in range(0, len(body), 5000)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    elif body:
        lines.append(b"content-length: %d" % len(body))
    received = bytearray()
    try:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    except OSError:
        pass  # An early answer may have come.
    try:
        while data := connection.recv(65536):
            received += data
    except OSError:
        pass
    return parse(bytes(received), method)
