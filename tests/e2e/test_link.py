"""The link between namespaces (tests/link) has the requested delay, rate and loss."""

import hashlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.netns import DAEMON

# It measures the link, which other programs would delay.
pytestmark = pytest.mark.alone

MIB = 1 << 20


@pytest.fixture
def ends(network):
    """Sockets at both ends of a link: `ends(kind, **options)`."""
    sockets = []

    def make(kind, **options):
        network.link(**options)
        there = network.internet.enter(lambda: socket.socket(type=kind))
        here = network.home.enter(lambda: socket.socket(type=kind))
        sockets.extend((there, here))
        for end in sockets:
            end.settimeout(20)
        there.bind((DAEMON, 0))
        if kind == socket.SOCK_STREAM:
            there.listen()
        here.connect(there.getsockname())
        return here, there

    yield make
    for end in sockets:
        end.close()


def test_delay(ends):
    """Of many round trips the fastest counts, since the machine may be busy."""
    here, there = ends(socket.SOCK_DGRAM, delay="10ms")
    times = []
    for _ in range(30):
        began = time.monotonic()
        here.send(b"ping")
        _, sender = there.recvfrom(10)
        there.sendto(b"pong", sender)
        here.recv(10)
        times.append(time.monotonic() - began)
    assert 0.020 <= min(times) < 0.022, times


def test_loss(ends):
    """Of 2,000 packets a quarter is lost, within a tolerance."""
    here, there = ends(socket.SOCK_DGRAM, loss=0.25)
    got = 0
    for number in range(2000):
        here.send(b"%d" % number)
        if number % 100 == 99:
            # The kernel's receive buffer holds few packets.
            there.settimeout(0.2)
            try:
                while there.recv(10) != b"%d" % number:
                    got += 1
                got += 1
            except TimeoutError:
                pass
    assert 1350 < got < 1650


def test_rate_and_queue(ends):
    """20 Mbit/s carry 4 MiB complete in 1.7 s, and no faster."""
    data = bytes(range(256)) * (4 * MIB // 256)
    here, there = ends(socket.SOCK_STREAM, rate=20, delay="5ms", queue=64 << 10)
    peer, _ = there.accept()
    with ThreadPoolExecutor(1) as pool, peer, here.makefile("rb") as stream:
        began = time.monotonic()
        pool.submit(lambda: (peer.sendall(data), peer.shutdown(socket.SHUT_WR)))
        assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(data).digest()
        assert 1.6 < time.monotonic() - began < 10
