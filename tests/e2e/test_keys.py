"""API keys: made, shown, changed and revoked while the daemon runs and while it does not."""

import hashlib
import json
import os
import signal
import subprocess
import threading

import pytest

from harness.cok import KEY
from harness.keys import Keys
from harness.process import BIN_DIR, wait_for

# A run in CI kills fewer times.
KILLS = 200 if os.environ.get("COK_LONG") == "1" else 20


@pytest.fixture(params=["running", "stopped"])
def keys(request, own_daemon):
    """Keys of a daemon that runs, or that has stopped."""
    daemon = own_daemon()
    if request.param == "stopped":
        daemon.stop()
    return Keys(daemon)


def test_a_key_is_made_shown_changed_and_revoked(keys):
    made = keys.run("create", "--name", "lap top", "--subdomain", "demo-*", "--expires", "90d", "--max-tunnels", "3")
    assert made.returncode == 0, made
    key = made.stdout.strip()
    prefix, id, secret = key.split("_", 2)
    assert prefix == "cok" and len(id) == 12 and len(secret) == 43 and secret not in made.stderr
    [configured, stored] = keys.list()
    assert (configured["id"], configured["source"], configured["state"]) == ("test", "configuration", "valid")
    assert (stored["id"], stored["name"], stored["source"], stored["state"]) == (id, "lap top", "store", "valid")
    assert stored["subdomains"] == ["demo-*"] and stored["max_tunnels"] == 3 and stored["max_sessions"] == 100
    table = keys.do("list").splitlines()
    assert table[0].split()[:3] == ["ID", "NAME", "STATE"] and table[2].startswith(id) and "in 89 d" in table[2]
    # Nothing that the daemon keeps has the secret or the digest that an attacker could present.
    kept = b"".join(path.read_bytes() for path in keys.daemon.state.iterdir() if path.is_file())
    assert secret.encode() not in kept and hashlib.sha256(key.encode()).hexdigest().encode() in kept

    keys.do("edit", id, "--name", "desk", "--requests", "5/s", "--bytes", "10MiB/s burst 50MiB", "--expires", "never")
    edited = keys.show("desk")
    assert edited["id"] == id and edited["expires"] is None and edited["max_tunnels"] == 3
    assert (edited["requests"], edited["bytes"]) == ("5/s burst 50", "10MiB/s burst 50MiB")
    keys.do("edit", id, "--requests", "none", "--max-exchanges", "7")
    edited = keys.show(id)
    assert edited["requests"] is None and edited["max_exchanges"] == 7

    rotated = keys.do("rotate", id, "--grace", "1h").strip()
    assert rotated.split("_")[1] == id and rotated != key and keys.show(id)["earlier_secret_until"]
    assert keys.do("revoke", "desk") == f"the key {id} (desk) is revoked\n"
    assert keys.show(id)["state"] == "revoked" and keys.show(id)["earlier_secret_until"] is None
    keys.do("revoke", id)
    assert keys.do("delete", id) == f"the key {id} (desk) is deleted\n"
    assert [key["id"] for key in keys.list()] == ["test"]


def test_a_key_is_deleted_once_it_has_ended(keys):
    """A live key keeps its record. A deleted one leaves its name to the next."""
    keys.create("laptop")
    [_, stored] = keys.list()
    refused = keys.run("delete", "laptop")
    said = f"cokd: the key {stored['id']} still works; revoke it first with `cokd key revoke {stored['id']}`\n"
    assert (refused.returncode, refused.stderr) == (2, said)
    keys.create("brief", "--expires", "1s")
    wait_for(lambda: keys.run("delete", "brief").returncode == 0, "the key has expired")
    keys.do("revoke", "laptop")
    keys.do("delete", "laptop")
    assert keys.run("delete", "laptop").returncode == 2
    assert [key["id"] for key in keys.list()] == ["test"]
    keys.create("laptop")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["revoke", "none"], 'there is no key "none"; `cokd key list` shows all'),
        (["edit", "test", "--max-tunnels", "1"], 'the key "test" stands in the configuration file; change or remove it there'),
        (["delete", "test"], 'the key "test" stands in the configuration file; change or remove it there'),
        (["rotate", "test"], 'the key "test" stands in the configuration file'),
        (["create", "--name", "test"], 'another key has the name "test"; choose another one'),
        (["create", "--name", "x" * 65], "a name has 1 to 64 printable characters"),
        (["create", "--name", "a", "--max-exchanges", "1000001"], "max_exchanges must be 1 to 1000000"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_exit_code_2(keys, arguments, said):
    done = keys.run(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done
    [line] = done.stderr.splitlines()
    assert line.startswith(f"cokd: {said}")
    assert [key["id"] for key in keys.list()] == ["test"]


def test_a_key_opens_its_tunnels_and_no_others(own_daemon, nginx, transport):
    daemon = own_daemon(transport=transport)
    key = Keys(daemon).create("laptop", "--subdomain", "demo-*", "--max-tunnels", "1")
    client = daemon.client(nginx.target, "demo-1", key=key)
    assert client.curl("/").stdout == b"<h1>hello</h1>\n"
    other = daemon.client(nginx.target, "other", key=key, wait=False)
    assert other.process.wait_exit() == 3 and "may not use the name" in other.process.output()
    more = daemon.client(nginx.target, "demo-2", key=key, wait=False)
    assert more.process.wait_exit() == 3 and "the key has its 1 tunnel already" in more.process.output()


def test_keys_outlive_the_daemon(own_daemon, nginx, transport):
    """A client with a stored key comes back after a restart: the daemon knows its keys before it listens."""
    daemon = own_daemon(transport=transport, https="127.0.0.1:0")
    keys = Keys(daemon)
    key = keys.create("laptop")
    client = daemon.client(nginx.target, "site", key=key)
    config = daemon.config.read_text()
    daemon.config.write_text(config.replace('https = ["127.0.0.1:0"]', f'https = ["{daemon.https}"]'))
    daemon.stop()
    late = keys.create("late")
    daemon.start()
    begun = len(client.process.lines)
    wait_for(lambda: client.curl("/", check=False).stdout == b"<h1>hello</h1>\n", "the tunnel is back")
    assert client.process.popen.poll() is None, begun
    daemon.client(nginx.target, "late", key=late).stop()


def test_a_change_by_another_process_reaches_the_daemon(own_daemon, nginx, transport):
    """The command finds no socket, and changes the store itself. The daemon notices."""
    daemon = own_daemon(transport=transport)
    keys = Keys(daemon)
    socket = daemon.state / "admin.sock"
    socket.rename(daemon.state / "elsewhere")
    key = keys.create("laptop")

    def online():
        client = daemon.client(nginx.target, key=key, wait=False)
        said = client.process.wait_line(lambda line: '"connected"' in line or '"refused"' in line and line, "answer")
        return client if said is True else None

    client = wait_for(online, "the daemon knows the key")
    keys.do("revoke", "laptop")
    assert client.process.wait_exit(5) == 3


def test_unknown_expired_and_revoked_keys_get_the_same_answer(own_daemon, nginx, transport):
    daemon = own_daemon(transport=transport)
    keys = Keys(daemon)
    expired, revoked, rotated = (keys.create(name) for name in ("expired", "revoked", "rotated"))
    keys.do("revoke", "revoked")
    keys.do("rotate", "rotated")
    keys.do("edit", "expired", "--expires", "1s")
    wait_for(lambda: keys.show("expired")["state"] == "expired", "the key expires")
    said = set()
    for key in (expired, revoked, rotated, "cok_abcdefghij01_x", KEY + "x", "x"):
        client = daemon.client(nginx.target, "same", key=key, wait=False)
        assert client.process.wait_exit() == 3
        said.add(json.loads(client.process.lines[-1])["reason"] if client.process.lines[-1].startswith("{") else client.process.lines[-1])
    assert len(said) == 1 and "the API key is unknown or has expired" in said.pop()


def test_a_damaged_store_refuses_no_key_for_good(own_daemon, nginx, transport):
    """Keys of the configuration work. A client with another key tries again until the store can be read."""
    daemon = own_daemon(transport=transport)
    key = Keys(daemon).create("laptop")
    daemon.stop()
    hidden = {path: path.read_bytes() for path in daemon.state.glob("store.db*")}
    for path in hidden:
        path.unlink()
    store = daemon.state / "store.db"
    store.write_bytes(b"this is no database" * 1000)
    daemon.start()
    daemon.process.wait_event("keys_unread")
    configured = daemon.client(nginx.target, "site")
    assert configured.curl("/").stdout == b"<h1>hello</h1>\n"
    client = daemon.client(nginx.target, "laptop", key=key, wait=False)
    assert "cannot read its API keys" in client.process.wait_event("disconnected")["reason"]
    assert store.read_bytes() == b"this is no database" * 1000
    for path, content in hidden.items():
        path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").rename(path)
    client.wait_online()


class Killed:
    """What was acknowledged before kills."""

    def __init__(self, keys):
        self.keys = keys
        # By name: the key's text, whether it was revoked, and its limit of tunnels.
        self.live, self.revoked, self.limits = {}, set(), {}

    def check(self):
        """All that was acknowledged is there."""
        now = {key["name"]: key for key in self.keys.list()}
        for name, key in self.live.items():
            assert now[name]["id"] == key.split("_")[1], name
        for name in self.revoked:
            assert now[name]["state"] == "revoked", name
        for name, most in self.limits.items():
            assert now[name]["max_tunnels"] == most, name


def change(killed, number):
    """One change of each kind. Notes those that were acknowledged."""
    name = f"k{number}"
    made = killed.keys.run("create", "--name", name)
    if made.returncode == 0:
        killed.live[name] = made.stdout.strip()
        if killed.keys.run("edit", name, "--max-tunnels", str(100 + number)).returncode == 0:
            killed.limits[name] = 100 + number
        if number % 2 and killed.keys.run("revoke", name).returncode == 0:
            killed.revoked.add(name)
    else:
        assert made.stdout == "", made


def test_a_killed_daemon_loses_no_acknowledged_change(own_daemon):
    daemon = own_daemon()
    killed = Killed(Keys(daemon))
    number = 0
    for kill in range(KILLS // 2):
        # The kill comes while a change is under way, each time a little later.
        timer = threading.Timer(0.002 + 0.005 * (kill % 10), daemon.process.kill)
        timer.start()
        while timer.is_alive():
            change(killed, number)
            number += 1
        timer.join()
        killed.check()
        daemon.start()
        killed.check()
    assert killed.live


def test_a_killed_command_loses_no_acknowledged_change(own_daemon):
    daemon = own_daemon()
    daemon.stop()
    killed = Killed(Keys(daemon))
    killed.keys.create("first")
    for kill in range(KILLS):
        name = f"k{kill // 3 * 3}"
        arguments = [["create", "--name", name], ["edit", name, "--max-tunnels", "77"], ["revoke", name]][kill % 3]
        command = [BIN_DIR / "cokd", "key", *arguments, "--config", daemon.config]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            said, _ = child.communicate(timeout=0.002 + 0.002 * (kill % 20))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            said, _ = child.communicate()
        # A command that has ended well, or has printed its key, was answered.
        if kill % 3 == 0 and said.endswith("\n"):
            killed.live[name] = said.strip()
        elif kill % 3 == 1 and child.returncode == 0:
            killed.limits[name] = 77
        elif kill % 3 == 2 and child.returncode == 0:
            killed.revoked.add(name)
        if kill % 10 == 9:
            killed.check()
    killed.check()
    assert "first" in {key["name"] for key in killed.keys.list()}
