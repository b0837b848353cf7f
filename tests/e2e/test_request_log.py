"""The client's log of requests: `--log requests`."""

import fcntl
import os
import re
import signal
import subprocess

from harness.cok import KEY
from harness.ports import free_port
from harness.process import BIN_DIR, Process, end, spawn
from harness.websocket import WebSocket


def test_one_line_a_request(tunnel, services):
    client = tunnel(services.web, options=("--log", "requests"))
    client.curl("/echo?secret=1", "--data-binary", "hello")
    entry = client.process.wait_event("request", method="POST")
    assert (entry["path"], entry["status"], entry["received"]) == ("/echo", 200, 5)
    assert entry["sent"] > 0 and entry["duration_ms"] >= 0
    assert re.fullmatch(r"POST /echo 200 \S+ (ms|s) \S+ k?B, 5 B received", entry["message"]), entry
    client.curl("/nothing")
    assert client.process.wait_event("request", path="/nothing")["status"] == 404
    assert "secret" not in client.process.output()


def test_queries_are_named_when_asked(tunnel, services):
    client = tunnel(services.web, options=("--log", "requests", "--log-queries"))
    client.curl("/echo?secret=1")
    assert client.process.wait_event("request")["path"] == "/echo?secret=1"


def test_streams_have_a_line_at_both_ends(tunnel, services):
    client = tunnel(services.ws, options=("--log", "requests"))
    socket = WebSocket(client.daemon, client.name, "/chat?x=1")
    began = client.process.wait_event("stream_began")
    assert (began["path"], began["status"], began["kind"]) == ("/chat", 101, "WebSocket")
    assert began["message"].startswith("GET /chat 101 ") and began["message"].endswith(": WebSocket begins")
    socket.send("hello")
    socket.recv()
    socket.close()
    ended = client.process.wait_event("stream_ended")
    assert ended["request"] == began["request"] and ended["received"] > 5 and ended["sent"] > 5
    assert "WebSocket ended after " in ended["message"]


def test_an_event_stream_begins_before_it_ends(tunnel, services):
    client = tunnel(services.web, options=("--log", "requests"))
    curl = client.start_curl("/news")
    assert client.process.wait_event("stream_began")["kind"] == "event stream"
    curl.kill()
    ended = client.process.wait_event("stream_ended")
    assert ended["failure"] == "the visitor left" and ended["message"].endswith(": the visitor left")


def test_a_failure_names_the_address(tunnel):
    """The owner's log has the address that failed; the visitor's page has not."""
    port = free_port()
    client = tunnel(f"127.0.0.1:{port}", options=("--log", "requests"))
    page = client.curl("/", "--header", "accept: text/html").stdout.decode()
    entry = client.process.wait_event("request")
    assert entry["failure"] == f"cannot connect to 127.0.0.1:{port}: connection refused"
    assert re.fullmatch(rf"GET / failed \S+ (ms|s) 0 B: {entry['failure']}", entry["message"])
    assert str(port) not in page
    # It is not said twice.
    assert "\n".join(client.process.lines).count("connection refused") == 2, "the message and the field"


def test_a_line_for_people_has_no_fields(daemon, services, tmp_path):
    process = Process(
        BIN_DIR / "cok-client", services.web, "--server", daemon.url("", ""), "--connect-to", daemon.https,
        "--ca-file", daemon.ca, "--state-dir", tmp_path, "--log", "requests", "-s", "for-people",
        env={"COK_API_KEY": KEY},
    )
    try:
        process.wait_line(lambda line: "the tunnel is online" in line, "tunnel")
        daemon.curl("for-people", "/echo")
        line = process.wait_line(lambda line: "GET /echo" in line and line, "request")
        assert re.fullmatch(r"\S+ +INFO GET /echo 200 \S+ (ms|s) \S+ k?B", line), line
    finally:
        assert process.stop() == 0


def test_a_log_that_is_not_read_holds_up_nothing(daemon, services, tmp_path):
    """Standard error is a pipe that is full. Requests go on, and so does the client's end."""
    out, log = os.pipe()
    fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, 4096)
    (tmp_path / "key").write_text(KEY)
    command = [
        BIN_DIR / "cok-client", services.web, "--server", daemon.url("", ""), "--connect-to", daemon.https, "--ca-file",
        daemon.ca, "--state-dir", tmp_path, "--api-key-file", tmp_path / "key", "--log", "requests", "-s", "unread",
    ]
    child = spawn(command, stderr=log, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    os.close(log)
    try:
        assert child.stdout.readline().decode().strip() == daemon.url("unread", "")
        many = 2000
        done = daemon.curl("unread", f"/echo?[1-{many}]", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}\n")
        assert done.stdout.split() == [b"200"] * many
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    finally:
        end(child)
        os.close(out)
        child.stdout.close()
