"""The daemon's access log: what a line says, where it goes, and that traffic never waits for it."""

import os
import re
import signal
import stat
import subprocess
from itertools import pairwise

import pytest

from harness import raw
from harness.access_log import AccessLog, Journal
from harness.cok import digest
from harness.http2 import Http2
from harness.http3 import Http3
from harness.ports import free_port
from harness.process import wait_for
from harness.visitors import Visitors
from harness.websocket import Chat, WebSocket

PHASES = ("edge_ms", "waiting_ms", "tunnel_ms", "service_ms")


@pytest.fixture
def log(tmp_path):
    return AccessLog(tmp_path / "access.log")


@pytest.fixture
def logged(own_daemon, log, transport):
    """A daemon with an access log in a file."""
    return own_daemon(more=log.settings(), transport=transport)


def hang_up(daemon, start=None):
    """Has a daemon read its configuration again."""
    start = len(daemon.process.lines) if start is None else start
    daemon.process.popen.send_signal(signal.SIGHUP)
    daemon.process.wait_event("reloaded", start=start)


def ask(daemon, name, version, path, body):
    """Sends a request over this version of HTTP, and reads the response."""
    if version == "h3":
        with Http3(daemon, name) as visitor:
            stream = visitor.request(path, method="POST", end=False)
            stream.send(body, end=True)
            assert stream.response()[b":status"] == b"200"
            return stream.read()
    option = {"http/1.1": "--http1.1", "h2": "--http2"}[version]
    return daemon.curl(name, path, option, "--data-binary", body).stdout


@pytest.mark.parametrize("version", ["http/1.1", "h2", "h3"])
def test_one_line_a_request(logged, log, services, transport, version):
    """A line has every field that is known, and the phases add up to no more than the whole."""
    client = logged.client(services.web, "demo")
    answer = ask(logged, client.name, version, "/hash?secret=1", b"hello")
    assert b'"length": 5' in answer
    entry = log.wait(event="request")
    expected = {
        "tunnel": "demo", "key": "test", "host": f"{client.host}:{logged.port}", "visitor": "127.0.0.1",
        "protocol": version, "transport": transport, "method": "POST", "path": "/hash", "status": 200, "received": 5,
        "sent": len(answer), "attempts": 1, "ending": "complete",
    }
    assert {name: entry.get(name) for name in expected} == expected, entry
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"]) and re.fullmatch("[0-9a-f]{16}", entry["id"])
    phases = [entry[name] for name in PHASES]
    assert all(phase >= 0 for phase in phases) and 0 < sum(phases) <= entry["duration_ms"] + 0.01, entry
    assert set(entry) == set(expected) | {"time", "event", "id", "duration_ms", *PHASES}
    assert "secret" not in log.text()


@pytest.mark.parametrize("version", ["http/1.1", "h2"])
def test_a_websocket_has_a_line_at_both_ends(logged, log, services, version):
    """The line at the end counts the bytes of both directions."""
    client = logged.client(services.ws, "chat")
    if version == "h2":
        visitor = Http2(logged, client.name)
        chat = Chat(visitor)
        began = log.wait(event="stream_began")
        chat.send(*messages("hello"))
        assert chat.receive().data == "hello"
        visitor.socket.close()
        ending = "visitor_left"
    else:
        with WebSocket(logged, client.name, "/chat") as socket:
            began = log.wait(event="stream_began")
            socket.send("hello")
            assert socket.recv() == "hello"
        ending = "complete"
    assert (began["kind"], began["path"], began["tunnel"], began["key"]) == ("websocket", "/chat", "chat", "test")
    assert began["status"] == (200 if version == "h2" else 101) and "duration_ms" not in began and "ending" not in began
    assert all(began[phase] >= 0 for phase in PHASES)
    ended = log.wait(event="stream_ended")
    assert (ended["id"], ended["kind"], ended["protocol"]) == (began["id"], "websocket", version)
    assert ended["received"] >= 11 and ended["sent"] >= 7 and ended["duration_ms"] > 0, ended
    assert ended["ending"] == ending, ended
    assert not log.entries(event="request")


def messages(text):
    """Returns the events that send a text."""
    from wsproto.events import TextMessage

    return [TextMessage(data=text)]


@pytest.mark.parametrize("version", ["http/1.1", "h2", "h3"])
def test_an_event_stream_has_a_line_at_both_ends(logged, log, services, version):
    """The line at the beginning is there while the stream goes on."""
    client = logged.client(services.web, "news")
    if version == "h3":
        with Http3(logged, client.name) as visitor:
            visitor.request("/news").response()
            began = log.wait(event="stream_began")
    else:
        curl = client.start_curl("/news", {"http/1.1": "--http1.1", "h2": "--http2"}[version])
        began = log.wait(event="stream_began")
        curl.kill()
    ended = log.wait(event="stream_ended")
    assert (began["kind"], ended["id"], ended["ending"]) == ("event_stream", began["id"], "visitor_left")
    assert ended["sent"] > 0 and ended["status"] == 200 and ended["protocol"] == version


def test_hostile_text_stays_in_its_field(own_daemon, log, services):
    """No byte of a path, a key's name or a request makes another line or field, or reaches a terminal."""
    evil = 'a"b\\c\\u202e\\u009b'
    keys = f'[[keys]]\nname = "evil \\"\\\\ \\u202e"\nsecret_sha256 = "{digest("evil")}"\n'
    daemon = own_daemon(more=log.settings("queries = true"), keys=keys)
    client = daemon.client(services.web, "evil", key="evil")
    path = b'/"\\{}\xff\xe2\x80\xae\xc2\x9b' + evil.encode() + b'?q="\xff&cok_share=secret'
    with raw.connect(daemon, client.name) as connection:
        host = client.host.encode()
        connection.sendall(b"GET " + path + b" HTTP/1.1\r\nhost: " + host + b"\r\n\r\n")
        assert raw.read_head(connection)
    entry = log.wait(event="request")
    assert entry["path"] == '/"\\{}%FF%E2%80%AE%C2%9B' + evil + '?q="%FF&cok_share=*'
    assert entry["key"] == 'evil "\\ \u202e'
    client.curl("/" + "x" * 20_000, "--http1.1")
    long = log.wait(2, event="request")
    assert len(long["path"]) == 2048 + len("...") and long["path"].endswith("...")
    assert log.text().isascii() and all(character.isprintable() or character == "\n" for character in log.text())


@pytest.mark.parametrize("request_line", [b"GET /a b HTTP/1.1", b"GE\x7fT / HTTP/1.1", b"GET / HTTP/1.1\r\nx y: 1"])
def test_a_malformed_request_has_a_line(logged, log, services, request_line):
    """Nothing of it is taken for a method or a path."""
    client = logged.client(services.web, "demo")
    with raw.connect(logged, client.name) as connection:
        connection.sendall(request_line + b"\r\nhost: " + client.host.encode() + b"\r\n\r\n")
        assert raw.read_head(connection).startswith(b"HTTP/1.1 400 ")
    entry = log.wait(event="request")
    assert (entry["status"], entry["ending"], entry["reason"]) == (400, "refused", "bad_request")
    assert "method" not in entry and "path" not in entry and "tunnel" not in entry


def test_refusals_and_failures_name_their_reason(own_daemon, log, services, transport):
    daemon = own_daemon(more=log.settings() + '[rates]\nrequests_per_tunnel = "1/s burst 1"', transport=transport)
    absent = daemon.client(f"127.0.0.1:{free_port()}", "absent")
    limited = daemon.client(services.web, "limited")
    cases = [
        ("none", "/", 404, "refused", "unknown_name", None), ("", "/none", 404, "refused", "no_page", None),
        (absent.name, "/", 502, "failed", "service_refused", "absent"),
        (limited.name, "/cookies", 200, "complete", None, "limited"),
        (limited.name, "/cookies", 429, "refused", "tunnel_rate", "limited"),
    ]
    for number, (name, path, status, ending, reason, tunnel) in enumerate(cases, 1):
        daemon.curl(name, path)
        entry = log.wait(number, event="request")
        found = entry["status"], entry["ending"], entry.get("reason"), entry.get("tunnel")
        assert found == (status, ending, reason, tunnel), entry
        assert entry["sent"] > 0
    assert "waiting_ms" not in log.entries()[0] and "tunnel_ms" not in log.entries()[0]


def test_a_visitor_who_leaves_early_is_named_as_such(logged, log, services):
    """Before the response there is no status; in the middle of it there is."""
    client = logged.client(services.web, "demo")
    silent = client.start_curl("/silent")
    wait_for(lambda: services.open_streams == 1, "the service has the request")
    silent.kill()
    entry = log.wait(path="/silent")
    assert entry["ending"] == "visitor_left" and "status" not in entry and entry["tunnel"] == "demo"
    for number, version in enumerate(("--http1.1", "--http2"), 1):
        endless = client.start_curl("/endless", version)
        assert endless.stdout.read(100_000)
        endless.kill()
        entry = log.wait(number, path="/endless")
        assert (entry["status"], entry["ending"]) == (200, "visitor_left") and entry["sent"] >= 100_000


@pytest.mark.parametrize("version", ["http/1.1", "h2", "h3"])
def test_a_visitor_who_breaks_an_upload_off_is_named_as_such(logged, log, services, version):
    """The client breaks off as well. Neither the log nor the metrics blame the service for it."""
    client = logged.client(services.web, "demo")
    if version == "http/1.1":
        with raw.connect(logged, client.name) as connection:
            connection.sendall(f"POST /hash HTTP/1.1\r\nhost: {client.host}\r\ncontent-length: 9\r\n\r\nabc".encode())
            wait_for(lambda: logged.metric("cok_exchanges_open") == 1, "the upload is under way")
    else:
        with {"h2": Http2, "h3": Http3}[version](logged, client.name) as visitor:
            upload = visitor.request("/hash", method="POST", end=False, extra=[("content-length", "9")])
            upload.send(b"abc")
            wait_for(lambda: logged.metric("cok_exchanges_open") == 1, "the upload is under way")
            upload.cancel()
            log.wait(event="request")
    entry = log.wait(event="request")
    # Over the others, the visitor's reset ends the request at once.
    status = 400 if version == "http/1.1" else None
    assert (entry["ending"], entry["received"], entry.get("status")) == ("visitor_left", 3, status), entry
    resets = {name: value for name, value in logged.metrics().items() if name.startswith("cok_exchange_resets_total")}
    assert not any(resets.values()), resets


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_service_that_breaks_off_is_named_as_such(logged, log, version):
    recorder = raw.Recorder(lambda head, connection: connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"))
    try:
        client = logged.client(recorder.target, "broken")
        assert client.curl("/", version, check=False).returncode
        entry = log.wait(event="request")
        assert (entry["status"], entry["ending"], entry["reason"]) == (200, "broken", "service_broke"), entry
        assert entry["sent"] == 3
    finally:
        recorder.stop()


def test_the_trace_of_a_visitor_is_named(logged, log, services):
    """Also where the daemon records none. A field that is no valid one names nothing."""
    client = logged.client(services.web, "demo")
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    client.curl("/cookies", "--header", f"traceparent: 00-{trace}-00f067aa0ba902b7-01")
    assert log.wait(event="request")["trace_id"] == trace
    client.curl("/cookies", "--header", "traceparent: 00-none-00f067aa0ba902b7-01")
    assert "trace_id" not in log.wait(2, event="request")


def test_a_visitor_behind_a_proxy_is_named(own_daemon, log, services):
    """The line has the visitor's address as the trusted proxy says it, and the proxy's."""
    daemon = own_daemon(more=log.settings() + '[proxies]\ntrusted = ["127.0.0.0/8"]\n')
    client = daemon.client(services.web, "demo")
    client.curl("/cookies", "--header", "x-forwarded-for: 192.0.2.7")
    entry = log.wait(event="request")
    assert (entry["visitor"], entry["peer"]) == ("192.0.2.7", "127.0.0.1")


def test_a_rotation_under_load_loses_no_line(logged, log, nginx, tmp_path):
    """Each rotation moves the file and reloads. All requests are in one of the files, each once."""
    client = logged.client(nginx.target, "demo")
    visitors = Visitors(logged, client.name, "/index.html", rate=400, connections=20)
    rotated = []
    try:
        for number in range(5):
            log.wait(50)
            rotated.append(tmp_path / f"access.log.{number}")
            log.path.rename(rotated[-1])
            hang_up(logged)
            assert stat.S_IMODE(log.path.stat().st_mode) & 0o007 == 0
    finally:
        answered = len(visitors.stop())
    assert not visitors.failures and answered >= 250
    files = [AccessLog(path) for path in (*rotated, log.path)]
    wait_for(lambda: sum(len(file.entries()) for file in files) >= answered, "all lines are there")
    identifiers = [entry["id"] for file in files for entry in file.entries()]
    assert len(identifiers) == len(set(identifiers)) == answered
    assert all(file.text().endswith("\n") for file in files if file.text())
    assert logged.metric("cok_access_log_lost_total") == 0


@pytest.mark.needs("root", "mount")
def test_a_full_disk_costs_lines_and_no_request(own_daemon, nginx, tmp_path):
    """Lost lines are counted and named, but not each. Once there is room, the log goes on with whole lines."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "full", disk], check=True, timeout=20)
    try:
        log = AccessLog(disk / "access.log")
        daemon = own_daemon(more=log.settings())
        client = daemon.client(nginx.target, "demo")
        many = 500
        done = client.curl(f"/index.html?[1-{many}]", "--output", "/dev/null", "--write-out", "%{http_code}\n", "--silent")
        assert done.stdout.split() == [b"200"] * many
        lost = wait_for(lambda: daemon.metric("cok_access_log_lost_total"), "lines are lost")
        said = daemon.process.wait_event("access_log_lost")
        assert said["lines"] > 0 and "No space left" in said["reason"]
        assert lost < many and len(log.text().splitlines()) > 10
        # Room for more.
        os.truncate(log.path, 0)
        client.curl("/index.html?after")
        wait_for(lambda: log.text().endswith('"ending":"complete"}\n'), "a line after it")
        assert len([line for line in daemon.process.lines if '"access_log_lost"' in line]) == 1
        daemon.stop()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True, timeout=20)


def test_a_pipe_without_a_reader_holds_up_nothing(own_daemon, nginx, tmp_path):
    """The log is a named pipe whose reader has stopped reading."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        daemon = own_daemon(more=AccessLog(pipe).settings())
        client = daemon.client(nginx.target, "demo")
        many = 1000
        done = client.curl(f"/index.html?[1-{many}]", "--output", "/dev/null", "--write-out", "%{http_code}\n", "--silent")
        assert done.stdout.split() == [b"200"] * many
        wait_for(lambda: daemon.metric("cok_access_log_lost_total"), "lines are lost")
        assert daemon.stop() == 0
    finally:
        os.close(reader)


def test_a_sample_is_a_part_and_has_all_failures(own_daemon, log, nginx):
    daemon = own_daemon(more=log.settings("sample = 10"))
    client = daemon.client(nginx.target, "demo")
    absent = daemon.client(f"127.0.0.1:{free_port()}", "absent")
    client.curl("/index.html?[1-1000]", "--output", "/dev/null", "--silent")
    absent.curl("/[1-20]", "--output", "/dev/null", "--silent")
    log.wait(20, status=502)
    # Ten standard deviations around a hundred.
    assert 5 <= len(log.entries(status=200)) <= 195


def test_lines_go_to_standard_error_between_others(own_daemon, services, transport):
    daemon = own_daemon(more='[access_log]\nto = "stderr"\n', transport=transport)
    client = daemon.client(services.web, "demo")
    client.curl("/cookies")
    entry = daemon.process.wait_event("request", path="/cookies")
    assert (entry["status"], entry["tunnel"], entry["transport"]) == (200, "demo", transport)


def test_the_journal_gets_entries_with_fields(own_daemon, services):
    """journald itself takes them, over its native protocol."""
    journal = Journal()
    try:
        daemon = own_daemon(more='[access_log]\nto = "journal"\n', inside=journal)
        client = daemon.client(services.web, "demo")
        client.curl('/cookies/"%0aMESSAGE=forged')

        def found():
            return [entry for entry in journal.entries(daemon.process.pid) if entry.get("COK_EVENT") == "request"]

        entry = wait_for(found, "the entry is there")[0]
        assert (entry["COK_STATUS"], entry["COK_TUNNEL"], entry["COK_METHOD"]) == ("404", "demo", "GET")
        assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("6", "cokd")
        pattern = rf'GET {re.escape(client.host)}:{daemon.port}/cookies/"%0aMESSAGE=forged 404 \d+\.\d{{3}} ms: complete'
        assert re.fullmatch(pattern, entry["MESSAGE"]), entry
        assert daemon.stop() == 0
    finally:
        journal.stop()


def test_a_reload_changes_all_of_it(own_daemon, log, services, tmp_path):
    """Off, on, another file, off again. A file that cannot be opened refuses the whole reload."""
    daemon = own_daemon(more="[http]\n")
    client = daemon.client(services.web, "demo")
    base = daemon.config.read_text()
    client.curl("/cookies?before")
    daemon.config.write_text(base + log.settings("queries = true"))
    hang_up(daemon)
    client.curl("/cookies?first")
    log.wait(path="/cookies?first")
    other = AccessLog(tmp_path / "other.log")
    daemon.config.write_text(base + AccessLog(tmp_path / "none" / "a.log").settings())
    start = len(daemon.process.lines)
    daemon.process.popen.send_signal(signal.SIGHUP)
    refused = daemon.process.wait_event("not_reloaded", start=start)
    assert "access_log.to: cannot open" in refused["reason"] and "No such file" in refused["reason"]
    client.curl("/cookies?second")
    log.wait(path="/cookies?second")
    daemon.config.write_text(base + other.settings())
    hang_up(daemon)
    client.curl("/cookies?third")
    other.wait(path="/cookies")
    daemon.config.write_text(base)
    hang_up(daemon)
    client.curl("/cookies?fourth")
    # The line of an earlier request would be there by the end.
    assert daemon.stop() == 0
    assert (len(log.entries()), len(other.entries())) == (2, 1)


def test_a_log_that_cannot_be_opened_stops_no_start(own_daemon, services, tmp_path):
    """The daemon warns, serves, and begins to log once the folder is there."""
    log = AccessLog(tmp_path / "later" / "access.log")
    daemon = own_daemon(more=log.settings())
    assert "cannot open" in daemon.process.wait_event("no_access_log")["message"]
    client = daemon.client(services.web, "demo")
    client.curl("/cookies")
    log.path.parent.mkdir()

    def logs():
        client.curl("/cookies")
        return log.entries()

    wait_for(logs, "the log begins")


def test_requests_that_a_stop_cuts_have_their_lines(own_daemon, log, services, transport):
    """The last lines are written before the process ends."""
    daemon = own_daemon(more=log.settings(), limits='drain_timeout = "500ms"', transport=transport)
    client = daemon.client(services.web, "demo")
    silent = client.start_curl("/silent")
    news = client.start_curl("/endless", "--http2")
    assert news.stdout.read(1000)
    wait_for(lambda: services.open_streams == 2, "both are there")
    assert daemon.stop() == 0
    endings = {entry["path"]: entry["ending"] for entry in log.entries(event="request")}
    assert endings.get("/endless") == "drained" and "/silent" in endings, log.text()
    silent.kill()


def test_lines_of_one_connection_can_be_told_apart(logged, log, services):
    """Two requests on one connection have different ids, and times in order."""
    client = logged.client(services.web, "demo")
    client.curl("/cookies?[1-5]", "--output", "/dev/null", "--silent")
    log.wait(5)
    entries = log.entries()
    assert len({entry["id"] for entry in entries}) == 5
    assert all(a["time"] <= b["time"] for a, b in pairwise(entries))
