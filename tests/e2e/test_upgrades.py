"""Connections that leave HTTP: which requests are upgrades, and what becomes of them."""

import socket
import ssl
import threading

import pytest

from harness import raw
from harness.process import wait_for

# What the owner allows besides WebSocket.
OPTIONS = ("--verbose", "--upgrade", "tcp", "--upgrade", "SPDY/3.1")
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
DECLINED = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\ndeclined"


class Switch(raw.Recorder):
    """A service that grants each upgrade, reads a body first, and then answers each byte in upper case."""

    def __init__(self):
        # What a 101 names instead of the protocol that was asked for.
        self.named = None
        self.granting = True
        self.bodies = []
        self.ended = threading.Event()
        super().__init__(self.take)

    def take(self, head, connection):
        fields = dict(raw.fields(head))
        self.bodies.append(raw.read_body(head, connection))
        if b"upgrade" not in fields or not self.granting:
            return DECLINED
        named = fields[b"upgrade"] if self.named is None else self.named
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + named + b"\r\n\r\n")
        while data := connection.recv(4096):
            connection.sendall(data.upper())
        self.ended.set()
        connection.sendall(b"after the end")
        return None


@pytest.fixture(scope="module")
def switch(daemon, transport):
    switch = Switch()
    switch.client = daemon.client(switch.target, "switch", options=OPTIONS, transport=transport)
    yield switch
    switch.client.stop()
    switch.stop()


@pytest.fixture(autouse=True)
def fresh(switch):
    switch.named, switch.granting = None, True
    switch.heads.clear()
    switch.bodies.clear()
    switch.ended.clear()


def ask(switch, upgrade, line=b"GET / HTTP/1.1", fields=b"", connection_=b"Upgrade", body=b""):
    connection = raw.connect(switch.client.daemon, switch.client.name)
    host = switch.client.host.encode()
    head = line + b"\r\nHost: " + host + b"\r\nConnection: " + connection_ + b"\r\n"
    connection.sendall(head + b"Upgrade: " + upgrade + b"\r\n" + fields + b"\r\n" + body)
    return connection


def status(connection):
    head = raw.read_head(connection)
    return int(head.split(b" ")[1]), dict(raw.fields(head))


UPGRADES = {
    "websocket": (b"websocket", KEY, b"GET"),
    "in upper case": (b"WebSocket", KEY, b"GET"),
    "with an empty body": (b"websocket", KEY + b"Content-Length: 0\r\n", b"GET"),
    "another protocol": (b"tcp", b"", b"GET"),
    "with a version": (b"SPDY/3.1", b"", b"GET"),
    "by POST": (b"tcp", b"Content-Length: 0\r\n", b"POST"),
    "by POST without a length": (b"SPDY/3.1", b"", b"POST"),
}


@pytest.mark.parametrize("name", UPGRADES)
def test_an_upgrade_passes(switch, name):
    """Bytes pass both ways afterwards, also those that the visitor sends without waiting."""
    protocol, fields, method = UPGRADES[name]
    with ask(switch, protocol, method + b" /x HTTP/1.1", fields, body=b"early ") as connection:
        code, answer = status(connection)
        assert code == 101 and answer[b"upgrade"] == protocol and answer[b"connection"].lower() == b"upgrade"
        connection.sendall(b"late")
        assert raw.read_exactly(connection, 10) == b"EARLY LATE"
    assert switch.heads[0].startswith(method + b" /x HTTP/1.1\r\n")


BODIES = {
    "length": (b"Content-Length: 5\r\n", b"hello"),
    "chunked": (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("framing", BODIES)
def test_a_body_comes_before_raw_bytes(switch, framing):
    fields, body = BODIES[framing]
    with ask(switch, b"tcp", b"POST /attach HTTP/1.1", fields, body=body + b"raw") as connection:
        assert status(connection)[0] == 101
        assert switch.bodies == [b"hello"]
        assert raw.read_exactly(connection, 3) == b"RAW"


@pytest.mark.parametrize("how", ["close_notify", "fin"])
def test_the_end_of_one_direction_leaves_the_other(switch, how):
    with ask(switch, b"tcp") as connection:
        assert status(connection)[0] == 101
        connection.sendall(b"last words")
        assert raw.read_exactly(connection, 10) == b"LAST WORDS"
        if how == "fin":
            socket.socket.shutdown(connection, socket.SHUT_WR)
            wait_for(switch.ended.is_set, "the service sees the end")
            assert raw.read_exactly(connection, 13) == b"after the end"
        else:
            # Python reads on while it waits for the other side's end, and finds bytes.
            with pytest.raises(ssl.SSLError, match="APPLICATION_DATA_AFTER_CLOSE_NOTIFY"):
                connection.unwrap()
            assert switch.ended.is_set()


DROPPED = {
    "h2c": (b"h2c", b""),
    "h2c in upper case": (b"H2C", b""),
    "h2c with settings": (b"h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"),
    "h2c in a list": (b"h2c, x", b""),
    "h2c behind another": (b"websocket, h2c", KEY),
    "h2c in a second field": (b"websocket", KEY + b"Upgrade: h2c\r\n"),
    "h2c with a version": (b"h2c/1", b""),
    "h2c by its settings": (b"x", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"),
    "HTTP/2": (b"HTTP/2.0", b""),
    "h2": (b"h2", b""),
    "two protocols": (b"websocket, tcp", KEY),
    "an empty list entry": (b"websocket,", KEY),
    "no protocol": (b"", b""),
    "no token": (b"a b", b""),
}


@pytest.mark.parametrize("name", DROPPED)
def test_other_offers_are_declined(switch, name):
    """The service gets an ordinary request. What follows it is the next one."""
    protocol, fields = DROPPED[name]
    second = b"GET /second HTTP/1.1\r\nHost: " + switch.client.host.encode() + b"\r\nConnection: close\r\n\r\n"
    with ask(switch, protocol, fields=fields, body=second) as connection:
        for _ in range(2):
            code, answer = status(connection)
            assert code == 200 and b"upgrade" not in answer
            assert raw.read_exactly(connection, 8) == b"declined"
    assert [head.split(b" ")[1] for head in switch.heads] == [b"/", b"/second"]
    assert not any(b"upgrade" in dict(raw.fields(head)) for head in switch.heads)


@pytest.mark.parametrize(
    ("line", "named"),
    [(b"GET / HTTP/1.0", b"Upgrade"), (b"GET / HTTP/1.1", b"close"), (b"POST / HTTP/1.1", b"Upgrade")],
)
def test_an_upgrade_has_its_conditions(switch, line, named):
    """HTTP/1.1, a Connection field that names it, and GET for a WebSocket."""
    with ask(switch, b"websocket", line, KEY, named) as connection:
        assert status(connection)[0] == 200
    assert b"upgrade" not in dict(raw.fields(switch.heads[0]))


@pytest.mark.parametrize("named", [b"x", b"", b"websocket, x", b"websocket/13"])
def test_a_switch_to_something_else_is_a_failure(switch, named):
    switch.named = named
    with ask(switch, b"websocket", fields=KEY) as connection:
        assert status(connection)[0] == 502


@pytest.mark.parametrize("body", [b"", b"hello"], ids=["without", "with"])
def test_a_declined_upgrade_is_an_ordinary_response(switch, body):
    """The connection goes on with the visitor's next request."""
    switch.granting = False
    second = b"GET /second HTTP/1.1\r\nHost: " + switch.client.host.encode() + b"\r\n\r\n"
    fields = b"Content-Length: %d\r\n" % len(body)
    with ask(switch, b"tcp", b"POST / HTTP/1.1", fields, body=body + second) as connection:
        for _ in range(2):
            assert status(connection)[0] == 200
            assert raw.read_exactly(connection, 8) == b"declined"
    assert switch.bodies == [body, b""]
