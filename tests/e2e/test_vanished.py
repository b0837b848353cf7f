"""A visitor that vanishes in the middle of something that may pause: its packets get lost, and nothing says so. It is noticed
in about the time for a stall, while one that only pauses is left alone."""

import time

import pytest

from harness import raw, stalled
from harness.cok import Daemon
from harness.netns import DAEMON
from harness.process import wait_for
from harness.services import Services

LIMITS = 'stall_timeout = "3s"'
# The kernel counts in seconds, and a machine may be busy.
NOTICED = 15


@pytest.fixture
def site(network, tmp_path):
    """A daemon and a tunnel in the internet, which a home visits."""
    network.cable()
    services = network.internet.enter(Services)
    daemon = Daemon(tmp_path / "cokd", https=f"{DAEMON}:0", limits=LIMITS, inside=network.internet)
    client = daemon.client(services.web, "vanish", inside=network.internet)
    chat = daemon.client(services.ws, "chat", inside=network.internet)
    client.services = services
    yield client
    for program in (client, chat, daemon, services):
        program.stop()


def open_websocket(daemon):
    connection = stalled.visit(daemon, "chat", source="10.1.0.2")
    connection.sendall(
        f"GET / HTTP/1.1\r\nhost: {daemon.host('chat')}\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert raw.read_head(connection).startswith(b"HTTP/1.1 101 ")
    return connection


def test_events(network, site):
    visit = lambda: stalled.ask(site.daemon, "vanish", "/news", source="10.1.0.2", buffer=16384)  # noqa: E731
    with network.home.enter(visit):
        wait_for(lambda: site.services.open_streams == 1, "the events have begun")
        # It reads nothing, and may, for longer than the time for a stall.
        time.sleep(5)
        assert site.services.open_streams == 1
        network.home.drop("tcp dport != 0")
        wait_for(lambda: site.services.open_streams == 0, "the events have ended", NOTICED)


@pytest.mark.parametrize("asked", ["", "hello", "flood"], ids=["silent", "asked", "paused"])
def test_websockets(network, site, asked):
    """The kernel asks after a silent visitor. Another one has an answer under way when it vanishes, or more than it reads."""
    with network.home.enter(lambda: open_websocket(site.daemon)) as connection:
        if asked == "flood":
            connection.sendall(text(asked))
            # It reads nothing, and may, for longer than the time for a stall.
            time.sleep(5)
            assert not site.services.ws_closed
        time.sleep(0.5)  # all is acknowledged
        network.home.drop("tcp sport != 0", hooks=["input"])
        if asked == "hello":
            connection.sendall(text(asked))
            time.sleep(0.5)  # it arrives
        network.home.drop("tcp sport != 0", hooks=["output"])
        wait_for(lambda: site.services.ws_closed, "the WebSocket has ended", NOTICED)


def text(message):
    """Encodes a WebSocket's message, masked with zeros."""
    return bytes([0x81, 0x80 | len(message), 0, 0, 0, 0]) + message.encode()
