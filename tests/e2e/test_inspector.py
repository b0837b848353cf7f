"""The client's inspector: what it captures, and who may see it."""

import gzip
import http.server
import json
import os
import re
import socket
import subprocess
import threading
import urllib.parse
import zlib
from contextlib import contextmanager

import pytest

from harness.inspector import field
from harness.ports import free_port
from harness.process import BIN_DIR, wait_for


class Replies(http.server.BaseHTTPRequestHandler):
    """Answers with what the test has put into `replies` for a path: fields and a body."""

    protocol_version = "HTTP/1.1"
    replies = {}

    def do_GET(self):
        fields, body = self.replies[self.path.split("?")[0]]
        self.send_response(200)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def replies():
    """A service that answers with given bytes. Yields its address and the dictionary of its answers."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replies)
    Replies.replies = {}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Replies.replies
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def raw_service(handle):
    """A service whose connections `handle` serves. Yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    handle(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_request_is_captured_from_both_sides(inspected, services, http):
    """Over both transports: heads, bodies, sizes, times and the protocol of the service."""
    client, inspector = inspected(services.web)
    sent = client.curl(
        "/echo?x=1&x=2", http, "-X", "PUT", "-H", "X-Twice: a", "-H", "X-Twice: b",
        "-H", f"traceparent: 00-{'a' * 32}-{'b' * 16}-01", "--data-binary", "hello world",
    )
    assert sent.stdout == b"hello world"
    one = inspector.ended("/echo")
    assert (one["method"], one["target"], one["status"], one["state"]) == ("PUT", "/echo?x=1&x=2", 200, "complete")
    assert field(one["request"]["fields"], "x-twice") == ["a", "b"]
    assert one["trace_id"] == "a" * 32 and one["protocol"] == "HTTP/1.1" and one["authority"].startswith(client.host)
    assert (one["request_bytes"], one["response_bytes"]) == (11, 11)
    assert inspector.body(one["id"], "request") == inspector.body(one["id"]) == b"hello world"
    assert field(one["response"]["fields"], "content-type") == ["application/octet-stream"]
    assert not one["incomplete"] and one["reset"] is None and one["failure"] is None
    # A service may answer before the end of an upload has come through, and then its own time is not known.
    client.curl("/cookies", http)
    one = inspector.ended("/cookies")
    assert one["duration_ms"] >= one["head_ms"] >= one["service_ms"] >= 0


def test_requests_of_multiplexed_visitors_are_captured_apart(inspected, services, daemon, multiplexed):
    """Over HTTP/2 and HTTP/3, with many at once."""
    client, inspector = inspected(services.web)
    bodies = {f"/echo?{number}": os.urandom(3000) for number in range(20)}
    with multiplexed(daemon, client.name) as visitor:
        streams = {}
        for path, body in bodies.items():
            streams[path] = visitor.request(path, method="POST", end=False)
            streams[path].send(body, end=True)
        for path, stream in streams.items():
            assert stream.read() == bodies[path]
    inspector.ended("/echo", len(bodies))
    for line in inspector.list(path="/echo"):
        assert inspector.body(line["id"], "request") == inspector.body(line["id"]) == bodies[line["target"]]


def test_bodies_are_shown_as_people_read_them(inspected, replies):
    """Content codings are undone, and JSON and forms laid out. The bytes stay available as they passed."""
    target, answers = replies
    text = json.dumps({"name": "Ada", "list": [1.0, 10000000000000000000001]}).encode()
    answers["/gzip"] = [("content-type", "application/json"), ("content-encoding", "gzip")], gzip.compress(text)
    answers["/deflate"] = [("content-type", "application/json"), ("content-encoding", "deflate")], zlib.compress(text)
    answers["/plain"] = [("content-type", "text/plain; charset=iso-8859-1")], "grün".encode("latin-1")
    answers["/broken"] = [("content-encoding", "gzip")], b"this is no gzip"
    answers["/png"] = [("content-type", "image/png")], b"\x89PNG\r\n\x1a\n" + bytes(100)
    answers["/svg"] = [("content-type", "image/svg+xml")], b"<svg onload='alert(1)'/>"
    client, inspector = inspected(target)
    for path in answers:
        client.curl(path)
    for path in ("/gzip", "/deflate"):
        number = inspector.ended(path)["id"]
        shown = inspector.shown(number)
        assert shown["kind"] == "text" and shown["language"] == "json" and shown["laid_out"]
        assert "1.0" in shown["text"] and "10000000000000000000001" in shown["text"] and "\n" in shown["text"]
        assert inspector.body(number) == answers[path][1] and inspector.body(number, decoded=True) == text
    assert inspector.shown(inspector.ended("/plain")["id"])["text"] == "grün"
    broken = inspector.shown(inspector.ended("/broken")["id"])
    assert broken["kind"] == "binary" and broken["trouble"]
    assert inspector.shown(inspector.ended("/png")["id"])["image_type"] == "image/png"
    # An image that can hold script is text.
    assert inspector.shown(inspector.ended("/svg")["id"])["kind"] == "text"


def test_a_form_is_a_table_and_its_secrets_are_hidden(inspected, services):
    client, inspector = inspected(services.web)
    client.curl("/hash", "--data", "user=ada&password=secret1")
    number = inspector.ended("/hash")["id"]
    fields = dict(inspector.shown(number, "request")["fields"])
    assert fields["user"] == "ada" and "secret1" not in json.dumps(fields)
    assert dict(inspector.shown(number, "request", "reveal")["fields"])["password"] == "secret1"


def test_a_refused_request_is_captured_with_its_body_and_the_reason(inspected):
    """The service is down. The visitor gets its 502, and the request can be repeated later."""
    client, inspector = inspected(f"http://127.0.0.1:{free_port()}")
    body = b"x" * 3000
    answer = client.curl("/hook", "--data-binary", body.decode(), "-w", "%{http_code}")
    assert answer.stdout.endswith(b"502")
    one = inspector.ended("/hook")
    assert (one["state"], one["status"], one["response"]) == ("failed", None, None)
    assert "connection refused" in one["failure"] and one["reset"]["by"] == "service"
    assert inspector.body(one["id"], "request") == body and not one["incomplete"]


def test_who_broke_off_is_named(inspected, services):
    """A visitor that leaves, and a service that closes in the middle of a body."""
    client, inspector = inspected(services.web)
    client.curl("/silent", "--max-time", "1", check=False)
    left = inspector.ended("/silent")
    assert left["state"] == "failed" and left["reset"]["by"] == "visitor" and "left" in left["failure"]

    def cut(connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
        connection.close()

    with raw_service(cut) as target:
        broken_client, broken_inspector = inspected(target)
        broken_client.curl("/half", check=False)
        broken = broken_inspector.ended("/half")
    assert (broken["state"], broken["status"]) == ("failed", 200)
    assert broken["reset"]["by"] == "service" and broken["response"]["captured"] == 3


def test_interim_responses_and_trailers_are_captured(inspected):
    def answer(connection):
        connection.recv(65536)
        connection.sendall(
            b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"
            b"HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n"
        )

    with raw_service(answer) as target:
        client, inspector = inspected(target)
        assert client.curl("/").stdout == b"abc"
        one = inspector.ended("/")
    assert [head["status"] for head in one["interim"]] == [103]
    assert field(one["interim"][0]["fields"], "link") == ["</a.css>; rel=preload"]
    assert one["response"]["reason"] == "Fine" and field(one["response"]["trailers"], "x-sum") == ["7"]


def test_secrets_are_hidden_everywhere_unless_they_are_asked_for(inspected, services):
    """In the list, in details, in the archive and in the curl line. A text filter finds them all the same."""
    client, inspector = inspected(services.web)
    client.curl(
        "/echo?token=hidden1&page=2", "-H", "Authorization: Bearer hidden2", "-H", "Cookie: session=hidden3",
        "-H", "X-Api-Key: hidden4",
    )
    number = inspector.ended("/echo")["id"]
    for path in ("requests", f"requests/{number}", "har", f"requests/{number}/curl"):
        text = inspector.bytes(path).decode()
        assert "hidden" not in text and "page=2" in text, path
        revealed = inspector.bytes(f"{path}?reveal").decode()
        assert "hidden1" in revealed, path
        assert path == "requests" or all(f"hidden{n}" in revealed for n in (2, 3, 4)), path
    assert [line["id"] for line in inspector.list(text="hidden4")] == [number]
    detail = inspector.detail(number)
    assert next(field for field in detail["request"]["fields"] if field["name"] == "authorization")["masked"]


def test_the_list_is_filtered_and_paged(inspected, services):
    client, inspector = inspected(services.web)
    for path in ("/echo?n=1", "/nothing", "/echo?n=2"):
        client.curl(path)
    client.curl("/hash", "--data", "a needle in the body")
    inspector.ended("/hash")

    def paths(**filters):
        return [line["target"] for line in inspector.list(**filters)]

    assert paths(path="/echo") == ["/echo?n=2", "/echo?n=1"]
    assert paths(status="404") == paths(status="4xx") == ["/nothing"]
    assert paths(method="post") == ["/hash"] == paths(text="NEEDLE")
    assert paths(min_ms=100000) == [] and len(paths(max_ms=100000)) == 4
    assert paths(tunnel=client.name) == paths() and paths(tunnel="another") == []
    first = inspector.get("requests?limit=3")
    assert first["more"] and len(first["requests"]) == 3
    rest = inspector.get(f"requests?limit=3&before={first['requests'][-1]['id']}")
    assert not rest["more"] and [line["target"] for line in rest["requests"]] == ["/echo?n=1"]
    for wrong in ("status=fine", "colour=red", "limit=x"):
        assert inspector.status(f"/api/v1/requests?{wrong}") == 400


def test_only_this_machine_and_the_token_are_answered(inspected, services):
    """Names that resolve here, pages of other sites, and callers without the token get nothing."""
    _, inspector = inspected(services.web)
    listening = subprocess.run(["ss", "-Hltn", f"sport = :{inspector.port}"], capture_output=True, text=True, check=True)
    assert [line.split()[3] for line in listening.stdout.splitlines()] == [f"127.0.0.1:{inspector.port}"]
    api = "/api/v1/requests"
    assert inspector.status(api) == 200
    for host in ("evil.example", f"evil.example:{inspector.port}", "127.0.0.1", "127.0.0.1:80"):
        assert inspector.status(api, Host=host) == 421 == inspector.status("/", Host=host)
    assert inspector.status(api, Host=f"localhost:{inspector.port}") == 200
    for token in ("", "Bearer wrong", "Bearer " + inspector.token[:-1], inspector.token):
        assert inspector.status(api, Authorization=token) == 401
    for origin in ("https://evil.example", "null", "http://127.0.0.1:3000"):
        assert inspector.status(api, Origin=origin) == 403
    assert inspector.status(api, Sec_Fetch_Site="cross-site") == 403
    # The token does not count in the query, where logs would keep it.
    assert inspector.status(f"{api}?token={inspector.token}", Authorization="") in (400, 401)
    with inspector.open("/", Authorization="") as page:
        assert page.status == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    for path in ("/etc/passwd", "/api/v1/nothing", "/api/v1/requests/0", "/api/v1/requests/x", "/api/v2/requests"):
        assert inspector.status(path) == 404, path
    assert inspector.status(api, method="POST", body=b"{}") == 405


def test_the_token_is_in_no_log(inspected, services):
    client, inspector = inspected(services.web)
    event = client.process.wait_event("inspector")
    assert event["url"] == inspector.url and inspector.token not in "\n".join(client.process.lines)


def test_a_taken_port_is_replaced(tunnel, services):
    """The second client shows its requests at a free port. Both say where."""
    port = free_port()
    ports = [
        tunnel(services.web, options=("--verbose", "--inspect", str(port))).process.wait_event("inspector")["url"]
        for _ in range(2)
    ]
    assert ports[0] == f"http://127.0.0.1:{port}" and ports[1] != ports[0]


def test_without_an_inspector_there_is_nothing_to_ask(tunnel, services):
    client = tunnel(services.web, options=("--verbose", "--inspect", "off"))
    client.curl("/echo")
    assert not any('"event":"inspector"' in line for line in client.process.lines)
    command = [BIN_DIR / "cok-client", "requests", "--state-dir", client.state]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1 and "--inspect off" in result.stderr


def test_commands_list_show_and_follow(inspected, services):
    client, inspector = inspected(services.web)
    follower = subprocess.Popen(
        [str(word) for word in inspector.command("requests", "--follow", "--json", "path=/echo")],
        stdout=subprocess.PIPE, text=True,
    )
    try:
        for number in range(3):
            client.curl(f"/echo?n={number}")
        client.curl("/nothing")
        inspector.ended("/nothing")
        followed = [json.loads(follower.stdout.readline()) for _ in range(3)]
        assert [line["target"] for line in followed] == [f"/echo?n={number}" for number in range(3)]
        assert {line["state"] for line in followed} == {"complete"}
    finally:
        follower.kill()
        follower.wait()
    table = inspector.run("requests", "path=/echo").stdout.splitlines()
    assert table[0].split()[:4] == ["ID", "TIME", "METHOD", "PATH"] and len(table) == 4
    assert re.match(r"\d+ +\d\d:\d\d:\d\d +GET +/echo\?n=0 +200 ", table[1]), table
    lines = json.loads(inspector.run("requests", "status=404", "--json").stdout)
    assert [line["target"] for line in lines] == ["/nothing"]
    shown = json.loads(inspector.run("requests", "--show", str(lines[0]["id"])).stdout)
    assert shown["response"]["status"] == 404
    wrong = inspector.run("requests", "colour=red", check=False)
    assert wrong.returncode == 2 and "min_ms" in wrong.stderr


def test_following_prints_each_request_once(inspected, services):
    """The command ends with the client."""
    client, inspector = inspected(services.web)
    follower = subprocess.Popen(
        [str(word) for word in inspector.command("requests", "--follow", "--json")], stdout=subprocess.PIPE, text=True
    )
    for number in range(20):
        client.curl(f"/echo?n={number}", "--data", "x")
    lines = [json.loads(follower.stdout.readline()) for _ in range(20)]
    assert [line["target"] for line in lines] == [f"/echo?n={number}" for number in range(20)]
    client.stop()
    rest, _ = follower.communicate(timeout=20)
    assert follower.returncode == 0 and rest == ""


def test_all_requests_can_be_cleared(inspected, services):
    client, inspector = inspected(services.web)
    client.curl("/echo")
    inspector.ended("/echo")
    with inspector.events() as events:
        assert next(events)[0] == "state"
        inspector.get("requests", method="DELETE")
        assert next(events)[0] == "cleared"
    assert inspector.list() == []
    client.curl("/echo")
    assert inspector.ended("/echo")["id"] > 1


def test_events_follow_requests_that_meet_the_filter(inspected, services):
    client, inspector = inspected(services.web)
    with inspector.events("path=/wanted") as events:
        assert next(events)[0] == "state"
        client.curl("/other")
        client.curl("/wanted")
        name, line = next(events)
        while line["state"] == "open":
            name, line = next(events)
        assert (name, line["target"], line["status"]) == ("request", "/wanted", 404)


def test_a_long_body_is_captured_up_to_its_limit_and_traffic_is_whole(inspected, services):
    """The rest is counted. It says so."""
    client, inspector = inspected(services.web)
    megabytes = 20
    source = inspector.client.state / "long"
    source.write_bytes(os.urandom(1 << 20) * megabytes)
    answer = json.loads(client.curl("/hash?long", "-T", source).stdout)
    assert answer["length"] == megabytes << 20
    one = inspector.ended("/hash", text="?long")
    assert (one["request_bytes"], one["request"]["captured"]) == (megabytes << 20, 16 << 20)
    assert one["request"]["cut"] == "limit" and one["incomplete"]
    assert inspector.body(one["id"], "request") == source.read_bytes()[: 16 << 20]
    wait_for(lambda: inspector.get("state")["disk"] >= 16 << 20, "nothing on disk")
    refused = inspector.open(f"/api/v1/requests/{one['id']}/replay", method="POST", body=b"")
    assert refused.status == 409


def test_queries_are_encoded(inspected, services):
    client, inspector = inspected(services.web)
    client.curl("/a%20b/%C3%BC?q=%2526")
    assert inspector.ended("/a%20b", text=urllib.parse.quote("%C3%BC", safe="%"))["target"] == "/a%20b/%C3%BC?q=%2526"
