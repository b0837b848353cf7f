"""Interim responses: `Expect: 100-continue` is the service's to answer, and others disturb nobody."""

import threading

import pytest

from harness import raw
from harness.process import wait_for

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture
def gated(tunnel):
    """A service that asks for the body, and reads it, once its `gate` is opened."""

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
    """The visitor gets its 100 when the service sends one, not before, and then the body passes."""
    with raw.connect(gated.client.daemon, gated.client.name) as connection:
        connection.sendall(expecting(gated.client, 5))
        # Half a second is long enough for a 100 of the edge's own to arrive.
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(20)
        gated.gate.release()
        assert raw.read_head(connection).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"hello")
        assert raw.read_head(connection).startswith(b"HTTP/1.1 200 ")
    assert gated.body == b"hello"


def test_over_http2_a_visitor_waits_only_so_long(gated):
    """The edge's library can't send a 100 over HTTP/2, but what the visitor sends is held back all the same until the
    service asks for it; curl sends after a second without an answer."""
    upload = gated.client.start_curl("/", "--http2", "--data", "hello", "--header", "expect: 100-continue")
    wait_for(lambda: gated.heads, "the service has the head")
    gated.gate.release()
    assert upload.stdout.read() == b"ok" and upload.wait(20) == 0
    assert gated.body == b"hello"


@pytest.mark.parametrize("status", [b"413 Content Too Large", b"417 Expectation Failed", b"200 OK"])
def test_the_service_can_decline(tunnel, multiplexed, status):
    """A final answer instead of a 100 reaches the visitor, who has sent no body."""
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
    """Its body may follow the head at once (RFC 9110, section 10.1.1); the service gets it when it asks for it."""
    with raw.connect(gated.client.daemon, gated.client.name) as connection:
        connection.sendall(expecting(gated.client, 5) + b"hello")
        gated.gate.release()
        head = raw.read_head(connection)
        if head.startswith(b"HTTP/1.1 100 "):
            head = raw.read_head(connection)
        assert head.startswith(b"HTTP/1.1 200 ")
    assert gated.body == b"hello"


def test_other_interim_responses_disturb_nobody(tunnel, http):
    """103 Early Hints may be dropped on the way; the final response arrives."""
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
    recorder = raw.Recorder(lambda head, connection: hints + hints + OK)
    client = tunnel(recorder.target)
    for _ in range(2):
        assert client.curl("/", http, "--write-out", "%{http_code}").stdout == b"ok200"
    recorder.stop()
