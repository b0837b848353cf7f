"""Out of descriptors, or of places: idle connections make room, and what is established goes on."""

import contextlib
import subprocess
import time
from pathlib import Path

import pytest

from harness import raw
from harness.http2 import Http2
from harness.process import Here


class Limited(Here):
    """Programs that may have so many descriptors."""

    def __init__(self, most):
        self.most = most

    def command(self, *command):
        return ["prlimit", f"--nofile={self.most}:{self.most}", *command]


HELLO = b"<h1>hello</h1>\n"


def used(visitor, client):
    """A connection that has had a response."""
    visitor.sendall(b"GET / HTTP/1.1\r\nhost: " + client.host.encode() + b"\r\n\r\n")
    fields = dict(raw.fields(raw.read_head(visitor)))
    assert raw.read_exactly(visitor, int(fields[b"content-length"])) == HELLO
    return visitor


def silent(daemon):
    return daemon.connect()


def idle_http1(daemon):
    return used(raw.connect(daemon, "room"), daemon.room)


def idle_http2(daemon):
    visitor = Http2(daemon, "room")
    assert visitor.request("/").read() == HELLO
    return visitor


KINDS = {"before-tls": silent, "http1": idle_http1, "http2": idle_http2}


def serves_quickly(client):
    """Fresh visitors have their answers within two seconds each."""
    for _ in range(5):
        began = time.monotonic()
        assert client.curl("/").stdout == HELLO
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("kind", KINDS)
def test_idle_connections_make_room(own_daemon, nginx, services, kind):
    """The limit of connections is reached. A visitor that waits for its response keeps its place, and a fresh one gets one."""
    daemon = own_daemon(limits="max_connections = 20")
    daemon.room = daemon.client(nginx.target, "room")
    slow = daemon.client(services.web, "slow")
    with contextlib.ExitStack() as stack:
        news = daemon.start_curl("slow", "/news")
        assert news.stdout.read(1)
        for _ in range(30):
            stack.enter_context(KINDS[kind](daemon))
        serves_quickly(daemon.room)
        assert news.poll() is None
        news.kill()
    slow.stop()
    daemon.room.stop()


def test_connections_leave_descriptors(own_daemon, nginx):
    """A daemon that may have few descriptors says how many connections it takes, and serves more visitors than that."""
    daemon = own_daemon(inside=Limited(300))
    few = daemon.process.wait_event("few_descriptors")
    assert few["wanted"] == 20_000 and 50 < few["connections"] < 150
    daemon.room = daemon.client(nginx.target, "room")
    with contextlib.ExitStack() as stack:
        for number in range(200):
            stack.enter_context((silent, idle_http1)[number % 2](daemon))
        serves_quickly(daemon.room)
        assert len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir())) < 300
        # There is room for a further tunnel as well.
        daemon.client(nginx.target, "more").stop()
    daemon.room.stop()


def test_out_of_descriptors(own_daemon, nginx):
    """Another cause has used them up. Fresh visitors are served again within two seconds, and the log says it once."""
    daemon = own_daemon()
    daemon.room = daemon.client(nginx.target, "room")
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(idle_http1(daemon))
        # Idle for long enough to be taken for it.
        time.sleep(0.6)
        highest = max(int(path.name) for path in Path(f"/proc/{daemon.process.pid}/fd").iterdir())
        subprocess.run(["prlimit", f"--pid={daemon.process.pid}", f"--nofile={highest + 1}"], check=True)
        serves_quickly(daemon.room)
        for _ in range(50):
            stack.enter_context(idle_http1(daemon))
        serves_quickly(daemon.room)
    told = [line for line in daemon.process.lines if '"cannot_accept"' in line]
    assert len(told) == 1, told
    daemon.room.stop()
