"""A client that changes while it runs: reloads of its file, and the commands that list, reload and stop clients."""

import os
import signal
import stat

import pytest
from websockets.exceptions import ConnectionClosed

from harness.cok import KEY, digest
from harness.file_client import FileClient, control, status
from harness.keys import Keys
from harness.process import BIN_DIR, Process, wait_for
from harness.visitors import Visitors
from harness.websocket import WebSocket

# The full figure is for a machine with nothing else to do.
RELOADS = 1000 if os.environ.get("COK_LONG") else 30
HELLO = b"<h1>hello</h1>\n"


@pytest.fixture
def file_client(daemon, tmp_path, transport):
    """Returns a function that starts clients with a file, which end with the test."""
    clients = []

    def start(tunnels, *options, **more):
        where = more.pop("daemon", daemon)
        client = FileClient(where, tmp_path / f"client{len(clients)}", tunnels, *options, transport=transport, **more)
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.stop()


def code(daemon, name):
    return daemon.curl(name, "/", "--output", "/dev/null", "--write-out", "%{http_code}").stdout.decode()


def test_reloads_do_not_disturb_the_other_tunnels(file_client, daemon, nginx):
    """Each reload adds or removes a tunnel. No request on the others fails."""
    stay = {"stay-1": nginx.target, "stay-2": nginx.target}
    client = file_client(stay)
    client.online(*stay)
    visitors = [Visitors(daemon, name, rate=100, connections=5) for name in stay]
    for number in range(RELOADS // 2):
        client.write({**stay, "comes": nginx.target})
        assert client.reload() == "reloaded: opened comes"
        if number % 10 == 0:
            wait_for(lambda: code(daemon, "comes") == "200", "the new tunnel")
        client.write(stay)
        assert client.reload() == "reloaded: closed comes"
    times = sum((one.stop() for one in visitors), [])
    assert [one.failures for one in visitors] == [[], []]
    print(f"{RELOADS} reloads under {len(times)} requests, slowest {max(times) * 1000:.0f} ms")
    said = client.process.output()
    assert '"disconnected"' not in said and client.stop() == 0


def test_a_reload_changes_tunnels(file_client, daemon, nginx, services):
    """A new target takes effect without a frame, a new subdomain replaces the old one, and all other tunnels stay."""
    client = file_client({"reload-web": nginx.target, "reload-api": nginx.target, "reload-gone": nginx.target})
    client.online("reload-web", "reload-api", "reload-gone")
    before = status(client.state)[client.pid]["tunnels"]
    visitor = daemon.start_curl("reload-web", "/random.bin", "--limit-rate", "500k", "--output", client.folder / "got")
    wait_for(lambda: (client.folder / "got").exists(), "the download has begun")
    seen = len(client.process.lines)
    other_name = {"target": nginx.target, "subdomain": "reload-api-2"}
    client.write({"reload-web": services.web, "reload-api": other_name, "reload-new": nginx.target})
    assert client.reload() == "reloaded: opened reload-new; closed reload-gone; changed reload-api, reload-web"
    client.online("reload-api", "reload-new", start=seen)
    assert code(daemon, "reload-web") != "502" and daemon.curl("reload-web", "/").stdout != HELLO
    assert daemon.curl("reload-api-2", "/").stdout == daemon.curl("reload-new", "/").stdout == HELLO
    assert (code(daemon, "reload-api"), code(daemon, "reload-gone")) == ("503", "503")
    # The download from the old target goes on.
    assert visitor.wait(60) == 0 and (client.folder / "got").stat().st_size == 1 << 20
    after = {tunnel["label"]: tunnel for tunnel in status(client.state)[client.pid]["tunnels"]}
    assert {tunnel["session"] for tunnel in [*before, *after.values()]} == {before[0]["session"]}
    assert after["reload-web"]["target"] == services.web and after["reload-web"]["state"] == "online"
    assert client.reload() == "reloaded: no tunnel has changed"


def test_a_renamed_section_keeps_its_name(file_client, daemon, nginx):
    """Visitors do not notice that another section has the name now, even if two sections swap their names."""
    def section(subdomain):
        return {"target": nginx.target, "subdomain": subdomain}

    client = file_client({"old": section("renamed"), "other": section("swapped")})
    client.online("old", "other")
    visitors = [Visitors(daemon, name, rate=50, connections=5) for name in ("renamed", "swapped")]
    client.write({"new": section("renamed"), "other": section("swapped")})
    assert client.reload() == "reloaded: opened new; closed old"
    client.write({"new": section("swapped"), "other": section("renamed")})
    assert client.reload() == "reloaded: changed new, other"
    for one in visitors:
        one.stop()
    assert [one.failures for one in visitors] == [[], []]
    tunnels = status(client.state)[client.pid]["tunnels"]
    assert {tunnel["label"]: tunnel["url"] for tunnel in tunnels} == {
        "new": daemon.url("swapped", ""), "other": daemon.url("renamed", "")
    }


def test_sighup_reloads(file_client, daemon, nginx):
    client = file_client({"hup-1": nginx.target})
    client.online("hup-1")
    client.write({"hup-1": nginx.target, "hup-2": nginx.target})
    client.process.popen.send_signal(signal.SIGHUP)
    assert client.process.wait_event("reloaded")["message"] == "reloaded: opened hup-2"
    client.online("hup-2")
    assert daemon.curl("hup-2", "/").stdout == HELLO


def test_a_broken_file_changes_nothing(file_client, daemon, nginx):
    """The log and the command name each mistake with its key and line."""
    client = file_client({"whole": nginx.target})
    client.online("whole")
    client.write({"other": nginx.target, "stop": True}, more='colour = "red"')
    mistakes = [
        f"{client.config}:5: colour: unknown key",
        f"{client.config}:8: tunnels.stop: \"stop\" is a command of the client",
        f"{client.config}:9: tunnels.stop.target: expected a string or a whole number, got true",
    ]
    done = control("reload", client.state)
    assert done.returncode == 2 and done.stdout == "", done
    for line, mistake in zip(done.stderr.splitlines(), mistakes, strict=True):
        assert line.startswith(f"cok-client: client {client.pid}: {mistake}"), line
    seen = len(client.process.lines)
    client.process.popen.send_signal(signal.SIGHUP)
    for mistake in mistakes:
        client.process.wait_line(lambda line, said=mistake: '"not_reloaded"' in line and said.split(": ")[1] in line, mistake, start=seen)
    client.write({})
    empty = control("reload", client.state)
    assert empty.returncode == 2 and "nothing to forward to" in empty.stderr
    assert daemon.curl("whole", "/").stdout == HELLO and code(daemon, "other") == "404"
    (tunnel,) = status(client.state)[client.pid]["tunnels"]
    assert tunnel["label"] == "whole"


def test_what_needs_a_restart_is_named(file_client, nginx):
    """The rest of the file applies."""
    client = file_client({"stays": nginx.target})
    client.online("stays")
    client.write({"stays": nginx.target, "comes-too": nginx.target}, more='congestion = "cubic"')
    (client.folder / "key").write_text("cok_another")
    assert client.reload() == (
        "reloaded: opened comes-too; a running client cannot change the API key, congestion: restart cok-client to apply "
        "this"
    )
    assert client.process.wait_event("restart_needed")["settings"] == '["the API key", "congestion"]'
    client.online("comes-too")


def test_named_tunnels_of_the_file(file_client, nginx):
    """`start` opens the named tunnels or all. After a reload it still opens only those."""
    tunnels = {name: nginx.target for name in ("n-1", "n-2", "n-3")}
    client = file_client(tunnels, "start", "n-1", "n-2")
    client.online("n-1", "n-2")
    assert [tunnel["label"] for tunnel in status(client.state)[client.pid]["tunnels"]] == ["n-1", "n-2"]
    client.write({"n-1": nginx.target, "n-4": nginx.target})
    assert client.reload() == "reloaded: closed n-2"
    assert client.stop() == 0
    client = file_client(tunnels, "start", "--all")
    client.online(*tunnels)
    assert client.stop() == 0
    client = file_client(tunnels, "start", "n-1", "n-9")
    assert client.process.wait_exit() == 2
    assert client.process.wait_event("failed")["reason"] == (
        'there is no tunnel "n-9": the configuration file has n-1, n-2, n-3'
    )


def test_two_clients_are_listed_reloaded_and_stopped(file_client, nginx, tmp_path):
    state = tmp_path / "state"
    first = file_client({"one": nginx.target, "two": nginx.target}, state=state)
    second = file_client({"three": nginx.target}, state=state)
    first.online("one", "two")
    second.online("three")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (state / "run", state / "run" / f"{first.pid}.sock")]
    assert modes == [0o700, 0o600]
    clients = status(state)
    assert set(clients) == {first.pid, second.pid}
    assert [tunnel["label"] for tunnel in clients[first.pid]["tunnels"]] == ["one", "two"]
    (tunnel,) = clients[second.pid]["tunnels"]
    assert tunnel["session"] and tunnel == {
        "label": "three", "url": second.daemon.url("three", ""), "target": nginx.target, "state": "online",
        "reason": None, "transport": second.transport, "session": tunnel["session"],
    }
    rows = [line.split() for line in control("status", state).stdout.splitlines()]
    assert rows[0] == ["PID", "TUNNEL", "STATE", "URL", "TARGET", "TRANSPORT", "SESSION"]
    assert sorted(row[1] for row in rows[1:]) == ["one", "three", "two"]

    for command in ("reload", "stop"):
        vague = control(command, state)
        assert vague.returncode == 2 and "2 clients run: name one of " in vague.stderr and "--all" in vague.stderr
    wrong = control("stop", state, "1")
    assert wrong.returncode == 1 and "there is no client 1; these run: " in wrong.stderr
    reloaded = control("reload", state, "--all")
    assert reloaded.returncode == 0 and reloaded.stdout.count("reloaded: no tunnel has changed") == 2

    stopped = control("stop", state, second.pid)
    assert (stopped.returncode, stopped.stdout) == (0, f"client {second.pid} has stopped\n")
    assert second.process.wait_exit() == 0 and set(status(state)) == {first.pid}
    # With one client, its PID is not needed.
    assert control("stop", state).stdout == f"client {first.pid} has stopped\n"
    assert first.process.wait_exit() == 0 and status(state) == {}
    assert list((state / "run").iterdir()) == []


def test_stale_sockets_are_removed_and_live_ones_stay(file_client, nginx, tmp_path):
    state = tmp_path / "state"
    killed = file_client({"killed": nginx.target}, state=state)
    killed.online("killed")
    sockets = state / "run"
    killed.process.kill()
    assert (sockets / f"{killed.pid}.sock").exists()
    client = file_client({"lives": nginx.target}, state=state)
    client.online("lives")
    names = [path.name for path in sockets.iterdir()]
    assert names == [f"{client.pid}.sock"]
    # A suspended client does not answer, but it lives.
    client.process.popen.send_signal(signal.SIGSTOP)
    another = file_client({"another": nginx.target}, state=state)
    another.online("another")
    assert (sockets / f"{client.pid}.sock").exists()
    client.process.popen.send_signal(signal.SIGCONT)
    assert set(status(state)) == {client.pid, another.pid}


def test_a_client_without_a_socket_runs(file_client, daemon, nginx, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    (state / "run").write_text("no folder")
    client = file_client({"no-socket": nginx.target}, state=state)
    client.online("no-socket")
    assert "cannot make a control socket" in client.process.wait_event("no_control_socket")["message"]
    assert daemon.curl("no-socket", "/").stdout == HELLO and client.stop() == 0


def test_one_refused_tunnel_leaves_the_others(file_client, own_daemon, nginx, transport):
    """The client ends only if all are refused."""
    keys = f'[[keys]]\nname = "narrow"\nsecret_sha256 = "{digest("narrow")}"\nsubdomains = ["n-*"]\n'
    daemon = own_daemon(keys=keys, transport=transport)
    client = file_client({"n-1": nginx.target, "wide": nginx.target, "n-2": nginx.target}, daemon=daemon, key="narrow")
    client.online("n-1", "n-2")
    refused = client.process.wait_event("tunnel_refused", tunnel="wide")
    assert 'may not use the name "wide"' in refused["reason"]
    assert daemon.curl("n-1", "/").stdout == daemon.curl("n-2", "/").stdout == HELLO
    states = {tunnel["label"]: tunnel["state"] for tunnel in status(client.state)[client.pid]["tunnels"]}
    assert states == {"n-1": "online", "n-2": "online", "wide": "refused"}
    assert client.stop() == 0
    client = file_client({"wide-1": nginx.target, "wide-2": nginx.target}, daemon=daemon, key="narrow")
    assert client.process.wait_exit() == 3


def test_keep_trying_asks_again_after_a_refusal(file_client, nginx):
    client = file_client({"patient": nginx.target}, "--keep-trying", key="cok_unknown")
    entry = client.process.wait_event("disconnected")
    assert "the API key is unknown" in entry["reason"] and 60_000 <= entry["retry_in_ms"] <= 300_000, entry
    assert client.process.popen.poll() is None
    (tunnel,) = status(client.state)[client.pid]["tunnels"]
    assert tunnel["state"] == "connecting"
    assert client.stop() == 0


def test_a_displaced_client_says_by_whom(file_client, daemon, nginx, tmp_path):
    """It does not displace the other one in turn."""
    state = tmp_path / "state"
    first = file_client({"twin": nginx.target}, state=state)
    first.online("twin")
    second = file_client({"twin": nginx.target}, state=state)
    second.online("twin")
    displaced = first.process.wait_event("displaced", tunnel="twin")
    assert displaced["address"].startswith("127.0.0.1") and displaced["version"], displaced
    assert "taken over by cok-client" in displaced["message"] and displaced["retry_in_ms"] >= 60_000
    assert daemon.curl("twin", "/").stdout == HELLO
    assert '"displaced"' not in second.process.output()
    assert first.process.popen.poll() is None
    states = {pid: client["tunnels"][0]["state"] for pid, client in status(state).items()}
    assert states == {first.pid: "connecting", second.pid: "online"}


def test_a_url_names_the_tunnel_and_the_server(daemon, nginx, tmp_path):
    common = ["--connect-to", daemon.https, "--ca-file", daemon.ca, "--state-dir", tmp_path]
    client = Process(
        BIN_DIR / "cok-client", nginx.target, "--url", daemon.url("by-url"), *common, env={"COK_API_KEY": KEY}
    )
    assert client.wait_stdout() == daemon.url("by-url", "")
    assert daemon.curl("by-url", "/").stdout == HELLO
    assert client.stop() == 0


def test_a_websocket_outlives_new_rules(file_client, daemon, services):
    """Rules are for requests. One that was let in stays, as a download does. New ones meet the new rules."""
    client = file_client({"ruled": services.ws})
    client.online("ruled")
    with WebSocket(daemon, "ruled", "/") as socket:
        socket.send("before")
        assert socket.recv() == "before"
        client.write({"ruled": {"target": services.ws, "deny_cidr": ["127.0.0.0/8"]}})
        assert client.reload() == "reloaded: changed ruled"
        wait_for(lambda: code(daemon, "ruled") == "403", "the rule is in effect")
        for number in range(3):
            socket.send(f"after {number}")
            assert socket.recv() == f"after {number}"


def test_a_websocket_ends_with_its_key(own_daemon, services, transport):
    """A change of what the key allows keeps it, as long as the tunnel stays."""
    daemon = own_daemon(transport=transport)
    keys = Keys(daemon)
    client = daemon.client(services.ws, "keyed", key=keys.create("laptop"))
    with WebSocket(daemon, "keyed", "/") as socket:
        keys.do("edit", "laptop", "--subdomain", "keyed", "--max-tunnels", "1", "--requests", "1/s burst 1")
        socket.send("after")
        assert socket.recv() == "after"
        keys.do("revoke", "laptop")
        with pytest.raises(ConnectionClosed):
            socket.recv()
    assert client.process.wait_exit() == 3
