"""A client that stops: its messages, the end of its exchanges at both ends, and its exit."""

import concurrent.futures
import contextlib
import fcntl
import os
import pty
import signal
import socket
import subprocess
import termios
import threading
import time

import pytest

from harness import raw
from harness.cok import KEY
from harness.http3 import Http3
from harness.process import BIN_DIR, Process, wait_for
from harness.services import FLOOD
from harness.websocket import OverHttp1, OverHttp2

GOING_AWAY = (1001, "the tunnel is being closed")
# The limit for an immediate end; requests may take 10 s.
AT_ONCE = 6


class Stop:
    """Asks a client to stop while exchanges are under way."""

    def __init__(self, client, requests, streams, how=signal.SIGINT):
        self.process, self.began = client.process, time.monotonic()
        self.process.popen.send_signal(how)
        self.said = self.process.wait_event("stopping", requests=requests, streams=streams)

    def ends(self):
        """Waits for its clean exit. Returns the time that it took."""
        assert self.process.wait_exit() == 0
        return time.monotonic() - self.began


def at_once(*actions):
    """Runs the actions in parallel threads. Returns their results."""
    with concurrent.futures.ThreadPoolExecutor(len(actions)) as pool:
        return [result.result() for result in [pool.submit(action) for action in actions]]


def curl_ends(curl):
    """Returns the remaining output and curl's exit code, which is 0 only after a clean end."""
    return curl.stdout.read(), curl.wait(20)


@pytest.mark.parametrize("visitor", [OverHttp1, OverHttp2], ids=["h1", "h2"])
def test_websockets_are_closed(tunnel, services, visitor):
    """Both ends see a closing handshake, on an idle WebSocket and during a flood of messages. No message is truncated."""
    services.ws_closed.clear()
    client = tunnel(services.ws)
    quiet, busy = visitor(client), visitor(client)
    quiet.send("hello")
    assert quiet.recv() == "hello"
    busy.send("flood")
    assert len(busy.recv()) == FLOOD
    stop = Stop(client, requests=0, streams=2)
    assert stop.said["message"] == "stopping: 2 WebSockets or event streams are closed"
    (nothing, told_quiet), (lengths, told_busy) = at_once(quiet.until_closed, busy.until_closed)
    assert told_quiet == told_busy == GOING_AWAY
    assert nothing == [] and set(lengths) <= {FLOOD}
    wait_for(lambda: services.ws_closed == [GOING_AWAY, GOING_AWAY], "the service sees the Close")
    for left in (quiet, busy):
        left.leave()
    assert stop.ends() < AT_ONCE


@pytest.mark.parametrize("protocol", ["websocket", "odd/1"])
def test_a_silent_visitor_does_not_delay_the_stop(tunnel, daemon, protocol):
    """A WebSocket's visitor gets a Close frame. Then its connection ends."""
    switch = f"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n".encode()
    recorder = raw.Recorder(lambda head, connection: switch + b"\x81\x02hi")
    client = tunnel(recorder.target, options=("--verbose", "--upgrade", "odd/1"))
    with raw.connect(daemon, client.name) as connection:
        host = client.host.encode()
        connection.sendall(
            b"GET / HTTP/1.1\r\nhost: " + host + b"\r\nconnection: upgrade\r\nupgrade: " + protocol.encode() + b"\r\n\r\n"
        )
        assert b" 101 " in raw.read_head(connection).splitlines()[0]
        assert raw.read_exactly(connection, 4) == b"\x81\x02hi"
        stop = Stop(client, requests=0, streams=1)
        if protocol == "websocket":
            reason = GOING_AWAY[1].encode()
            assert raw.read_exactly(connection, 4 + len(reason)) == b"\x88\x1c\x03\xe9" + reason
        with contextlib.suppress(OSError):
            assert connection.recv(1) == b""
    assert stop.ends() < AT_ONCE
    recorder.stop()


def test_event_streams_end(tunnel, services, http):
    """Idle streams and floods of events end cleanly over HTTP/1.1 and HTTP/2."""
    client = tunnel(services.web)
    quiet = client.start_curl("/steps/stopping/3", http)
    assert quiet.stdout.read(9) == b"data: 0\n\n"
    busy = client.start_curl("/news", http)
    assert busy.stdout.read(11) == b"data: now\n\n"
    stop = Stop(client, requests=0, streams=2)
    told_quiet, (_events, code) = at_once(lambda: curl_ends(quiet), lambda: curl_ends(busy))
    assert told_quiet == (b"", 0) and code == 0
    wait_for(lambda: services.open_streams == 0, "the service sees the end")
    assert stop.ends() < AT_ONCE


def test_event_streams_end_over_http3(tunnel, daemon, services):
    client = tunnel(services.web)
    with Http3(daemon, client.name) as visitor:
        quiet, busy = visitor.request("/steps/stopping3/3"), visitor.request("/news")
        assert quiet.read(9) == b"data: 0\n\n" and busy.read(11) == b"data: now\n\n"
        stop = Stop(client, requests=0, streams=2)
        assert quiet.read() == b"" and busy.read().startswith(b"data: now\n\n")
        wait_for(lambda: services.open_streams == 0, "the service sees the end")
    assert stop.ends() < AT_ONCE


class Held:
    """A service that answers once the test releases it."""

    def __init__(self):
        self.asked, self.let_go = threading.Event(), threading.Event()
        self.recorder = raw.Recorder(self._answer)

    def _answer(self, _head, _connection):
        self.asked.set()
        assert self.let_go.wait(60)
        return b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"

    def visit(self, client):
        """Starts a visitor and waits until its request reaches the service."""
        curl = client.start_curl("/")
        assert self.asked.wait(20)
        return curl


@pytest.fixture
def held():
    held = Held()
    yield held
    held.let_go.set()
    held.recorder.stop()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_request_may_finish(tunnel, held, how):
    client = tunnel(held.recorder.target)
    curl = held.visit(client)
    stop = Stop(client, requests=1, streams=0, how=how)
    assert stop.said["message"] == "stopping: 1 request may finish within 10 s; press Ctrl-C again to stop at once"
    held.let_go.set()
    assert curl_ends(curl) == (b"done", 0)
    stop.ends()


def test_a_second_signal_ends_it_at_once(tunnel, daemon, held):
    """The client tells the daemon over either transport."""
    client = tunnel(held.recorder.target)
    curl = held.visit(client)
    stop = Stop(client, requests=1, streams=0)
    client.process.popen.send_signal(signal.SIGINT)
    assert stop.ends() < 3
    daemon.process.wait_line(
        lambda line: " offline after " in line and f'"{client.name}"' in line, "end of the tunnel", deadline=3
    )
    assert curl_ends(curl)[0] != b"done"


def test_an_idle_client_stops_without_a_message(tunnel, nginx):
    client = tunnel(nginx.target)
    assert client.curl("/").stdout == b"<h1>hello</h1>\n"
    client.process.popen.send_signal(signal.SIGINT)
    assert client.process.wait_exit() == 0
    assert '"stopping"' not in client.process.output()


@pytest.mark.needs("root", "unshare")
def test_a_name_lookup_does_not_delay_the_stop(tmp_path, daemon):
    """The program does not wait for the system's resolver, which can't be interrupted."""
    resolver = tmp_path / "resolv.conf"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.77", 53))
        silent.settimeout(20)
        resolver.write_text("nameserver 127.0.0.77\noptions timeout:30 attempts:3\n")
        process = Process(
            "unshare", "--mount", "sh", "-c", f'mount --bind {resolver} /etc/resolv.conf && exec "$@"', "sh",
            BIN_DIR / "cok-client", "3000", "--server", "https://tunnel.nowhere.test", "--api-key", KEY,
            "--ca-file", daemon.ca, "--state-dir", tmp_path, "--log-format", "json",
        )
        silent.recv(512)
        began = time.monotonic()
        process.popen.send_signal(signal.SIGINT)
        assert process.wait_exit() == 0 and time.monotonic() - began < 5


def terminal(command, **options):
    """Starts a program on a new terminal. Returns the program and the terminal's other end."""
    ours, theirs = pty.openpty()

    def take():
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    # setsid comes first: it makes the program the leader of a session without a terminal.
    process = subprocess.Popen(
        [str(part) for part in command], start_new_session=True, preexec_fn=take, stdin=theirs, **options
    )
    os.close(theirs)
    return process, ours


def client_command(daemon, nginx, tmp_path, transport, name, form="json"):
    (tmp_path / "key").write_text(KEY)
    return [
        BIN_DIR / "cok-client", nginx.target, "--server", daemon.url(""), "--connect-to", daemon.https, "--ca-file",
        daemon.ca, "--api-key-file", tmp_path / "key", "--state-dir", tmp_path / "state", "--transport", transport,
        "--subdomain", name, "--log-format", form,
    ]


def test_sighup_does_not_stop_it(tunnel, nginx):
    """A client without a terminal, as under a service manager, reloads. If its tunnel is not from a file, it says so."""
    client = tunnel(nginx.target)
    seen = len(client.process.lines)
    client.process.popen.send_signal(signal.SIGHUP)
    said = client.process.wait_event("nothing_to_reload", start=seen)["message"]
    assert said == "the tunnel is from the command line, not from a file, so there is nothing to reload"
    assert client.curl("/").stdout == b"<h1>hello</h1>\n"
    assert client.stop() == 0


def test_sighup_with_an_open_terminal_does_not_stop_it_either(daemon, nginx, tmp_path, transport):
    command = client_command(daemon, nginx, tmp_path, transport, "terminal")
    process, ours = terminal(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout.readline().startswith(b"https://terminal.")
        process.send_signal(signal.SIGHUP)
        while b'"nothing_to_reload"' not in process.stderr.readline():
            assert process.poll() is None
        assert daemon.curl("terminal", "/").stdout == b"<h1>hello</h1>\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(ours)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_closed_terminal_ends_it(daemon, nginx, tmp_path, transport, form):
    """The client ends even if its output went to that terminal."""
    command = client_command(daemon, nginx, tmp_path, transport, f"closed-{form}", form)
    process, ours = terminal(command, stdout=subprocess.PIPE, stderr=0)
    try:
        assert process.stdout.readline().startswith(b"https://closed-")
        process.stdout.close()
        os.close(ours)
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_nohup_keeps_it_up(daemon, nginx, tmp_path, transport):
    """A client that starts with SIGHUP ignored keeps ignoring it without a line. A closed terminal does not end it."""
    command = client_command(daemon, nginx, tmp_path, transport, "nohup")
    log = (tmp_path / "log").open("wb")
    process, ours = terminal(["nohup", *command], stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout.readline().startswith(b"https://nohup.")
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        assert daemon.curl("nohup", "/").stdout == b"<h1>hello</h1>\n"
        assert b"hangup" not in (tmp_path / "log").read_bytes()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        log.close()
