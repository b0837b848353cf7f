"""A service's answer reaches visitors whole, breaks off, or becomes 502; never is it another request's."""

import http.client

import pytest
from harness import raw
from harness.cok import TRANSPORTS
from http_table.responses import RESPONSES


@pytest.fixture(scope="module", params=TRANSPORTS)
def service(request, daemon):
    def answer(head, connection):
        connection.sendall(RESPONSES[int(head.split(b" ")[1][1:])].answer)

    recorder = raw.Recorder(answer)
    client = daemon.client(recorder.target, f"answers-{request.param}", transport=request.param)
    yield client.name
    client.stop()
    recorder.stop()


@pytest.mark.parametrize("number", range(len(RESPONSES)), ids=lambda number: RESPONSES[number].name)
def test_responses(daemon, service, number):
    row = RESPONSES[number]
    with raw.connect(daemon, service, deadline=5) as connection:
        authority = f"{daemon.host(service)}:{daemon.port}".encode()
        connection.sendall(row.method + b" /%d HTTP/1.1\r\nHost: " % number + authority + b"\r\nConnection: close\r\n\r\n")
        response = http.client.HTTPResponse(connection, method=row.method.decode())
        response.begin()
        if row.body is None and response.status == 502 and row.name == "chunk-invalid":
            return  # The chunk came before the head went out.
        assert response.status == row.status
        if row.body is None:
            with pytest.raises((http.client.IncompleteRead, OSError)):
                response.read()
            return
        body = response.read()
        # An answer of the daemon's own holds its page.
        assert body == row.body or row.status == 502 and b"ok" != body
        assert not [name for name in row.missing if response.getheader(name.decode())]
