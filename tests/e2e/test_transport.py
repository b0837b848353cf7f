"""The client's choice between QUIC and WebSocket, its log of the choice, and moves between them."""

import itertools
import json
import threading
import time

import pytest

from harness.cok import KEY, Dev
from harness.process import BIN_DIR, Process, wait_for
from harness.relay import ANY, SHORT, Relay

_numbers = itertools.count()


@pytest.fixture
def relay(daemon):
    """A relay to the daemon, which can drop a client's UDP."""
    relay = Relay(daemon.port)
    yield relay
    relay.stop()


class Client(Process):
    """A cok-client that chooses its transport, unless the options do."""

    def __init__(self, daemon, target, state, *options, address=None):
        self.daemon, self.name = daemon, f"choice{next(_numbers)}"
        self.began = time.monotonic()
        super().__init__(
            BIN_DIR / "cok-client", target, "--subdomain", self.name, "--server", daemon.url(""),
            "--connect-to", address or daemon.https, "--ca-file", daemon.ca, "--state-dir", state / self.name,
            "--log-format", "json", *options, env={"COK_API_KEY": KEY},
        )

    def events(self, event, start=0):
        entries = [json.loads(line) for line in self.lines[start:] if line.startswith("{")]
        return [entry for entry in entries if entry.get("event") == event]

    def visit(self, path="/"):
        return self.daemon.curl(self.name, path).stdout


@pytest.fixture
def client(daemon, nginx, tmp_path):
    """Starts clients."""
    clients = []

    def start(*options, target=nginx.target, **more):
        clients.append(Client(daemon, target, tmp_path, *options, **more))
        return clients[-1]

    yield start
    for each in clients:
        each.stop()


@pytest.mark.parametrize(
    ("options", "transport", "reason"),
    [
        ((), "quic", "QUIC answered first"),
        (("--transport", "quic"), "quic", "chosen by --transport quic"),
        (("--transport", "ws"), "ws", "chosen by --transport ws"),
        (("--congestion", "cubic", "--transport", "quic"), "quic", "chosen by --transport quic"),
        (("--congestion", "cubic", "--transport", "ws"), "ws", "chosen by --transport ws"),
    ],
)
def test_the_choice_is_kept_and_logged(client, daemon, options, transport, reason):
    chooser = client(*options)
    entry = chooser.wait_event("connected")
    assert (entry["transport"], entry["reason"]) == (transport, reason)
    daemon.process.wait_line(lambda line: chooser.name in line and f'"transport":"{transport}"' in line, "such a tunnel")
    assert chooser.visit() == b"<h1>hello</h1>\n"
    assert not chooser.events("fallback")
    assert chooser.stop() == 0


def test_the_environment_and_the_file_choose_too(daemon, nginx, tmp_path):
    (tmp_path / "key").write_text(KEY)
    config = tmp_path / "client.toml"
    config.write_text(
        f'server = "{daemon.url("")}"\napi_key_file = "key"\nca_file = "{daemon.ca}"\n'
        'transport = "ws"\ncongestion = "cubic"\nprobe_interval = "20s"\n'
    )
    for env, transport in [({}, "ws"), ({"COK_TRANSPORT": "quic"}, "quic")]:
        process = Process(
            BIN_DIR / "cok-client", nginx.target, "--config", config, "--connect-to", daemon.https,
            "--state-dir", tmp_path / "state", "--log-format", "json", env=env,
        )
        assert process.wait_event("connected")["transport"] == transport
        assert process.stop() == 0


BLOCKED = [
    (ANY, "QUIC: no answer within "),
    (SHORT, "QUIC: the handshake succeeded, but no data came back within "),
]


@pytest.mark.parametrize(("drops", "why"), BLOCKED, ids=["silence", "no echo"])
def test_without_udp_it_is_up_on_websocket_at_once(relay, client, drops, why):
    relay.drops = drops
    # On a busy machine the handshake alone may take longer than the client waits for all of it.
    for last in (False, False, True):
        cut_off = client(address=relay.address)
        entry = cut_off.wait_event("connected", deadline=2)
        took = time.monotonic() - cut_off.began
        assert took < 2
        if last or entry["reason"].startswith(why):
            break
        assert entry["reason"].startswith("QUIC: no answer within ")
        cut_off.stop()
    assert entry["transport"] == "ws" and entry["reason"].startswith(why)
    (fallback,) = cut_off.events("fallback")
    assert (fallback["from"], fallback["to"], fallback["reason"]) == ("quic", "ws", entry["reason"])
    assert relay.dropped > 0
    assert cut_off.visit() == b"<h1>hello</h1>\n"


def test_quic_alone_never_falls_back(relay, client):
    relay.drops = ANY
    stubborn = client("--transport", "quic", address=relay.address)
    for _ in range(2):
        entry = stubborn.wait_event("disconnected", start=len(stubborn.lines))
        assert "over QUIC" in entry["reason"]
    assert relay.tcp_connections == 0
    relay.drops = None
    assert stubborn.wait_event("connected")["transport"] == "quic"
    assert stubborn.visit() == b"<h1>hello</h1>\n"
    assert relay.tcp_connections == 0 and not stubborn.events("fallback")


class Visitors:
    """Sends sequential requests in the background. None may fail."""

    def __init__(self, client):
        self.client, self.answers, self.stopping = client, [], threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.stopping.is_set():
            answer = self.client.daemon.curl(self.client.name, "/hash", "--data-binary", "hello", check=False)
            self.answers.append((answer.returncode, b'"length": 5' in answer.stdout))

    def come(self, more=5):
        count = len(self.answers) + more
        wait_for(lambda: len(self.answers) >= count, "visitors are answered")

    def stop(self):
        self.stopping.set()
        self.thread.join(60)
        assert set(self.answers) == {(0, True)}


class Steps:
    """A running response, which gets one more piece at each call of `step`."""

    def __init__(self, services, client):
        self.services, self.name, self.number = services, client.name, 0
        self.curl = client.daemon.start_curl(client.name, f"/steps/{client.name}/10")
        self.read()

    def read(self):
        assert self.curl.stdout.readline() == f"data: {self.number}\n".encode()
        assert self.curl.stdout.readline() == b"\n"

    def step(self):
        self.services.confirm(self.name, self.number)
        self.number += 1
        self.read()

    def finish(self):
        while self.number < 9:
            self.step()
        self.services.confirm(self.name, self.number)
        assert self.curl.stdout.read() == b"" and self.curl.wait(20) == 0


def test_it_moves_to_quic_as_soon_as_udp_passes(relay, client, services):
    """No request fails, and running exchanges finish on the old session."""
    relay.drops = ANY
    mover = client("--probe-interval", "1s", address=relay.address, target=services.web)
    assert mover.wait_event("connected")["transport"] == "ws"
    steps, visitors = Steps(services, mover), Visitors(mover)
    visitors.come()
    # At least one try fails, without a log line.
    wait_for(lambda seen=relay.dropped: relay.dropped > seen, "QUIC is tried again")
    relay.drops = None
    moved = mover.wait_event("connected", transport="quic")
    assert moved["reason"] == "moved: QUIC answers again"
    visitors.come()
    steps.step()
    steps.finish()
    visitors.stop()
    assert len(mover.events("connected")) == 2 and len(mover.events("fallback")) == 1
    assert not mover.events("disconnected")
    assert mover.stop() == 0
    # Standard output shows the URL only if it is new.
    assert [line for line in mover.lines if line.startswith("https://")] == [moved["url"]]


def test_it_moves_to_websocket_when_quic_turns_bad_and_back(relay, client, services):
    """Running exchanges on QUIC go on there once UDP passes again."""
    mover = client("--probe-interval", "1s", address=relay.address, target=services.web)
    assert mover.wait_event("connected")["transport"] == "quic"
    steps = Steps(services, mover)
    relay.drops = ANY
    fallback = mover.wait_event("fallback")
    entry = mover.wait_event("connected", transport="ws")
    assert entry["reason"] == fallback["reason"] and entry["reason"].startswith("moved: QUIC turned bad: nothing came")
    visitors = Visitors(mover)
    visitors.come()
    relay.drops = None
    mover.wait_event("connected", transport="quic", reason="moved: QUIC answers again")
    visitors.come()
    steps.step()
    steps.finish()
    visitors.stop()
    assert not mover.events("disconnected")
    assert mover.stop() == 0


# QUIC wins by a head start, which a busy machine takes from it.
@pytest.mark.alone
def test_auto_comes_back_over_quic_after_a_restart(own_daemon, nginx, tmp_path):
    daemon = own_daemon()
    client = Client(daemon, nginx.target, tmp_path)
    assert client.wait_event("connected")["transport"] == "quic"
    daemon.process.kill()
    daemon.config.write_text(daemon.config.read_text().replace('https = ["127.0.0.1:0"]', f'https = ["{daemon.https}"]'))
    daemon.start()
    client.wait_event("disconnected")
    entry = client.wait_event("connected", start=next(
        number for number, line in enumerate(client.lines) if '"disconnected"' in line
    ))
    assert entry["transport"] == "quic"
    assert client.visit() == b"<h1>hello</h1>\n"
    assert client.stop() == 0


@pytest.mark.parametrize("transport", ["auto", "quic", "ws"])
def test_cokd_dev_takes_a_transport(nginx, tmp_path, transport):
    process = Dev(tmp_path / "dev", nginx.target, "--transport", transport)
    assert process.info["transport"] == ("ws" if transport == "ws" else "quic")
    assert process.curl(process.info["url"]) == b"<h1>hello</h1>\n"
    assert process.stop() == 0
