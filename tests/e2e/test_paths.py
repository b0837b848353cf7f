"""The path between client and daemon: firewalls, NAT, lossy links, and paths that change under a running tunnel."""

import hashlib
import os
import time

import pytest

from harness.cok import Daemon
from harness.netns import DAEMON
from harness.nginx import Nginx
from harness.process import wait_for
from harness.visitors import Visitors

MIB = 1 << 20
UDP = "meta l4proto udp"
# Packets of an established QUIC connection have a short header, whose first bit is 0 (RFC 9000, section 17).
AFTER_THE_HANDSHAKE = f"{UDP} @th,64,1 0"


class Afar:
    """A service at home with a file of 16 MiB, a daemon in the internet, and a client between them."""

    def __init__(self, network, folder):
        self.network, self.folder = network, folder
        self.nginx = Nginx(folder / "nginx", inside=network.home)
        self.nginx.add("index.html", b"<h1>hello</h1>\n")
        self.digest = self.nginx.add("file.bin", os.urandom(16 * MIB))
        self.daemon = Daemon(folder / "cokd", https=f"{DAEMON}:0", inside=network.internet)
        self.client = None

    def start(self, transport, *options, wait=True):
        self.client = self.daemon.client(
            self.nginx.target, "afar", transport=transport, options=options, wait=wait, inside=self.network.home
        )
        return self.client.process

    def download(self, rate="4M"):
        """Starts a slow download and waits until it is well under way."""
        curl = self.client.start_curl("/file.bin", "--limit-rate", rate, "--output", self.folder / "file.bin")
        wait_for(lambda: self.downloaded() > MIB, "the download is under way")
        return curl

    def downloaded(self):
        file = self.folder / "file.bin"
        return file.stat().st_size if file.exists() else 0

    def finish(self, curl):
        """Checks that the download ends cleanly and the file is complete."""
        assert curl.wait(40) == 0, curl.stderr.read()
        assert hashlib.sha256((self.folder / "file.bin").read_bytes()).hexdigest() == self.digest

    def sessions(self):
        """Returns the daemon's count of all sessions so far."""
        return sum(" online: key " in line for line in self.daemon.process.lines)

    def stop(self):
        for program in (self.client, self.daemon, self.nginx):
            if program:
                program.stop()


@pytest.fixture
def afar(network, tmp_path):
    afar = Afar(network, tmp_path)
    yield afar
    afar.stop()


def test_a_lossy_link(afar, network, transport):
    """One of 50 packets is lost in each direction. Everything arrives complete."""
    network.link(delay="10ms", rate=100, loss=0.02)
    afar.start(transport)
    afar.finish(afar.download("100M"))
    uploaded = afar.client.curl("/uploads/file.bin", "--upload-file", afar.folder / "file.bin", "--write-out", "%{http_code}")
    assert uploaded.stdout == b"201"
    assert hashlib.sha256((afar.nginx.site / "uploads/file.bin").read_bytes()).hexdigest() == afar.digest
    for _ in range(5):
        assert afar.client.curl("/").stdout == b"<h1>hello</h1>\n"
    assert afar.sessions() == 1


@pytest.mark.parametrize("way", ["download", "upload"])
def test_a_slow_line_keeps_its_name(afar, network, transport, way):
    """Another client with the key asks for the name while a transfer fills a line of 4 kB/s. It is refused."""
    network.link(delay="20ms", rate=0.032, queue=16_000)
    first = afar.start(transport)
    options = {
        "download": ("/file.bin", "--output", afar.folder / "file.bin"),
        "upload": ("/uploads/file.bin", "--upload-file", afar.nginx.site / "file.bin"),
    }[way]
    transfer = afar.client.start_curl(*options)

    def passed():
        return network.home.bytes("way9", {"download": "tx", "upload": "rx"}[way])

    began = passed()
    wait_for(lambda: passed() > began + 20_000, "the transfer fills the line")
    second = afar.daemon.client(
        afar.nginx.target, "afar", transport=transport, wait=False, state=afar.folder / "other", inside=network.internet,
        options=("--name-timeout", "0"),
    )
    assert second.process.wait_exit() == 3
    assert "in use" in second.process.wait_event("refused")["reason"]
    seen = passed()
    wait_for(lambda: passed() > seen + 10_000, "the transfer goes on")
    assert transfer.poll() is None and "disconnected" not in first.output()
    transfer.kill()
    # On this slow line, a clean end of either would take long.
    first.kill()
    afar.daemon.process.kill()


@pytest.mark.parametrize("blocked", [UDP, AFTER_THE_HANDSHAKE], ids=["all of UDP", "UDP after the handshake"])
def test_auto_without_udp(afar, network, blocked):
    """The tunnel is up on WebSocket within 2 s, and the log gives the reason."""
    network.cable()
    network.home.drop(blocked)
    began = time.monotonic()
    client = afar.start("auto")
    assert time.monotonic() - began < 2
    assert client.wait_event("connected")["transport"] == "ws"
    fallback = client.wait_event("fallback")
    assert fallback["to"] == "ws" and "QUIC" in fallback["reason"]
    assert ("handshake succeeded" in fallback["reason"]) == (blocked == AFTER_THE_HANDSHAKE)
    assert afar.client.curl("/").stdout == b"<h1>hello</h1>\n"


def test_auto_with_udp(afar, network):
    """The tunnel is on QUIC from the start, and the client does not try TCP."""
    network.cable()
    tcp = network.home.count(f"tcp dport {afar.daemon.port}")
    client = afar.start("auto")
    assert client.wait_event("connected")["transport"] == "quic"
    assert afar.client.curl("/").stdout == b"<h1>hello</h1>\n"
    assert tcp() == 0


def test_back_to_quic(afar, network):
    """The tunnel moves to QUIC once UDP passes. No request fails, and exchanges on the old session finish."""
    network.cable()
    network.home.drop(UDP)
    client = afar.start("auto", "--probe-interval", "1s")
    client.wait_event("connected", transport="ws")
    download = afar.download()
    visitors = Visitors(afar.daemon, "afar")
    network.home.let_pass()
    # An earlier try succeeds with its next packet, at most 2 s later.
    client.wait_event("connected", transport="quic", deadline=4)
    wait_for(lambda: afar.downloaded() < 16 * MIB and len(visitors.times) > 100, "requests go on during the download")
    afar.finish(download)
    visitors.stop()
    assert not visitors.failures and max(visitors.times) < 2
    assert afar.sessions() == 2


def test_quic_turns_bad(afar, network):
    """When UDP is blocked later, the tunnel moves to WebSocket and answers waiting requests. It then moves back."""
    network.cable()
    client = afar.start("auto", "--probe-interval", "1s")
    client.wait_event("connected", transport="quic")
    visitors = Visitors(afar.daemon, "afar")
    wait_for(lambda: len(visitors.times) > 50, "requests are answered")
    network.home.drop(UDP)
    reason = client.wait_event("fallback")["reason"]
    assert "QUIC" in reason or "UDP" in reason, reason
    client.wait_event("connected", transport="ws")
    seen, answered = len(client.lines), len(visitors.times)
    network.home.let_pass()
    client.wait_event("connected", transport="quic", start=seen)
    wait_for(lambda: len(visitors.times) > answered + 50, "requests are answered on QUIC again")
    visitors.stop()
    assert not visitors.failures
    assert max(visitors.times) < 15


def test_quic_alone_never_falls_back(afar, network):
    """Without UDP there is no tunnel and no packet over TCP. With UDP the tunnel is back."""
    network.cable()
    network.home.drop(UDP)
    tcp = network.home.count(f"tcp dport {afar.daemon.port}")
    client = afar.start("quic", wait=False)
    assert "QUIC" in client.wait_event("disconnected")["reason"]
    network.home.let_pass()
    afar.client.wait_online()
    assert afar.client.curl("/").stdout == b"<h1>hello</h1>\n"
    assert tcp() == 0


def test_ws_alone_never_touches_udp(afar, network):
    network.cable()
    udp = network.home.count(UDP)
    afar.start("ws", "--probe-interval", "1s")
    afar.finish(afar.download("8M"))
    assert udp() == 0


def another_address(network):
    """Moves to another interface, network and address, as from Wi-Fi to mobile."""
    network.cable(2)
    network.unplug(1)


def another_address_behind_nat(network):
    """Gives the router another address, as a provider does."""
    router = network.namespaces[-1]
    router.ip("address", "delete", "10.1.0.2/24", "dev", "way1")
    router.address("way1", "10.1.0.3/24")
    router.ip("route", "replace", "default", "via", "10.1.0.1")


def another_port_behind_nat(network):
    """Clears the router's NAT table, as a restart does."""
    router = network.namespaces[-1]
    router.ip("link", "set", "way1", "down")
    router.ip("link", "set", "way1", "up")
    router.ip("route", "replace", "default", "via", "10.1.0.1")


MOVES = [another_address, another_address_behind_nat, another_port_behind_nat]


@pytest.mark.parametrize("move", MOVES, ids=[move.__name__.replace("_", " ") for move in MOVES])
def test_roaming(afar, network, move):
    """The client's address changes during a download. Download and session go on."""
    network.cable() if move is another_address else network.router()
    seen = network.internet.sources(afar.daemon.port)
    client = afar.start("quic")
    download = afar.download()
    assert len(seen()) == 1
    move(network)
    assert afar.downloaded() < 16 * MIB
    afar.finish(download)
    assert len(seen()) == 2
    assert afar.client.curl("/").stdout == b"<h1>hello</h1>\n"
    assert afar.sessions() == 1
    assert "disconnected" not in client.output()


def test_a_path_that_shrinks(afar, network):
    """The path silently drops packets of a length that passed before. QUIC falls back to shorter ones."""
    network.link(delay="2ms", rate=200)
    client = afar.start("quic")
    download = afar.download()
    network.internet.drop(f"{UDP} meta length > 1300", hooks=["input"])
    afar.finish(download)
    assert afar.sessions() == 1 and "disconnected" not in client.output()
