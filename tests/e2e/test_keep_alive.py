"""A Node.js server that closes idle connections early, while POSTs come. A POST can't be sent a second time, so it must not
go out on a connection that the service is about to close."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import raw
from harness.node import node

# Milliseconds decide which side closes first.
pytestmark = pytest.mark.alone

TIMEOUT = 80


@pytest.fixture(params=["announced", "silent"])
def service(request):
    process = node("brief_keep_alive.mjs", TIMEOUT, request.param)
    yield f"http://127.0.0.1:{process.wait_stdout()}"
    process.stop()


def post(connection, host, body):
    """Posts on an open connection. Returns status and body of the response."""
    connection.sendall(
        f"POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    )
    head = raw.read_head(connection)
    fields = dict(raw.fields(head))
    if b"content-length" in fields:
        answer = raw.read_exactly(connection, int(fields[b"content-length"]))
    else:
        answer = b"no length"
    return int(head.split()[1]), answer.decode()


def test_posts_around_the_time_out_arrive_once(tunnel, service):
    """Four visitors post at intervals from well below the time-out to above it, in steps of a millisecond."""
    client = tunnel(service)

    def visit(visitor):
        answers = []
        with raw.connect(client.daemon, client.name) as connection:
            for step in range(40):
                body = f"{visitor}-{step}"
                answers.append((post(connection, client.host, body), (200, body)))
                time.sleep((TIMEOUT - 20 + step) / 1000)
        return answers

    with ThreadPoolExecutor(4) as visitors:
        answers = [answer for visit in visitors.map(visit, range(4)) for answer in visit]
    assert [got for got, _ in answers] == [wanted for _, wanted in answers]
    arrived = json.loads(client.curl("/").stdout)
    assert sorted(arrived) == sorted(body for _, (_, body) in answers)
