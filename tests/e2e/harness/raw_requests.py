"""Visitors over HTTP/2 and HTTP/3 that send any list of fields as it is."""

import hpack
from hyperframe.frame import (
    DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame,
)

from . import http3, raw
from .outcomes import DEADLINE, Outcome, UncheckedHttp3

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _literal(name, value):
    """A field without an index (RFC 7541, section 6.2.2)."""

    def text(data):
        if len(data) < 127:
            return bytes([len(data)]) + data
        rest = len(data) - 127
        length = b"\x7f"
        while rest >= 128:
            length, rest = length + bytes([rest % 128 + 128]), rest // 128
        return length + bytes([rest]) + data

    return b"\0" + text(name) + text(value)


class RawHttp2:
    def __init__(self, daemon, name):
        self._daemon, self._name, self._socket = daemon, name, None

    def _connect(self):
        self._socket = raw.connect(self._daemon, self._name, "h2", DEADLINE)
        self._buffer, self._next, self._decoder = b"", 1, hpack.Decoder()
        window = WindowUpdateFrame(0, window_increment=1 << 30)
        self._socket.sendall(PREFACE + SettingsFrame(0).serialize() + window.serialize())

    def send(self, request):
        """Sends a request and returns what comes of it."""
        if not self._socket:
            self._connect()
        stream, self._next = self._next, self._next + 2
        parts = [HeadersFrame(stream, b"".join(_literal(*field) for field in request.fields), flags=["END_HEADERS"])]
        if request.body:
            parts.append(DataFrame(stream, request.body))
        if request.trailers:
            block = b"".join(_literal(*field) for field in request.trailers)
            parts.append(HeadersFrame(stream, block, flags=["END_HEADERS"]))
        if not request.ended:
            parts.append(RstStreamFrame(stream, error_code=8))
        elif isinstance(parts[-1], DataFrame):
            parts.append(DataFrame(stream, b"", flags=["END_STREAM"]))
        else:
            parts[-1].flags.add("END_STREAM")
        outcome = Outcome(None, b"", False)
        try:
            self._socket.sendall(b"".join(part.serialize() for part in parts))
            if request.ended:
                self._receive(stream, outcome)
        except TimeoutError:
            outcome.wrong = "no end"
            self.leave()
        except (EOFError, OSError):
            self.leave()
        return outcome

    def _receive(self, stream, outcome):
        while True:
            frame = self._frame()
            match frame:
                case SettingsFrame() if "ACK" not in frame.flags:
                    self._socket.sendall(SettingsFrame(0, flags=["ACK"]).serialize())
                case PingFrame() if "ACK" not in frame.flags:
                    self._socket.sendall(PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize())
                case GoAwayFrame():
                    raise EOFError
                case HeadersFrame():
                    fields = dict(self._decoder.decode(frame.data, raw=True))
                    if frame.stream_id == stream:
                        outcome.status = outcome.status or int(fields.get(b":status", b"0"))
                case DataFrame() if frame.stream_id == stream:
                    outcome.body += frame.data
            if frame.stream_id == stream and isinstance(frame, RstStreamFrame):
                # A reset without an error may follow the end (RFC 9113, section 8.1).
                return
            if frame.stream_id == stream and "END_STREAM" in frame.flags:
                outcome.whole = True
                return

    def _frame(self):
        header = self._take(9)
        frame, length = Frame.parse_frame_header(memoryview(header))
        frame.parse_body(memoryview(self._take(length)))
        return frame

    def _take(self, length):
        while len(self._buffer) < length:
            more = self._socket.recv(65536)
            if not more:
                raise EOFError
            self._buffer += more
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken

    def leave(self):
        if self._socket:
            self._socket.close()
        self._socket = None


class RawHttp3:
    def __init__(self, daemon, name):
        self._daemon, self._name, self._visitor = daemon, name, None

    def send(self, request):
        """Sends a request and returns what comes of it."""
        self._visitor = self._visitor or UncheckedHttp3(self._daemon, self._name)
        data = http3.frame(1, http3.section(*request.fields))
        if request.body:
            data += http3.frame(0, request.body)
        if request.trailers:
            data += http3.frame(1, http3.section(*request.trailers))
        stream, wrong = self._visitor.raw(data, end=request.ended), None
        try:
            if request.ended:
                stream.wait(lambda: stream.ended or stream.reset is not None, "the end", DEADLINE)
            else:
                stream.cancel()
        except AssertionError:
            wrong = "no end"
        if self._visitor.closed or wrong:
            self.leave()
        status = int(stream.headers[b":status"]) if stream.headers else None
        return Outcome(status, bytes(stream.data), stream.ended and stream.reset is None, wrong)

    def leave(self):
        if self._visitor:
            self._visitor.leave()
        self._visitor = None
