"""nginx, Node, Python's http.server and aiohttp answer through the tunnel as directly, over each version of HTTP."""

import functools
import http.server
import os
import socket
import threading
from pathlib import Path

import pytest
from harness.cok import TRANSPORTS
from harness.nginx import Nginx
from harness.outcome import VERSIONS
from harness.process import Process
from http_table.origin import stop_soon
from http_table.origins import LARGE, ROWS
from http_table.visitor import Visitor, ask_plainly

# What belongs to a connection or to the moment, or is the daemon's own.
OWN = (b"connection", b"keep-alive", b"transfer-encoding", b"date", b"alt-svc", b":status")
STANDS = {b"ETAG": b"etag", b"MODIFIED": b"last-modified"}
TRIES = 10
NODE = Path(__file__).parent / "http_table" / "node.js"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def ports(tmp_path_factory, services):
    """Each program's port. The file servers share what they serve."""
    nginx = Nginx(tmp_path_factory.mktemp("origins"))
    for name, data in {"index.html": b"<h1>hello</h1>\n", "words.txt": b"some words\n" * 50, "large.bin": LARGE, "zero.bin": b"", "a b.txt": b"a b"}.items():
        nginx.add(name, data)
        os.utime(nginx.site / name, (1.7e9, 1.7e9))
    (nginx.site / "folder").mkdir()
    node = Process("node", NODE)
    files = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=nginx.site))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    yield {"nginx": nginx.port, "node": int(node.wait_stdout()), "python": files.server_port, "aiohttp": services.port}
    files.shutdown()
    files.server_close()
    node.stop()
    nginx.stop()


@pytest.fixture(scope="module", params=TRANSPORTS)
def tunnels(request, daemon, ports):
    made = {
        name: daemon.client(f"http://127.0.0.1:{port}", f"{name}-{request.param}", transport=request.param) for name, port in ports.items()
    }
    yield made
    for client in made.values():
        stop_soon(client)


@pytest.fixture(scope="module", params=VERSIONS)
def visitors(request, daemon, tunnels):
    made = {name: Visitor(daemon, client.name, request.param) for name, client in tunnels.items()}
    yield made
    for visitor in made.values():
        visitor.leave()


def directly(port, host, row, fields):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return ask_plainly(connection, host, row.path, row.method, fields, row.body, row.chunked)


def significant(outcome):
    return sorted(pair for pair in outcome.fields if pair[0] not in OWN)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.origin}-{row.name}")
def test_origins(daemon, ports, tunnels, visitors, row):
    client, visitor = tunnels[row.origin], visitors[row.origin]
    host, port = daemon.host(client.name), ports[row.origin]
    # A new file's name tells who put it there.
    row = row._replace(path=row.path.replace("NEW", f"direct-{client.name}-{visitor.version}"))
    fields = row.fields
    if any(value in STANDS for _, value in fields):
        known = dict(directly(port, host, row._replace(method="GET"), ()).fields)
        fields = tuple((name, known[STANDS[value]] if value in STANDS else value) for name, value in fields)
    direct = directly(port, host, row, fields)
    assert (direct.status, direct.whole) == (row.status, True), direct
    fields = [*fields, (b"te", b"trailers")] if row.path == "/trailers" else fields
    outcome = visitor.ask(row.path.replace("direct-", "tunnel-"), row.method, fields, row.body, row.chunked)
    assert (outcome.status, outcome.whole) == (direct.status, True), outcome
    assert (outcome.body, outcome.trailers) == (direct.body, direct.trailers)
    names = dict(direct.fields)
    # A body whose length the program does not say may get one on the way.
    got = [pair for pair in significant(outcome) if pair[0] in names or pair[0] != b"content-length"]
    assert got == [(name, value.replace(b"direct-", b"tunnel-")) for name, value in significant(direct)]
    if visitor.version == "h1" and row.origin == "node":
        assert outcome.reason == direct.reason


def test_early_answers(visitors):
    """A service that refuses an upload and closes is heard."""
    for _ in range(TRIES):
        outcome = visitors["node"].ask("/early", "POST", body=LARGE * 10)
        assert (outcome.status, outcome.body) == (413, b"too large")


def test_connections_are_used_again(visitors):
    """One request after another needs few connections to the service."""
    numbers = {visitors["node"].ask("/connection").body for _ in range(20)}
    assert len(numbers) <= 2, numbers
