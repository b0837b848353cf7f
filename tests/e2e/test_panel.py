"""The client's panel, in a real terminal."""

import os
import re
import shlex
import signal

import pytest

from harness.cok import KEY
from harness.ports import free_port
from harness.process import BIN_DIR
from harness.terminal import MODE, child_of, is_free
from harness.websocket import WebSocket


@pytest.fixture
def command(daemon, tmp_path):
    """Returns a client's command line for a tunnel with this name."""
    (tmp_path / "key").write_text(KEY)

    def make(name, target, *options, connect_to=None):
        return [
            BIN_DIR / "cok-client", "http", target, "-s", name, "--server", daemon.url("", ""),
            "--connect-to", connect_to or daemon.https, "--ca-file", daemon.ca, "--api-key-file", tmp_path / "key",
            "--state-dir", tmp_path / "state", *options,
        ]

    return make


def joined(command):
    return shlex.join(str(part) for part in command)


def test_the_panel_shows_the_tunnel_and_its_requests(daemon, services, terminal, command):
    screen = terminal()
    screen.type("echo before")
    screen.run(*command("panel", services.web))
    shown = screen.wait("online")
    lines = {line[:17].strip(): line[18:] for line in shown.splitlines() if line[17:18] == " "}
    url = daemon.url("panel", "")
    assert lines["Server"].startswith(daemon.url("", ""))
    # A machine that is busy may let the WebSocket win.
    assert re.match(r"quic \(QUIC answered first\)|ws \(QUIC: ", lines["Transport"]), lines
    assert lines["Tunnel"] == f"{url} → {services.web}"
    screen.wait("ms round trip)")
    daemon.curl("panel", "/echo?secret=1", "--data-binary", "hello")
    screen.match(r"^\d\d:\d\d:\d\d POST +/echo +200 +\S+ (ms|s) +\S+ k?B$")
    # What is typed does not show, and moves nothing.
    screen.type("typed-meanwhile")
    daemon.curl("panel", "/nothing")
    shown = screen.match(r"^\d\d:\d\d:\d\d GET +/nothing +404 ")
    # The newest is first, and queries are not shown.
    assert shown.index("/nothing") < shown.index("/echo") and "secret" not in shown
    assert re.search(r"^ +2 +0 +\d\.\d\d +\d\.\d\d +\d\.\d{3} +\d\.\d{3}", shown, re.M), shown
    # What was on the terminal before is still there.
    assert "echo before" in screen.history()
    screen.keys("C-c")
    screen.wait("stopped")
    screen.type("echo after-$?")
    screen.wait("after-0")
    assert is_free(screen)
    history = screen.history()
    assert history.count("Session status") == 1 and "typed-meanwhile" not in history, history


def test_streams_show_from_their_beginning(daemon, services, terminal, command):
    screen = terminal()
    screen.run(*command("streams", services.ws))
    screen.wait("online")
    socket = WebSocket(daemon, "streams", "/chat?x=1")
    shown = screen.match(r"GET +/chat +101 .*WebSocket, open$")
    assert re.search(r"^ +1 +1 ", shown, re.M), shown
    socket.close()
    screen.match(r"^ +1 +0 ")
    assert "WebSocket, open" not in screen.shown()
    screen.keys("C-c")
    screen.wait("stopped")


def test_a_resize_leaves_one_panel_behind_the_earlier_text(daemon, services, terminal, command):
    """A panel that is drawn while the terminal changes, before the system knows of it, may leave its copy above. So it has some
    attempts. The more lines of a panel wrap, the oftener that happens: so this one has no inspector."""
    for attempt in range(4):
        screen = terminal(columns=110)
        screen.type("echo before-it")
        screen.run("exec", *command(f"resized-{attempt}", services.web, "--inspect", "off"))
        screen.wait("online")
        for columns, rows in [(60, 30), (130, 24), (40, 30), (100, 30)]:
            screen.resize(columns, rows)
            daemon.curl(f"resized-{attempt}", f"/{columns}")
            shown = screen.match(rf"GET +/{columns} ")
            assert all(len(line) <= columns for line in shown.splitlines())
        history = screen.history()
        assert history.count("before-it") == 2, history
        if history.count("Session status") == history.count("HTTP requests") == 1:
            return
    raise AssertionError(history)


def test_a_low_terminal_is_enough(daemon, services, terminal, command):
    screen = terminal(columns=60, rows=8)
    screen.type("echo before-it")
    screen.run(*command("low", services.web))
    screen.wait("online")
    daemon.curl("low", "/echo")
    screen.keys("C-c")
    screen.wait("stopped")
    assert screen.history().count("Session status") == 1


def test_a_stopped_job_gives_the_terminal_back(daemon, services, terminal, command):
    """Ctrl-Z and fg, as in any shell. The panel goes on below."""
    screen = terminal(rows=60)
    screen.run(*command("job", services.web))
    screen.wait("online")
    screen.keys("C-z")
    screen.wait("Stopped")
    screen.type("echo in-between-$((1+1))")
    screen.wait("in-between-2")
    assert is_free(screen)
    screen.type("fg")
    screen.wait("Session status", count=2)
    screen.type("typed-meanwhile")
    daemon.curl("job", "/echo")
    screen.match(r"GET +/echo +200")
    history = screen.history()
    assert "in-between-2" in history and "typed-meanwhile" not in history, history
    assert history.count("Session status") == 2, history
    screen.keys("C-c")
    screen.wait("stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_gives_the_terminal_back(daemon, services, terminal, command, number):
    screen = terminal()
    screen.run(*command(f"signal-{number}", services.web))
    screen.wait("online")
    os.kill(child_of(screen), number)
    screen.wait("stopped")
    assert is_free(screen)


def test_ctrl_backslash_gives_the_terminal_back(daemon, services, terminal, command):
    """The shell in between outlives it, and leaves the terminal's settings alone."""
    screen = terminal()
    screen.run("sh", "-c", f"ulimit -c 0; trap : QUIT; {joined(command('quit', services.web))}; echo code=$?; {MODE}")
    screen.wait("online")
    screen.keys("C-\\")
    shown = screen.match("^mode=-?echo")
    assert "mode=echo" in shown and f"code={128 + signal.SIGQUIT}" in shown, shown


def test_where_no_shell_can_let_it_go_on_it_does_not_stop(daemon, services, terminal, command):
    """script(1) gives the client a session of its own. There the system ignores Ctrl-Z, as for all programs."""
    screen = terminal()
    screen.run("script", "-qec", f"exec {joined(command('alone', services.web))}", "/dev/null")
    screen.wait("online")
    screen.keys("C-z")
    for number in range(3):
        daemon.curl("alone", f"/echo/{number}", deadline=10)
        screen.wait(f"/echo/{number}")
    screen.keys("C-c")
    screen.wait("stopped")
    assert "Stopped" not in screen.history()


def test_log_lines_stand_above_the_panel(services, terminal, command):
    screen = terminal(columns=200)
    screen.run(*command("above", services.web))
    screen.wait("online")
    os.kill(child_of(screen), signal.SIGHUP)
    shown = screen.wait("there is nothing to reload")
    assert shown.index("nothing to reload") < shown.index("Session status"), shown
    assert shown.count("Session status") == 1, shown
    screen.keys("C-c")
    screen.wait("stopped")


def test_what_was_never_online_is_not_connected_yet(services, terminal, command):
    screen = terminal()
    port = free_port()
    screen.run(*command("nowhere", services.web, connect_to=f"127.0.0.1:{port}"))
    shown = screen.wait("not connected yet")
    assert re.search(r"Session status +not connected yet.*: cannot reach https://", shown), shown
    screen.keys("C-c")
    screen.wait("stopped")


def test_a_service_that_is_not_there_is_named(daemon, terminal, command):
    """The owner sees the address that failed."""
    screen, port = terminal(), free_port()
    screen.run(*command("absent", f"127.0.0.1:{port}"))
    screen.wait("online")
    assert str(port) not in daemon.curl("absent", "/").stdout.decode()
    screen.wait(f"cannot connect to 127.0.0.1:{port}")
    screen.keys("C-c")
    screen.wait("stopped")


def test_colours_only_where_they_are_wanted(services, terminal, command):
    for env, coloured in [({}, True), ({"NO_COLOR": "1"}, False)]:
        screen = terminal(env=env)
        screen.run(*command(f"colour-{coloured}".lower(), services.web))
        screen.wait("online")
        panel = screen.shown("-e").partition("Session status")[2]
        assert ("\x1b[32monline" in panel) == coloured, panel
        screen.keys("C-c")
        screen.wait("stopped")


@pytest.mark.parametrize("options", [["--no-panel"], ["--log-format", "text"], ["--log", "requests"]])
def test_logs_in_place_of_the_panel(daemon, services, terminal, command, options):
    """The address is alone on its line, and log lines follow each other."""
    screen = terminal(columns=200)
    screen.run(*command("lines", services.web, *options))
    shown = screen.wait("the tunnel is online")
    assert "connecting to" in shown and "Session status" not in shown
    assert daemon.url("lines", "") in shown.splitlines() or daemon.url("lines") in shown.splitlines()
    screen.keys("C-c")


def test_a_job_in_the_background_logs(services, terminal, command):
    screen = terminal(columns=200)
    line = " ".join(str(part) for part in command("background", services.web))
    screen.type(f"{line} &")
    shown = screen.wait("the tunnel is online")
    assert "Session status" not in shown
    screen.type("kill %1; wait")
    screen.wait("Done")
