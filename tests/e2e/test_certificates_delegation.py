"""Delegation with real DNS servers: the parent zone on knot delegates to the daemon, and the ACME server asks unbound. They
run in their own network namespace, where port 53 is free."""

import socket

import pytest

from harness.certified import EMBEDDED, Certified, cokd
from harness.dns_servers import DAEMON, PARENT, RESOLVER, Knot, Unbound
from harness.netns import Namespace
from harness.pebble import Pebble
from harness.process import DEADLINE, wait_for

CHALLENGE = "_acme-challenge.tunnel.test."
HOST = [f"tunnel.test. 0 IN A {DAEMON}", f"*.tunnel.test. 0 IN A {DAEMON}"]
BY_NS = [*HOST, f"{CHALLENGE} 0 IN NS tunnel.test."]
BY_CNAME = [*HOST, f"{CHALLENGE} 0 IN CNAME x.acme.helper.test."]
HELPER = [f"cokd.helper.test. 0 IN A {DAEMON}", "x.acme.helper.test. 0 IN NS cokd.helper.test."]
BY_CNAME_SOLVER = f'{EMBEDDED}\nchallenge_name = "x.acme.helper.test"\nname_server = "cokd.helper.test"'


class World:
    """knot with the root, `test.` and the `zones` below it, a resolver, and an ACME server."""

    def __init__(self, folder):
        self.folder, self.daemon = folder, None
        self.knot = self.unbound = self.pebble = None
        self.inside = Namespace("world")
        self.inside.resolver(RESOLVER)

    def make(self, zones, test=()):
        """Starts the servers. `test` has more lines for the zone `test.`."""
        delegations = [
            line for name in zones for line in (f"{name} 0 IN NS ns.{name}", f"ns.{name} 0 IN A {PARENT}")
        ]
        root = [f"ns.test. 0 IN A {PARENT}", "test. 0 IN NS ns.test."]
        zones = {".": root, "test.": [*delegations, *test], **zones}
        self.knot = Knot(self.folder / "knot", zones, inside=self.inside)
        self.unbound = Unbound(self.folder / "unbound", inside=self.inside)
        self.pebble = Pebble(self.folder / "pebble", f"{RESOLVER}:53", inside=self.inside)

    def start(self, **more):
        self.daemon = Certified(
            self.folder / "cokd", self.pebble, f"{DAEMON}:53", https=f"{DAEMON}:443", inside=self.inside, **more
        )
        return self.daemon

    def check(self, expected=0):
        """Returns the output of `cokd check`, which has this exit code."""
        code, out, err = cokd("check", "--config", self.daemon.config, inside=self.inside)
        assert code == expected, out + err
        return out + err

    def stop(self):
        for program in (self.daemon, self.pebble, self.unbound, self.knot):
            if program:
                program.stop()
        self.inside.delete()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.stop()


@pytest.mark.parametrize(
    "records, solver", [(BY_NS, EMBEDDED), (BY_CNAME, BY_CNAME_SOLVER)], ids=["by NS", "by CNAME"]
)
def test_delegated(world, records, solver):
    """A resolver with minimised names and random case reaches the daemon."""
    world.make({"tunnel.test.": records, "helper.test.": HELPER})
    daemon = world.start(solver=solver)
    daemon.issued()
    daemon.ca = world.pebble.root()
    assert daemon.curl("", "/health/ready").stdout == b"ready\n"
    assert not daemon.failures()
    assert "all records that lead here are there" in world.check()
    # The proof is removed, and the resolver still sees the name itself.
    assert world.unbound.ask(CHALLENGE, "TXT", "+short") in ([], ["x.acme.helper.test."])
    assert any("status: NOERROR" in line for line in world.unbound.ask(CHALLENGE, "TXT"))


def test_the_record_is_missing(world):
    """The daemon reports the ACME server's error, and `cokd check` names the missing record and its zone. With the record,
    the daemon gets a certificate."""
    world.make({"tunnel.test.": HOST})
    daemon = world.start()
    failure = daemon.process.wait_event("not_issued")
    assert "_acme-challenge" in failure["error"] or "tunnel.test" in failure["error"], failure
    assert daemon.curl("", "/health/live").stdout == b"ok\n"
    _, found, record = world.check(1).partition("missing in the zone tunnel.test: ")
    # In zone-file form, ready to paste, with any TTL.
    words = record.split("\n")[0].split()
    assert found and words[0] == CHALLENGE and words[-3:] == ["IN", "NS", "tunnel.test."], record
    world.knot.change("tunnel.test.", BY_NS)
    assert "all records that lead here are there" in world.check()
    # On a busy machine the resolver may miss an attempt. The third comes a minute later.
    daemon.issued(deadline=150)


def test_whole_domain(world):
    """If the domain itself is delegated to the daemon, it also answers for its names and announces HTTP/3 to browsers."""
    world.make({}, ["tunnel.test. 0 IN NS cokd.test.", f"cokd.test. 0 IN A {DAEMON}"])
    solver = f'{EMBEDDED}\nwhole_domain = true\nname_server = "cokd.test"\naddresses = ["{DAEMON}"]\nissuers = ["pebble.test"]'
    daemon = world.start(solver=solver)
    daemon.issued()
    for name in ("tunnel.test.", "any-name.tunnel.test."):
        assert world.unbound.ask(name, "A", "+short") == [DAEMON]
        assert world.unbound.ask(name, "AAAA", "+short") == []
        assert world.unbound.ask(name, "TYPE65", "+short") == ['1 . alpn="h3,h2"']
    assert world.unbound.ask("tunnel.test.", "CAA", "+short") == ['0 issue "pebble.test"']
    assert "all records that lead here are there" in world.check()


class Manager:
    """A service manager's notify socket (sd_notify(3)). It records each `KEY=value`."""

    def __init__(self, folder):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))
        self.env = {"NOTIFY_SOCKET": str(folder / "notify")}
        self.told = []

    def wait_told(self, wanted):
        """Waits until `wanted` has arrived."""
        self.socket.settimeout(DEADLINE)
        while not self.told or self.told[-1] != wanted:
            self.told.extend(self.socket.recv(4096).decode().splitlines())


def test_the_port_is_taken(world):
    """A daemon with a certificate keeps it; a daemon without one serves a self-signed one. Both say what to do, and answer
    DNS queries once the port is free. No order fails meanwhile."""
    world.make({"tunnel.test.": BY_NS})
    daemon = world.start()
    daemon.issued()
    daemon.stop()
    other = Knot(world.folder / "other", {"other.test.": []}, address=DAEMON, inside=world.inside)
    daemon.start()
    assert "53" in daemon.process.wait_event("dns_unavailable")["error"]
    daemon.ca = world.pebble.root()
    assert daemon.curl("", "/health/ready").stdout == b"ready\n"
    daemon.stop()

    manager = Manager(world.folder)
    second = Certified(
        world.folder / "cokd2", world.pebble, f"{DAEMON}:53", https=f"{DAEMON}:443", inside=world.inside, env=manager.env
    )
    why = second.process.wait_event("dns_unavailable")["error"]
    assert f"{DAEMON}:53" in why and "another program answers DNS there" in why and "systemctl" not in why
    manager.wait_told("READY=1")
    assert f"STATUS={why}" in manager.told
    status, body = second.admin_get("/health/ready")
    assert status == 503 and why in body
    # Visitors do not learn about faults on the daemon's machine.
    assert second.curl("", "/health/ready").stdout == b"not ready\n"
    wait_for(lambda: second.status()["last_error"] == why, "`cokd cert status` says so")
    other.stop()
    second.process.wait_event("listening", listener="dns")
    manager.wait_told("STATUS=")
    second.issued()
    assert world.unbound.ask(CHALLENGE, "SOA", "+short")
    assert second.ready() and not second.failures() and second.status()["last_error"] is None
    second.stop()
