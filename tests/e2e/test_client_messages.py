"""The client's messages about failures: one sentence, one cause, and what to do."""

import pytest

from harness.clock import Clock
from harness.cok import KEY
from harness.process import BIN_DIR, Process


@pytest.fixture
def reason(daemon, nginx, tmp_path):
    """Returns the reason in the first message of a client that cannot connect."""
    running = []

    def start(server, *options, connect_to=daemon.https, transport="auto", ca=daemon.ca, env=None):
        connect = ["--connect-to", connect_to] if connect_to else []
        process = Process(
            BIN_DIR / "cok-client", nginx.target, "--server", server, *connect, "--api-key", KEY, "--ca-file", ca,
            "--state-dir", tmp_path / "state", "--transport", transport, "--log-format", "json", *options, env=env,
        )
        running.append(process)
        entry = process.wait_event("disconnected")
        assert entry["message"] == f"not connected yet: {entry['reason']}"
        said = entry["reason"]
        assert said.startswith(f"cannot reach {server}") and said.count("certificate") <= 1 and len(said) < 250, said
        return said

    yield start
    for process in running:
        assert process.stop() == 0


TRANSPORTS = ["auto", "quic", "ws"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_unknown_authority(daemon, own_daemon, reason, transport):
    another = own_daemon()
    over = " over QUIC" if transport == "quic" else ""
    assert reason(daemon.url("", ""), transport=transport, ca=another.ca) == (
        f"cannot reach {daemon.url('', '')}{over}: its certificate is from the authority \"cok development authority\", "
        "which is not trusted here; if it is the server's own, or that of a proxy in between which you trust, name its "
        "file by --ca-file"
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("years, side", [(-20, "behind"), (20, "ahead of")])
def test_a_wrong_clock(daemon, reason, tmp_path, transport, years, side):
    """The certificate is right. The server's clock shows that this machine's is wrong."""
    clock = Clock(tmp_path)
    clock.set(years * 365 * 24 * 3600)
    said = reason(daemon.url("", ""), transport=transport, env=clock.env)
    assert f": this machine's clock is 7300 days {side} the server's: it says 20" in said, said
    assert said.endswith("; check it against another source, and set it"), said


def test_an_address_in_place_of_the_name(daemon, reason):
    said = reason(f"https://{daemon.https}", connect_to=None)
    assert said.endswith("; name the server by its name, not by its address"), said


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_name_that_is_another_servers(reason, transport):
    over = " over QUIC" if transport == "quic" else ""
    assert reason("https://elsewhere.example", transport=transport) == (
        f"cannot reach https://elsewhere.example{over}: it has no certificate for this name; check the name of the server"
    )


def test_an_unknown_name(reason):
    said = reason("https://nowhere.invalid", connect_to=None)
    assert said.startswith("cannot reach https://nowhere.invalid: its name cannot be resolved: ")
    assert said.endswith("; check the name of the server, and this machine's DNS")


def test_a_port_without_tls(daemon, reason):
    assert reason(daemon.url("", ""), connect_to=daemon.http) == (
        f"cannot reach {daemon.url('', '')}: it does not speak TLS; is this the port for HTTPS?"
    )


def test_a_server_that_is_no_cokd(daemon, site, reason):
    assert reason(daemon.url(site.name, ""), transport="ws") == (
        f"cannot reach {daemon.url(site.name, '')}: it answered 404 Not Found instead of opening a tunnel; is it the "
        "address of a cokd, of a version that fits?"
    )


def test_a_server_that_has_gone_offline(own_daemon, nginx):
    daemon = own_daemon(transport="ws")
    client = daemon.client(nginx.target)
    seen = len(client.process.lines)
    daemon.process.kill()
    entry = client.process.wait_event("disconnected", start=seen)
    assert entry["message"] == f"the tunnel is offline: {entry['reason']}"
    client.stop()


def test_a_request_that_fails_names_the_address(tunnel):
    """The message has the address, since a journal may show only messages."""
    client = tunnel("127.0.0.1:1")
    long = "x" * 2000
    for path, shown in [("/a?b=c", "/a"), (f"/{long}", f"/{long[:199]}…")]:
        seen = len(client.process.lines)
        assert client.curl(path, "--head").stdout.split()[1] == b"502"
        message = f"HEAD {shown}: cannot connect to 127.0.0.1:1: connection refused"
        client.process.wait_line(lambda line: f'"message":"{message}"' in line, message, start=seen)


def test_text_lines_do_not_repeat_fields(daemon, nginx, tmp_path):
    """In the text format, a line omits fields whose values are in its message."""
    client = Process(
        BIN_DIR / "cok-client", "127.0.0.1:1", "--server", "https://tunnel.test:1", "--connect-to", "127.0.0.1:1",
        "--api-key", KEY, "--ca-file", daemon.ca, "--state-dir", tmp_path, "--log-format", "text",
    )
    line = client.wait_line(lambda line: "not connected yet" in line and line, "failure")
    assert line.count("cannot reach") == 1 and "reason=" not in line and 'event="disconnected"' in line
    assert client.stop() == 0
