"""Attacks by a client that has a right key, and answers its visitors with malice."""

import asyncio
import contextlib
import select
import ssl
import time

from harness import raw
from harness.small_client import SmallClient
from harness.smallest.exchange import Abandoned

from .outcome import Outcome

LASTS = 3


def _visited(at, answer, visitors):
    """Opens a tunnel that answers so, and visits it as often as said. The visitors read all that comes."""
    client = SmallClient(at, "ws", answer, subdomain="malicious")
    began, said, sockets = time.monotonic(), "", []
    try:
        for _ in range(visitors):
            connection = raw.connect(at, "malicious")
            connection.sendall(f"GET / HTTP/1.1\r\nhost: {at.host('malicious')}\r\n\r\n".encode())
            connection.settimeout(0)
            sockets.append(connection)
        read, going = 0, set(sockets)
        while (left := began + LASTS - time.monotonic()) > 0:
            for connection in select.select(going, [], [], left)[0]:
                try:
                    got = len(connection.recv(1 << 16))
                except ssl.SSLWantReadError:
                    continue  # a part of a TLS record
                except OSError:
                    got = 0
                read += got
                if not got:
                    going.remove(connection)
        said = f"{read} bytes read"
    finally:
        for connection in sockets:
            connection.close()
        with contextlib.suppress(Exception):
            client.stop()
    return Outcome(100 * visitors, visitors, visitors, None, said)


def endless_interim_heads(at):
    """103 after 103, and never a final head."""

    async def answer(exchange):
        with contextlib.suppress(Abandoned):
            while True:
                exchange.send_head(103, b"", [(b"link", b"</a>; rel=preload" + b"x" * 1000)], False)
                await asyncio.sleep(0.001)

    return _visited(at, answer, at.many(4))


def endless_bodies(at):
    """Bodies without an end, as fast as they are taken."""

    async def answer(exchange):
        with contextlib.suppress(Abandoned):
            exchange.send_head(200, b"", [], False)
            while True:
                await exchange.send_body(bytes(1 << 16))

    return _visited(at, answer, at.many(4))


def single_bytes(at):
    """Bodies in frames of one byte."""

    async def answer(exchange):
        with contextlib.suppress(Abandoned):
            exchange.send_head(200, b"", [], False)
            while True:
                for _ in range(50):
                    await exchange.send_body(b"x")
                await asyncio.sleep(0.001)

    return _visited(at, answer, at.many(4))


def large_heads(at):
    """Heads as large as a frame may be."""

    async def answer(exchange):
        with contextlib.suppress(Abandoned):
            exchange.send_head(200, b"", [(b"x-%d" % n, b"y" * 8000) for n in range(7)], True)

    return _visited(at, answer, at.many(50))


def no_answers(at):
    """Requests that are never answered."""

    async def answer(exchange):
        with contextlib.suppress(Abandoned):
            await exchange.read_body()
            await asyncio.sleep(60)

    return _visited(at, answer, at.many(200))
