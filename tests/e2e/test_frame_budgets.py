"""Floods of frames that bring no exchange forward end their connection within a second. Visitors on the same tunnel do not
notice, and honest programs never meet a limit."""

import asyncio
import contextlib
import json
import select
import ssl
import struct
import threading
import time
from concurrent import futures

import grpc
import pytest
from websockets.exceptions import ConnectionClosed

from harness import http3, raw
from harness.http2 import Http2
from harness.process import wait_for
from harness.small_client import SmallClient

import test_grpc
import test_protocol_abuse as abuse
from test_http2_frames import ACK, DATA, HEADERS, OPEN, PADDED, PING, PRIORITY, RST, SETTINGS, WINDOW, block, frame, word

# A busy machine takes longer than AT_ONCE.
pytestmark = pytest.mark.alone

GOAWAY, PRIORITY_UPDATE = 7, 0x10
ENHANCE_YOUR_CALM = 0xB
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
# From the first byte of a flood to the end of its connection.
AT_ONCE = 1.0


@contextlib.contextmanager
def undisturbed(daemon, name, path="/"):
    """An honest visitor asks on the same tunnel all the time. It gets every answer, none after more than a second."""
    over, slowest, errors = threading.Event(), [0.0], []

    def ask():
        try:
            with Http2(daemon, name) as visitor:
                while not over.is_set():
                    began = time.monotonic()
                    assert visitor.request(path).read()
                    slowest[0] = max(slowest[0], time.monotonic() - began)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not errors and slowest[0] < AT_ONCE, (errors, slowest)


FLOODS = {
    "ping": frame(PING, 0, 0, bytes(8)),
    "ping-ack": frame(PING, ACK, 0, bytes(8)),
    "settings": frame(SETTINGS, 0, 0),
    "priority": frame(PRIORITY, 0, 3, bytes(5)),
    "priority-update": frame(PRIORITY_UPDATE, 0, 0, word(1) + b"u=3"),
    "window": frame(WINDOW, 0, 0, word(1)),
    "window-of-a-stream": frame(WINDOW, 0, 1, word(1)),
    "unknown": frame(99, 0, 0, b"abc"),
    "empty-data": frame(DATA, 0, 1),
    "padding": frame(DATA, PADDED, 1, b"\x63" + bytes(99)),
    "one-byte-data": frame(DATA, 0, 1, b"a"),
    "resets": frame(RST, 0, 1, word(8)),
    "goaway": frame(GOAWAY, 0, 0, bytes(8)),
}
# The library ends these by itself, some with another code.
OF_THE_LIBRARY = ("empty-data", "goaway", "settings", "padding", "one-byte-data")


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_over_http2_end(daemon, web, flood):
    authority = f"{daemon.host(web.name)}:{daemon.port}"
    post = block((":method", "POST"), (":scheme", "https"), (":path", "/swallow"), (":authority", authority))
    with undisturbed(daemon, web.name, "/hash"), raw.connect(daemon, web.name, "h2", deadline=5) as connection:
        connection.sendall(PREFACE + frame(HEADERS, OPEN, 1, post))
        began = time.monotonic()
        codes = send_and_read(connection, FLOODS[flood] * 200)
        assert time.monotonic() - began < AT_ONCE
    assert codes == [ENHANCE_YOUR_CALM] or flood in OF_THE_LIBRARY, codes


def send_and_read(connection, piece):
    """Repeats a piece until the connection ends. Returns the codes of the GOAWAY frames. One thread does both: two of them
    would crash Python's ssl module."""
    received, codes, rest = bytearray(), [], b""
    connection.setblocking(False)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            while data := connection.recv(65536):
                received += data
            break
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            break
        try:
            rest = rest or piece
            rest = rest[connection.send(rest):]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            select.select([connection], [connection], [], 0.01)
        except OSError:
            rest = b""
    while len(received) >= 9:
        length, kind = int.from_bytes(received[:3], "big"), received[3]
        if kind == GOAWAY:
            codes.append(int.from_bytes(received[13:17], "big"))
        del received[:9 + length]
    return codes


# ---- HTTP/3 ----

CONTROL, PUSH_ID, H3_GOAWAY, RESERVED = 0, 0x0D, 7, 0x21


def of_control(data):
    """A flood on the visitor's control stream."""
    return lambda visitor: visitor.quic.send_stream_data(visitor.h3._local_control_stream_id, data * 500)


def of_encoder(visitor):
    visitor.quic.send_stream_data(visitor.h3._local_encoder_stream_id, b"\x20" * 2000)


def of_decoder(visitor):
    visitor.quic.send_stream_data(visitor.h3._local_decoder_stream_id, b"\x40" * 2000)


def of_streams(visitor):
    # As many as the daemon allows at the moment.
    while (stream := visitor.quic.get_next_available_stream_id(is_unidirectional=True)) // 4 < visitor.quic._remote_max_streams_uni:
        visitor.quic.send_stream_data(stream, http3.varint(RESERVED) + b"x")
        visitor.quic.reset_stream(stream, 0)


FLOODS_OF_HTTP3 = {
    "max-push-id": of_control(http3.frame(PUSH_ID, b"\x3f")),
    "goaway": of_control(http3.frame(H3_GOAWAY, b"\x00")),
    "priority-update": of_control(http3.frame(0xF0700, b"\x00u=3")),
    "reserved": of_control(http3.frame(RESERVED, b"")),
    "capacity": of_encoder,
    "cancellation": of_decoder,
    "streams": of_streams,
}


@pytest.mark.parametrize("flood", FLOODS_OF_HTTP3)
def test_floods_over_http3_end(daemon, web, flood):
    with undisturbed(daemon, web.name, "/hash"), http3.Http3(daemon, web.name) as visitor:
        began = time.monotonic()
        while not visitor.closed and time.monotonic() - began < 5:
            visitor.do(lambda: FLOODS_OF_HTTP3[flood](visitor))
            time.sleep(0.001)
        assert time.monotonic() - began < AT_ONCE
        assert visitor.wait_closed(0) == http3.ErrorCode.H3_EXCESSIVE_LOAD


def test_bodies_of_single_bytes_over_http3_end(daemon, web):
    """Each byte in a DATA frame of its own: 10,000 at once, and 1,000 in a second."""
    with undisturbed(daemon, web.name, "/hash"), http3.Http3(daemon, web.name) as visitor:
        stream = visitor.request("/swallow", method="POST", end=False)
        began = time.monotonic()
        while not visitor.closed and time.monotonic() - began < 5:
            visitor.do(lambda: visitor.quic.send_stream_data(stream.id, http3.frame(0, b"a") * 500))
            time.sleep(0.001)
        assert time.monotonic() - began < 2 * AT_ONCE
        assert visitor.wait_closed(0) == http3.ErrorCode.H3_EXCESSIVE_LOAD


def test_floods_of_quic_frames_end(daemon, web):
    """PINGs, which the library answers by itself. The daemon looks at its counters now and then."""
    with undisturbed(daemon, web.name, "/hash"), http3.Http3(daemon, web.name) as visitor:
        began = time.monotonic()
        while not visitor.closed and time.monotonic() - began < 10:
            visitor.do(lambda: visitor.quic.send_ping(0))
        assert visitor.wait_closed(0) == http3.ErrorCode.H3_EXCESSIVE_LOAD


def test_quic_frames_with_requests_between_them_pass(daemon, web):
    """Fewer than a flood: 600 PINGs, and a request for each six."""
    with http3.Http3(daemon, web.name) as visitor:
        for number in range(600):
            visitor.do(lambda: visitor.quic.send_ping(0))
            if number % 6 == 0:
                assert visitor.request("/hash").read()
        assert not visitor.closed


# ---- tunnels ----


def tunnel_floods():
    empty = abuse.frame(abuse.DATA, struct.pack(">I", 1))
    return {
        "ping": abuse.frame(abuse.PING, bytes(8)),
        "pong": abuse.frame(abuse.PONG, bytes(8)),
        "drain": abuse.frame(abuse.DRAIN, json.dumps({"reason": "shutdown", "deadline_ms": 60000}).encode()),
        "unknown": abuse.frame(0x90),
        "window": abuse.frame(abuse.WINDOW, struct.pack(">II", 1, 1)),
        "empty-data": empty,
    }


@pytest.mark.parametrize("flood", tunnel_floods())
def test_floods_of_a_client_over_websocket_end(daemon, site, flood):
    """The client answers a visitor's request, and then sends nothing but the flood."""
    with undisturbed(daemon, site.name), abuse.dial(daemon) as tunnel:
        tunnel.send(abuse.connect_frame(subdomain=f"budget-{flood}"))
        stream = abuse.frames(tunnel)
        abuse.expect(stream, abuse.ACK)
        with Http2(daemon, f"budget-{flood}") as visitor:
            visitor.request("/")
            number = abuse.expect(stream, abuse.REQUEST)[:4]
            assert number == struct.pack(">I", 1)
            tunnel.send(abuse.response(number))
            began = time.monotonic()
            with contextlib.suppress(ConnectionClosed):
                for _ in range(100):
                    tunnel.send(tunnel_floods()[flood] * 200)
            error = json.loads(abuse.expect(stream, abuse.ERROR))
            assert error["code"] == "limit_reached" and time.monotonic() - began < AT_ONCE


@pytest.mark.parametrize("flood", ["ping", "pong", "empty", "fragments"])
def test_floods_of_websocket_frames_end(daemon, site, flood):
    """The library under the tunnel answers pings and joins fragments by itself."""
    mask = bytes(4)
    frames = {
        "ping": b"\x89\x80" + mask, "pong": b"\x8a\x80" + mask, "empty": b"\x82\x80" + mask, "fragments": b"\x00\x80" + mask,
    }
    with undisturbed(daemon, site.name), raw.connect(daemon, "") as connection:
        connection.sendall(
            b"GET /_cok/tunnel HTTP/1.1\r\nhost: " + daemon.host("").encode() + b"\r\nupgrade: websocket\r\n"
            b"connection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: cok.v1\r\n"
            b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert raw.read_head(connection).startswith(b"HTTP/1.1 101")
        if flood == "fragments":
            connection.sendall(b"\x02\x80" + mask)
        began = time.monotonic()
        send_and_read(connection, frames[flood] * 200)
        # An ended session has a second to close.
        assert time.monotonic() - began < 2 * AT_ONCE


def test_floods_of_a_client_over_quic_end(daemon, site):
    client = SmallClient(daemon, "quic", ("127.0.0.1", 1), subdomain="budget-quic")

    async def flood():
        began = time.monotonic()
        while not client.session.ended.done() and time.monotonic() - began < 5:
            client.session.send_control(abuse.frame(abuse.PING, bytes(8)) * 200)
            await asyncio.sleep(0.001)
        return time.monotonic() - began

    with undisturbed(daemon, site.name):
        assert client.loop.call(flood()) < AT_ONCE
    client.loop.end()


# ---- honest programs ----


def test_curl_downloads_and_uploads(daemon, web, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(bytes(64 << 20))
    got = web.curl("/echo", "--http2", "-T", str(body), "-o", str(tmp_path / "back"))
    assert got.returncode == 0 and (tmp_path / "back").stat().st_size == 64 << 20


def test_a_simple_client_answers_each_frame(daemon, web):
    """The h2 library returns credit for each frame, twice, and this visitor pings as well, as gRPC does."""
    with Http2(daemon, web.name) as visitor:
        stream = visitor.request("/echo", method="POST", end=False)
        for _ in range(3000):
            visitor.connection.send_data(stream.id, bytes(1000))
            visitor.connection.ping(bytes(8))
            visitor.flush()
            # The pong comes, and maybe some of the body.
            visitor.receive()
            while visitor.connection.local_flow_control_window(stream.id) < 1000:
                visitor.receive()
        visitor.connection.end_stream(stream.id)
        visitor.flush()
        assert len(stream.read()) == 3_000_000


def test_small_messages_wait_for_a_slow_service(tunnel):
    """The service reads nothing until the windows are full of small DATA frames. Then all of them reach it."""
    message, count = b"x" * 50, 40_000
    begin, received, sent = threading.Event(), [], 0

    def answer(_head, connection):
        assert begin.wait(60)
        received.append(len(raw.read_exactly(connection, len(message) * count)))
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    def send(stream):
        nonlocal sent
        for number in range(count):
            stream.send(message, end=number == count - 1)
            sent += 1

    service = raw.Recorder(answer)
    client = tunnel(service.target)
    with futures.ThreadPoolExecutor(1) as threads, Http2(client.daemon, client.name) as visitor:
        stream = visitor.request("/", "POST", end=False, extra=[("content-length", str(len(message) * count))])
        sending = threads.submit(send, stream)
        is_full = lambda: not visitor.connection.local_flow_control_window(stream.id)  # noqa: E731
        wait_for(lambda: sending.done() or is_full(), "the windows are full")
        assert 0 < sent < count
        begin.set()
        sending.result(60)
        assert stream.response()[b":status"] == b"200"
    service.stop()
    assert received == [len(message) * count]


def test_grpc_keeps_alive_and_streams_small_messages(daemon):
    """grpcio with a keep-alive each 10 ms, and 5,000 small messages there and back."""
    service = test_grpc.Echo()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([service])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = daemon.client(f"h2c://127.0.0.1:{port}", "budget-grpc")
    host = daemon.host("budget-grpc")
    options = [
        ("grpc.ssl_target_name_override", host), ("grpc.default_authority", host), ("grpc.keepalive_time_ms", 10),
        ("grpc.http2.max_pings_without_data", 0), ("grpc.keepalive_permit_without_calls", 1),
    ]
    credentials = grpc.ssl_channel_credentials(daemon.ca.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{daemon.port}", credentials, options) as channel:
        both = channel.stream_stream("/echo/Both")
        assert sum(len(message) for message in both(iter([b"a"] * 5000))) == 5000
        many = channel.unary_stream("/echo/Many")
        assert sum(1 for _ in many(b"20000")) == 20_000
    client.stop()
    server.stop(None).wait()
