"""Forty tunnels of one file in one session: what they cost, and that each leaves the others alone."""

import concurrent.futures
import json
import threading
import time

import pytest

from harness.cok import GIVE_BACK, KEY
from harness.ports import free_port
from harness.process import BIN_DIR, Process, wait_for

NAMES = [f"many-{number}" for number in range(40)]


class Many:
    """A cok-client with the tunnels of a file."""

    def __init__(self, daemon, folder, target, names, options=()):
        folder.mkdir(parents=True, exist_ok=True)
        self.config, self.state, key = folder / "client.toml", folder / "state", folder / "key"
        key.write_text(KEY)
        self.config.write_text("".join(f'[tunnels.{name}]\ntarget = "{target}"\n' for name in names))
        self.process = Process(
            BIN_DIR / "cok-client", "--config", self.config, "--server", daemon.url(""), "--connect-to", daemon.https,
            "--ca-file", daemon.ca, "--api-key-file", key, "--state-dir", self.state, "--log-format", "json",
            "--transport", daemon.transport, *options, env=daemon.env,
        )

    def events(self, name, start=0):
        """Returns the events of this name since the line `start`."""
        lines = [json.loads(line) for line in self.process.lines[start:] if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    def wait_online(self, count, start=0):
        wait_for(lambda: len({event["tunnel"] for event in self.events("connected", start)}) >= count, "all are online")

    def stop(self):
        return self.process.stop()


@pytest.fixture
def many(own_daemon, nginx, transport, tmp_path):
    daemon = own_daemon(transport=transport, env=GIVE_BACK)
    client = Many(daemon, tmp_path / "many", nginx.target, NAMES)
    client.daemon = daemon
    client.wait_online(len(NAMES))
    yield client
    client.stop()


def answers(daemon, name):
    return daemon.curl(name, "/", "--write-out", "%{http_code}").stdout == b"<h1>hello</h1>\n200"


@pytest.mark.alone
def test_forty_tunnels_share_a_session(many, own_daemon, nginx, transport, tmp_path, capsys):
    assert len({event["session"] for event in many.events("connected")}) == 1
    assert many.daemon.metric("cok_active_tunnels") == len(NAMES)
    assert all(answers(many.daemon, name) for name in (NAMES[0], NAMES[17], NAMES[39]))
    alone = own_daemon(transport=transport, env=GIVE_BACK)
    one = Many(alone, tmp_path / "one", nginx.target, NAMES[:1])
    one.wait_online(1)
    for name in (NAMES[0], NAMES[0], NAMES[0]):
        assert answers(alone, name)
    pairs = ((many.daemon.process, alone.process), (many.process, one.process))
    cost = []

    def is_small():
        cost[:] = [(forty.memory()[0] - single.memory()[0]) / 1024 for forty, single in pairs]
        return max(cost) < 39 * 100

    # A connection for each tunnel would cost more. Visitors' connections come and go meanwhile, and the daemon gives their
    # memory back when its workers sleep.
    wait_for(is_small, "forty tunnels take little more memory than one")
    one.stop()
    with capsys.disabled():
        print(f"\n39 further tunnels over {transport}: daemon {cost[0]:.0f} KiB, client {cost[1]:.0f} KiB")


def test_a_refused_tunnel_leaves_the_others_alone(own_daemon, nginx, transport, tmp_path):
    daemon = own_daemon(transport=transport)
    holder = daemon.client(nginx.target, NAMES[7], transport=transport)
    client = Many(daemon, tmp_path / "many", nginx.target, NAMES, ("--name-timeout", "1s"))
    client.wait_online(len(NAMES) - 1)
    event = client.process.wait_event("tunnel_refused")
    assert event["tunnel"] == NAMES[7] and event["retry_in_ms"] >= 60_000
    assert all(answers(daemon, name) for name in NAMES)
    client.stop()
    holder.stop()


def test_a_displaced_tunnel_leaves_the_others_alone(many, nginx):
    """A second client of the installation takes one name over."""
    twin = many.daemon.client(nginx.target, NAMES[5], state=many.state)
    event = many.process.wait_event("displaced")
    assert event["tunnel"] == NAMES[5] and event["address"] == "127.0.0.1" and event["version"]
    assert all(answers(many.daemon, name) for name in NAMES[3:8])
    twin.stop()
    assert len(many.events("connected")) == len(NAMES)


def test_all_come_back_after_a_restart_under_load(own_daemon, nginx, transport, tmp_path):
    """The daemon is stopped and started again while visitors ask."""
    daemon = own_daemon(transport=transport, https=f"127.0.0.1:{free_port()}")
    client = Many(daemon, tmp_path / "many", nginx.target, NAMES)
    client.wait_online(len(NAMES))
    stop, failed, whole = threading.Event(), [], []

    def visit(name):
        while not stop.is_set():
            answer = daemon.curl(name, "/", "--http1.1", "--write-out", "%{http_code}", check=False)
            (whole if answer.stdout == b"<h1>hello</h1>\n200" else failed).append((time.monotonic(), answer))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        visits = [pool.submit(visit, name) for name in NAMES[:4]]
        wait_for(lambda: len(whole) > 20, "visitors are answered")
        start = len(client.process.lines)
        daemon.stop()
        daemon.start()
        client.wait_online(len(NAMES), start)
        seen = len(whole)
        wait_for(lambda: len(whole) > seen + 20, "visitors are answered again")
        stop.set()
        for visit_ in visits:
            visit_.result()
    # While the port was closed, visitors could not connect. Every other visitor got a whole response.
    assert {answer.returncode for _, answer in failed} <= {7, 35, 52, 56}, [answer for _, answer in failed][:3]
    assert len({event["session"] for event in client.events("connected", start)}) == 1
    assert all(answers(daemon, name) for name in NAMES)
    client.stop()
