"""Each row of the table goes through both transports, with a second request behind it that only a sound row lets pass.

A clean request on a connection of its own follows. Once the service has it, it has seen all that it will see of the row."""

import http.client
import io
import re
import uuid

import pytest
from harness import raw
from harness.cok import TRANSPORTS
from http_table.origin import Origin, stop_soon, wait_seen
from http_table.pages import check_page
from http_table.requests import REQUESTS


@pytest.fixture(scope="module", params=TRANSPORTS)
def origin(request, daemon):
    recorder = Origin()
    client = daemon.client(recorder.target, f"table-{request.param}", transport=request.param)
    yield recorder, client.name
    stop_soon(client)
    recorder.stop()


def all_bytes(connection):
    """Everything up to the end, and whether the peer closed."""
    data = b""
    try:
        while more := connection.recv(65536):
            data += more
    except TimeoutError:
        return data, False
    except OSError:
        pass
    return data, True


class Bytes:
    """What http.client reads a response from."""

    def __init__(self, data):
        self.makefile = lambda _mode: io.BytesIO(data)


def by_first(pairs, names):
    """The values of each name, in the order of the names' first appearance. Only this order means something."""
    values = {}
    for name, value in pairs:
        if name in names:
            values.setdefault(name, []).append(value)
    return list(values.items())


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row.name)
def test_requests(daemon, origin, row):
    recorder, name = origin
    # Both requests carry it: a late head of another row does not count.
    mark, clean = uuid.uuid4().hex.encode(), uuid.uuid4().hex.encode()
    authority = f"{daemon.host(name)}:{daemon.port}".encode()

    def last(path, mark):
        return b"GET " + path + b" HTTP/1.1\r\nRow: " + mark + b"\r\nHost: " + authority + b"\r\nConnection: close\r\n\r\n"

    first = (row.line + b"\r\nRow: " + mark + b"\r\n" + row.fields + b"\r\n").replace(b"HOST", authority) + row.body
    with raw.connect(daemon, name, deadline=5) as connection:
        connection.sendall(first + last(b"/second", mark))
        data, closed = all_bytes(connection)
    with raw.connect(daemon, name, deadline=5) as connection:
        connection.sendall(last(b"/clean", clean))
        assert all_bytes(connection)[0].startswith(b"HTTP/1.1 200")
    wait_seen(recorder, clean)
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", data)]
    seen = [head for head, _ in recorder.seen(mark)]
    assert closed, "the connection stays open"
    if row.target is None:
        assert statuses and statuses[0] in row.status, data[:200]
        assert not [head for head in seen if row.doubt or b"/second" not in head], f"the service saw {seen}"
        assert statuses[1:] in ([],) if row.doubt else ([], [200]), data[:400]
        response = http.client.HTTPResponse(Bytes(data))
        response.begin()
        check_page(response.status, response.getheader("content-type"), response.read(), row.accept)
        return
    assert statuses == [*row.status, 200], data[:200]
    assert len(seen) == 2 and seen[0].split(b"\r\n")[0].split(b" ", 1)[1] == row.target + b" HTTP/1.1"
    pairs, wanted = raw.fields(seen[0]), raw.fields(b"\r\n" + b"\r\n".join(row.kept))
    names = {field for field, _ in wanted}
    assert by_first(pairs, names) == by_first(wanted, names)
    assert not [word for word in row.dropped if word in seen[0]], seen[0]
