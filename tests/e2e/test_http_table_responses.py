"""A service's answer reaches visitors whole, breaks off, or becomes 502; never is it another request's.

A clean request through the same tunnel follows each row at once, and gets an answer of its own."""

import socket
import threading
import time
import uuid

import pytest
from harness import raw
from harness.cok import TRANSPORTS
from harness.outcome import VERSIONS
from http_table.origin import stop_soon
from http_table.pages import check_page
from http_table.responses import RESPONSES
from http_table.visitor import Visitor

LATE = 0.01  # how much later a service sends what does not belong to its answer

LATE_SENT = threading.Event()


@pytest.fixture(scope="module", params=TRANSPORTS)
def service(request, daemon):
    def answer(head, connection):
        path = head.split(b" ")[1][1:]
        if not path.isdigit():
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(path) + path
        row = RESPONSES[int(path)]
        LATE_SENT.clear()
        if row.body:
            # With Nagle's algorithm, the late bytes wait until the client acknowledges the answer. It may do so only with
            # its next request. Without a body, the connection rests longer, so the bytes come in time.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(row.answer)
        if row.late:
            time.sleep(LATE)
            connection.sendall(row.late)
            LATE_SENT.set()
        return None if row.ends else b""

    recorder = raw.Recorder(answer)
    client = daemon.client(recorder.target, f"answers-{request.param}", transport=request.param)
    yield client.name
    stop_soon(client)
    recorder.stop()


@pytest.fixture(scope="module", params=VERSIONS)
def visitor(request, daemon, service):
    visitor = Visitor(daemon, service, request.param)
    yield visitor
    visitor.leave()


@pytest.mark.parametrize("number", range(len(RESPONSES)), ids=lambda number: RESPONSES[number].name)
def test_responses(visitor, number):
    row = RESPONSES[number]
    outcome = visitor.ask(f"/{number}", row.method.decode(), [(b"te", b"trailers")])
    # Bytes that come while the next request is under way are its response, as far as anybody can tell.
    assert not row.late or LATE_SENT.wait(20)
    clean = uuid.uuid4().hex
    own = visitor.ask(f"/{clean}")
    assert (own.status, own.whole, own.body) == (200, True, clean.encode()), f"the next request got {own}"
    if row.body is None:
        assert outcome.status in (0, 200, 502) and not (outcome.status == 200 and outcome.whole), f"looks whole: {outcome}"
        return
    assert (outcome.status, outcome.whole) == (row.status, True), outcome
    if row.status == 502:
        check_page(502, outcome.values(b"content-type")[0].decode(), outcome.body, title=row.title)
        return
    assert outcome.body == row.body
    assert not [name for name in row.missing if outcome.values(name)], outcome.fields
    names = {name for name, _ in row.kept}
    assert [pair for pair in outcome.fields if pair[0] in names] == list(row.kept)
    if visitor.version == "h1" and b" Odd\r\n" in row.answer.split(b"\n")[0] + b"\n":
        assert outcome.reason == b"Odd"
    assert outcome.trailers == list(row.trailers)
