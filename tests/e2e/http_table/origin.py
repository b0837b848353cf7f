"""A service for the tables: it reads each request whole, keeps what it saw, and answers."""

import time

from harness import raw

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Origin(raw.Recorder):
    """Keeps each request as a pair of its head and its body. The row's mark tells requests apart."""

    def __init__(self, answer=ANSWER):
        self.requests = []
        super().__init__(lambda head, connection: self._read(head, connection) or answer)

    def _read(self, head, connection):
        self.requests.append((head, read_body(head, connection)))

    def seen(self, mark):
        """Returns the requests with this mark, those included whose body has not come whole."""
        whole = [(head, body) for head, body in list(self.requests) if mark in head]
        return whole + [(head, None) for head in list(self.heads) if mark in head][len(whole):]


def read_body(head, connection):
    framing = dict(raw.fields(head))
    if framing.get(b"transfer-encoding") != b"chunked":
        return raw.read_exactly(connection, int(framing.get(b"content-length", 0)))
    body = b""
    while size := int(raw.read_line(connection), 16):
        body += raw.read_exactly(connection, size + 2)[:-2]
    trailers = b""
    while line := raw.read_line(connection):
        trailers += line + b"\r\n"
    return (body, trailers) if trailers else body


def wait_seen(origin, mark, count=1, deadline=5):
    """Waits until the service has this many requests with the mark."""
    end = time.monotonic() + deadline
    while len(seen := origin.seen(mark)) < count:
        assert time.monotonic() < end, f"the service saw {len(seen)} of {count} requests"
        time.sleep(0.001)
    return seen


def stop_soon(client):
    """Stops a client, which would wait for an exchange that never ended."""
    begin = time.monotonic()
    client.stop()
    assert time.monotonic() - begin < 4, "an exchange of the table did not end"
