"""Where a container forbids UDP or its offloads, the daemon and the client say so once and go on."""

import json
import sys
from pathlib import Path

import pytest

from harness import seccomp
from harness.keys import Keys
from harness.process import HERE, wait_for

FILTER = Path(seccomp.__file__)


class Forbidding:
    """A place that denies a system call to programs, but not to visitors."""

    def __init__(self, what):
        self.what = what

    def command(self, *command):
        return HERE.command(*([sys.executable, FILTER, self.what] if "cok" in Path(command[0]).name else []), *command)

    def enter(self, function):
        return function()


def warnings(process):
    """Returns all but one that depends on the machine's limit for descriptors."""
    entries = [json.loads(line) for line in process.lines if line.startswith("{")]
    return [entry for entry in entries if entry["level"] == "WARN" and entry.get("event") != "few_descriptors"]


def test_a_daemon_without_udp(own_daemon, nginx):
    """It serves over TCP, offers no HTTP/3, and accepts tunnels over WebSocket."""
    daemon = own_daemon(inside=Forbidding("udp"))
    (warning,) = warnings(daemon.process)
    assert "no UDP at " in warning["message"] and "Operation not permitted" in warning["error"]
    client = daemon.client(nginx.target, "bare", transport="auto", inside=HERE)
    assert client.process.wait_event("connected")["transport"] == "ws"
    answer = client.curl("/", "--include").stdout
    assert answer.endswith(b"<h1>hello</h1>\n") and b"alt-svc" not in answer.lower()
    assert warnings(daemon.process) == [warning]


def test_a_client_without_udp(daemon, nginx):
    client = daemon.client(nginx.target, "udpless", transport="auto", inside=Forbidding("udp"))
    connected = client.process.wait_event("connected")
    assert connected["transport"] == "ws" and "cannot open a UDP socket" in connected["reason"]
    assert client.curl("/").stdout == b"<h1>hello</h1>\n"
    client.stop()


@pytest.mark.parametrize("where", ["daemon", "client"])
def test_without_segmentation_offload(own_daemon, nginx, where):
    """QUIC works without it."""
    forbidding = Forbidding("gso")
    daemon = own_daemon(inside=forbidding if where == "daemon" else HERE)
    offload = daemon.process.wait_event("udp")["gso_segments"]
    assert [w["message"] for w in warnings(daemon.process) if "offload" in w["message"]] == (
        ["the kernel has no UDP segmentation offload; QUIC costs about three times the processor time"]
        if where == "daemon" else []
    )
    assert (offload == 1) == (where == "daemon")
    client = daemon.client(nginx.target, "slow", transport="quic", inside=forbidding if where == "client" else HERE)
    assert client.curl("/random.bin").stdout == (nginx.site / "random.bin").read_bytes()


def health_of_store(daemon):
    components = json.loads(daemon.admin_get("/health")[1])["components"]
    return next(one for one in components if one["name"] == "store")


def test_a_store_that_cannot_be_synced(own_daemon, nginx, transport):
    """A change that may be lost is not acknowledged, and the operator sees why. Tunnels go on."""
    daemon = own_daemon(transport=transport)
    keys = Keys(daemon)
    daemon.stop()
    daemon.inside = Forbidding("sync")
    daemon.start()
    refused = keys.run("create", "--name", "lost")
    assert (refused.returncode, refused.stdout) == (1, ""), refused
    [line] = refused.stderr.splitlines()
    assert line.endswith("nothing has changed") or "it is not known whether" in line
    trouble = wait_for(lambda: health_of_store(daemon)["why"], "the store's trouble is shown")
    assert "store" in trouble and "\n" not in trouble, trouble
    client = daemon.client(nginx.target, "synced", inside=HERE)
    assert client.curl("/").stdout == b"<h1>hello</h1>\n"
    client.stop()
    daemon.stop()
    daemon.inside = HERE
    daemon.start()
    if line.endswith("nothing has changed"):
        assert [key["name"] for key in keys.list()] == ["test"]
    keys.create("kept")
    assert health_of_store(daemon)["state"] == "ok"
