"""A visitor's WebSocket through to a WebSocket service, over HTTP/1.1 and over HTTP/2 (RFC 8441)."""

import os

import pytest
from websockets.exceptions import ConnectionClosed
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from harness import raw
from harness.http2 import Http2
from harness.process import wait_for
from harness.websocket import WebSocket


@pytest.fixture
def echo(tunnel, services):
    services.ws_closed.clear()
    return tunnel(services.ws)


def open_h1(client):
    return WebSocket(client.daemon, client.name, "/chat?x=1")


def test_http1(echo, services):
    """Text, large and fragmented messages, pings and a close with its code, in both directions."""
    large = os.urandom(3 << 20)
    with open_h1(echo) as visitor:
        visitor.send("hello")
        assert visitor.recv() == "hello"
        visitor.send(large)
        assert visitor.recv() == large
        visitor.send(iter(["frag", "men", "ted"]))
        assert visitor.recv() == "fragmented"
        visitor.ping()
        for number in range(200):
            visitor.send(str(number))
        assert [visitor.recv() for _ in range(200)] == [str(number) for number in range(200)]
        visitor.close(4000, "done here")
    wait_for(lambda: services.ws_closed == [(4000, "done here")], "the service sees the visitor's close")


def test_the_service_closes(echo):
    with open_h1(echo) as visitor:
        visitor.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            visitor.recv()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as you wish")


def test_a_visitor_who_vanishes_is_noticed(echo, services):
    visitor = open_h1(echo)
    visitor.send("hello")
    assert visitor.recv() == "hello"
    visitor.vanish()
    wait_for(lambda: services.ws_closed, "the service sees the end", deadline=2)


def test_http2(echo, services):
    """The same by extended CONNECT: the tunnel speaks HTTP/1.1 to the service and 200 to the visitor."""
    large = os.urandom(1 << 20)
    with Http2(echo.daemon, echo.name) as visitor:
        assert visitor.connection.remote_settings.enable_connect_protocol == 1
        stream = visitor.request(
            "/chat", method="CONNECT", protocol="websocket", end=False, extra=[("sec-websocket-version", "13")]
        )
        response = stream.response()
        assert response[b":status"] == b"200" and b"sec-websocket-accept" not in response
        socket_ = Connection(ConnectionType.CLIENT)

        def receive(kind):
            while True:
                for event in socket_.events():
                    assert isinstance(event, kind), event
                    yield event
                stream.wait(lambda: stream.data or stream.ended)
                socket_.receive_data(stream.read(len(stream.data)) if stream.data else None)

        def message(kind):
            parts = []
            for event in receive(kind):
                parts.append(event.data)
                if event.message_finished:
                    return type(event.data)().join(parts) if isinstance(event.data, str) else b"".join(parts)

        stream.send(socket_.send(TextMessage("hello")))
        assert message(TextMessage) == "hello"
        stream.send(socket_.send(BytesMessage(large)))
        assert message(BytesMessage) == large
        stream.send(socket_.send(Ping(b"are you there")))
        assert next(receive(Pong)).payload == b"are you there"
        stream.send(socket_.send(CloseConnection(4001, "over h2")))
        assert next(receive(CloseConnection)).code == 4001
    wait_for(lambda: services.ws_closed == [(4001, "over h2")], "the service sees the visitor's close")


def test_other_connects_are_refused(site):
    """This is no forward proxy."""
    with Http2(site.daemon, site.name) as visitor:
        stream = visitor.request("/", method="CONNECT", protocol="connect-udp", end=False)
        assert stream.response()[b":status"] == b"405"


def test_a_service_without_websockets_answers_as_it_likes(site):
    with raw.connect(site.daemon, site.name) as connection:
        host = site.daemon.host(site.name).encode()
        connection.sendall(
            b"GET /missing-on-purpose HTTP/1.1\r\nhost: " + host + b"\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        )
        head = raw.read_head(connection)
        assert b" 404 " in head.splitlines()[0]
        length = int(dict(raw.fields(head))[b"content-length"])
        assert raw.read_exactly(connection, length) == b"not here\n"
