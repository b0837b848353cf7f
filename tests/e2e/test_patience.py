"""Slow tests. Their tunnels all start at once, and each test waits for its own part."""

import contextlib
import time

import pytest

from harness import raw
from harness.cok import TRANSPORTS, Daemon
from harness.http2 import Http2
from harness.process import wait_for

# A session gets a Ping after 15 s of silence and ends after 30 s. Streams with a longer silence live only if Pings and
# Pongs work and no total time-out exists.
SILENCE = 33
# The daemon removes names of expired tunnels once a minute.
FORGETTING = 75


class Quiet:
    """Three tunnels over one transport: an idle one, one with two silent streams, and one with two readers. The last
    one's client is killed."""

    def __init__(self, daemon, target, transport, stack):
        self.streams, self.idle = (
            daemon.client(target, f"{name}-{transport}", transport=transport) for name in ("streams", "idle")
        )
        self.over_http1 = stack.enter_context(raw.connect(daemon, self.streams.name, deadline=60))
        host = self.streams.host.encode()
        self.over_http1.sendall(b"GET /steps/h1-%s/2 HTTP/1.1\r\nhost: %s\r\n\r\n" % (transport.encode(), host))
        raw.read_head(self.over_http1)
        assert raw.read_exactly(self.over_http1, 14) == b"9\r\ndata: 0\n\n\r\n"
        self.over_http2 = stack.enter_context(Http2(daemon, self.streams.name)).request(f"/steps/h2-{transport}/2")
        assert self.over_http2.read(9) == b"data: 0\n\n"
        killed = daemon.client(target, f"killed-{transport}", transport=transport)
        self.bereft = [
            killed.start_curl(f"/steps/{http}-{transport}/2", f"--{http}", deadline=90) for http in ("http1.1", "http2")
        ]
        for curl in self.bereft:
            assert curl.stdout.read(9) == b"data: 0\n\n"
        killed.process.kill()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, services):
    """A daemon with quiet tunnels over every transport, and one name whose client has left."""
    daemon = Daemon(tmp_path_factory.mktemp("quiet"), limits='reconnect_grace = "1s"\noffline_retention = "1s"')
    daemon.client(services.web, "forgotten").stop()
    with contextlib.ExitStack() as stack:
        daemon.over = {transport: Quiet(daemon, services.web, transport, stack) for transport in TRANSPORTS}
        daemon.silent_from = time.monotonic()
        yield daemon
    for tunnels in daemon.over.values():
        tunnels.streams.stop()
        tunnels.idle.stop()
    daemon.stop()


@pytest.fixture
def silence(quiet):
    """Waits until the silence has lasted long enough."""
    time.sleep(max(0, quiet.silent_from + SILENCE - time.monotonic()))


# Not by the fixture `transport`, since all transports share one silence.
each_transport = pytest.mark.parametrize("over", TRANSPORTS)


@each_transport
@pytest.mark.usefixtures("silence")
def test_silent_streams_go_on(quiet, services, over):
    tunnels = quiet.over[over]
    for stream in (f"h1-{over}", f"h2-{over}"):
        services.confirm(stream, 0)
    assert raw.read_exactly(tunnels.over_http1, 14) == b"9\r\ndata: 1\n\n\r\n"
    # The visitor answers the edge's Ping with its next read.
    assert tunnels.over_http2.read(9) == b"data: 1\n\n"
    for stream in (f"h1-{over}", f"h2-{over}"):
        services.confirm(stream, 1)
    assert raw.read_exactly(tunnels.over_http1, 5) == b"0\r\n\r\n" and tunnels.over_http2.read() == b""


@each_transport
@pytest.mark.usefixtures("silence")
def test_idle_tunnels_stay(quiet, over):
    """The sessions stay, without a reconnect."""
    for client in (quiet.over[over].streams, quiet.over[over].idle):
        assert client.curl("/cookies").stdout == b"ok"
        assert "disconnected" not in client.process.output(), client.process.output()


@each_transport
@pytest.mark.usefixtures("silence")
def test_a_killed_client_truncates_the_response(quiet, over):
    """Over UDP only silence shows the client's end. Its visitors see a truncated transfer."""
    for curl in quiet.over[over].bereft:
        _, said = curl.communicate(timeout=20)
        assert curl.returncode in (18, 92), said


def test_names_expire(quiet):
    """An offline name answers 503 until the daemon removes it. It then answers like an unknown name."""
    status = lambda: quiet.curl("forgotten", "/", "--write-out", "%{http_code}").stdout[-3:]  # noqa: E731
    wait_for(lambda: status() == b"404", "the name is forgotten", deadline=FORGETTING, every=1)
