"""A daemon that stops, and the end at both ends of exchanges that outlast the drain time."""

import collections
import concurrent.futures
import contextlib
import os
import socket
import threading
import time
from datetime import datetime

import pytest

from harness import raw
from harness.activation import Activated
from harness.http2 import Http2
from harness.http3 import Http3
from harness.ports import FIN_WAIT1, states
from harness.process import wait_for
from harness.services import FLOOD
from harness.websocket import OverHttp1, OverHttp2

GOING_AWAY = (1001, "the server is restarting")


def stop(daemon):
    daemon.process.popen.terminate()
    daemon.process.wait_event("draining")


def ends(daemon, finished):
    """Waits for the daemon's exit and checks whether all requests `finished`. Returns its output."""
    assert daemon.process.wait_exit() == 0
    return daemon.process.wait_event("stopped", finished=finished)


def at_once(*actions):
    """Runs the actions in parallel threads. Returns their results."""
    with concurrent.futures.ThreadPoolExecutor(len(actions)) as pool:
        return [result.result() for result in [pool.submit(action) for action in actions]]


@pytest.mark.parametrize("visitor", [OverHttp1, OverHttp2], ids=["h1", "h2"])
def test_websockets_are_closed(short, services, visitor):
    """Both ends see a closing handshake, on an idle WebSocket and during a flood of messages. No message is truncated."""
    services.ws_closed.clear()
    client = short.client(services.ws)
    quiet, busy = visitor(client), visitor(client)
    quiet.send("hello")
    assert quiet.recv() == "hello"
    busy.send("flood")
    assert len(busy.recv()) == FLOOD
    stop(short)
    (nothing, told_quiet), (lengths, told_busy) = at_once(quiet.until_closed, busy.until_closed)
    assert told_quiet == told_busy == GOING_AWAY
    assert nothing == [] and set(lengths) == {FLOOD}
    wait_for(lambda: services.ws_closed == [GOING_AWAY, GOING_AWAY], "the service sees the Close")
    for left in (quiet, busy):
        left.leave()
    ends(short, finished=True)
    client.stop()


@pytest.mark.parametrize("order", ["nothing", "flood"])
def test_a_silent_visitor_does_not_delay_the_stop(short, services, order):
    """A visitor that does not read the service's messages does not delay it either."""
    client = short.client(services.ws)
    with raw.connect(short, client.name) as connection:
        host = client.host.encode()
        connection.sendall(
            b"GET / HTTP/1.1\r\nhost: " + host + b"\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        )
        assert b" 101 " in raw.read_head(connection).splitlines()[0]
        # The masking key is zero.
        connection.sendall(b"\x81" + bytes([0x80 | len(order)]) + bytes(4) + order.encode())
        assert raw.read_exactly(connection, 2) == (b"\x81\x07" if order == "nothing" else b"\x82\x7f")
        stop(short)
        # The visitor never ends it, and the suite waits much longer than the daemon may take.
        assert short.process.wait_exit() == 0
        if order == "nothing":
            assert raw.read_exactly(connection, 7) == b"nothing"
            reason = GOING_AWAY[1].encode()
            assert raw.read_exactly(connection, 4 + len(reason)) == b"\x88\x1a\x03\xe9" + reason
            assert connection.recv(1) == b""
    client.stop()


def test_other_protocols_just_end(short):
    """The daemon can't announce the end in other protocols, so the connection just ends."""
    switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: odd/1\r\n\r\n"
    recorder = raw.Recorder(lambda head, connection: switch + b"odd")
    client = short.client(recorder.target, options=("--verbose", "--upgrade", "odd"))
    with raw.connect(short, client.name) as connection:
        host = client.host.encode()
        connection.sendall(b"GET / HTTP/1.1\r\nhost: " + host + b"\r\nconnection: upgrade\r\nupgrade: odd/1\r\n\r\n")
        assert b" 101 " in raw.read_head(connection).splitlines()[0]
        assert raw.read_exactly(connection, 3) == b"odd"
        stop(short)
        with contextlib.suppress(OSError):
            assert connection.recv(1) == b""
    assert short.process.wait_exit() == 0
    client.stop()
    recorder.stop()


def curl_ends(curl):
    """Returns the remaining output and curl's exit code, which is 0 only after a clean end."""
    return curl.stdout.read(), curl.wait(20)


def test_event_streams_end(short, services, http):
    """Idle streams and floods of events end cleanly over HTTP/1.1 and HTTP/2."""
    client = short.client(services.web)
    quiet = client.start_curl("/steps/farewell/3", http)
    assert quiet.stdout.read(9) == b"data: 0\n\n"
    busy = client.start_curl("/news", http)
    assert busy.stdout.read(11) == b"data: now\n\n"
    stop(short)
    told_quiet, (_events, code) = at_once(lambda: curl_ends(quiet), lambda: curl_ends(busy))
    assert told_quiet == (b"", 0) and code == 0
    wait_for(lambda: services.open_streams == 0, "the service sees the end")
    ends(short, finished=True)
    client.stop()


def test_event_streams_end_over_http3(short, services):
    client = short.client(services.web)
    with Http3(short, client.name) as visitor:
        quiet, busy = visitor.request("/steps/farewell3/3"), visitor.request("/news")
        assert quiet.read(9) == b"data: 0\n\n" and busy.read(11) == b"data: now\n\n"
        stop(short)
        assert quiet.read() == b"" and busy.read().startswith(b"data: now\n\n")
        wait_for(lambda: services.open_streams == 0, "the service sees the end")
        ends(short, finished=True)
    client.stop()


def test_a_slow_reader_gets_it_all(own_daemon, nginx, transport):
    """The daemon's kernel may hold data that the visitor's kernel has no room for. The daemon's exit does not lose it, even if
    the visitor sends meanwhile, as HTTP/2 requires of a reader."""
    daemon = own_daemon(limits='drain_timeout = "20s"', transport=transport)
    client = daemon.client(nginx.target)
    # The visitor's kernel takes a part of it, and the daemon's takes the rest.
    nginx.add("kernels.bin", os.urandom(128 << 10))
    with Http2(daemon, client.name) as visitor:
        visitor.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        stream = visitor.request("/kernels.bin")
        stream.reading = False
        stop(daemon)
        stream.wait(lambda: visitor.last_stream == stream.id)
        for number in (None, stream.id):
            visitor.connection.increment_flow_control_window(2 << 20, number)
        visitor.flush()
        port = visitor.socket.getsockname()[1]
        wait_for(lambda: states(daemon.port).get(port) == FIN_WAIT1, "the daemon has sent it all, and its end")
        visitor.connection.ping(b"reading.")
        visitor.flush()
        stream.reading = True
        assert stream.read() == (nginx.site / "kernels.bin").read_bytes()
        with pytest.raises(EOFError):
            stream.wait(lambda: False)
    ends(daemon, finished=True)
    client.stop()


@pytest.mark.parametrize("before", [False, True], ids=["fresh", "kept alive"])
def test_half_a_head_does_not_delay_the_next_daemon(own_daemon, either_sockets, before):
    """A visitor in the middle of a request head must not delay the next daemon until the head's time-out."""
    daemon = own_daemon(limits='drain_timeout = "60s"', inside=either_sockets)
    with raw.connect(daemon, "") as connection:
        if before:
            connection.sendall(f"GET /health HTTP/1.1\r\nhost: {daemon.host('')}\r\n\r\n".encode())
            assert raw.read_head(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET / HT")
        wait_for(lambda: daemon.metric("cok_connections_total") == 1, "it was accepted")
        stop(daemon)
        assert daemon.process.wait_exit() == 0


class Held:
    """A service that answers each request once the test releases its path."""

    def __init__(self):
        self.asked, self.let_go = (collections.defaultdict(threading.Event) for _ in range(2))
        self.recorder = raw.Recorder(self._answer)

    def _answer(self, head, _connection):
        path = head.split()[1].decode()
        self.asked[path].set()
        assert self.let_go[path].wait(60)
        return b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"

    def visit(self, client, path):
        """Starts a visitor and waits until its request reaches the service."""
        curl = client.start_curl(path)
        assert self.asked[path].wait(20)
        return curl

    def end(self, path, curl):
        self.let_go[path].set()
        assert curl_ends(curl) == (b"done", 0)


def test_new_visitors_do_not_wait_for_a_late_request(own_daemon, transport):
    """With a service manager's sockets, the daemon does not exit early for a long request that began after the stop. The next
    daemon would have to wait for it, and so would all new visitors."""
    daemon = own_daemon(limits='drain_timeout = "60s"', transport=transport, inside=Activated())
    held = Held()
    client = daemon.client(held.recorder.target)
    early = held.visit(client, "/early")
    began = time.monotonic()
    stop(daemon)
    late = held.visit(client, "/late")
    between = time.monotonic()
    # The late request has run for most of the time since the stop.
    wait_for(lambda: time.monotonic() - began > 3 * (between - began), "a while")
    held.end("/early", early)
    held.let_go["/new"].set()
    for _ in range(20):
        assert client.curl("/new").stdout == b"done"
    held.end("/late", late)
    ends(daemon, finished=True)
    client.stop()
    held.recorder.stop()


def test_a_late_request_has_its_time(own_daemon):
    """A request that arrives during the drain and outlasts the drain time has 2 s more."""
    daemon = own_daemon(limits='drain_timeout = "5s"', inside=Activated())
    held = Held()
    client = daemon.client(held.recorder.target)
    early = held.visit(client, "/early")
    stop(daemon)
    late = held.visit(client, "/late")
    handing_over = daemon.process.wait_event("handing_over")
    # By the daemon's own clock. Neither request ends by itself, and both see the end of their tunnel.
    stopped = ends(daemon, finished=True)
    moments = [datetime.fromisoformat(event["timestamp"]) for event in (handing_over, stopped)]
    assert (moments[1] - moments[0]).total_seconds() >= 2
    assert all(curl_ends(visitor)[0] != b"done" for visitor in (early, late))
    for path in ("/early", "/late"):
        held.let_go[path].set()
    client.stop()
    held.recorder.stop()


def test_accepted_connections_get_their_redirect(own_daemon):
    """The socket outlives the daemon, but accepted connections do not."""
    daemon = own_daemon(limits='drain_timeout = "60s"', inside=Activated())
    with socket.create_connection((daemon.address, daemon.http_port), timeout=20) as connection:
        wait_for(lambda: daemon.metric("cok_connections_total") == 1, "it was accepted")
        stop(daemon)
        daemon.process.wait_event("handing_over")
        connection.sendall(f"GET /there HTTP/1.1\r\nhost: {daemon.host('')}\r\n\r\n".encode())
        head = raw.read_head(connection)
        assert b" 308 " in head.splitlines()[0] and b"/there" in head
        assert connection.recv(1) == b""
    ends(daemon, finished=True)


def breaks_off(stream):
    """Returns whether a response is reset before its end, or its connection closes because the visitor reads too slowly."""
    with pytest.raises((AssertionError, EOFError), match="^(reset with|connection: |the connection was closed)"):
        stream.read()
    return not stream.ended


def test_a_cut_download_does_not_look_complete(short, services):
    client = short.client(services.web)
    curl = client.start_curl("/endless", "--http1.1")
    assert curl.stdout.read(1) == b"\0"
    stop(short)
    _zeros, code = curl_ends(curl)
    assert code == 18  # the last chunk is missing
    assert short.process.wait_exit() == 0
    client.stop()


def test_a_cut_download_does_not_look_complete_over_streams(short, services, multiplexed):
    client = short.client(services.web)
    with multiplexed(short, client.name) as visitor:
        stream = visitor.request("/endless")
        assert stream.read(1) == b"\0"
        stop(short)
        assert breaks_off(stream)
    assert short.process.wait_exit() == 0
    client.stop()


def test_events_of_a_known_length_break_off(short, multiplexed):
    """The visitor counts the bytes, so an early end must not look clean."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 100\r\n\r\n"
    recorder = raw.Recorder(lambda _head, _connection: head + b"data: 0\n\n")
    client = short.client(recorder.target)
    with multiplexed(short, client.name) as visitor:
        stream = visitor.request("/")
        assert stream.read(9) == b"data: 0\n\n"
        stop(short)
        assert breaks_off(stream)
    assert short.process.wait_exit() == 0
    client.stop()
    recorder.stop()
