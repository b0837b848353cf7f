"""When one end of an exchange leaves, the other end notices. Other exchanges do not."""

import socket
import sys
import threading
import time

import pytest

from harness import raw
from harness.http2 import Http2
from harness.http3 import ErrorCode, Http3
from harness.nginx import Nginx
from harness.process import Process, wait_for

# A service in its own process, so that a test can kill it. It announces 100 MB, writes a little, and waits.
DYING = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\\r\\nhello\\r\\n")
        else:
            self.send_header("content-length", "100000000")
            self.end_headers()
            self.wfile.write(b"hello")
        self.wfile.flush()
        print("written", flush=True)
        self.rfile.read(1)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture
def dying():
    process = Process(sys.executable, "-c", DYING)
    process.port = int(process.wait_stdout())
    yield process
    process.kill()


def leave_h1(daemon, name, path):
    connection = raw.connect(daemon, name)
    connection.sendall(b"GET " + path + b" HTTP/1.1\r\nhost: " + daemon.host(name).encode() + b"\r\n\r\n")
    return connection, lambda: connection.recv(1), lambda: (connection.shutdown(socket.SHUT_RDWR), connection.close())


def leave_h2(daemon, name, path):
    visitor = Http2(daemon, name)
    stream = visitor.request(path.decode())

    def cancel():
        visitor.connection.reset_stream(stream.id, 8)
        visitor.flush()

    return visitor, stream.response, cancel


def leave_h3(daemon, name, path):
    """Stops the response (STOP_SENDING)."""
    visitor = Http3(daemon, name)
    stream = visitor.request(path.decode())
    return visitor, stream.response, stream.stop


def disconnect_h3(daemon, name, path):
    """Closes the whole connection."""
    visitor = Http3(daemon, name)
    stream = visitor.request(path.decode())
    return visitor, stream.response, visitor.leave


VISITS = {"h1": leave_h1, "h2": leave_h2, "h3": leave_h3, "h3-closed": disconnect_h3}


@pytest.mark.alone
@pytest.mark.parametrize("visit", VISITS.values(), ids=VISITS)
@pytest.mark.parametrize("path", [b"/endless", b"/silent"])
def test_the_service_sees_the_visitor_leave(web, services, visit, path):
    """The service sees it within a second, in the middle of a body or before the response begins."""
    connection, wait, leave = visit(web.daemon, web.name, path)
    wait_for(lambda: services.open_streams == 1, "the service has the request")
    if path == b"/endless":
        wait()
    began = time.monotonic()
    leave()
    wait_for(lambda: services.open_streams == 0, "the service sees the visitor leave", deadline=1)
    assert time.monotonic() - began < 1.5
    match connection:
        case Http3():
            connection.leave()
        case Http2():
            connection.socket.close()
        case _:
            connection.close()


@pytest.mark.parametrize("path", ["/length", "/chunked"])
def test_a_killed_service_truncates_the_response(dying, tunnel, http, path):
    """The visitor sees a truncated transfer: curl's 18 over HTTP/1.1, a reset stream (92) over HTTP/2."""
    client = tunnel(f"http://127.0.0.1:{dying.port}")
    curl = client.start_curl(path, http)
    assert curl.stdout.read(5) == b"hello"
    dying.kill()
    assert curl.wait(10) in (18, 92), curl.stderr.read()


@pytest.mark.parametrize("path", ["/length", "/chunked"])
def test_a_killed_service_truncates_the_response_over_http3(dying, tunnel, path):
    """The stream is reset without a clean end, and the connection goes on."""
    client = tunnel(f"http://127.0.0.1:{dying.port}")
    with Http3(client.daemon, client.name) as visitor:
        stream = visitor.request(path)
        assert stream.read(5) == b"hello"
        dying.kill()
        assert stream.wait_reset() == ErrorCode.H3_INTERNAL_ERROR and not stream.ended
        assert visitor.request("/").response()[b":status"] == b"502"


def test_a_killed_nginx_truncates_the_response(tunnel, tmp_path, http):
    """nginx and its worker get SIGKILL in the middle of a file."""
    nginx = Nginx(tmp_path)
    nginx.add_sparse("large.bin", 64 << 20)
    curl = tunnel(nginx.target).start_curl("/slow/large.bin", http)
    assert curl.stdout.read(1000) == bytes(1000)
    nginx.process.kill()
    _, said = curl.communicate(timeout=10)
    assert curl.returncode in (18, 92), said


def test_a_killed_client_truncates_the_response(daemon, nginx, http):
    """A body does not end cleanly when its tunnel ends, even during the reconnect grace. Over TCP the kernel closes the
    connection. Over UDP only silence shows the end: see test_patience.py."""
    nginx.add_sparse("dying.bin", 64 << 20)
    client = daemon.client(nginx.target, transport="ws")
    curl = client.start_curl("/slow/dying.bin", http)
    assert curl.stdout.read(1000) == bytes(1000)
    client.process.kill()
    _, said = curl.communicate(timeout=10)
    assert curl.returncode in (18, 92), said


@pytest.mark.parametrize("version", ["h1", "h2", "h3"])
def test_an_aborted_upload_does_not_look_complete(web, services, version):
    """The service must not mistake a partial body for a complete one."""
    services.uploads.clear()
    services.swallowed = 0
    if version == "h1":
        connection = raw.connect(web.daemon, web.name)
        connection.sendall(
            b"POST /swallow HTTP/1.1\r\nhost: " + web.host.encode()
            + b"\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        wait_for(lambda: services.swallowed == 3, "the service has the first part")
        connection.close()
    else:
        with {"h2": Http2, "h3": Http3}[version](web.daemon, web.name) as visitor:
            stream = visitor.request("/swallow", method="POST", end=False)
            stream.send(b"abc")
            wait_for(lambda: services.swallowed == 3, "the service has the first part")
            stream.cancel()
    wait_for(lambda: services.uploads, "the service sees the upload end", deadline=1)
    assert services.uploads == [(3, False)]


def test_a_service_that_dies_before_it_answers(tunnel):
    recorder = raw.Recorder(lambda head, connection: None)
    client = tunnel(recorder.target)
    assert client.curl("/", "--write-out", "%{http_code}").stdout.endswith(b"502")
    recorder.stop()


def test_other_exchanges_do_not_notice(web, services):
    """On one session, a visitor leaves, an upload is slow, and an exchange is reset. A stream of events goes on."""
    with Http2(web.daemon, web.name) as steady, Http2(web.daemon, web.name) as other:
        stream = steady.request("/steps/steady/60")
        slow = other.request("/hash", method="POST", end=False)
        for number in range(60):
            assert stream.read(len(b"data: %d\n\n" % number)) == b"data: %d\n\n" % number
            services.confirm("steady", number)
            if number % 3 == 0:
                slow.send(b"x")
            if number % 3 == 1:
                connection, wait, leave = leave_h1(web.daemon, web.name, b"/endless")
                wait()
                leave()
            if number % 3 == 2:
                cancelled = other.request("/endless")
                cancelled.response()
                other.connection.reset_stream(cancelled.id, 8)
                other.flush()
        assert stream.read() == b""
        slow.send(b"", end=True)
        assert b'"length": 20' in slow.read()


def test_stopping_the_response_stops_the_upload_over_http3(web, services):
    """The visitor stops the response (STOP_SENDING) and does not reset its own direction."""
    services.uploads.clear()
    services.swallowed = 0
    with Http3(web.daemon, web.name) as visitor:
        stream = visitor.request("/swallow", method="POST", end=False)
        stream.send(b"abc")
        wait_for(lambda: services.swallowed == 3, "the service has the first part")
        stream.stop()
        wait_for(lambda: services.uploads == [(3, False)], "the service sees the upload end", deadline=1)
        assert stream.wait_reset() == stream.wait_stopped() == ErrorCode.H3_REQUEST_CANCELLED


def test_a_reset_upload_does_not_look_complete_over_http3(web, services):
    """The visitor resets its direction and still waits for a response."""
    services.uploads.clear()
    services.swallowed = 0
    with Http3(web.daemon, web.name) as visitor:
        stream = visitor.request("/swallow", method="POST", end=False)
        stream.send(b"abc")
        wait_for(lambda: services.swallowed == 3, "the service has the first part")
        stream.break_off()
        assert stream.wait_reset() == ErrorCode.H3_REQUEST_CANCELLED
        wait_for(lambda: services.uploads == [(3, False)], "the service sees the upload end", deadline=1)


def test_an_aborted_upload_ends_even_if_the_service_does_not_read(tunnel):
    """The daemon does not read an upload while the service does not read. Daemon and client still notice that the visitor
    leaves. The service itself can see it only by reading."""
    gate = threading.Event()
    recorder = raw.Recorder(lambda head, connection: gate.wait(60) and None)
    client = tunnel(recorder.target)
    with Http3(client.daemon, client.name) as visitor:
        stream = visitor.request("/", method="POST", end=False)
        stream.send(bytes(32 << 20))
        wait_for(lambda: recorder.heads, "the service has the head")
        wait_for(stream.stalled, "the upload stops")
        stream.break_off()
        client.process.wait_line(lambda line: "the visitor left" in line, "word that the visitor left", deadline=2)
    gate.set()
    recorder.stop()
