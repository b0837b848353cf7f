"""Requests over HTTP/2 and HTTP/3, frame by frame: what the service saw, and what the visitor got.

A clean request over HTTP/1.1 follows. Once the service has it, it has seen all that it will see of the row."""

import uuid

import pytest
from harness import raw
from harness.cok import TRANSPORTS
from http_table.frames import Visitor2, Visitor3
from http_table.origin import Origin, stop_soon, wait_seen
from http_table.pages import check_page
from http_table.streams import BROKEN, EITHER, PASSED, ROWS


@pytest.fixture(scope="module", params=TRANSPORTS)
def origin(request, daemon):
    origin = Origin()
    origin.client = daemon.client(origin.target, f"streams-{request.param}", transport=request.param)
    yield origin
    stop_soon(origin.client)
    origin.stop()


@pytest.fixture(scope="module", params=[Visitor2, Visitor3], ids=["h2", "h3"])
def visitor(request, daemon, origin):
    visitor = request.param(daemon, origin.client.name)
    yield visitor
    visitor.leave()


def clean(daemon, name):
    """Sends a request over a connection of its own. Returns its mark."""
    mark = uuid.uuid4().hex.encode()
    with raw.connect(daemon, name, deadline=5) as connection:
        connection.sendall(b"GET /clean HTTP/1.1\r\nRow: %s\r\nHost: %s\r\n\r\n" % (mark, daemon.host(name).encode()))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    return mark


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_streams(daemon, origin, visitor, row):
    name = origin.client.name
    authority = f"{daemon.host(name)}:{daemon.port}".encode()
    mark = uuid.uuid4().hex.encode()

    def filled(pairs):
        return tuple((key, value.replace(b"HOST", authority)) for key, value in pairs)

    trailers = None if row.trailers is None else filled(row.trailers)
    # The mark is last: an earlier field would make pseudo-header fields come too late.
    outcome = visitor.send(filled((*row.fields, (b"row", mark))), row.body, trailers)
    wait_seen(origin, clean(daemon, name))
    seen = origin.seen(mark)
    if row.ends == PASSED or row.ends == EITHER and seen:
        assert (outcome.status, outcome.whole) == (200, True), outcome
        check_seen(seen, row, filled(row.kept))
        return
    # A request that says that it is empty is whole before its fault.
    assert not [body for _, body in seen if row.ends != BROKEN or body], f"the service saw {seen}"
    assert not outcome.status or outcome.status in row.status, outcome
    if outcome.status and outcome.whole:
        check_page(outcome.status, outcome.values(b"content-type")[0].decode(), outcome.body)


def check_seen(seen, row, kept):
    assert len(seen) == 1, f"the service saw {seen}"
    head, body = seen[0]
    assert head.split(b"\r\n")[0] == row.line + b" HTTP/1.1"
    names = {key for key, _ in kept}
    assert [pair for pair in raw.fields(head) if pair[0] in names] == list(kept)
    assert not [word for word in row.dropped if word in head], head
    assert body == row.got
