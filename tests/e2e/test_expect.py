"""Interim responses: the service answers `Expect: 100-continue`, and other interim responses do no harm."""

import threading

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
    """The visitor gets its 100 only when the service sends one. Then the body passes."""
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
