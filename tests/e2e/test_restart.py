"""Clients that disconnect and reconnect, and daemons that stop."""

import concurrent.futures
import signal
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from harness import raw
from harness.cok import Daemon
from harness.process import wait_for


@pytest.mark.parametrize("gap", [0, 1])
def test_a_killed_client_is_waited_for(own_daemon, nginx, transport, gap):
    """The client is killed under load and restarted. Requests fail only if their response had begun."""
    daemon = own_daemon(transport=transport)
    client = daemon.client(nginx.target, "phoenix")
    stop, codes = threading.Event(), []

    def visit():
        while not stop.is_set():
            # HTTP/1.1 distinguishes a truncated response from one that had not begun.
            answer = daemon.curl("phoenix", "/", "--http1.1", "--write-out", "%{http_code}", check=False)
            codes.append((answer.returncode, answer.stdout))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        visits = [pool.submit(visit) for _ in range(8)]
        try:
            for _ in range(3):
                wait_for(lambda seen=len(codes): len(codes) > seen + 20, "visitors are answered")
                client.process.kill()
                if gap:
                    time.sleep(gap)  # the client's downtime: a parameter of the test, not a condition
                client.start()
                client.wait_online()
        finally:
            stop.set()
        for visit_ in visits:
            visit_.result()
    client.stop()
    whole = (0, b"<h1>hello</h1>\n200")
    # 18: the client was killed between head and body.
    assert {code for code in codes} <= {whole, (18, b"200")}
    assert codes.count(whole) > 60


def noticed(daemon):
    """Returns whether the daemon noticed a client's end: by its connection, or over QUIC by its silence."""
    said = daemon.process.output()
    return " offline after " in said or " silent: " in said


def test_posts_wait_too_and_are_sent_once(own_daemon, services, transport):
    """A request that arrives while the client is away gets its response, with any method."""
    daemon = own_daemon(transport=transport)
    client = daemon.client(services.web, "later")
    client.process.kill()
    wait_for(lambda: noticed(daemon), "the daemon has noticed")
    visitor = daemon.start_curl("later", "/hash", "--http1.1", "--verbose", "--data-binary", "hello")
    assert any(line.startswith(b"> POST") for line in iter(visitor.stderr.readline, b"")), "the request is sent"
    client.start()
    assert b'"length": 5' in visitor.communicate(timeout=30)[0]
    client.stop()


@pytest.fixture
def hesitant(own_daemon, transport):
    """A tunnel to a service that answers all requests except the first one."""
    stop = threading.Event()

    def answer(_head, _connection):
        if len(recorder.heads) == 1:
            stop.wait(60)
            return None
        return b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond"

    recorder = raw.Recorder(answer)
    recorder.client = own_daemon(transport=transport).client(recorder.target, "hesitant")
    yield recorder
    stop.set()
    recorder.client.stop()
    recorder.stop()


def test_a_safe_request_is_sent_again(hesitant, http):
    """The client is killed before a GET's response begins. The visitor does not notice."""
    visit = hesitant.client.start_curl("/", http)
    wait_for(lambda: hesitant.heads, "the service has the request")
    hesitant.client.process.kill()
    hesitant.client.start()
    assert visit.stdout.read() == b"second" and visit.wait(20) == 0
    assert len(hesitant.heads) == 2


def test_an_unsafe_request_is_sent_once(hesitant, http):
    """The service may have acted on a POST, so it is sent once. The visitor gets an error."""
    visit = hesitant.client.start_curl("/", http, "--data", "pay", "--write-out", "%{http_code}")
    wait_for(lambda: hesitant.heads, "the service has the request")
    hesitant.client.process.kill()
    hesitant.client.start()
    assert visit.stdout.read()[-3:] in (b"502", b"503") and visit.wait(20) == 0
    assert hesitant.client.curl("/").stdout == b"second"
    assert [head.split()[0] for head in hesitant.heads] == [b"POST", b"GET"]


def test_offline_past_the_grace(own_daemon, nginx, transport):
    """After the reconnect grace, visitors get 503 with Retry-After."""
    daemon = own_daemon(limits='reconnect_grace = "1s"\noffline_retention = "1h"', transport=transport)
    client = daemon.client(nginx.target, "gone")
    client.stop()
    answer = daemon.curl("gone", "/", "--include").stdout.lower()
    assert b" 503" in answer.splitlines()[0] and b"retry-after: " in answer


def test_max_held(own_daemon, nginx, transport):
    daemon = own_daemon(limits='reconnect_grace = "30s"\nmax_held = 1', transport=transport)
    client = daemon.client(nginx.target, "full")
    client.process.kill()
    wait_for(lambda: noticed(daemon), "the daemon has noticed")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(daemon.curl, "full", "/", "--write-out", "%{http_code}") for _ in range(4)]
        turned_away = lambda: [answer for answer in waiting if answer.done()]  # noqa: E731
        wait_for(lambda: len(turned_away()) == 3, "all but one are turned away")
        assert all(answer.result().stdout.endswith(b"503") for answer in turned_away())
        client.start()
        assert sum(answer.result().stdout.endswith(b"200") for answer in waiting) == 1
    client.stop()


def test_a_second_instance_takes_over_only_with_the_same_state(own_daemon, nginx, transport):
    """The same key and instance takes the name over. The daemon refuses another instance of the same key."""
    daemon = own_daemon(transport=transport)
    first = daemon.client(nginx.target, "mine")
    second = daemon.client(nginx.target, "mine", state=first.state)
    displaced = first.process.wait_event("displaced")
    assert (displaced["address"], displaced["retry_in_ms"] >= 60_000) == ("127.0.0.1", True)
    elsewhere, options = daemon.folder / "elsewhere", ("--name-timeout", "0")
    third = daemon.client(nginx.target, "mine", wait=False, state=elsewhere, options=options)
    assert third.process.wait_exit() == 3
    assert second.curl("/").stdout == b"<h1>hello</h1>\n"
    second.stop()
    first.stop()


def test_the_daemon_drains(own_daemon, nginx, transport):
    """On SIGTERM the daemon accepts no new requests, finishes a running download, and exits with 0."""
    daemon = own_daemon(transport=transport)
    nginx.add_sparse("drain.bin", 64 << 20)
    client = daemon.client(nginx.target, "drain")
    curl = client.start_curl(
        "/drain.bin", "--limit-rate", "32M", "--write-out", "%{stderr}%{size_download}", "--output", "-"
    )
    assert curl.stdout.read(1) == b"\0"
    daemon.process.popen.terminate()
    daemon.process.wait_event("draining")
    assert len(curl.stdout.read()) == (64 << 20) - 1
    assert curl.wait(10) == 0 and curl.stderr.read() == b"%d" % (64 << 20)
    assert daemon.process.wait_exit() == 0
    daemon.process.wait_event("stopped", finished=True)
    client.stop()


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_the_daemon_at_once(own_daemon, services, transport, second):
    """After SIGINT the daemon's message says how long it waits, and that a second signal stops it at once."""
    daemon = own_daemon(transport=transport)
    client = daemon.client(services.web, "impatient")
    visitor = client.start_curl("/silent")
    wait_for(lambda: services.open_streams == 1, "the request")
    daemon.process.popen.send_signal(signal.SIGINT)
    said = daemon.process.wait_event("stopping", visitors=1)["message"]
    assert "within 30 s" in said and said.endswith("press Ctrl-C again to stop at once")
    daemon.process.popen.send_signal(second)
    assert daemon.process.wait_exit(4) == 0 and visitor.wait(5) != 0
    daemon.process.wait_event("stopped", finished=False)
    # Over UDP it does not know yet that its exchange has ended, and would wait for it.
    client.process.kill()


def test_a_daemon_without_visitors_waits_for_nothing(own_daemon):
    daemon = own_daemon()
    daemon.process.popen.send_signal(signal.SIGINT)
    assert daemon.process.wait_exit() == 0
    assert '"stopping"' not in daemon.process.output()


def test_the_client_comes_back_to_a_restarted_daemon(own_daemon, nginx, transport):
    daemon = own_daemon(transport=transport)
    port = daemon.port
    config = daemon.config.read_text()
    daemon.config.write_text(config.replace('https = ["127.0.0.1:0"]', f'https = ["127.0.0.1:{port}"]'))
    client = daemon.client(nginx.target, "again")
    seen = len(client.process.lines)
    daemon.stop()
    daemon.start()
    client.wait_online(start=seen)
    assert client.curl("/").stdout == b"<h1>hello</h1>\n"
    client.stop()


def test_a_killed_daemon_is_noticed_at_once(own_daemon, nginx, transport):
    """Over QUIC its successor sends a stateless reset (RFC 9000, section 10.3), so no client waits for a time-out."""
    daemon = own_daemon(transport=transport)
    daemon.config.write_text(daemon.config.read_text().replace('"127.0.0.1:0"', f'"{daemon.https}"', 1))
    client = daemon.client(nginx.target, "bereft")
    seen = len(client.process.lines)
    daemon.process.kill()
    daemon.start()
    reason = client.process.wait_event("disconnected", start=seen)["reason"]
    assert transport == "ws" or "has forgotten the session" in reason
    client.wait_online(start=seen)
    assert client.curl("/").stdout == b"<h1>hello</h1>\n"
    client.stop()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_names_outlive_the_daemon(own_daemon, nginx, transport, end):
    """The first requests after a restart wait for the client and do not get 404."""
    daemon = own_daemon(transport=transport)
    client = daemon.client(nginx.target, "kept")
    row = "SELECT 1 FROM entries WHERE key = CAST('names/kept' AS BLOB)"
    with closing(sqlite3.connect(daemon.state / "store.db")) as store:
        wait_for(lambda: store.execute(row).fetchone(), "the name is kept")
    # The client reconnects late, as on a bad line.
    client.process.kill()
    daemon.stop() if end == "stop" else daemon.process.kill()
    daemon.start()
    visitor = daemon.start_curl("kept", "/", "--fail")
    assert daemon.curl("never", "/", "--write-out", "%{http_code}").stdout.endswith(b"404")
    client.start()
    assert visitor.stdout.read() == b"<h1>hello</h1>\n"
    assert visitor.wait(20) == 0
    client.stop()


def test_a_new_daemon_takes_over_from_one_that_drains(own_daemon, services, transport, tmp_path):
    """The next daemon starts while the old one finishes a response. The client serves through both."""
    daemon = own_daemon(transport=transport)
    client = daemon.client(services.web, "handed-over")
    slow = client.start_curl("/steps/handed-over/3")
    assert slow.stdout.read(9) == b"data: 0\n\n"
    daemon.process.popen.terminate()
    daemon.process.wait_event("draining")
    seen = len(client.process.lines)
    successor = Daemon(
        tmp_path / "successor", https=daemon.https, admin=daemon.admin, state=daemon.state, transport=transport
    )
    try:
        client.wait_online(start=seen)
        assert successor.curl("handed-over", "/cookies").stdout == b"ok"
        for number in range(3):
            services.confirm("handed-over", number)
        assert slow.stdout.read() == b"data: 1\n\ndata: 2\n\n" and slow.wait(10) == 0
        assert daemon.process.wait_exit() == 0
        assert successor.curl("handed-over", "/cookies").stdout == b"ok"
    finally:
        client.stop()
        successor.stop()


def test_a_stopped_client_finishes_running_requests(tunnel):
    """On SIGTERM a running response finishes, except for an endless stream of events."""
    go_on = threading.Event()

    def answer(_head, connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")
        assert go_on.wait(60)
        return b" last"

    recorder = raw.Recorder(answer)
    client = tunnel(recorder.target)
    curl = client.start_curl("/")
    assert curl.stdout.read(5) == b"first"
    client.process.popen.terminate()
    client.process.wait_event("stopping", requests=1)
    go_on.set()
    assert curl.stdout.read() == b" last" and curl.wait(10) == 0
    assert client.process.wait_exit() == 0
    recorder.stop()
