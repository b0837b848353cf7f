"""cok-client doctor: everything is well, and each thing that can be wrong, once."""

import json
import subprocess
import time

import pytest

from harness.authority import Authority
from harness.clock import Clock
from harness.cok import KEY, digest
from harness.netns import DAEMON
from harness.outbound import Dante
from harness.ports import free_port
from harness.process import BIN_DIR, HERE

ALL = [
    "dns", "ipv4", "ipv6", "tcp", "udp", "quic", "quic_echo", "path_mtu", "proxy", "websocket", "clock", "trust", "key",
    "target", "goodput_quic", "goodput_ws",
]


class Report:
    """The report of a doctor. `failed` has the names of checks that have failed."""

    def __init__(self, result):
        assert result.returncode in (0, 1), result.stderr
        self.json = json.loads(result.stdout)
        self.checks = {check["name"]: check for check in self.json["checks"]}
        self.failed = {check["name"] for check in self.json["checks"] if check["outcome"] == "failed"}
        for check in self.json["checks"]:
            assert bool(check["advice"]) == (check["outcome"] == "failed"), check
        assert self.json["ok"] == (not self.failed) == (result.returncode == 0)

    def outcome(self, name):
        return self.checks[name]["outcome"]

    def detail(self, name):
        return self.checks[name]["detail"]


def run(daemon, *options, inside=HERE, key=KEY, ca=None, env=None, connect_to=True):
    connect = ("--connect-to", daemon.https) if connect_to else ()
    command = inside.command(
        BIN_DIR / "cok-client", "doctor", "--server", daemon.url("", ""), *connect, "--ca-file", ca or daemon.ca,
        *(("--api-key", key) if key else ()), *options,
    )
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=90,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "RUST_LOG": "off", **(env or {})},
    )


@pytest.fixture
def doctor(daemon):
    """Runs a doctor without the measurement. Returns its report."""

    def examine(*options, on=daemon, **more):
        return Report(run(on, "--no-goodput", "--json", *options, **more))

    return examine


@pytest.fixture
def away(network, own_daemon):
    """A daemon in the internet, and a home with a path to it."""
    network.cable()
    return own_daemon(https=f"{DAEMON}:0", inside=network.internet)


@pytest.mark.alone
def test_all_is_well(daemon, nginx):
    tunnel = daemon.client(nginx.target, "running")
    served = daemon.metric("cok_active_tunnels")
    began = time.monotonic()
    report = Report(run(daemon, nginx.target, "--json"))
    assert time.monotonic() - began < 20
    assert [check["name"] for check in report.json["checks"]] == ALL
    skipped = {name for name in ALL if report.outcome(name) == "skipped"}
    assert not report.failed and skipped == {"dns", "ipv6", "proxy"}
    # On a busy machine, a WebSocket may be first.
    assert report.json["chosen"]["transport"] in ("quic", "ws") and report.json["chosen"]["reason"]
    for name in ("goodput_quic", "goodput_ws"):
        assert report.checks[name]["mbit_per_s"] > 10
    # The tunnel that runs has not noticed, and nothing is left.
    assert daemon.metric("cok_active_tunnels") == served
    assert tunnel.curl().stdout == b"<h1>hello</h1>\n"
    assert not [line for line in tunnel.process.lines if "disconnected" in line or "displaced" in line]
    tunnel.stop()


def test_it_speaks_to_people(daemon):
    port = free_port()
    result = run(daemon, str(port), "--no-goodput")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["Server", daemon.url("", "")]
    assert any(line.startswith("✓ QUIC echo") and line.endswith(" ms)") for line in lines)
    assert any(line.startswith("– Proxy") for line in lines)
    at = next(number for number, line in enumerate(lines) if line.startswith("✗ "))
    assert lines[at].startswith(f"✗ Target         cannot connect to http://localhost:{port}: connection refused")
    assert lines[at + 1].split() == "→ start the service, or correct the target".split()
    assert lines[-1].split()[:2] in (["Transport", "quic:"], ["Transport", "ws:"])


def test_a_target_that_is_down(doctor, nginx, tmp_path):
    config = tmp_path / "client.toml"
    config.write_text(f'[tunnels.up]\ntarget = "{nginx.target}"\n[tunnels.down]\ntarget = {free_port()}\n')
    report = doctor("--config", config)
    targets = {check["tunnel"]: check["outcome"] for check in report.json["checks"] if check["name"] == "target"}
    assert targets == {"up": "ok", "down": "failed"}


def test_an_authority_that_is_not_trusted(doctor, tmp_path):
    other = Authority(tmp_path / "other")
    report = doctor(ca=other.ca_file)
    assert report.failed == {"quic", "trust"} and report.json["chosen"] is None
    assert 'not trusted here: "' in report.detail("trust")
    assert report.outcome("key") == report.outcome("websocket") == "skipped"


def test_a_key_that_is_wrong(doctor):
    report = doctor(key="cok_wrong")
    assert report.failed == {"key"}
    assert report.detail("key").startswith("refused: ") and report.checks["key"]["advice"].startswith("check the key")
    assert report.json["chosen"]


def test_a_key_that_is_missing(doctor):
    report = doctor(key=" ")
    assert report.failed == {"key"} and report.json["chosen"]


def test_a_key_file_that_is_missing(daemon, tmp_path):
    missing = tmp_path / "key"
    result = run(daemon, "--no-goodput", "--json", "--api-key-file", missing, key=None)
    report = Report(result)
    assert report.failed == {"key"} and str(missing) in report.detail("key")
    assert report.checks["key"]["advice"].startswith("correct the path of this file")


def test_a_key_without_room(own_daemon, nginx):
    narrow = f'[[keys]]\nname = "narrow"\nsecret_sha256 = "{digest("narrow")}"\nmax_sessions = 1\n'
    crowded = own_daemon(keys=narrow)
    running = crowded.client(nginx.target, "narrow", key="narrow")
    report = Report(run(crowded, "--json", key="narrow"))
    assert not report.failed and report.outcome("key") == "skipped"
    assert "the key has its 1 session already" in report.detail("key")
    assert report.outcome("goodput_quic") == report.outcome("goodput_ws") == "skipped"
    running.stop()


@pytest.mark.parametrize(("ahead", "said"), [(-4000, "1 h 6 min"), (1000 * 86400, "ahead of")], ids=["late", "early"])
def test_a_clock_that_is_wrong(doctor, tmp_path, ahead, said):
    clock = Clock(tmp_path)
    clock.set(ahead)
    report = doctor(env=clock.env)
    assert "clock" in report.failed and said in report.detail("clock")
    if "trust" in report.failed:
        assert report.checks["trust"]["advice"] == "check this machine's clock against another source, and set it"
    else:
        assert report.failed == {"clock"}


def test_udp_that_does_not_pass(doctor, network, away):
    network.home.drop("meta l4proto udp")
    report = doctor(on=away, inside=network.home)
    network.home.let_pass()
    assert report.failed == {"udp", "quic"}
    assert report.json["chosen"]["transport"] == "ws"
    assert report.json["chosen"]["reason"].startswith("QUIC: ")
    assert report.outcome("path_mtu") == "skipped"


def test_an_mtu_that_is_too_small(doctor, network, away):
    for side in (network.home, network.internet):
        side.ip("link", "set", "way1", "mtu", 1000)
    report = doctor(on=away, inside=network.home)
    assert report.failed == {"quic", "path_mtu"} and report.outcome("udp") == "ok"
    assert "packets of 1200 bytes probably do not pass whole" in report.detail("path_mtu")
    assert report.json["chosen"]["transport"] == "ws"


def test_a_name_that_is_unknown(doctor):
    # No test has a resolver for the daemon's name.
    report = doctor(connect_to=False)
    assert report.failed == {"dns"} and report.json["chosen"] is None


def test_a_proxy(doctor, daemon):
    with Dante() as proxy:
        report = doctor("--proxy", proxy.url("socks5h"), connect_to=False)
        assert not report.failed and report.outcome("proxy") == "ok"
        assert report.outcome("udp") == report.outcome("dns") == "skipped"
        assert report.json["chosen"]["transport"] == "ws"
        assert proxy.url("socks5h", login="") in report.json["chosen"]["reason"]
    report = doctor("--proxy", proxy.url("socks5h"), connect_to=False)
    assert report.failed == {"proxy"} and report.json["chosen"] is None


@pytest.mark.alone
def test_the_limits_of_the_key_hold(own_daemon):
    limited = own_daemon(more='[rates]\nbytes_per_key = "1MiB/s burst 1MiB"\n')
    report = Report(run(limited, "--json", "--transport", "ws"))
    assert report.outcome("goodput_quic") == "skipped"
    assert 0 < report.checks["goodput_ws"]["mbit_per_s"] < 25


@pytest.mark.parametrize("format", ["auto", "text", "json"])
def test_a_wrong_command_line(daemon, format):
    result = run(daemon, "--proxy", "ftp://x", "--log-format", format)
    assert result.returncode == 2 and "the proxy of --proxy: " in result.stderr
    if format == "json":
        entry = json.loads(result.stderr)
        assert entry["event"] == "failed" and entry["reason"].startswith("the proxy of --proxy: ")
