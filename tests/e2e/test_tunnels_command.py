"""`cokd tunnels` and `cokd top`: the tunnels of a running daemon, in a terminal and for scripts."""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from harness.admin import Admin
from harness.process import BIN_DIR, Process, wait_for
from harness.terminal import child_of, is_free

ENTERS = "\x1b[?1049h"


def cokd(daemon, *arguments, **more):
    command = [BIN_DIR / "cokd", *arguments, "--config", daemon.config]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **more)


@pytest.fixture
def own(own_daemon):
    return own_daemon()


@pytest.fixture
def top(own, terminal):
    """Returns a function that starts `cokd top` in a terminal."""

    def start(**more):
        screen = terminal(columns=130, rows=20, **more)
        screen.type("echo before")
        screen.run(BIN_DIR / "cokd", "top", "--config", own.config)
        screen.wait("q quit")
        return screen

    return start


def watch(daemon, *options):
    return Process(BIN_DIR / "cokd", "tunnels", "--watch", *options, "--config", daemon.config)


def test_tunnels_are_listed(own, services, transport):
    """The list has a line for each tunnel, those that are online first."""
    assert "no tunnels" in cokd(own, "tunnels").stdout
    first = own.client(services.web, "zebra", transport=transport)
    other = own.client(services.web, "adder", transport=transport)
    first.curl("/echo", "--data-binary", "x" * 1000)
    other.stop()
    wait_for(lambda: Admin(own).tunnel("adder")["session"] is None, "the tunnel is away")
    heading, *lines = cokd(own, "tunnels").stdout.splitlines()
    assert heading.split() == "NAME STATE FOR KEY CLIENT VIA RTT REQ/S REQUESTS OPEN IN OUT".split()
    assert [line.split()[:2] for line in lines] == [["zebra", "online"], ["adder", "away"]]
    assert f" test  127.0.0.1  {transport} " in " ".join(lines[0].split()).replace(" ", "  ") + " ", lines
    assert "1.0 kB" in lines[0]
    listed = json.loads(cokd(own, "tunnels", "--json").stdout)
    assert listed == sorted(listed, key=lambda tunnel: tunnel["name"])
    assert [(tunnel["name"], tunnel["requests"], tunnel["bytes_in"]) for tunnel in listed] == [
        ("adder", 0, 0), ("zebra", 1, 1000)
    ]
    assert listed[1].keys() == Admin(own).tunnel("zebra").keys()
    first.stop()


def test_the_daemon_may_be_asked_in_other_ways(own, nginx):
    """By its state directory, and at its admin address; a daemon that is not there is an error."""
    client = own.client(nginx.target, "demo")
    command = [BIN_DIR / "cokd", "tunnels", "--json"]
    for place in (["--state-dir", own.state], ["--admin", own.admin]):
        done = subprocess.run([*command, *place], capture_output=True, text=True, check=True, timeout=60)
        assert [tunnel["name"] for tunnel in json.loads(done.stdout)] == ["demo"]
    client.stop()
    own.stop()
    for arguments in (["tunnels"], ["tunnels", "--watch"]):
        done = cokd(own, *arguments)
        assert done.returncode == 1 and "no daemon answers at" in done.stderr and done.stdout == ""


def test_changes_are_json_lines(own, services):
    """A script follows tunnels as they come, are used, and go, also across a restart of the daemon."""
    client = own.client(services.web, "demo")
    watching = watch(own, "--json")

    def event(name, matches):
        while True:
            line = json.loads(watching.wait_stdout())
            if line["event"] == name and matches(line["data"]):
                return line["data"]

    assert event("tunnel", lambda data: data["name"] == "demo")["state"] == "online"
    client.curl("/echo")
    assert event("traffic", lambda rows: rows[0]["requests"] == 1)[0]["name"] == "demo"
    other = own.client(services.web, "other")
    event("tunnel", lambda data: (data["name"], data["state"]) == ("other", "online"))
    other.stop()
    event("tunnel", lambda data: (data["name"], data["state"]) == ("other", "away"))
    before = Admin(own).tunnel("demo")["session"]
    own.stop()
    watching.wait_line(lambda line: "asking again" in line, "a line that the daemon has left")
    own.start()
    client.process.wait_event("disconnected")
    client.stop()
    again = own.client(services.web, "demo")
    after = event("tunnel", lambda data: data["name"] == "demo" and data["session"] not in (None, before))
    assert after["state"] == "online"
    again.stop()
    watching.stop()


def test_changes_are_lines_for_people(own, nginx):
    """Without --json, a line says what has changed."""
    watching = watch(own)
    client = own.client(nginx.target, "demo")
    line = watching.wait_stdout()
    assert line.partition("Z ")[2] == "demo online: key test, from 127.0.0.1 over ws", line
    client.stop()
    assert watching.wait_stdout().partition("Z ")[2] == "demo away: key test"
    watching.stop()


def test_a_reader_that_leaves_ends_the_watch(own, nginx):
    """`head -n 1` is enough to end it."""
    clients = [own.client(nginx.target, name) for name in ("one", "two", "three")]
    pipe = f"{BIN_DIR}/cokd tunnels --watch --config {own.config} | head -n 1"
    shell = Process("bash", "-c", pipe)
    assert " online: key test" in shell.wait_stdout()
    clients[0].stop()
    shell.wait_exit()
    for client in clients[1:]:
        client.stop()


def test_top_shows_the_busiest_first(own, services, top):
    """Rows follow the rate, keys sort and filter them, and the terminal is as before at the end."""
    quiet = own.client(services.web, "alpha")
    busy = own.client(services.web, "zulu")
    screen = top()

    def used():
        busy.curl("/echo")
        shown = screen.shown()
        return shown if re.search(r"^zulu +online +\d*\.?\d*[1-9]", shown, re.MULTILINE) else None

    shown = wait_for(used, "the rate shows")
    assert shown.index("zulu") < shown.index("alpha") and "REQ/S↓" in shown and "ready" in shown
    assert "before" not in shown
    # Two steps back from the rate: by name.
    screen.keys("S", "S")
    shown = screen.wait("NAME↑")
    assert shown.index("alpha") < shown.index("zulu")
    screen.keys("r")
    shown = screen.wait("NAME↓")
    assert shown.index("zulu") < shown.index("alpha")
    screen.keys("/", "a", "l", "p", "Enter")
    shown = screen.wait("1 of 2")
    assert "zulu" not in shown
    screen.keys("q")
    screen.wait("echo before")
    assert is_free(screen) and "online" not in screen.history()
    quiet.stop()
    busy.stop()


def test_top_ends_a_session_after_a_yes(own, services, top):
    """The key t ends the chosen tunnel's session, and its client comes back with another."""
    client = own.client(services.web, "demo")
    before = Admin(own).tunnel("demo")["session"]
    screen = top()
    screen.match("^demo +online")
    screen.keys("t")
    screen.wait("choose a tunnel")
    screen.keys("Down", "t")
    screen.wait("end the session of demo?")
    screen.keys("n")
    screen.wait("q quit")
    assert Admin(own).tunnel("demo")["session"] == before
    screen.keys("t", "y")
    screen.wait("the session was ended")
    wait_for(lambda: Admin(own).tunnel("demo")["session"] not in (None, before), "the client is back")
    screen.keys("q")
    client.stop()


def test_top_fits_its_terminal(own, services, top):
    """It follows the size of the terminal, and scrolls to what is chosen."""
    clients = [own.client(services.web, f"name-{number:02}") for number in range(12)]
    screen = top()
    screen.wait("name-11")
    screen.resize(40, 8)
    shown = screen.wait("name-00")
    screen.match(r"^name-03")
    screen.keys("End")
    shown = screen.wait("name-11")
    assert "name-00" not in shown and all(len(line) <= 40 for line in shown.splitlines())
    screen.resize(130, 20)
    screen.wait("name-00")
    screen.keys("q")
    screen.wait("echo before")
    for client in clients:
        client.stop()


def test_top_outlasts_a_restart(own, services, top):
    """While the daemon is away it says so, and then goes on."""
    screen = top()
    own.stop()
    screen.wait("asking again")
    own.start()
    client = own.client(services.web, "demo")
    screen.match("^demo +online")
    screen.keys("q")
    client.stop()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(own, top, end):
    """However it is ended, the terminal echoes again and shows what was there."""
    screen = top()
    process = child_of(screen)
    subprocess.run(["kill", f"-{end.value}", str(process)], check=True)
    screen.wait("echo before")
    # Text that is typed before its end is dropped.
    wait_for(lambda: not Path(f"/proc/{process}").exists(), "it has ended")
    assert is_free(screen)


def test_top_stops_and_goes_on_as_a_job(own, top):
    """Ctrl-Z gives the terminal back, and fg takes it again."""
    screen = top()
    process = child_of(screen)
    screen.keys("C-z")
    screen.wait("Stopped")
    assert is_free(screen)
    screen.type("fg")
    screen.wait("q quit")
    screen.keys("q")
    screen.wait("echo before")
    wait_for(lambda: not Path(f"/proc/{process}").exists(), "it has ended")
    assert is_free(screen)


def test_top_needs_a_terminal(own):
    """In a pipe it says what to use instead."""
    done = cokd(own, "top", stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "cokd tunnels --watch" in done.stderr and ENTERS not in done.stdout
