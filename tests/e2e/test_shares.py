"""A visitor's address has a share of a tunnel's exchanges, and a full tunnel gives up what stands still longest."""

import contextlib

import pytest

from harness import raw, stalled
from harness.keys import Keys
from harness.process import wait_for

MOST = 40


@pytest.fixture
def small(own_daemon, services, transport):
    """A tunnel with few exchanges, of which one address may have half."""
    daemon = own_daemon(limits=f"max_exchanges = {MOST}", transport=transport)
    client = daemon.client(services.web, "shares")
    client.services = services
    yield client
    client.stop()


def hold(stack, tunnel, count, source, path="/silent"):
    """Takes places that stay taken."""
    before = tunnel.services.open_streams
    for _ in range(count):
        connection = stack.enter_context(stalled.ask(tunnel.daemon, "shares", path, source=source))
        if path == "/news":
            raw.read_head(connection)
    wait_for(lambda: tunnel.services.open_streams == before + count, f"{count} requests have come")


def test_an_address_has_its_share(small):
    """The request above it gets a page that says so; another address is served."""
    with contextlib.ExitStack() as stack:
        hold(stack, small, MOST // 2, "127.0.0.1")
        with stalled.ask(small.daemon, "shares", "/cookies") as refused:
            head = raw.read_head(refused)
            assert head.startswith(b"HTTP/1.1 503 ") and b"retry-after: " in head.lower(), head
            page = raw.read_exactly(refused, int(dict(raw.fields(head))[b"content-length"]))
            assert b"Too many requests at once" in page
        with stalled.ask(small.daemon, "shares", "/cookies", source=stalled.ELSEWHERE) as served:
            assert raw.read_head(served).startswith(b"HTTP/1.1 200 ")
    wait_for(lambda: small.services.open_streams == 0, "the places are free")
    with stalled.ask(small.daemon, "shares", "/cookies") as served:
        assert raw.read_head(served).startswith(b"HTTP/1.1 200 ")


def test_the_share_is_a_setting(own_daemon, services, transport):
    daemon = own_daemon(limits=f"max_exchanges = {MOST}\nvisitor_share = 10", transport=transport)
    client = daemon.client(services.web, "shares")
    client.services = services
    with contextlib.ExitStack() as stack:
        hold(stack, client, MOST // 10, "127.0.0.1")
        with stalled.ask(daemon, "shares", "/cookies") as refused:
            head = raw.read_head(refused)
            assert head.startswith(b"HTTP/1.1 503 ") and b"retry-after: " in head.lower(), head
        with stalled.ask(daemon, "shares", "/cookies", source=stalled.ELSEWHERE) as served:
            assert raw.read_head(served).startswith(b"HTTP/1.1 200 ")
    client.stop()


def test_a_key_has_its_exchanges(own_daemon, services, transport):
    """They count over all its tunnels and visitors. Tunnels of other keys do not notice, and a raised limit acts at once."""
    daemon = own_daemon(transport=transport)
    keys = Keys(daemon)
    key = keys.create("few", "--max-exchanges", "3")
    clients = [daemon.client(services.web, name, key=key) for name in ("shares", "shares-too")]
    other = daemon.client(services.web, "shares-other")
    clients[0].services = services

    def status(name, source):
        with stalled.ask(daemon, name, "/cookies", source=source) as visitor:
            return raw.read_head(visitor).split()[1]

    with contextlib.ExitStack() as stack:
        hold(stack, clients[0], 3, "127.0.0.1")
        for name in ("shares", "shares-too"):
            assert status(name, "127.0.0.1") == status(name, stalled.ELSEWHERE) == b"503"
        assert status("shares-other", "127.0.0.1") == b"200"
        keys.do("edit", "few", "--max-exchanges", "4")
        wait_for(lambda: status("shares", "127.0.0.1") == b"200", "the key has another limit")
    wait_for(lambda: services.open_streams == 0, "the places are free")
    keys.do("edit", "few", "--max-exchanges", "1")
    wait_for(lambda: status("shares-too", "127.0.0.1") == b"200", "the place of an exchange that has ended is free")
    for client in (*clients, other):
        client.stop()


def test_a_full_tunnel_gives_up_what_stands_still(small):
    """Two addresses fill the tunnel. A third one gets in, at the cost of the address that has most."""
    with contextlib.ExitStack() as stack:
        hold(stack, small, MOST // 2, "127.0.0.1")
        hold(stack, small, MOST - MOST // 2, "127.0.0.3")
        for _ in range(10):
            with stalled.ask(small.daemon, "shares", "/cookies", source=stalled.ELSEWHERE) as served:
                assert raw.read_head(served).startswith(b"HTTP/1.1 200 ")
        wait_for(lambda: small.services.open_streams < MOST, "an exchange was given up")


def test_streams_of_events_are_not_given_up_for_others(small):
    with contextlib.ExitStack() as stack:
        hold(stack, small, MOST // 2, "127.0.0.1", "/news")
        hold(stack, small, MOST - MOST // 2, "127.0.0.3", "/news")
        with stalled.ask(small.daemon, "shares", "/cookies", source=stalled.ELSEWHERE) as refused:
            assert raw.read_head(refused).startswith(b"HTTP/1.1 503 ")
        assert small.services.open_streams == MOST


def test_a_trusted_proxy_reports_whose_share_it_is(own_daemon, services, transport):
    proxies = '[proxies]\ntrusted = ["127.0.0.0/8"]'
    daemon = own_daemon(limits=f"max_exchanges = {MOST}", more=proxies, transport=transport)
    client = daemon.client(services.web, "shares")

    def ask(path, seen):
        connection = stalled.visit(daemon, "shares")
        head = f"GET {path} HTTP/1.1\r\nhost: {daemon.host('shares')}\r\nx-forwarded-for: {seen}\r\n\r\n"
        connection.sendall(head.encode())
        return connection

    with contextlib.ExitStack() as stack:
        # One site's IPv6 addresses are one visitor.
        for number in range(MOST // 2):
            stack.enter_context(ask("/silent", f"2001:db8::{number}"))
        wait_for(lambda: services.open_streams == MOST // 2, "all requests have come")
        with ask("/cookies", "2001:db8::ffff") as refused, ask("/cookies", "2001:db8:0:1::1") as served:
            assert raw.read_head(refused).startswith(b"HTTP/1.1 503 ")
            assert raw.read_head(served).startswith(b"HTTP/1.1 200 ")
    client.stop()
