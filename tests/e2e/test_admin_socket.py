"""The admin API: everything over a private socket, and over TCP only what a page in a browser may not abuse."""

import json
import os
import signal
import stat
import subprocess

import pytest

from harness.keys import Keys, ask
from harness.process import BIN_DIR, wait_for

TOKEN = "a-token-of-the-end-to-end-suite"


def over_tcp(daemon, method, path, *options):
    """Asks at the admin address. Returns status and text."""
    command = ["curl", "-sS", "--max-time", "20", "--request", method, "--write-out", "\n%{http_code}", *options]
    command += [f"http://{daemon.admin}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


@pytest.mark.parametrize("umask", [0, 0o777])
def test_only_the_owner_can_open_the_socket(own_daemon, umask, tmp_path):
    before = os.umask(umask)
    try:
        daemon = own_daemon(state=tmp_path / "state") if umask == 0 else None
    finally:
        os.umask(before)
    daemon = daemon or own_daemon()
    mode = (daemon.state / "admin.sock").stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert ask(daemon, "GET", "/health/ready") == (200, "ready\n")


def test_the_socket_serves_keys_in_json(own_daemon):
    daemon = own_daemon()
    status, text = ask(daemon, "POST", "/keys", {"name": "a/b", "subdomains": ["demo-*"], "max_sessions": 3})
    made = json.loads(text)
    assert status == 201 and made["secret"].startswith(f"cok_{made['id']}_") and made["max_sessions"] == 3
    status, text = ask(daemon, "PATCH", "/keys/a%2Fb", {"max_exchanges": 5, "expires": "2099-01-01T00:00:00Z"})
    edited = json.loads(text)
    assert status == 200 and edited["max_exchanges"] == 5 and "secret" not in edited
    assert json.loads(ask(daemon, "PATCH", f"/keys/{made['id']}", {"expires": None})[1])["expires"] is None
    rotated = json.loads(ask(daemon, "POST", f"/keys/{made['id']}/rotate")[1])
    assert rotated["secret"] != made["secret"]
    assert [key["name"] for key in json.loads(ask(daemon, "GET", "/keys")[1])] == ["test", "a/b"]
    assert json.loads(ask(daemon, "DELETE", f"/keys/{made['id']}")[1])["state"] == "revoked"
    for method, path, body, expected in [
        ("GET", "/keys/none", None, 404), ("PATCH", "/keys/test", {}, 409), ("DELETE", "/keys/test", None, 409),
        ("POST", "/keys", {}, 400), ("POST", "/keys", {"name": "x", "colour": 1}, 400), ("POST", "/keys", [1], 400),
        ("POST", "/keys", {"name": "x" * 70_000}, 400), ("POST", "/keys", {"name": "test"}, 409),
        ("PUT", "/keys", {}, 405), ("POST", "/keys/test", {}, 405), ("GET", "/keys/test/rotate", None, 405),
        ("PATCH", f"/keys/{made['id']}", {"max_tunnels": 1}, 409),
    ]:
        status, text = ask(daemon, method, path, body)
        assert status == expected, (method, path, text)
        assert status == 405 or set(json.loads(text)) == {"error", "message"}


def test_tcp_answers_own_hosts_and_no_other_site(own_daemon):
    daemon = own_daemon(more='[admin]\nhosts = ["cokd.internal"]')
    for field in ("Host: localhost", "Host: 127.0.0.1:1", "Host: [::1]:9180", "Host: cokd.internal", "Sec-Fetch-Site: none"):
        assert over_tcp(daemon, "GET", "/metrics", "--header", field)[0] == 200, field
    for field, status in [
        ("Host: evil.example", 421), ("Host: 10.0.0.1", 421), ("Host;", 421), ("Sec-Fetch-Site: cross-site", 403),
        ("Sec-Fetch-Site: same-site", 403), ("Origin: http://evil.example", 403), ("Origin: null", 403),
    ]:
        for path in ("/metrics", "/health", "/keys", "/none"):
            assert over_tcp(daemon, "GET", path, "--header", field)[0] == status, (field, path)
        assert over_tcp(daemon, "POST", "/reload", "--header", field)[0] == status, field


def test_changes_over_tcp_need_the_token(own_daemon, tmp_path):
    without = own_daemon()
    for method, path in [("POST", "/reload"), ("GET", "/keys"), ("POST", "/keys"), ("DELETE", "/keys/test")]:
        status, text = over_tcp(without, method, path)
        assert status == 403 and "token_file in [admin]" in text and str(without.state / "admin.sock") in text
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    daemon = own_daemon(more=f'[admin]\ntoken_file = "{token}"')
    right = f"Authorization: Bearer {TOKEN}"
    for wrong in ("X: y", "Authorization: Bearer no", f"Authorization: Basic {TOKEN}", right[:-1]):
        assert over_tcp(daemon, "POST", "/reload", "--header", wrong)[0] == 401, wrong
    assert over_tcp(daemon, "POST", "/reload", "--header", right) == (200, "reloaded\n")
    assert over_tcp(daemon, "GET", "/keys", "--header", right)[0] == 200
    command = [BIN_DIR / "cokd", "reload", "--config", daemon.config, "--admin", daemon.admin]
    assert subprocess.run(command, check=False, timeout=30).returncode == 0
    # A reload changes the token, or keeps the old one if it cannot be read.
    token.write_text("short")
    done = subprocess.run([*command[:4], "--admin", daemon.admin], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1 and "401" in done.stderr
    assert over_tcp(daemon, "POST", "/reload", "--header", right)[0] == 409
    token.write_text(f"another-{TOKEN}")
    assert over_tcp(daemon, "POST", "/reload", "--header", right)[0] == 200
    assert over_tcp(daemon, "POST", "/reload", "--header", right)[0] == 401


def test_a_killed_daemon_leaves_a_socket_that_the_next_one_takes_over(own_daemon):
    daemon = own_daemon()
    keys = Keys(daemon)
    keys.create("before")
    daemon.process.kill()
    assert (daemon.state / "admin.sock").exists()
    keys.create("between")
    daemon.start()
    keys.create("after")
    assert [key["name"] for key in keys.list()] == ["test", "before", "between", "after"]
    daemon.stop()
    assert not (daemon.state / "admin.sock").exists()


def test_a_successor_takes_the_socket_over(own_daemon, nginx):
    """The predecessor still serves its last visitor, and does not take the successor's socket away when it ends."""
    old = own_daemon(limits='drain_timeout = "20s"')
    client = old.client(nginx.target)
    visitor = client.start_curl("/random.bin", "--limit-rate", "200k", "--output", "/dev/null")
    wait_for(lambda: old.metric("cok_active_tunnels") == 1, "the tunnel is online")
    old.process.popen.send_signal(signal.SIGTERM)
    old.process.wait_event("draining")
    wait_for(lambda: not (old.state / "admin.sock").exists(), "the old daemon has let its socket go")
    new = own_daemon(state=old.state, https=old.https, transport=old.transport)
    assert Keys(new).list()
    visitor.kill()
    client.stop()
    old.process.wait_exit()
    assert ask(new, "GET", "/health/live") == (200, "ok\n")


def test_a_folder_without_room_for_a_socket_stops_no_traffic(own_daemon, nginx, tmp_path):
    state = tmp_path / "state"
    (state / "admin.sock" / "taken").mkdir(parents=True)
    daemon = own_daemon(state=state)
    daemon.process.wait_event("no_admin_socket")
    client = daemon.client(nginx.target)
    assert client.curl("/").stdout == b"<h1>hello</h1>\n"
