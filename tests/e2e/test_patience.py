"""What takes long. All of it begins at once, and each test waits for its own part."""

import time

import pytest

from harness import raw
from harness.cok import Daemon
from harness.http2 import Http2
from harness.process import wait_for

# A session that is silent for 15 s is asked for a Pong, and one that is silent for 30 s ends: streams that say nothing
# for longer than that live only if Pings and Pongs do their work, and if no total time-out ends them.
SILENCE = 33
# Names that have been away for too long are forgotten once a minute.
FORGETTING = 75


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, services):
    """A daemon under which nothing stirs: a tunnel with two silent streams, one that idles, and one that left."""
    daemon = Daemon(tmp_path_factory.mktemp("quiet"), limits='reconnect_grace = "1s"\noffline_retention = "1s"')
    clients = [daemon.client(services.web, name) for name in ("streams", "idle")]
    daemon.client(services.web, "forgotten").stop()
    host = daemon.host("streams").encode()
    with (
        raw.connect(daemon, "streams", deadline=60) as daemon.over_http1,
        Http2(daemon, "streams") as daemon.over_http2,
    ):
        daemon.over_http1.sendall(b"GET /steps/quiet-h1/2 HTTP/1.1\r\nhost: " + host + b"\r\n\r\n")
        raw.read_head(daemon.over_http1)
        assert raw.read_exactly(daemon.over_http1, 14) == b"9\r\ndata: 0\n\n\r\n"
        daemon.stream = daemon.over_http2.request("/steps/quiet-h2/2")
        assert daemon.stream.read(9) == b"data: 0\n\n"
        daemon.silent_from, daemon.clients = time.monotonic(), clients
        yield daemon
    for client in clients:
        client.stop()
    daemon.stop()


@pytest.fixture
def silence(quiet):
    """Lets it last for as long as it is to."""
    time.sleep(max(0, quiet.silent_from + SILENCE - time.monotonic()))


@pytest.mark.usefixtures("silence")
def test_silent_streams_go_on(quiet, services):
    for stream in ("quiet-h1", "quiet-h2"):
        services.confirm(stream, 0)
    assert raw.read_exactly(quiet.over_http1, 14) == b"9\r\ndata: 1\n\n\r\n"
    # An answer to the edge's own question after an idle visitor comes with the next read.
    assert quiet.stream.read(9) == b"data: 1\n\n"
    for stream in ("quiet-h1", "quiet-h2"):
        services.confirm(stream, 1)
    assert raw.read_exactly(quiet.over_http1, 5) == b"0\r\n\r\n" and quiet.stream.read() == b""


@pytest.mark.usefixtures("silence")
def test_idle_tunnels_stay(quiet):
    """Not by coming back: they have been there all the time."""
    for client in quiet.clients:
        assert client.curl("/cookies").stdout == b"ok"
        assert "disconnected" not in client.process.output(), client.process.output()


def test_names_are_forgotten(quiet):
    """An offline name answers 503 until it is forgotten, and then as one that never was."""
    status = lambda: quiet.curl("forgotten", "/", "--write-out", "%{http_code}").stdout[-3:]  # noqa: E731
    wait_for(lambda: status() == b"404", "the name is forgotten", deadline=FORGETTING, every=1)
