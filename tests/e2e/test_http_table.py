"""Each row of the table goes through both transports, with a second request behind it that only a sound row lets pass."""

import re
import uuid

import pytest
from harness import raw
from harness.cok import TRANSPORTS
from http_table.requests import REQUESTS

PAGE = re.compile(rb"[A-Za-z]{2,} [a-z]{2,}")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answer(head, connection):
    """Reads the body first, so that its bytes are not taken for a head."""
    framing = dict(raw.fields(head))
    if framing.get(b"transfer-encoding") == b"chunked":
        size = raw.read_line(connection)
        while int(size, 16):
            raw.read_exactly(connection, int(size, 16) + 2)
            size = raw.read_line(connection)
        while raw.read_line(connection) != b"\r\n":
            pass
    else:
        raw.read_exactly(connection, int(framing.get(b"content-length", 0)))
    return ANSWER


@pytest.fixture(scope="module", params=TRANSPORTS)
def origin(request, daemon):
    recorder = raw.Recorder(answer)
    client = daemon.client(recorder.target, f"table-{request.param}", transport=request.param)
    yield recorder, client.name
    client.stop()
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


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row.name)
def test_requests(daemon, origin, row):
    recorder, name = origin
    # Both requests carry it: a late head of another row does not count.
    mark = b"Row: " + uuid.uuid4().hex.encode() + b"\r\n"
    authority = f"{daemon.host(name)}:{daemon.port}".encode()
    first = (row.line + b"\r\n" + mark + row.fields + b"\r\n").replace(b"HOST", authority) + row.body
    second = b"GET /second HTTP/1.1\r\n" + mark + b"Host: " + authority + b"\r\nConnection: close\r\n\r\n"
    with raw.connect(daemon, name, deadline=5) as connection:
        connection.sendall(first + second)
        data, closed = all_bytes(connection)
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", data)]
    seen = [head for head in list(recorder.heads) if mark[5:-2] in head]
    assert closed, "the connection stays open"
    if row.target is None:
        assert not seen, f"the service saw {seen}"
        assert len(statuses) == 1 and statuses[0] in row.status, data[:200]
        assert PAGE.search(data.partition(b"\r\n\r\n")[2]), f"no page: {data[:200]}"
        return
    assert statuses == [*row.status, 200], data[:200]
    assert len(seen) == 2 and seen[0].split(b"\r\n")[0].split(b" ", 1)[1] == row.target + b" HTTP/1.1"
    pairs, wanted = raw.fields(seen[0]), raw.fields(b"\r\n" + b"\r\n".join(row.kept))
    names = {field for field, _ in wanted}
    assert [pair for pair in pairs if pair[0] in names] == wanted
    assert not [word for word in row.dropped if word in seen[0]], seen[0]
