"""A client that breaks the protocol gets a typed Error and its session ends. Other sessions do not notice."""

import contextlib
import json
import random
import struct

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from harness.cok import KEY, Daemon
from harness.http2 import Http2
from harness.websocket import WebSocket

CONNECT, ACK, DRAIN, BIND, BOUND, REFUSED, UNBIND = 1, 2, 3, 4, 5, 6, 7
REQUEST, RESPONSE, DATA, TRAILERS, RESET, WINDOW = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15
PING, PONG, ERROR = 0xF0, 0xF1, 0xFF
END = 1


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """A daemon without reconnect grace, so that visitors of an ended session get a response at once."""
    daemon = Daemon(tmp_path_factory.mktemp("cokd"), limits='reconnect_grace = "0s"')
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def site(daemon, nginx):
    """A well-behaved tunnel, next to the others."""
    client = daemon.client(nginx.target, "site")
    yield client
    client.stop()


def frame(kind, payload=b"", flags=0, version=1):
    return struct.pack(">BBBI", version, kind, flags, len(payload)) + payload


def connect_frame(**fields):
    ask = {"key": KEY, "subdomain": "breaker", "instance": "abuser", **fields}
    return frame(CONNECT, json.dumps({name: value for name, value in ask.items() if value is not None}).encode())


def tunnel_frame(frame_type, tunnel, **members):
    return frame(frame_type, struct.pack(">I", tunnel) + json.dumps(members).encode())


def bind(tunnel, **members):
    return tunnel_frame(BIND, tunnel, **members)


def unbind(tunnel):
    return tunnel_frame(UNBIND, tunnel, reason="closed")


def dial(daemon, subprotocol="cok.v1"):
    return WebSocket(daemon, "", "/_cok/tunnel", subprotocols=[subprotocol])


def frames(socket_):
    """Yields all frames that arrive."""
    while True:
        message = socket_.recv()
        while message:
            version, kind, flags, length = struct.unpack_from(">BBBI", message)
            assert version == 1
            yield kind, flags, message[7 : 7 + length]
            message = message[7 + length :]


def expect(stream, wanted):
    for kind, flags, payload in stream:
        if kind == wanted:
            return payload
    raise AssertionError("the stream ended")


@contextlib.contextmanager
def established(daemon, **fields):
    with dial(daemon) as socket_:
        socket_.send(connect_frame(**fields))
        stream = frames(socket_)
        yield socket_, stream, json.loads(expect(stream, ACK))


def response(number, status=200, fields=(), flags=0, reason=b""):
    """Encodes HTTPResponse for an exchange."""
    head = b"".join(
        struct.pack(">H", len(name)) + name + struct.pack(">H", len(value)) + value for name, value in fields
    )
    begin = number + struct.pack(">HIB", status, 0, len(reason)) + reason
    return frame(RESPONSE, begin + struct.pack(">H", len(fields)) + head, flags)


@contextlib.contextmanager
def visited(daemon):
    """A session with a visitor that waits for a response. Yields the session and the exchange's id."""
    with established(daemon) as (socket_, stream, _ack), Http2(daemon, "breaker") as visitor:
        request = visitor.request("/")
        yield socket_, stream, expect(stream, REQUEST)[:4], request


def error_of(socket_, stream):
    """Waits for the Error frame and the close of the connection. Returns the error."""
    error = json.loads(expect(stream, ERROR))
    with pytest.raises(ConnectionClosed):
        while True:
            socket_.recv()
    return error


BEFORE = [
    ("version", frame(PING, bytes(8), version=2), "version"),
    ("data first", frame(DATA, struct.pack(">I", 1) + b"x"), "protocol"),
    ("unknown type first", frame(0x90, b"hint"), "protocol"),
    ("unknown type", frame(0x7F), "protocol"),
    ("too long", struct.pack(">BBBI", 1, CONNECT, 0, 1 << 20), "too_large"),
    ("4 GiB", struct.pack(">BBBI", 1, CONNECT, 0, 0xFFFFFFFF), "too_large"),
    ("ack first", frame(ACK, b"{}"), "protocol"),
    ("request first", frame(REQUEST, bytes(16)), "protocol"),
    ("connect twice at once", None, "protocol"),
    ("cut off", frame(CONNECT, b"{}")[:-1], "protocol"),
    ("not JSON", frame(CONNECT, b"{"), "protocol"),
    ("no key", frame(CONNECT, b'{"instance": "x"}'), "protocol"),
    ("bind first", bind(1), "protocol"),
    ("bind before the answer", connect_frame() + bind(1), "protocol"),
    ("an array", frame(CONNECT, json.dumps([KEY, True, "breaker", "abuser"]).encode()), "protocol"),
    ("wrong key", connect_frame(key="cok_wrong"), "unauthorized"),
    ("wrong name", connect_frame(subdomain="a_b"), "name_forbidden"),
    ("no instance", connect_frame(instance=""), "protocol"),
]


@pytest.mark.parametrize(("message", "code"), [row[1:] for row in BEFORE], ids=[row[0] for row in BEFORE])
def test_violations_before_the_session(site, daemon, message, code):
    with dial(daemon) as socket_:
        socket_.send(message or connect_frame() * 2)
        stream = frames(socket_)
        error = error_of(socket_, stream)
    assert error["code"] == code and error["message"] and error["retryable"] is False
    assert site.curl("/").stdout == b"<h1>hello</h1>\n"


AFTER = [
    ("connect twice", connect_frame(), "protocol"),
    ("never opened", frame(DATA, struct.pack(">I", 77) + b"x"), "protocol"),
    ("exchange zero", frame(RESET, struct.pack(">II", 0, 1)), "protocol"),
    ("wrong side", frame(REQUEST, bytes(16)), "protocol"),
    ("short reset", frame(RESET, b"1234"), "protocol"),
    ("long data", struct.pack(">BBBI", 1, DATA, 0, 16 * 1024) + bytes(16 * 1024), "too_large"),
    ("long head", struct.pack(">BBBI", 1, RESPONSE, 0, 65 * 1024), "too_large"),
    *[(f"reserved {kind:#x}", frame(kind, bytes([0, 0, 0, 1])), "protocol") for kind in (0x16, 0x17, 0x20, 0x21)],
    ("bind 0", bind(0), "protocol"),
    ("bind twice", bind(1) * 2, "protocol"),
    ("bind falls", bind(5) + bind(4), "protocol"),
    ("33 binds at once", b"".join(bind(number) for number in range(1, 34)), "limit_reached"),
    ("33 withdrawn binds", b"".join(bind(number) + unbind(number) for number in range(1, 34)), "limit_reached"),
    ("bind without an object", frame(BIND, bytes([0, 0, 0, 1]) + b"[]"), "protocol"),
    ("bind without an id", frame(BIND, b"{}"), "protocol"),
    ("long bind", bind(1, subdomain="x" * 17_000), "too_large"),
    ("bound", tunnel_frame(BOUND, 1, subdomain="a", url="u"), "protocol"),
    ("refused", tunnel_frame(REFUSED, 1, code="internal", message="", retryable=True), "protocol"),
    ("unbind of none", unbind(1), "protocol"),
    ("skipped without end", frame(0x90, bytes(100_000)) * 1, None),
]


@pytest.mark.parametrize(("message", "code"), [row[1:] for row in AFTER], ids=[row[0] for row in AFTER])
def test_violations_in_the_session(site, daemon, message, code):
    with established(daemon) as (socket_, stream, ack):
        assert ack["subdomain"] == "breaker" and ack["url"] == f"https://breaker.tunnel.test:{daemon.port}"
        # The daemon ignores skippable frames, but only a limited number.
        for _ in range(1 if code else 11):
            socket_.send(message)
        error = error_of(socket_, stream)
    assert error["code"] == (code or "protocol")
    assert site.curl("/").stdout == b"<h1>hello</h1>\n"


@pytest.mark.parametrize("withdrawn", [False, True], ids=["refused", "withdrawn"])
def test_a_flood_of_binds(site, daemon, withdrawn):
    """A client that reads no answers: the session ends, or its Binds wait, and the daemon has not grown."""
    before = daemon.process.memory()[0]
    with established(daemon) as (socket_, _stream, _ack):
        with contextlib.suppress(ConnectionClosed):
            for first in range(1, 100_000, 16):
                numbers = range(first, first + 16)
                unbinds = [unbind(number) for number in numbers if withdrawn]
                socket_.send(b"".join([bind(number, kind="none") for number in numbers] + unbinds))
        assert daemon.process.memory()[0] - before < 8 << 20
    assert site.curl("/").stdout == b"<h1>hello</h1>\n"


def test_more_data_than_credit(daemon):
    """A client that floods a visitor's exchange beyond its window."""
    with visited(daemon) as (socket_, stream, number, _request):
        # The visitor does not read, so the daemon returns no credit.
        chunk = frame(DATA, number + bytes(16_000))
        with contextlib.suppress(ConnectionClosed):
            socket_.send(response(number))
            for _ in range(512):
                socket_.send(chunk * 8)
        assert error_of(socket_, stream)["code"] == "flow_control"


@pytest.mark.parametrize("increments", [[0], [0x7FFFFFFF, 0x7FFFFFFF]], ids=["zero", "overflow"])
def test_invalid_credit(daemon, increments):
    """A zero increment or an overflow costs the exchange, not the session."""
    with visited(daemon) as (socket_, stream, number, request):
        for increment in increments:
            socket_.send(frame(WINDOW, number + struct.pack(">I", increment)))
        assert expect(stream, RESET)[:4] == number
        assert request.response()[b":status"] == b"502"
        another = request.visitor.request("/")
        number = expect(stream, REQUEST)[:4]
        socket_.send(response(number, flags=END))
        assert another.response()[b":status"] == b"200"


BAD_HEADS = [
    ("status 42", 42, []),
    ("status 1000", 1000, []),
    ("a line end in a value", 200, [(b"x", b"1\r\nset-cookie: evil=1")]),
    ("a line end in a name", 200, [(b"x: 1\r\nset-cookie", b"evil=1")]),
    ("an empty name", 200, [(b"", b"1")]),
    ("a zero byte", 200, [(b"x", b"\0")]),
]


@pytest.mark.parametrize(("status", "fields"), [row[1:] for row in BAD_HEADS], ids=[row[0] for row in BAD_HEADS])
def test_invalid_heads(daemon, status, fields):
    """No part of the head reaches the visitor."""
    with visited(daemon) as (socket_, stream, number, request):
        socket_.send(response(number, status, fields, END))
        assert error_of(socket_, stream)["code"] == "protocol"
        headers = request.response()
        assert headers[b":status"] in (b"502", b"503") and b"set-cookie" not in headers and b"x" not in headers


AFTER_THE_END = [
    ("data before the head", lambda number: [frame(DATA, number + b"x")]),
    ("two heads", lambda number: [response(number), response(number)]),
    ("trailers before the head", lambda number: [frame(TRAILERS, number + bytes(2))]),
    ("interim head that ends", lambda number: [response(number, 103, flags=END)]),
    ("interim heads without end", lambda number: [response(number, 103)] * 100),
    ("a field count that lies", lambda number: [frame(RESPONSE, number + struct.pack(">HIBH", 200, 0, 0, 1000))]),
    ("bytes behind the head", lambda number: [frame(RESPONSE, number + struct.pack(">HIBH", 200, 0, 0, 0) + b"more")]),
    ("a line end in the reason", lambda number: [response(number, reason=b"OK\r\nset-cookie: evil=1")]),
    ("a reason that lies", lambda number: [frame(RESPONSE, number + struct.pack(">HIBH", 200, 0, 200, 0))]),
    ("a switch to no upgrade", lambda number: [response(number, 101)]),
]


@pytest.mark.parametrize("messages", [row[1] for row in AFTER_THE_END], ids=[row[0] for row in AFTER_THE_END])
def test_frames_out_of_order(daemon, messages):
    with visited(daemon) as (socket_, stream, number, request):
        # The connection may end before the last message is sent.
        with contextlib.suppress(ConnectionClosed):
            for message in messages(number):
                socket_.send(message)
        assert error_of(socket_, stream)["code"] == "protocol"
        # The exchange fails, whether or not its head was sent.
        request.wait(lambda: request.headers or request.reset is not None)
        assert request.reset is not None or request.headers[b":status"] != b"200" or not request.ended


def test_frames_for_a_closed_exchange_are_ignored(daemon):
    """They crossed the exchange's end on the wire."""
    with visited(daemon) as (socket_, stream, number, request):
        socket_.send(response(number, flags=END))
        assert request.response()[b":status"] == b"200"
        for message in (frame(DATA, number + b"late"), frame(RESET, number + bytes(4)), response(number)):
            socket_.send(message)
        socket_.send(frame(PING, b"12345678"))
        assert expect(stream, PONG) == b"12345678"


def test_a_message_is_answered_once_however_many_pings(daemon):
    with established(daemon) as (socket_, stream, _ack):
        socket_.send(b"".join(frame(PING, struct.pack(">Q", number)) for number in range(1000)))
        assert expect(stream, PONG) == struct.pack(">Q", 999)


@pytest.mark.parametrize("message", ["a text", bytes(200_000)], ids=["text", "200 kB"])
def test_invalid_messages(daemon, message):
    """A text message or an oversized message ends the connection, without an Error where none is possible."""
    with established(daemon) as (socket_, _stream, _ack):
        with pytest.raises(ConnectionClosed):
            socket_.send(message)
            while True:
                socket_.recv()
    assert daemon.curl("", "/health").stdout == b"ok\n"


def test_noise(site, daemon):
    """The daemon gets random bytes and corrupted frames, before and in sessions. It serves on, and its memory does not grow."""
    chance = random.Random(20261123)
    types = [CONNECT, DRAIN, BIND, UNBIND, RESPONSE, DATA, RESET, WINDOW, ERROR, 0x90]
    before = daemon.process.memory()[0]
    for turn in range(200):
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            socket_ = enter(established(daemon))[0] if turn % 2 else enter(dial(daemon))
            message = bytearray(
                frame(chance.choice(types), chance.randbytes(40))
                if turn % 3 else chance.randbytes(chance.randrange(1, 500))
            )
            if turn % 5 == 0:
                message[chance.randrange(len(message))] ^= 1 << chance.randrange(8)
            with contextlib.suppress(ConnectionClosed):
                socket_.send(bytes(message))
    assert site.curl("/").stdout == b"<h1>hello</h1>\n"
    assert daemon.process.memory()[0] - before < 8 << 20


def test_invalid_tunnel_handshakes(daemon):
    with pytest.raises(InvalidStatus) as refused:
        dial(daemon, subprotocol="other")
    assert refused.value.response.status_code == 426
    assert daemon.curl("", "/_cok/tunnel", "--write-out", "%{http_code}").stdout.endswith(b"426")
