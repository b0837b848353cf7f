"""From nothing to a tunnel, by the documented steps: a fresh Debian without Rust, a package, a domain and one command. The
certificate comes by ACME, and the client is in another network. Each release has another systemd."""

import shutil
import subprocess
import time

import pytest

from harness import needs, raw
from harness.cok import DOMAIN, KEY
from harness.machine import SUITES, Machine, Service, packages
from harness.netns import Namespace
from harness.pebble import Pebble
from harness.process import wait_for

SERVER, HOME = "10.9.0.1", "10.9.0.2"
# Time limit for the first certificate, much longer than it takes.
LIMIT = 120


@pytest.fixture(params=SUITES)
def machine(request, tmp_path):
    needs.root("only root can boot a container")
    machine = Machine(tmp_path / "console", request.param)
    yield machine
    machine.stop()


@pytest.fixture
def home():
    home = Namespace("home")
    yield home
    home.delete()


def test_from_nothing_to_a_tunnel(machine, home, tmp_path):
    made = packages(tmp_path / "debs")
    machine.connect(home, f"{SERVER}/24", f"{HOME}/24")
    pebble = Pebble(tmp_path / "pebble", "127.0.0.1:53", inside=machine)
    site = home.enter(lambda: raw.Recorder(lambda *_: b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"))
    assert machine.run("sh", "-c", "command -v cargo rustc cc", check=False).stdout == ""
    began = time.monotonic()
    machine.install(made / "cokd.deb")
    shutil.copy(pebble.ca_file, machine.path("/etc/cokd/pebble.pem"))
    service = Service(
        machine, tmp_path, tls="", more=f'[acme]\ndirectory = "{pebble.directory}"\nca_file = "/etc/cokd/pebble.pem"\n'
    )
    service.https = f"{SERVER}:443"
    machine.systemctl("enable", "--now", "cokd-dns.socket", "cokd")
    wait_for(lambda: machine.run("cokd", "health", check=False).returncode == 0, "there is a certificate", LIMIT, 0.1)
    service.ca = pebble.root()
    client = service.client(site.target, "demo", transport="quic", key=KEY, inside=home)
    try:
        visit = ["curl", "-sS", "--cacert", service.ca, "--resolve", f"demo.{DOMAIN}:443:{SERVER}", f"https://demo.{DOMAIN}/"]
        answer = subprocess.run([str(part) for part in home.command(*visit)], capture_output=True, text=True, check=False)
        assert answer.stdout == "hello", answer.stderr
        # A figure for readers. Workers that run in parallel slow it down.
        print(f"from the package to the first visitor: {time.monotonic() - began:.1f} s")
        # And after an upgrade of the package.
        machine.install(made / "cokd.deb")
        wait_for(
            lambda: subprocess.run([str(part) for part in home.command(*visit)], capture_output=True, check=False).stdout == b"hello",
            "the tunnel carries again",
        )
        assert machine.show("cokd", "NRestarts") == "0"
    finally:
        client.stop()
        site.stop()
        pebble.stop()
