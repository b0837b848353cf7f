"""A visitor's WebSocket to a WebSocket service, over HTTP/1.1 and over HTTP/2 (RFC 8441)."""

import os

import pytest
from websockets.exceptions import ConnectionClosed
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from harness import raw
from harness.http2 import Http2
from harness.process import wait_for
from harness.websocket import Chat, WebSocket


@pytest.fixture
def echo(tunnel, services):
    services.ws_closed.clear()
    return tunnel(services.ws)


def open_h1(client, **options):
    return WebSocket(client.daemon, client.name, "/chat?x=1", **options)


def test_http1(echo, services):
    """Text, large and fragmented messages, pings and a close code pass in both directions."""
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


def test_the_service_fragments_and_pings(echo):
    with open_h1(echo) as visitor:
        visitor.send("fragments")
        # The library ends a fragmented message with an empty fragment.
        assert visitor.recv_parts() == ["in ", "three ", "parts", ""]
        visitor.send("ping")
        assert visitor.recv() == "ponged"


def test_subprotocols_and_compression_pass(echo):
    """The two ends negotiate subprotocols and compression without the tunnel."""
    with open_h1(echo, subprotocols=["chat.v1", "chat.v2"], compression="deflate") as visitor:
        assert visitor.socket.subprotocol == "chat.v2"
        assert "permessage-deflate" in visitor.socket.response.headers["Sec-WebSocket-Extensions"]
        visitor.send("a" * 100_000)
        assert visitor.recv() == "a" * 100_000


def test_bytes_right_after_the_101(tunnel):
    """A service may send data in the packet of its 101, and a visitor may leave without a Close frame."""
    hello = b"\x81\x05hello"
    switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: odd/1\r\n\r\n"
    recorder = raw.Recorder(lambda head, connection: switch + hello)
    client = tunnel(recorder.target, options=("--verbose", "--upgrade", "odd"))
    with raw.connect(client.daemon, client.name) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nhost: " + client.host.encode() + b"\r\nconnection: upgrade\r\nupgrade: odd/1\r\n\r\n"
        )
        head = raw.read_head(connection)
        assert b" 101 " in head.splitlines()[0] and dict(raw.fields(head))[b"upgrade"] == b"odd/1"
        assert raw.read_exactly(connection, len(hello)) == hello
    wait_for(recorder.closed.is_set, "the service sees the end", deadline=2)
    recorder.stop()


def test_a_visitor_who_vanishes_is_noticed(echo, services):
    with open_h1(echo) as visitor:
        visitor.send("hello")
        assert visitor.recv() == "hello"
        visitor.vanish()
        wait_for(lambda: services.ws_closed, "the service sees the end", deadline=2)


def test_http2(echo, services):
    """Extended CONNECT works the same way: the service gets HTTP/1.1, and the visitor gets 200."""
    large = os.urandom(1 << 20)
    with Http2(echo.daemon, echo.name) as visitor:
        assert visitor.connection.remote_settings.enable_connect_protocol == 1
        chat = Chat(visitor)
        assert chat.response[b":status"] == b"200" and b"sec-websocket-accept" not in chat.response
        chat.send(TextMessage("hello"))
        assert chat.receive().data == "hello"
        chat.send(BytesMessage(large))
        assert chat.receive().data == large
        chat.send(TextMessage("frag", message_finished=False), TextMessage("mented"))
        assert chat.receive().data == "fragmented"
        chat.send(TextMessage("fragments"))
        assert chat.receive().data == "in three parts"
        chat.send(Ping(b"are you there"))
        assert chat.receive() == Pong(b"are you there")
        chat.send(TextMessage("ping"))
        ping = chat.receive()
        assert ping == Ping(b"from the service")
        chat.send(ping.response())
        assert chat.receive().data == "ponged"
        chat.send(CloseConnection(4001, "over h2"))
        assert chat.receive().code == 4001
    wait_for(lambda: services.ws_closed == [(4001, "over h2")], "the service sees the visitor's close")


def test_the_service_closes_over_http2(echo):
    """The close code and the stream's end arrive, and the connection goes on."""
    with Http2(echo.daemon, echo.name) as visitor:
        chat, another = Chat(visitor), Chat(visitor)
        chat.send(TextMessage("close"))
        close = chat.receive()
        assert (close.code, close.reason) == (4321, "as you wish")
        chat.send(close.response())
        chat.stream.wait(lambda: chat.stream.ended)
        another.send(TextMessage("still here"))
        assert another.receive().data == "still here"


def test_a_visitor_who_resets_is_noticed(echo, services):
    with Http2(echo.daemon, echo.name) as visitor:
        chat = Chat(visitor)
        chat.send(TextMessage("hello"))
        assert chat.receive().data == "hello"
        chat.stream.cancel()
        wait_for(lambda: services.ws_closed, "the service sees the end", deadline=2)


def test_other_connects_are_refused(site):
    """The daemon is no forward proxy."""
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
