"""Floods of handshakes that never finish."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from aioquic.quic.packet import QuicPacketType

from harness.cok import GIVE_BACK, Daemon
from harness.flood import Initials, flood
from harness.netns import DAEMON
from harness.nginx import Nginx

# The flood takes all processors.
pytestmark = pytest.mark.alone

MIB = 1 << 20
FLOOD = 20_000
# The memory limit of unfinished handshakes: those under way, and Initial packets in the queue.
BOUND = 32 * MIB


def test_unfinished_handshakes(network, tmp_path):
    """The flood comes from 250 addresses. Once some handshakes are under way, the daemon requires address validation (Retry) of
    all others, which cost nothing. It serves visitors and clients meanwhile, also over UDP."""
    network.cable()
    nginx = Nginx(tmp_path / "nginx", inside=network.home)
    nginx.add("index.html", b"<h1>hello</h1>\n")
    daemon = Daemon(tmp_path / "cokd", https=f"{DAEMON}:0", env=GIVE_BACK, inside=network.internet)
    crowd = network.add("crowd")
    network.cable(2, at_home=crowd)
    # The flood owns all addresses of 10.3.0.0/16.
    crowd.ip("route", "add", "local", "10.3.0.0/16", "dev", "lo")
    network.internet.ip("route", "add", "10.3.0.0/16", "via", "10.2.0.2")
    addresses = [f"10.3.0.{number}" for number in range(1, 251)]
    before_all = daemon.client(nginx.target, "before", inside=network.home)
    assert before_all.curl("/").stdout == b"<h1>hello</h1>\n"
    before = daemon.process.memory()[0]
    daemon.process.reset_peak()
    target, answered = (daemon.address, daemon.port), 0
    for alpn in ("cok/1", "h3"):
        with ThreadPoolExecutor(1) as pool:
            initials = Initials(daemon.host(""), alpn)
            attack = pool.submit(crowd.enter, lambda: flood(initials, target, addresses, FLOOD // 2))
            client = daemon.client(nginx.target, f"during-{alpn[:2]}", transport="quic", inside=network.home)
            while not attack.done():
                assert client.curl("/").stdout == b"<h1>hello</h1>\n"
            client.stop()
        answers = attack.result()
        assert answers[QuicPacketType.RETRY] > FLOOD // 2 * 0.9, answers
        answered += answers[QuicPacketType.HANDSHAKE]
    # These are real handshakes: the first ones got a certificate.
    assert 0 < answered < 1000
    assert daemon.process.memory()[1] - before < BOUND
    assert before_all.curl("/").stdout == b"<h1>hello</h1>\n"
    for program in (before_all, daemon, nginx):
        program.stop()
