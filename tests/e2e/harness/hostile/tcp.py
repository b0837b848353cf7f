"""Attacks below HTTP and over HTTP/1.1."""

import contextlib
import os
import resource
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from .outcome import Outcome

# The longest time that an attack waits for its end.
PATIENCE = 12


def _open(at, number, make):
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda _: make(), range(number)))


def _held(at, sockets, sent, exchanges=0, patience=PATIENCE):
    """Keeps the connections open until the daemon has closed them."""
    began = time.monotonic()
    ended = at.until_closed(began, patience)
    for connection in sockets:
        connection.close()
    return Outcome(sent, len(sockets), exchanges, ended)


def silent_before_tls(at):
    """Connections that send nothing."""
    return _held(at, _open(at, at.many(200), at.connect), 0)


def half_a_hello(at):
    """Connections that send the first half of a TLS record and no more."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(100)
    sockets = _open(at, at.many(200), at.connect)
    for connection in sockets:
        connection.sendall(hello)
    return _held(at, sockets, len(hello) * len(sockets))


def noise(at):
    """Connections that send bytes of no protocol."""
    sockets = _open(at, at.many(100), at.connect)
    for connection in sockets:
        with contextlib.suppress(OSError):
            connection.sendall(b"\xff" + os.urandom(999))
    return _held(at, sockets, 1000 * len(sockets))


def handshakes(at):
    """TLS handshakes, as many as go, each of which ends at once."""
    began, count = time.monotonic(), 0

    def one():
        nonlocal count
        while time.monotonic() < began + 2:
            with contextlib.suppress(OSError, ssl.SSLError):
                at.visit().close()
                count += 1

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(one)
    return Outcome(500 * count, count, 0, at.until_closed(time.monotonic(), PATIENCE))


def silent_after_tls(at):
    """Connections that never ask."""
    return _held(at, _open(at, at.many(100), at.visit), 0)


def many_connections(at):
    """Idle connections, each after one answered request. Only their memory counts. More of them could not be opened before
    the first is idle for too long; `many_addresses` has a daemon with longer limits."""
    return _idle(at, [at] * 300)


def many_addresses(at):
    """The same, with one connection each from many addresses, so that no share of an address ends them."""
    members = [replace(at, source=f"127.1.{number // 250}.{number % 250 + 1}") for number in range(at.many(1000))]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return _idle(at, members)


def _idle(at, members):
    """Opens an idle connection for each member, all at once in the end."""
    request = f"GET / HTTP/1.1\r\nhost: {at.host(at.name)}\r\n\r\n".encode()

    def one(member):
        connection = member.visit()
        connection.sendall(request)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200"), member.source
        return connection

    with ThreadPoolExecutor(16) as pool:
        sockets = list(pool.map(one, members))
    sources = {member.source for member in members}
    assert (held := at.established(sources)) == len(members), f"{held} of {len(members)} stand"
    time.sleep(1)
    for connection in sockets:
        connection.close()
    ended = at.until_closed(time.monotonic(), PATIENCE, sources=sources)
    return Outcome(len(request) * len(sockets), len(sockets), 0, ended)


def slow_head(at):
    """Heads that come byte by byte and never end."""
    sockets = _open(at, at.many(100), at.visit)
    began, sent = time.monotonic(), 0
    head = f"GET / HTTP/1.1\r\nhost: {at.host(at.name)}\r\nx: ".encode() + b"x" * 1000
    for position in range(len(head)):
        for connection in sockets:
            with contextlib.suppress(OSError):
                connection.send(head[position : position + 1])
                sent += 1
        if not at.established() or time.monotonic() > began + PATIENCE:
            break
        time.sleep(0.2)
    ended = at.until_closed(began, 1)
    for connection in sockets:
        connection.close()
    return Outcome(sent, len(sockets), 0, ended)


def blank_lines(at):
    """Empty lines before a request line that never comes (RFC 9112, section 2.2)."""
    return _flood(at, b"\r\n" * 4000)


def pipelined(at):
    """Requests one after another on a connection whose answers are not read. Most are for pages of the daemon's own, which
    fill the buffers sooner."""
    ask = lambda name: f"GET / HTTP/1.1\r\nhost: {at.host(name)}\r\n\r\n".encode()  # noqa: E731
    return _flood(at, (ask(at.name) + ask("nobody") * 20) * 10)


def chunks_of_one_byte(at):
    """An upload in chunks of one byte each."""
    return _flood(at, b"1\r\nx\r\n" * 3000, begin=_post(at, b"transfer-encoding: chunked"))


def chunk_extensions(at):
    """An upload of one chunk whose extension never ends."""
    return _flood(at, b";a=b" * 4000, begin=_post(at, b"transfer-encoding: chunked") + b"1")


def _post(at, framing):
    return f"POST /upload HTTP/1.1\r\nhost: {at.host(at.name)}\r\n".encode() + framing + b"\r\n\r\n"


def _flood(at, piece, begin=b"", seconds=3):
    """Sends as much as the daemon takes, and does not read. Ends when it closes the connection or takes no more."""
    with at.visit() as connection:
        connection.settimeout(0.2)
        began = time.monotonic()
        sent, said = 0, "went on"
        try:
            connection.sendall(begin)
            while time.monotonic() < began + seconds:
                try:
                    sent += connection.send(piece)
                except TimeoutError:
                    said = "takes no more"
                    if not at.established():
                        break
        except (OSError, ssl.SSLError) as error:
            said = type(error).__name__
        ended = at.until_closed(began, PATIENCE)
    return Outcome(sent + len(begin), 1, 1, ended, said)


def slow_uploads(at):
    """Uploads that stand still after their first byte."""
    begin = _post(at, b"content-length: 1000000") + b"x"
    sockets = _open(at, at.many(100), at.visit)
    for connection in sockets:
        connection.sendall(begin)
    return _held(at, sockets, len(begin) * len(sockets), len(sockets))


def unread_downloads(at):
    """Downloads of a GiB each that are not read."""
    begin = f"GET /huge HTTP/1.1\r\nhost: {at.host(at.name)}\r\n\r\n".encode()
    sockets = _open(at, at.many(100), at.visit)
    for connection in sockets:
        connection.sendall(begin)
    return _held(at, sockets, len(begin) * len(sockets), len(sockets))


def asks_and_leaves(at):
    """Requests whose visitor leaves at once."""
    begin = f"GET /huge HTTP/1.1\r\nhost: {at.host(at.name)}\r\n\r\n".encode()
    count = at.many(200)

    def one(_):
        with contextlib.suppress(OSError), at.visit() as connection:
            connection.sendall(begin)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(count)))
    return Outcome(len(begin) * count, count, count, at.until_closed(time.monotonic(), PATIENCE))
