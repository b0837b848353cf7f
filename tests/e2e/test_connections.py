"""Visitors' connections: silent ones time out, and active ones stay."""

import contextlib
import socket
import ssl
import warnings

import pytest

from harness import raw
from harness.websocket import WebSocket

GET = b"GET / HTTP/1.1\r\nhost: quick.tunnel.test\r\n\r\n"


@pytest.fixture
def impatient(own_daemon, nginx):
    """A tunnel at a daemon with time-outs of one second."""
    daemon = own_daemon(limits='handshake_timeout = "1s"\nheader_timeout = "1s"\nmax_connections = 5')
    client = daemon.client(nginx.target, "quick")
    yield client
    client.stop()


def plain(daemon):
    return socket.create_connection(("127.0.0.1", daemon.port), timeout=10)


def test_silence_ends_a_connection(impatient):
    """Connections time out in silence before TLS, after it, in a head, or between requests. Each frees its permit."""
    daemon = impatient.daemon
    for _ in range(2):
        with (
            plain(daemon) as before_tls,
            raw.connect(daemon, "quick") as before_head,
            raw.connect(daemon, "quick") as in_head,
            raw.connect(daemon, "quick") as between,
        ):
            in_head.sendall(GET[:-2])
            between.sendall(GET)
            raw.read_exactly(between, int(dict(raw.fields(raw.read_head(between)))[b"content-length"]))
            assert before_tls.recv(1) == before_head.recv(1) == between.recv(1) == b""
            answer = in_head.recv(1000)
            assert answer == b"" or b" 408 " in answer


def test_a_slow_tunnel_handshake_ends(impatient):
    """A client has to send Connect in time."""
    with raw.connect(impatient.daemon, "") as connection:
        connection.sendall(
            b"GET /_cok/tunnel HTTP/1.1\r\nhost: tunnel.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"sec-websocket-protocol: cok.v1\r\n\r\n"
        )
        assert b" 101 " in raw.read_head(connection).splitlines()[0]
        while connection.recv(4096):
            pass


def test_too_many_connections(impatient, services):
    """A connection above the limit is closed if all others are busy, and one that ends makes room. Tunnels count
    separately. test_descriptors.py has idle connections."""
    client = impatient.daemon.client(services.ws, "chat")
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(WebSocket(client.daemon, "chat", "/"))
        with WebSocket(client.daemon, "chat", "/"), pytest.raises((ssl.SSLError, ConnectionError)):
            raw.connect(impatient.daemon, "quick")
        assert impatient.curl("/", "--retry", "5", "--retry-all-errors").stdout == b"<h1>hello</h1>\n"
    client.stop()


def test_an_address_has_its_connections(own_daemon, nginx):
    """A connection above the limit of its address is closed. Other addresses are served, and one that ends makes room."""
    daemon = own_daemon(limits="max_connections_per_address = 3")
    client = daemon.client(nginx.target, "quick")
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(raw.connect(daemon, "quick"))
        with raw.connect(daemon, "quick"), pytest.raises((ssl.SSLError, ConnectionError)):
            raw.connect(daemon, "quick")
        elsewhere = client.curl("/", "--interface", "127.0.0.2")
        assert elsewhere.stdout == client.curl("/", "--retry", "5", "--retry-all-errors").stdout == b"<h1>hello</h1>\n"
    client.stop()


def test_upgraded_connections_count(impatient, services):
    """A visitor's WebSocket counts as a connection until it ends."""
    client = impatient.daemon.client(services.ws, "chat")
    with contextlib.ExitStack() as stack:
        visitors = [stack.enter_context(WebSocket(client.daemon, "chat", "/")) for _ in range(5)]
        with pytest.raises((ssl.SSLError, ConnectionError)):
            raw.connect(client.daemon, "chat")
        for visitor in visitors:
            visitor.send("still here")
            assert visitor.recv() == "still here"
    client.stop()


def test_many_requests_on_one_connection(site, multiplexed):
    """Over HTTP/1.1 they may be pipelined."""
    host = site.host.encode()
    with raw.connect(site.daemon, site.name) as connection:
        connection.sendall(GET.replace(b"quick.tunnel.test", host) * 100)
        for _ in range(100):
            head = raw.read_head(connection)
            assert b" 200 " in head.splitlines()[0]
            assert raw.read_exactly(connection, 15) == b"<h1>hello</h1>\n"
    with multiplexed(site.daemon, site.name) as visitor:
        for stream in [visitor.request("/") for _ in range(100)]:
            assert stream.read() == b"<h1>hello</h1>\n"


def test_other_protocols_are_refused(daemon):
    """The daemon refuses plain HTTP, an old TLS version and an unknown ALPN protocol, and goes on."""
    with plain(daemon) as connection:
        connection.sendall(GET)
        # A TLS alert or an empty read.
        assert b"HTTP/1.1 200" not in connection.recv(100)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with plain(daemon) as connection, pytest.raises((ssl.SSLError, ConnectionError)):
        old.wrap_socket(connection, server_hostname="site.tunnel.test")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        raw.connect(daemon, "site", "spdy/3")
    assert daemon.curl("", "/health").stdout == b"ok\n"
