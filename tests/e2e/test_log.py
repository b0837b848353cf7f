"""The messages of the daemon's log, without fields, as `journalctl` shows them."""

import json
import re
import struct

import pytest

from harness.cok import KEY, TRANSPORTS, digest
from harness.process import wait_for
from harness.websocket import WebSocket

# The type of the Connect frame.
CONNECT = 1


def messages(daemon):
    return [json.loads(line)["message"] for line in daemon.process.lines if line.startswith("{")]


def wait_message(daemon, start, end=""):
    """Waits for the first message with this start and end."""

    def found():
        return [said for said in messages(daemon) if said.startswith(start) and said.endswith(end)]

    try:
        return wait_for(found, f"the log says {start} … {end}")[0]
    except AssertionError as why:
        raise AssertionError(f"{why}\n" + "\n".join(messages(daemon))) from None


def test_a_tunnel_comes_and_goes(own_daemon, nginx, transport):
    daemon = own_daemon(transport=transport)
    client = daemon.client(nginx.target, "demo")
    wait_message(daemon, f"tunnel demo online: key test, from 127.0.0.1 over {transport}")
    client.stop()
    said = wait_message(daemon, "tunnel demo offline after ")
    # The client sends its goodbye and closes the connection; the daemon may notice either first.
    assert re.fullmatch(r"tunnel demo offline after \d+s: the (session has drained|peer closed the connection)", said), said


def test_a_refusal_names_the_client_and_the_reason(own_daemon, nginx, transport):
    narrow = f'[[keys]]\nname = "narrow"\nsecret_sha256 = "{digest("narrow")}"\nsubdomains = ["n-*"]\nmax_tunnels = 1\n'
    daemon = own_daemon(keys=narrow, transport=transport)
    daemon.client(nginx.target, "demo")
    daemon.client(nginx.target, "n-1", key="narrow")
    origin = f"from 127.0.0.1 over {transport})"
    for name, key, said in [
        ("demo", KEY, f'name "demo" is taken (key test, {origin}'),
        ("wide", "narrow", f'this key may not use the name "wide" (key narrow, {origin}'),
        ("n-2", "narrow", f'the key has its 1 tunnel already (name "n-2", key narrow, {origin}'),
        ("late", "unknown", f"the API key is unknown or has expired ({origin}"),
    ]:
        state = daemon.folder / f"of-{name}"
        options = ("--verbose", "--name-timeout", "0")
        client = daemon.client(nginx.target, name, wait=False, key=key, options=options, state=state)
        assert client.process.wait_exit() == 3
        wait_message(daemon, f"tunnel refused: {said}")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_daemon_that_is_full_says_so(own_daemon, nginx, transport):
    daemon = own_daemon(limits="max_sessions = 1", transport=transport)
    daemon.client(nginx.target, "first")
    daemon.client(nginx.target, "second", wait=False)
    full = "the server has as many tunnels as it can take"
    wait_message(daemon, f"tunnel refused: {full} (from 127.0.0.1 over {transport})")


def test_what_a_peer_says_is_quoted_and_short(own_daemon):
    """A name with a line break and an escape sequence stays on its line. A long name is cut."""
    daemon = own_daemon()
    for wanted in ("a\n\x1b[2Jb", "x" * 5000):
        with WebSocket(daemon, "", "/_cok/tunnel", subprotocols=["cok.v1"]) as peer:
            ask = json.dumps({"key": KEY, "subdomain": wanted, "instance": "peer"}).encode()
            peer.send(struct.pack(">BBBI", 1, CONNECT, 0, len(ask)) + ask)
            said = wait_message(daemon, f'tunnel refused: "{wanted[0]}', "(key test, from 127.0.0.1 over ws)")
            assert "cannot be a subdomain" in said and len(said) < 250 and said.isprintable(), said
