"""Interim responses: a service may answer `Expect: 100-continue` or not, and other interim responses do no harm."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness import raw
from harness.process import wait_for

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture
def gated(tunnel):
    """A service that sends 100 and reads the body once its `gate` is open."""

    def answer(_head, connection):
        connection.settimeout(20)
        recorder.gate.acquire()
        connection.sendall(CONTINUE)
        recorder.body = raw.read_exactly(connection, 5)
        return OK

    recorder = raw.Recorder(answer)
    recorder.gate = threading.Semaphore(0)
    recorder.client = tunnel(recorder.target)
    yield recorder
    recorder.stop()


def expecting(client, length):
    """A head whose visitor waits for a 100."""
    host = client.host.encode()
    return b"POST / HTTP/1.1\r\nhost: %s\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n" % (host, length)


def test_the_visitor_waits_for_the_service(gated):
    """The visitor gets its 100 when the service sends one in time. Then the body passes."""
    with raw.connect(gated.client.daemon, gated.client.name) as connection:
        connection.sendall(expecting(gated.client, 5))
        # Half a second is enough for a premature 100 to arrive.
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(20)
        gated.gate.release()
        assert raw.read_head(connection).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"hello")
        assert raw.read_head(connection).startswith(b"HTTP/1.1 200 ")
    assert gated.body == b"hello"


def test_over_http2_the_body_waits_for_the_service(gated):
    """The edge's library can't send a 100 over HTTP/2, and curl sends the body after a second. The daemon holds the body
    back until the service asks for it."""
    upload = gated.client.start_curl("/", "--http2", "--data", "hello", "--header", "expect: 100-continue")
    wait_for(lambda: gated.heads, "the service has the head")
    gated.gate.release()
    assert upload.stdout.read() == b"ok" and upload.wait(20) == 0
    assert gated.body == b"hello"


@pytest.mark.parametrize("status", [b"413 Content Too Large", b"417 Expectation Failed", b"200 OK"])
def test_the_service_can_decline(tunnel, multiplexed, status):
    """A final response instead of a 100 reaches the visitor, which has sent no body."""
    recorder = raw.Recorder(lambda head, connection: b"HTTP/1.1 %s\r\ncontent-length: 3\r\n\r\nno\n" % status)
    client = tunnel(recorder.target)
    with raw.connect(client.daemon, client.name) as connection:
        connection.sendall(expecting(client, 5))
        assert raw.read_head(connection).startswith(b"HTTP/1.1 %s " % status[:3])
        assert raw.read_exactly(connection, 3) == b"no\n"
    with multiplexed(client.daemon, client.name) as visitor:
        stream = visitor.request("/", method="POST", end=False, extra=[("expect", "100-continue")])
        assert stream.response()[b":status"] == status[:3] and not stream.interim
    recorder.stop()


def test_a_visitor_need_not_wait(gated):
    """The visitor may send the body at once (RFC 9110, section 10.1.1). The service gets it after its 100."""
    with raw.connect(gated.client.daemon, gated.client.name) as connection:
        connection.sendall(expecting(gated.client, 5) + b"hello")
        gated.gate.release()
        head = raw.read_head(connection)
        if head.startswith(b"HTTP/1.1 100 "):
            head = raw.read_head(connection)
        assert head.startswith(b"HTTP/1.1 200 ")
    assert gated.body == b"hello"


def test_other_interim_responses_do_no_harm(tunnel, http):
    """The daemon may drop 103 Early Hints. The final response arrives."""
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
    recorder = raw.Recorder(lambda head, connection: hints + hints + OK)
    client = tunnel(recorder.target)
    for _ in range(2):
        assert client.curl("/", http, "--write-out", "%{http_code}").stdout == b"ok200"
    recorder.stop()


class Silent(BaseHTTPRequestHandler):
    """Python's own HTTP/1.0 server: it sends no 100, and returns the length of a body."""

    def do_POST(self):
        length = len(self.rfile.read(int(self.headers["content-length"])))
        self.server.expected.append(self.headers.get("expect"))
        self.send_response(200)
        self.send_header("content-length", str(len(str(length))))
        self.end_headers()
        self.wfile.write(b"%d" % length)

    def log_message(self, *_):
        pass


@pytest.fixture
def silent(tunnel):
    """A service that never sends a 100."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.expected = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.client = tunnel(f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def test_a_service_need_not_send_a_100(silent, http, tmp_path):
    """curl expects a 100 for each body above one megabyte, and sends it after a second without one."""
    (tmp_path / "body").write_bytes(bytes(3 << 20))
    for options in (["--data", "hello", "--header", "expect: 100-continue"], ["--data-binary", f"@{tmp_path}/body"]):
        length = 5 if options[1] == "hello" else 3 << 20
        assert silent.client.curl("/", http, *options, deadline=10).stdout == b"%d" % length


def test_a_visitor_that_waits_gets_its_100(silent):
    """A visitor over HTTP/1.1 that sends nothing without a 100 gets one from the daemon after a second."""
    with raw.connect(silent.client.daemon, silent.client.name) as connection:
        connection.sendall(expecting(silent.client, 5))
        assert raw.read_head(connection) == CONTINUE
        connection.sendall(b"hello")
        assert raw.read_head(connection).startswith(b"HTTP/1.1 200 ")


def test_over_streams_the_body_goes_on(silent, multiplexed):
    with multiplexed(silent.client.daemon, silent.client.name) as visitor:
        extra = [("expect", "100-continue"), ("content-length", "5")]
        waiting = visitor.request("/", method="POST", end=False, extra=extra)
        if multiplexed.__name__ == "Http3":
            waiting.wait(lambda: waiting.interim, "the daemon's 100")
            assert [head[b":status"] for head in waiting.interim] == [b"100"]
        waiting.send(b"hello", end=True)
        assert waiting.response()[b":status"] == b"200" and waiting.read() == b"5"


def test_an_unknown_expectation_has_no_effect(silent, http):
    """It passes to the service, which may judge it, and holds nothing back."""
    options = ["--data", "hello", "--header", "expect: foo"]
    assert silent.client.curl("/", http, *options, "--write-out", " %{time_total}").stdout.startswith(b"5 0.")
    assert silent.expected == ["foo"]


def test_an_expectation_over_http_1_0_has_no_effect(silent):
    """RFC 9110, section 10.1.1: it is ignored, and a visitor over HTTP/1.0 gets no interim head."""
    with raw.connect(silent.client.daemon, silent.client.name) as connection:
        connection.sendall(expecting(silent.client, 5).replace(b"HTTP/1.1", b"HTTP/1.0") + b"hello")
        assert raw.read_head(connection).startswith(b"HTTP/1.0 200 ")
    assert silent.expected == [None]
