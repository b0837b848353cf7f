"""A key that is revoked, expires or allows less ends what it concerns within a second, under load, and nothing else."""

import threading
import time

import pytest

from harness.clock import Clock
from harness.cok import KEY, digest
from harness.keys import Keys, Stopwatch
from harness.process import wait_for
from test_reload import change, reload

# The load of the visitors and LIMIT need the machine for themselves.
pytestmark = pytest.mark.alone

# From the answer to the command on.
LIMIT = 1.0


class Load:
    """Visitors who send requests one after the other, and responses that run on."""

    def __init__(self, client):
        self.client, self.stopped = client, threading.Event()
        self.good = self.bad = 0
        self.last_good = 0.0
        self.threads = [threading.Thread(target=self._visit, daemon=True) for _ in range(3)]
        for thread in self.threads:
            thread.start()
        streams = (f"/steps/{client.name}-{number}/9" for number in range(3))
        self.downloads = [client.start_curl(stream, "--output", "-") for stream in streams]
        wait_for(lambda: self.good >= 5, "requests are answered")
        for download in self.downloads:
            assert download.stdout.read(1)

    def _visit(self):
        while not self.stopped.is_set():
            done = self.client.curl("/echo", "--write-out", "%{http_code}", check=False)
            if done.stdout.endswith(b"200"):
                self.good += 1
                self.last_good = time.monotonic()
            else:
                self.bad += 1

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(60)
        for download in self.downloads:
            download.kill()


def ended(watch, load, client):
    """All that ran through the tunnel has ended in time. Returns how long that took."""
    for download in load.downloads:
        download.wait(5)
        assert download.returncode != 0
    took = watch.seconds()
    bad = load.bad
    wait_for(lambda: load.bad > bad, "requests are refused")
    assert load.last_good - watch.began < LIMIT and took < LIMIT, (load.last_good - watch.began, took)
    answer = client.curl("/", "--write-out", "%{http_code}").stdout
    assert answer.endswith(b"503"), answer
    return took


@pytest.fixture
def busy(own_daemon, services, transport):
    """A daemon with two keys, each with a tunnel under load."""
    daemon = own_daemon(transport=transport)
    keys = Keys(daemon)
    loads = []
    daemon.keys, daemon.loads, daemon.clients = keys, loads, []
    for name in ("one", "two"):
        client = daemon.client(services.web, name, key=keys.create(name))
        daemon.clients.append(client)
        loads.append(Load(client))
    yield daemon
    for load in loads:
        load.stop()


def goes_on(daemon):
    """The other key's tunnel has had no error, and still answers."""
    load = daemon.loads[1]
    before = load.good
    wait_for(lambda: load.good > before, "the other tunnel answers")
    assert load.bad == 0 and all(download.poll() is None for download in load.downloads)
    assert daemon.clients[1].process.popen.poll() is None


def test_a_revoked_key_ends_its_sessions(busy):
    busy.keys.do("revoke", "one")
    watch = Stopwatch()
    assert busy.clients[0].process.wait_exit(5) == 3
    ended(watch, busy.loads[0], busy.clients[0])
    assert "the API key is unknown or has expired" in busy.clients[0].process.output()
    goes_on(busy)


def test_a_rotated_key_ends_the_sessions_of_the_earlier_secret(busy, nginx):
    key = busy.keys.do("rotate", "one").strip()
    watch = Stopwatch()
    assert busy.clients[0].process.wait_exit(5) == 3
    ended(watch, busy.loads[0], busy.clients[0])
    goes_on(busy)
    client = busy.client(nginx.target, "one", key=key)
    assert client.curl("/").stdout == b"<h1>hello</h1>\n"


def test_an_expired_key_ends_its_sessions(own_daemon, services, transport, tmp_path):
    """The clock is set forward: no timer of the daemon sees that."""
    clock = Clock(tmp_path)
    daemon = own_daemon(transport=transport, env=clock.env)
    keys = Keys(daemon)
    client = daemon.client(services.web, "one", key=keys.create("one", "--expires", "1h"))
    load = Load(client)
    clock.set(ahead=3601)
    watch = Stopwatch()
    assert client.process.wait_exit(5) == 3
    ended(watch, load, client)
    load.stop()


def test_a_narrowed_pattern_ends_only_its_tunnels(own_daemon, services, transport):
    daemon = own_daemon(transport=transport)
    keys = Keys(daemon)
    key = keys.create("one")
    narrowed, kept = (daemon.client(services.web, name, key=key) for name in ("narrowed", "kept"))
    loads = [Load(client) for client in (narrowed, kept)]
    keys.do("edit", "one", "--subdomain", "kept")
    watch = Stopwatch()
    ended(watch, loads[0], narrowed)
    before = loads[1].good
    wait_for(lambda: loads[1].good > before, "the other tunnel answers")
    assert loads[1].bad == 0 and kept.process.popen.poll() is None
    # A client without a tunnel that it may have ends as one that was refused.
    assert narrowed.process.wait_exit(5) == 3
    for load in loads:
        load.stop()


def test_a_lower_limit_ends_the_newest_tunnels(own_daemon, nginx, transport):
    daemon = own_daemon(transport=transport)
    keys = Keys(daemon)
    key = keys.create("one")
    first, second = (daemon.client(nginx.target, name, key=key) for name in ("first", "second"))
    keys.do("edit", "one", "--max-tunnels", "1")
    assert second.process.wait_exit(5) == 3
    assert first.curl("/").stdout == b"<h1>hello</h1>\n"


def test_the_sessions_of_a_key_are_limited(own_daemon, nginx, transport):
    daemon = own_daemon(transport=transport)
    key = Keys(daemon).create("one", "--max-sessions", "1")
    first = daemon.client(nginx.target, "first", key=key)
    second = daemon.client(nginx.target, "second", key=key, wait=False)
    # It waits for its turn, and says why.
    event = second.process.wait_event("disconnected")
    assert "the key has its 1 session already; stop another cok-client that uses it" in event["reason"], event
    first.stop()
    second.wait_online()


def test_a_reload_that_drops_a_key_ends_its_sessions(own_daemon, nginx, services, transport):
    other = f'[[keys]]\nname = "other"\nsecret_sha256 = "{digest("other")}"'
    daemon = own_daemon(transport=transport, keys=other)
    client, kept = daemon.client(services.web, "one"), daemon.client(nginx.target, "two", key="other")
    load = Load(client)
    change(daemon, (digest(KEY), digest("a new secret")))
    assert reload(daemon).returncode == 0
    watch = Stopwatch()
    assert client.process.wait_exit(5) == 3
    ended(watch, load, client)
    load.stop()
    assert kept.curl("/").stdout == b"<h1>hello</h1>\n"
