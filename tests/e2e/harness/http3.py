"""A visitor over HTTP/3 with aioquic. It can also send raw bytes on any stream."""

import contextlib
import socket
import threading
import time

from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    ProtocolNegotiated,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

DEADLINE = 20


def octets(value):
    return value if isinstance(value, bytes) else value.encode()


def varint(value):
    """Encodes a variable-length integer (RFC 9000, section 16)."""
    for bits, prefix in ((6, 0), (14, 1), (30, 2), (62, 3)):
        if value < 1 << bits:
            return (value | prefix << bits).to_bytes((bits + 2) // 8, "big")
    raise ValueError(value)


def read_varint(data):
    """Returns a variable-length integer and the bytes after it."""
    length = 1 << (data[0] >> 6)
    return int.from_bytes(data[:length], "big") & (1 << (8 * length - 2)) - 1, data[length:]


def frame(kind, payload=b"", length=None):
    """Encodes a frame (RFC 9114, section 7.1). `length` replaces the true length."""
    return varint(kind) + varint(len(payload) if length is None else length) + payload


def literal(name, value):
    """Encodes a field line with a literal name, without Huffman coding (RFC 9204, section 4.5.6)."""

    def integer(prefix, bits, number):
        most = (1 << bits) - 1
        if number < most:
            return bytes([prefix | number])
        out, number = bytes([prefix | most]), number - most
        while number >= 128:
            out, number = out + bytes([number % 128 + 128]), number // 128
        return out + bytes([number])

    return integer(0x20, 3, len(name)) + name + integer(0, 7, len(value)) + value


def section(*fields):
    """Encodes a field section of literals only, with any fields in any order."""
    return b"\0\0" + b"".join(literal(name, value) for name, value in fields)


class Http3:
    """One connection, driven by its own thread. Without `greedy` it grants each stream and the connection only the
    initial window. Without `settle` it sends no settings."""

    def __init__(self, daemon, name, greedy=True, settle=True, window=1 << 20, source="127.0.0.1"):
        host = daemon.host(name)
        self.authority = f"{host}:{daemon.port}"
        configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN, server_name=host, max_stream_data=window, max_data=max(window, 1 << 20)
        )
        configuration.load_verify_locations(cafile=str(daemon.ca))
        self.quic = QuicConnection(configuration=configuration)
        if not greedy:
            self.quic._write_stream_limits = lambda *_, **__: None
            self.quic._write_connection_limits = lambda *_, **__: None
        self.settle = settle
        self.h3 = None
        self.streams = {}
        self.closed = None
        self.heads, self._unidirectional = set(), {}
        self._changed = threading.Condition()  # its lock is reentrant
        self._peer = ("127.0.0.1", daemon.port)
        self._socket = self._bind(source)
        self._running = True
        with self._changed:
            self.quic.connect(self._peer, now=time.monotonic())
            self._flush()
        self._thread = threading.Thread(target=self._drive, daemon=True)
        self._thread.start()
        self.wait(lambda: self.quic._handshake_confirmed or self.closed, "the handshake ends")
        if self.closed:
            self.leave()
            raise ConnectionError(self.closed)
        if settle:
            self.wait(lambda: self.h3.received_settings, "the settings come")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.leave()

    def leave(self, code=ErrorCode.H3_NO_ERROR):
        """Closes the connection unless it is closed."""
        if self._running:
            with self._changed:
                self.quic.close(error_code=code)
                self._flush()
            self.vanish()

    def vanish(self):
        """Stops without closing the connection."""
        self._running = False
        self._thread.join(DEADLINE)
        self._socket.close()

    def move(self, source):
        """Continues from another address."""
        moved = self._bind(source)
        with self._changed:
            old, self._socket = self._socket, moved
            self.quic.change_connection_id()
            self.quic.send_ping(0)
            self._flush()
        old.close()

    def _bind(self, source):
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        bound.bind((source, 0))
        bound.connect(self._peer)
        return bound

    def _observe(self, h3):
        """Tells the library that some responses have no body."""
        check = h3._check_content_length
        h3._check_content_length = lambda stream: None if stream.stream_id in self.heads else check(stream)
        return h3

    @property
    def goaways(self):
        """Returns the ids of GOAWAY frames, which the library ignores."""
        with self._changed:
            control = bytes(self._unidirectional.get(3, b"\0"))
        # The daemon's first stream is the control stream; its first byte is its type.
        assert control[0] == 0
        ids, rest = [], control[1:]
        while rest:
            kind, rest = read_varint(rest)
            length, rest = read_varint(rest)
            payload, rest = rest[:length], rest[length:]
            if kind == 7:
                ids.append(read_varint(payload)[0])
        return ids

    def _drive(self):
        while self._running:
            timer = self.quic.get_timer()
            now = time.monotonic()
            # A short wait, since a request may set an earlier timer.
            # `move` may replace the socket during the wait.
            receiver = self._socket
            data = []
            try:
                receiver.settimeout(0.02 if timer is None else min(max(timer - now, 0.0005), 0.02))
                data.append(receiver.recv(65536))
                receiver.setblocking(False)
                while len(data) < 64:
                    data.append(receiver.recv(65536))
            except (TimeoutError, BlockingIOError):
                pass
            except OSError:
                # The daemon's port is closed.
                if not data:
                    time.sleep(0.001)
            with self._changed:
                now = time.monotonic()
                for datagram in data:
                    if self._is_reset(datagram):
                        self.closed = (None, "stateless reset")
                    self.quic.receive_datagram(datagram, self._peer, now=now)
                timer = self.quic.get_timer()
                if timer is not None and timer <= now:
                    self.quic.handle_timer(now=now)
                while (event := self.quic.next_event()) is not None:
                    self._handle(event)
                self._flush()
                self._changed.notify_all()

    def _is_reset(self, datagram):
        """Returns whether it is a stateless reset (RFC 9000, section 10.3.1), which the library does not detect."""
        ids = [self.quic._peer_cid, *self.quic._peer_cid_available]
        return any(known.stateless_reset_token and datagram.endswith(known.stateless_reset_token) for known in ids)

    def _flush(self):
        for data, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            try:
                self._socket.send(data)
            except OSError:
                pass  # like a lost packet

    def _handle(self, event):
        match event:
            case StreamDataReceived() if event.stream_id % 4 == 3:
                self._unidirectional.setdefault(event.stream_id, bytearray()).extend(event.data)
            case ProtocolNegotiated() if self.settle:
                self.h3 = self._observe(H3Connection(self.quic))
            case ConnectionTerminated():
                self.closed = (event.error_code, event.reason_phrase)
            case StreamReset() if event.stream_id in self.streams:
                self.streams[event.stream_id].reset = event.error_code
                return
            case StopSendingReceived() if event.stream_id in self.streams:
                self.streams[event.stream_id].stopped = event.error_code
                return
        for happened in self.h3.handle_event(event) if self.h3 else []:
            if stream := self.streams.get(getattr(happened, "stream_id", None)):
                stream.handle(happened)

    def wait(self, condition, what, deadline=DEADLINE):
        with self._changed:
            assert self._changed.wait_for(condition, deadline), f"not within {deadline} s: {what}; closed: {self.closed}"

    def do(self, action):
        """Calls `action` under the connection's lock, then sends pending packets."""
        with self._changed:
            result = action()
            self._flush()
            return result

    def wait_closed(self, deadline=DEADLINE):
        """Waits until the connection is closed. Returns the code."""
        self.wait(lambda: self.closed, "the connection is closed", deadline)
        return self.closed[0]

    def head(self, path, method="GET", authority=None):
        return [
            (b":method", octets(method)), (b":scheme", b"https"), (b":authority", octets(authority or self.authority)),
            (b":path", octets(path)),
        ]

    def request(self, path, method="GET", end=True, extra=(), authority=None, fields=None, without_body=False):
        fields = fields or [*self.head(path, method, authority), *((octets(n), octets(v)) for n, v in extra)]
        with self._changed:
            stream = self._stream(self.quic.get_next_available_stream_id())
            if without_body or (b":method", b"HEAD") in fields:
                self.heads.add(stream.id)
            self.h3.send_headers(stream.id, fields, end_stream=end)
            self._flush()
        return stream

    def raw(self, data, end=False):
        """Opens a request stream with these bytes."""
        with self._changed:
            stream = self._stream(self.quic.get_next_available_stream_id())
            self.quic.send_stream_data(stream.id, data, end)
            self._flush()
        return stream

    def upload(self, path, body, **more):
        """Sends a request and its body at once, so that the daemon can't stop the upload in between."""
        with self._changed:
            stream = self.request(path, method="POST", end=False, **more)
            stream.send(body)
        return stream

    def raw_unidirectional(self, data, end=False):
        """Opens a unidirectional stream with these bytes."""
        with self._changed:
            stream = self._stream(self.quic.get_next_available_stream_id(is_unidirectional=True))
            self.quic.send_stream_data(stream.id, data, end)
            self._flush()
        return stream

    def _stream(self, number):
        stream = self.streams[number] = Stream(self, number)
        return stream


class Stream:
    def __init__(self, visitor, number):
        self.visitor, self.id = visitor, number
        self.headers = self.trailers = self.reset = self.stopped = None
        self.interim, self.data, self.ended = [], bytearray(), False
        # Takes the body if it is not kept.
        self.sink = None

    def handle(self, event):
        match event:
            case HeadersReceived():
                fields = dict(event.headers)
                if fields.get(b":status", b"").startswith(b"1"):
                    self.interim.append(fields)
                elif self.headers is None:
                    self.headers = fields
                else:
                    self.trailers = fields
                self.ended = event.stream_ended
            case DataReceived():
                if self.sink:
                    self.sink(event.data)
                else:
                    self.data += event.data
                self.ended = event.stream_ended

    def wait(self, condition, what, deadline=DEADLINE):
        self.visitor.wait(lambda: condition() or self.visitor.closed, what, deadline)

    def response(self):
        self.wait(lambda: self.headers or self.reset is not None, "a response")
        assert self.headers, f"reset with {self.reset}, connection: {self.visitor.closed}"
        return self.headers

    def read(self, length=None, deadline=DEADLINE):
        """Reads exactly `length` bytes, or all up to the end."""
        if length is None:
            self.wait(lambda: self.ended or self.reset is not None, "the end", deadline)
            assert self.reset is None, f"reset with {self.reset}"
            assert self.ended, f"connection: {self.visitor.closed}"
            length = len(self.data)
        self.wait(lambda: len(self.data) >= length or self.ended or self.reset is not None, f"{length} bytes", deadline)
        assert len(self.data) >= length, f"{len(self.data)} of {length} bytes, reset: {self.reset}"
        data = bytes(self.data[:length])
        del self.data[:length]
        return data

    def wait_reset(self):
        """Waits until the response is reset. Returns the code."""
        self.visitor.wait(lambda: self.reset is not None, "the response is reset")
        return self.reset

    def wait_stopped(self):
        """Waits until the daemon stops the upload (STOP_SENDING). Returns the code."""
        self.visitor.wait(lambda: self.stopped is not None, "the request is stopped")
        return self.stopped

    def send(self, data, end=False):
        self._unless_stopped(lambda: self.visitor.h3.send_data(self.id, data, end))

    def send_raw(self, data, end=False):
        self._unless_stopped(lambda: self.visitor.quic.send_stream_data(self.id, data, end))

    def _unless_stopped(self, action):
        """Does nothing if the daemon stopped the upload: the library has reset the stream by itself."""
        self.visitor.do(lambda: self.stopped is None and action())

    def send_trailers(self, fields):
        self.visitor.do(lambda: self.visitor.h3.send_headers(self.id, fields, end_stream=True))

    def cancel(self, code=ErrorCode.H3_REQUEST_CANCELLED):
        """Stops the response, and resets an unfinished request."""
        self.stop(code)
        self.break_off(code)

    def stop(self, code=ErrorCode.H3_REQUEST_CANCELLED):
        """Stops the response."""
        self._unless_over(lambda: self.visitor.quic.stop_stream(self.id, code))

    def break_off(self, code=ErrorCode.H3_REQUEST_CANCELLED):
        """Resets the request."""
        self._unless_over(lambda: self.visitor.quic.reset_stream(self.id, code))

    def _unless_over(self, action):
        """Does nothing if both directions have ended: the library then forgets the stream, and refuses its number."""
        with contextlib.suppress(ValueError):
            self.visitor.do(action)

    def stalled(self):
        """Returns whether data is left to send and the daemon takes none for a while."""
        sender = self.visitor.quic._streams[self.id].sender
        before = sender._buffer_start
        time.sleep(0.3)  # a stream without progress for this time has stalled
        return 0 < before == sender._buffer_start < sender._buffer_stop
