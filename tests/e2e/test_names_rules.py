"""Which names a key may have, and what visitors can tell about them."""

import re

from harness.cok import digest
from harness.process import wait_for

LISTED = "cok_key-with-listed-names"
SMALL = "cok_key-with-one-tunnel"
KEYS = f"""
[[keys]]
name = "listed"
secret_sha256 = "{digest(LISTED)}"
subdomains = ["www", "xn--*", "shop-*"]
[[keys]]
name = "small"
secret_sha256 = "{digest(SMALL)}"
max_tunnels = 1
"""


def refused(daemon, target, name):
    client = daemon.client(target, name, wait=False)
    assert client.process.wait_exit() == 3
    return client.process.output()


def test_reserved_names_need_a_pattern_that_says_so(own_daemon, nginx, transport):
    """A key for any name gets neither `www` nor an internationalised name, in any case. One whose patterns list them does."""
    daemon = own_daemon(keys=KEYS, transport=transport)
    for name in ("www", "Admin", "xn--bcher-kva"):
        assert "may not use the name" in refused(daemon, nginx.target, name)
        assert daemon.curl(name.lower(), "/", "-o", "/dev/null", "-w", "%{http_code}").stdout == b"404"
    for name in ("www", "xn--bcher-kva"):
        client = daemon.client(nginx.target, name, key=LISTED)
        assert client.curl("/").stdout == b"<h1>hello</h1>\n"
        client.stop()


def test_reserved_names_are_a_setting(own_daemon, nginx, transport):
    daemon = own_daemon(keys=KEYS, transport=transport, more='[names]\nreserved = ["shop-1"]\n')
    client = daemon.client(nginx.target, "www")
    assert client.curl("/").stdout == b"<h1>hello</h1>\n"
    client.stop()
    assert "may not use the name" in refused(daemon, nginx.target, "shop-1")


def answer(daemon, name):
    """Status, fields without the time and the length, and body. The body holds the name, so its length is the name's too."""
    head, _, body = daemon.curl(name, "/", "--include").stdout.partition(b"\r\n\r\n")
    lines = [line for line in head.splitlines() if not line.lower().startswith((b"date:", b"content-length:"))]
    return lines, re.sub(name.encode(), b"NAME", body)


def test_hidden_names_look_alike(own_daemon, nginx, transport):
    """A name that its client has closed, one that was never there and a reserved one get the same answer."""
    for hide in ("true", "false"):
        daemon = own_daemon(limits='reconnect_grace = "0s"', transport=transport, more=f"[names]\nhide = {hide}\n")
        daemon.client(nginx.target, "away").stop()
        wait_for(lambda d=daemon: d.metric("cok_active_tunnels") == 0, "the tunnel has ended")
        away, never, reserved = (answer(daemon, name) for name in ("away", "never", "www"))
        assert never == reserved and b" 404" in never[0][0]
        assert (away == never) == (hide == "true")


def test_a_key_holds_so_many_names(own_daemon, nginx, transport):
    """The oldest away name of the key goes first, and those of other keys stay."""
    daemon = own_daemon(
        limits='reconnect_grace = "0s"', keys=KEYS, transport=transport, more="[names]\nmax_per_key = 2\n"
    )
    daemon.client(nginx.target, "of-another").stop()
    for name in ("first", "second", "third"):
        daemon.client(nginx.target, name, key=SMALL).stop()
    wait_for(lambda: daemon.metric("cok_active_tunnels") == 0, "the tunnels have ended")
    statuses = {name: answer(daemon, name)[0][0].split()[1] for name in ("of-another", "first", "second", "third")}
    assert statuses == {"of-another": b"503", "first": b"404", "second": b"503", "third": b"503"}


def test_a_stop_writes_the_last_names(own_daemon, nginx, transport):
    """The first name is written at once and the next ones half a second later, which the daemon does not wait for here."""
    daemon = own_daemon(limits='reconnect_grace = "0s"', transport=transport)
    clients = [daemon.client(nginx.target, name) for name in ("first", "second", "third")]
    daemon.stop()
    daemon.start()
    statuses = {name: answer(daemon, name)[0][0].split()[1] for name in ("first", "second", "third", "never")}
    assert statuses == {"first": b"503", "second": b"503", "third": b"503", "never": b"404"}
    for client in clients:
        client.stop()
