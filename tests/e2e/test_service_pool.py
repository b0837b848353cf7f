"""Small services are not run over, and no connection gives one visitor another's answer."""

import http.server
import re
import subprocess
import sys
import threading
import time

import pytest

from harness import raw
from harness.outcome import ask

LATE = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nPOISON"
TRUE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue"


@pytest.mark.parametrize("status", [200, 204, 304])
def test_bytes_behind_a_response_without_a_body(tunnel, status):
    """They come a moment after the head, when the next request is under way."""

    def answer(head, connection):
        if b" /bad " not in head.split(b"\r\n")[0]:
            return TRUE
        connection.sendall(b"HTTP/1.1 %d Fine\r\n" % status + (b"content-length: 45\r\n" if status == 200 else b"") + b"\r\n")
        threading.Event().wait(0.002)
        return LATE

    service = raw.Recorder(answer)
    client = tunnel(service.target)
    method = "HEAD" if status == 200 else "GET"
    for _ in range(10):
        got = ask(client.daemon, client.name, "h1", path="/bad", method=method)
        assert got.status == status
        assert ask(client.daemon, client.name, "h1", path="/good").body == b"true"
    service.stop()


def test_a_head_does_not_cost_a_connection_each(tunnel):
    """After a quiet moment, the connection is used again."""
    service = raw.Recorder(lambda head, _: TRUE if head.startswith(b"GET") else TRUE[:-4])
    client = tunnel(service.target)
    for _ in range(4):
        assert ask(client.daemon, client.name, "h1", method="HEAD").status == 200
        time.sleep(0.1)
    assert ask(client.daemon, client.name, "h1").body == b"true"
    assert len(service._connections) == 1
    service.stop()


def test_bytes_on_an_idle_connection_end_it(tunnel):
    def answer(_head, connection):
        connections.append(connection)
        return TRUE

    connections = []
    service = raw.Recorder(answer)
    client = tunnel(service.target)
    assert ask(client.daemon, client.name, "h1").body == b"true"
    connections[0].sendall(LATE)
    assert ask(client.daemon, client.name, "h1").body == b"true"
    assert len(service._connections) == 2
    service.stop()


class OneAtATime(http.server.BaseHTTPRequestHandler):
    """Served by one thread, which keeps to a connection until it ends."""

    protocol_version = "HTTP/1.1"
    # Head and body leave in one packet. Otherwise each response would wait 40 ms for an acknowledgement.
    wbufsize = 65536

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass


def load(client, count, *options):
    """Fetches a page of many files over one HTTP/2 connection. Returns the statuses and how long it took."""
    began = time.monotonic()
    more = [part for n in range(1, count) for part in ("-o", "/dev/null", client.daemon.url(client.name, f"/{n}.txt"))]
    result = client.curl(
        "/0.txt", "-o", "/dev/null", "--http2", "--parallel", "--parallel-max", str(count), "-w", "%{http_code}\n", *options,
        *more, check=False,
    )
    return sorted(result.stdout.split()), time.monotonic() - began


def test_a_service_of_one_connection_at_a_time(tunnel):
    server = http.server.HTTPServer(("127.0.0.1", 0), OneAtATime)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = tunnel(f"http://127.0.0.1:{server.server_port}")
    for _ in range(2):
        statuses, took = load(client, 100)
        assert statuses == [b"200"] * 100
        assert took < 15
    server.shutdown()


def test_a_page_of_many_files_from_pythons_server(tunnel, tmp_path):
    for number in range(100):
        (tmp_path / f"{number}.txt").write_text("x" * 2000)
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", tmp_path],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    port = re.search(r"port (\d+)", server.stdout.readline())[1]
    statuses, took = load(tunnel(port), 100)
    server.kill()
    server.wait()
    assert statuses == [b"200"] * 100
    assert took < 5


def test_long_requests_do_not_wait_for_each_other(tunnel):
    """Forty long polls all reach the service while none of them is answered."""

    def answer(_head, _connection):
        if everyone.wait(timeout=20) is not None:
            return TRUE

    everyone = threading.Barrier(40)
    service = raw.Recorder(answer)
    service.listener.listen(128)
    client = tunnel(service.target)
    statuses, _ = load(client, 40)
    assert statuses == [b"200"] * 40
    service.stop()


NODE = """
const server = require('http').createServer((request, response) => {
  let length = 0;
  request.on('data', data => length += data.length);
  request.on('end', () => { seen.add(request.url); count += 1; response.end(String(length)); });
});
let count = 0, seen = new Set();
server.keepAliveTimeout = 2000;
server.keepAliveTimeoutBuffer = 0;
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.on('SIGTERM', () => { console.log(count, seen.size); process.exit(); });
"""


def test_posts_while_nodes_keep_alive_expires(tunnel, tmp_path):
    """Requests that must not be sent twice come about when the service closes its idle connections. None is lost."""
    (tmp_path / "server.js").write_text(NODE)
    node = subprocess.Popen(["node", tmp_path / "server.js"], stdout=subprocess.PIPE, text=True)
    client = tunnel(node.stdout.readline().strip())
    results = []

    def post(number):
        # Around the two seconds after which the service closes.
        for turn, pause in enumerate([1.9 + number * 0.03] * 3):
            got = ask(client.daemon, client.name, "h1", path=f"/{number}/{turn}", method="POST", body=b"x" * 100)
            results.append((got.status, got.body))
            time.sleep(pause)

    threads = [threading.Thread(target=post, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    node.terminate()
    assert results == [(200, b"100")] * 24
    assert node.stdout.read().split() == ["24", "24"]
    node.wait()
