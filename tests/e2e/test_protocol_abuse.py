"""A client that breaks the protocol gets a typed Error, its session ends, and nobody else notices."""

import json
import struct
import threading

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from harness.cok import KEY
from harness.websocket import WebSocket

CONNECT, ACK, DRAIN, REQUEST, RESPONSE, DATA, TRAILERS, RESET, WINDOW = 1, 2, 3, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15
PING, PONG, ERROR = 0xF0, 0xF1, 0xFF


def frame(kind, payload=b"", flags=0, version=1):
    return struct.pack(">BBBI", version, kind, flags, len(payload)) + payload


def connect_frame(**fields):
    ask = {"key": KEY, "subdomain": "abuse", "instance": "abuser", **fields}
    return frame(CONNECT, json.dumps({name: value for name, value in ask.items() if value is not None}).encode())


def dial(daemon, subprotocol="cok.v1"):
    return WebSocket(daemon, "", "/_cok/tunnel", subprotocols=[subprotocol])


def frames(socket_):
    """All frames that come, one by one."""
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


def established(daemon, **fields):
    socket_ = dial(daemon)
    socket_.send(connect_frame(**fields))
    stream = frames(socket_)
    return socket_, stream, json.loads(expect(stream, ACK))


def error_of(socket_, stream):
    """The Error frame, after which the connection is closed."""
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
    ("cut off", frame(CONNECT, b"{}")[:-1], "protocol"),
    ("not JSON", frame(CONNECT, b"{"), "protocol"),
    ("no key", frame(CONNECT, b'{"instance": "x"}'), "protocol"),
    ("wrong key", connect_frame(key="cok_wrong"), "unauthorized"),
    ("wrong name", connect_frame(subdomain="a_b"), "name_forbidden"),
    ("no instance", connect_frame(instance=""), "protocol"),
]


@pytest.mark.parametrize(("message", "code"), [row[1:] for row in BEFORE], ids=[row[0] for row in BEFORE])
def test_before_the_session(site, daemon, message, code):
    with dial(daemon) as socket_:
        socket_.send(message)
        error = error_of(socket_, frames(socket_))
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
    ("stream", frame(0x20, struct.pack(">I", 1) + b"{}"), "protocol"),
    ("skipped without end", frame(0x90, bytes(100_000)) * 1, None),
]


@pytest.mark.parametrize(("message", "code"), [row[1:] for row in AFTER], ids=[row[0] for row in AFTER])
def test_in_the_session(site, daemon, message, code):
    socket_, stream, ack = established(daemon)
    assert ack["subdomain"] == "abuse" and ack["url"] == f"https://abuse.tunnel.test:{daemon.port}"
    with socket_:
        # Skippable frames are skipped, but not without end.
        for _ in range(1 if code else 11):
            socket_.send(message)
        error = error_of(socket_, stream)
    assert error["code"] == (code or "protocol")
    assert site.curl("/").stdout == b"<h1>hello</h1>\n"


def test_more_data_than_credit(daemon):
    """A client that floods a visitor's exchange beyond its window."""
    socket_, stream, ack = established(daemon)
    with socket_:
        threading.Thread(target=daemon.curl, args=("abuse", "/"), kwargs={"check": False}, daemon=True).start()
        number = expect(stream, REQUEST)[:4]
        socket_.send(frame(RESPONSE, number + struct.pack(">HH", 200, 0)))
        # The visitor reads, so credit comes back; sent without a pause it is overrun all the same.
        chunk = frame(DATA, number + bytes(16_000))
        try:
            for _ in range(4096):
                socket_.send(chunk * 8)
        except ConnectionClosed:
            pass
        assert error_of(socket_, stream)["code"] == "flow_control"


def test_a_message_is_answered_once_however_many_pings(daemon):
    socket_, stream, _ack = established(daemon)
    with socket_:
        socket_.send(b"".join(frame(PING, struct.pack(">Q", number)) for number in range(1000)))
        assert expect(stream, PONG) == struct.pack(">Q", 999)


def test_what_is_no_tunnel(daemon):
    with pytest.raises(InvalidStatus) as refused:
        dial(daemon, subprotocol="other")
    assert refused.value.response.status_code == 426
    assert daemon.curl("", "/_cok/tunnel", "--write-out", "%{http_code}").stdout.endswith(b"426")
