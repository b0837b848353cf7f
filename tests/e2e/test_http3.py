"""Visitors over HTTP/3 with an independent client. Other files test what all versions share."""

import hashlib
import os
import signal
import threading
import time

import pytest

from harness import raw
from harness.cok import GIVE_BACK
from harness.http2 import Http2
from harness.http3 import ErrorCode, Http3
from harness.process import wait_for

MIB = 1 << 20
HELLO = b"<h1>hello</h1>\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def visitor(web):
    with Http3(web.daemon, web.name) as visitor:
        yield visitor


@pytest.fixture
def recorder(tunnel):
    """A recording service behind a tunnel. Tests may replace `answer`."""
    recorder = raw.Recorder(lambda head, connection: recorder.answer)
    recorder.answer = OK
    recorder.client = tunnel(recorder.target)
    yield recorder
    recorder.stop()


def test_get_head_and_post(site, web):
    with Http3(site.daemon, site.name) as visitor:
        stream = visitor.request("/")
        headers = stream.response()
        assert headers[b":status"] == b"200" and headers[b"content-length"] == b"15" and b"date" in headers
        assert stream.read() == HELLO
        stream = visitor.request("/", method="HEAD")
        assert stream.response()[b"content-length"] == b"15" and stream.read() == b""
        # Routing goes by the authority, on one connection.
        stream = visitor.request("/echo", method="POST", end=False, authority=f"{web.host}:{web.daemon.port}")
        stream.send(b"hello", end=True)
        assert stream.read() == b"hello"


def test_responses_without_a_body(recorder):
    with Http3(recorder.client.daemon, recorder.client.name) as visitor:
        for status in (b"204 No Content", b"304 Not Modified"):
            recorder.answer = b"HTTP/1.1 %s\r\netag: x\r\n\r\n" % status
            stream = visitor.request("/")
            assert stream.response()[b":status"] == status[:3] and stream.read() == b""


def test_a_request_without_a_body_has_none(recorder):
    """The service gets neither Content-Length nor chunks."""
    with Http3(recorder.client.daemon, recorder.client.name) as visitor:
        for method in ("GET", "DELETE", "BREW"):
            assert visitor.request("/", method=method).read() == b"ok"
            assert recorder.heads[-1].startswith(method.encode())
            assert not {b"content-length", b"transfer-encoding"} & set(dict(raw.fields(recorder.heads[-1])))


def test_a_request_whose_end_comes_late(recorder):
    """The stream's end follows HEADERS in a frame of its own."""
    with Http3(recorder.client.daemon, recorder.client.name) as visitor:
        stream = visitor.request("/", end=False, extra=[("content-length", "0")])
        stream.send_raw(b"", end=True)
        assert stream.read() == b"ok"


def test_large_bodies_both_ways(site, visitor, nginx):
    """32 MiB pass down, up with and without a length, and both ways at once. Hashes prove that they are complete."""
    data = os.urandom(32 * MIB)
    nginx.add("http3.bin", data)
    authority = f"{site.host}:{site.daemon.port}"
    assert visitor.request("/http3.bin", authority=authority).read(deadline=60) == data
    for length in ([("content-length", str(len(data)))], []):
        stream = visitor.request("/uploads/http3", method="PUT", end=False, authority=authority, extra=length)
        stream.send(data, end=True)
        assert stream.response()[b":status"] in (b"201", b"204")
        assert (nginx.site / "uploads/http3").read_bytes() == data
    stream = visitor.request("/echo", method="POST", end=False)
    stream.send(data, end=True)
    assert stream.read(deadline=60) == data


def test_large_bodies_are_not_buffered(own_daemon, nginx, services):
    """128 MiB pass down and up. The daemon holds only data in flight: 8 MiB without the visitor's acknowledgement, and about as
    much in the tunnel."""
    daemon = own_daemon(env=GIVE_BACK)
    clients = [daemon.client(nginx.target, "files"), daemon.client(services.web, "web")]
    nginx.add_sparse("http3-large.bin", 128 * MIB)
    with Http3(daemon, "web", window=8 * MIB) as visitor:
        warm = visitor.request("/hash", method="POST", end=False)
        warm.send(bytes(MIB), end=True)
        warm.read()
        daemon.process.reset_peak()
        before = daemon.process.memory()[0]
        digest, length = hashlib.sha256(), 0

        def sink(data):
            nonlocal length
            digest.update(data)
            length += len(data)

        stream = visitor.request("/http3-large.bin", authority=f"{daemon.host('files')}:{daemon.port}")
        stream.sink = sink
        stream.read(deadline=120)
        assert length == 128 * MIB
        stream = visitor.request("/hash", method="POST", end=False)
        for _ in range(16):
            stream.send(bytes(8 * MIB))
        stream.send(b"", end=True)
        stream.wait(lambda: stream.ended, "the answer", deadline=120)
        assert f'"length": {128 * MIB}'.encode() in stream.read()
        assert daemon.process.memory()[1] - before < 32 * MIB
    for client in clients:
        client.stop()


def test_trailers_like_those_of_grpc(recorder):
    """Trailers need no announcement in the response, and a response may have trailers without a body."""
    recorder.answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\ngrpc-status: 0\r\ngrpc-message: fine\r\n\r\n"
    )
    with Http3(recorder.client.daemon, recorder.client.name) as visitor:
        stream = visitor.request("/", extra=[("te", "trailers")])
        assert stream.read() == b"hello"
        assert stream.trailers == {b"grpc-status": b"0", b"grpc-message": b"fine"}
        recorder.answer = recorder.answer.replace(b"5\r\nhello\r\n", b"")
        stream = visitor.request("/", extra=[("te", "trailers")])
        assert stream.read() == b"" and stream.trailers[b"grpc-status"] == b"0"


def test_the_visitors_address(recorder):
    """The service gets the source address of the packets, and fields like those of a visitor over TCP."""
    with Http3(recorder.client.daemon, recorder.client.name, source="127.0.0.77") as visitor:
        assert visitor.request("/", extra=[("x-forwarded-for", "6.6.6.6")]).read() == b"ok"
    fields = dict(raw.fields(recorder.heads[-1]))
    assert fields[b"x-forwarded-for"] == b"127.0.0.77" and fields[b"x-forwarded-proto"] == b"https"
    assert fields[b"forwarded"].startswith(b"for=127.0.0.77;")
    assert fields[b"host"] == visitor.authority.encode()


def test_a_visitor_that_moves_keeps_its_connection(recorder, web, services):
    """Running exchanges go on, and the next request has the new address."""
    with Http3(recorder.client.daemon, recorder.client.name) as visitor:
        stream = visitor.request("/steps/moving/3", authority=f"{web.host}:{web.daemon.port}")
        for number, source in enumerate(("127.0.0.1", "127.0.0.5", "127.0.0.6")):
            if number:
                visitor.move(source)
                services.confirm("moving", number - 1)
            assert stream.read(9) == b"data: %d\n\n" % number
            assert visitor.request("/").read() == b"ok"
            assert dict(raw.fields(recorder.heads[-1]))[b"x-forwarded-for"] == source.encode()
        services.confirm("moving", 2)
        assert stream.read() == b"" and not visitor.closed


def test_interim_responses_pass(tunnel):
    """Every 103 reaches the visitor. A 100 reaches only a visitor that waits for one, and its body follows only then."""
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
    gate = threading.Semaphore(0)

    def answer(head, connection):
        connection.sendall(hints + hints)
        if head.startswith(b"POST"):
            gate.acquire(timeout=20)
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            recorder.body = raw.read_exactly(connection, 5)
        return OK

    recorder = raw.Recorder(answer)
    client = tunnel(recorder.target)
    with Http3(client.daemon, client.name) as visitor:
        stream = visitor.request("/")
        assert stream.read() == b"ok"
        hint = {b":status": b"103", b"link": b"</a.css>; rel=preload"}
        assert stream.interim == [hint, hint]
        extra = [("expect", "100-continue"), ("content-length", "5")]
        stream = visitor.request("/", method="POST", end=False, extra=extra)
        # On a busy machine, the daemon may have lost patience and sent the 100 by then. The service's own is dropped then.
        stream.wait(lambda: stream.interim.count(hint) == 2, "the hints")
        gate.release()
        go_on = {b":status": b"100"}
        stream.wait(lambda: go_on in stream.interim, "a 100")
        stream.send(b"hello", end=True)
        assert stream.read() == b"ok" and recorder.body == b"hello"
        assert sorted(stream.interim, key=len) == [go_on, hint, hint]
    recorder.stop()


def test_an_unread_upload(web, visitor):
    """The visitor gets the whole response and STOP_SENDING without an error. The connection goes on."""
    stream = visitor.upload("/refuse", bytes(64 * MIB))
    assert stream.response()[b":status"] == b"413" and stream.read() == b"no"
    assert stream.wait_stopped() == ErrorCode.H3_NO_ERROR
    stream = visitor.upload("/", bytes(4 * MIB), authority=web.daemon.host("nobody"))
    assert stream.response()[b":status"] == b"404" and stream.read().startswith(b"No such tunnel")
    assert stream.wait_stopped() == ErrorCode.H3_NO_ERROR
    assert visitor.request("/echo").read() == b""


def test_cancelled_requests_leave_the_others_alone(services, visitor):
    steady = visitor.request("/steps/http3/40")
    for number in range(40):
        assert steady.read(len(b"data: %d\n\n" % number)) == b"data: %d\n\n" % number
        other = visitor.request("/endless" if number % 2 else "/silent")
        if number % 2:
            other.response()
        other.stop()
        assert other.wait_reset() == ErrorCode.H3_REQUEST_CANCELLED
        services.confirm("http3", number)
    assert steady.read() == b""
    wait_for(lambda: services.open_streams == 0, "the service sees all of them leave")


def test_pages_and_methods_of_the_daemon(site, visitor):
    daemon = site.daemon
    stream = visitor.request("/health", authority=daemon.host(""))
    assert stream.response()[b":status"] == b"200" and stream.read() == b"ok\n"
    assert visitor.request("/_cok/tunnel", authority=daemon.host("")).response()[b":status"] == b"426"
    fields = [(b":method", b"CONNECT"), (b":authority", site.host.encode())]
    assert visitor.request("", fields=fields).response()[b":status"] == b"405"
    # 30 KiB pass; more than 48 KiB gets a response, not a reset.
    for extra, status in [
        ([("x-long", "x" * 30 * 1024)], b"200"),
        ([("x-long", "x" * 50 * 1024)], b"431"),
        ([(f"x-{n}", "x") for n in range(80)], b"200"),
        ([(f"x-{n}", "") for n in range(1500)], b"431"),
    ]:
        stream = visitor.request("/", authority=site.host, extra=extra)
        assert stream.response()[b":status"] == status
        stream.read()


def test_requests_are_counted(visitor, daemon):
    before = daemon.answered()
    for _ in range(3):
        visitor.request("/echo").read()
    wait_for(lambda: daemon.answered() >= before + 3, "they are counted")


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_visitors_over_tcp_get_alt_svc(site, recorder, version):
    """Every response over TCP has the daemon's Alt-Svc, which replaces the service's. Responses over HTTP/3 have none."""
    daemon = site.daemon
    expected = f'h3=":{daemon.port}"'.encode()

    def alternatives(answer):
        head = answer.stdout.partition(b"\r\n\r\n")[0]
        return [value.split(b";")[0] for name, value in raw.fields(head) if name == b"alt-svc"]

    recorder.answer = OK.replace(b"\r\n\r\n", b'\r\nalt-svc: h3=":1"; ma=60\r\nalt-svc: clear\r\n\r\n')
    for name in (site.name, recorder.client.name, "nobody", ""):
        assert alternatives(daemon.curl(name, "/", version, "--include")) == [expected]
    with Http3(daemon, recorder.client.name) as visitor:
        assert b"alt-svc" not in visitor.request("/").response()
        assert b"alt-svc" not in visitor.request("/", authority=daemon.host("nobody")).response()


def test_a_stopping_daemon_finishes_running_requests(own_daemon, services):
    """The daemon sends GOAWAY twice, the second time with the first request that it does not serve. It then closes cleanly."""
    daemon = own_daemon()
    client = daemon.client(services.web, "web")
    with Http3(daemon, "web") as visitor, Http3(daemon, "web") as silent:
        running = visitor.request("/steps/stopping/2")
        assert running.read(9) == b"data: 0\n\n"
        daemon.process.popen.send_signal(signal.SIGTERM)
        visitor.wait(lambda: len(visitor.goaways) == 2, "GOAWAY")
        assert visitor.goaways[0] > 1 << 60 and visitor.goaways[1] == running.id + 4
        late = visitor.request("/echo")
        assert late.wait_reset() == ErrorCode.H3_REQUEST_REJECTED
        services.confirm("stopping", 0)
        assert running.read(9) == b"data: 1\n\n"
        services.confirm("stopping", 1)
        assert running.read() == b""
        assert visitor.wait_closed() == ErrorCode.H3_NO_ERROR
        assert silent.wait_closed() == ErrorCode.H3_NO_ERROR and silent.goaways == [0]
    assert daemon.process.wait_exit() == 0
    client.stop()


def test_idle_connections_get_goaway(own_daemon, services):
    """Connections without a request or with a finished response are idle. A connection with a running response is not."""
    daemon = own_daemon(limits='header_timeout = "1s"')
    client = daemon.client(services.web, "web")
    with Http3(daemon, "web") as silent, Http3(daemon, "web") as answered, Http3(daemon, "web") as waiting:
        assert answered.request("/echo").read() == b""
        stream = waiting.request("/steps/idle/2")
        stream.read(9)
        assert silent.wait_closed() == answered.wait_closed() == ErrorCode.H3_NO_ERROR
        assert silent.goaways and answered.goaways[-1] == 4
        assert not waiting.closed
        services.confirm("idle", 0)
        assert stream.read(9) == b"data: 1\n\n"
    client.stop()


def test_a_visitor_that_sends_no_settings(own_daemon, services):
    """A visitor without settings gets responses (RFC 9114, section 7.2.4.2). Half a head gets none."""
    daemon = own_daemon(limits='header_timeout = "1s"')
    with Http3(daemon, "web", settle=False) as visitor:
        half = visitor.raw(b"\x01\x10\0\0")
        assert half.wait_reset() == ErrorCode.H3_REQUEST_REJECTED
        assert visitor.wait_closed() == ErrorCode.H3_NO_ERROR


def test_connections_count_towards_the_limit(own_daemon, nginx):
    """Connections over QUIC and TCP share one limit. The one that has been idle longest makes room for a fresh one."""
    daemon = own_daemon(limits="max_connections = 3")
    client = daemon.client(nginx.target, "few")
    held = [Http3(daemon, "few") for _ in range(2)] + [Http2(daemon, "few")]
    began = time.monotonic()
    with Http3(daemon, "few") as visitor:
        assert visitor.request("/").read() == HELLO
        assert time.monotonic() - began < 2
        assert held[0].wait_closed() == ErrorCode.H3_NO_ERROR
        for other in held[1:]:
            assert other.request("/").read() == HELLO
    held[1].leave()
    held[2].socket.close()
    client.stop()
