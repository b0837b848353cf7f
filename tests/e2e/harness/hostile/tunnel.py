"""Attacks by clients: with wrong keys, and with a right one of their own."""

import contextlib
import json
import struct
import threading
import time

from websockets.exceptions import WebSocketException

from harness.websocket import WebSocket

from .outcome import Outcome

CONNECT, ACK, DRAIN, BIND, UNBIND, WINDOW, PING, PONG = 1, 2, 3, 4, 7, 0x15, 0xF0, 0xF1
FLOOD = 4


def frame(kind, payload=b"", flags=0):
    return struct.pack(">BBBI", 1, kind, flags, len(payload)) + payload


def connect(key, **members):
    return frame(CONNECT, json.dumps({"key": key, "instance": "attacker", **members}).encode())


def _dial(at):
    return WebSocket(at, "", "/_cok/tunnel", subprotocols=["cok.v1"])


def wrong_keys(at):
    """Wrong keys, one after another, from eight threads."""
    began, sent, refused = time.monotonic(), 0, 0

    def one():
        nonlocal sent, refused
        while time.monotonic() < began + 3:
            with contextlib.suppress(WebSocketException, OSError, TimeoutError), _closing(_dial(at)) as session:
                data = connect("cok_wrongwrongwr_" + "x" * 43)
                sent += len(data)
                session.send(data)
                session.recv()
                refused += 1

    threads = [threading.Thread(target=one, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, began + 3.5 - time.monotonic()))
    return Outcome(sent, refused, 0, None, f"{refused} keys refused in 3 s")


@contextlib.contextmanager
def _closing(session):
    try:
        yield session
    finally:
        with contextlib.suppress(Exception):
            session.__exit__(None, None, None)


def _flood(at, piece, raw=None):
    session = _dial(at)
    with _closing(session):
        session.send(connect(at.key, subdomain="attacker"))
        session.recv()
        began, sent = time.monotonic(), 0
        said = "went on"
        try:
            while time.monotonic() < began + FLOOD:
                if raw:
                    session.call(raw(session.socket))
                else:
                    session.send(piece)
                sent += len(piece)
        except Exception as error:  # noqa: BLE001 - whatever ends it
            said = f"{type(error).__name__}: {error}"[:100]
        ended = None if said == "went on" else time.monotonic() - began
        return Outcome(sent, 1, 0, ended, said)


def pings(at):
    return _flood(at, frame(PING, bytes(8)) * 500)


def pongs(at):
    return _flood(at, frame(PONG, bytes(8)) * 500)


def drains(at):
    return _flood(at, frame(DRAIN, b'{"reason":"shutdown","deadline_ms":60000}') * 100)


def empty_messages(at):
    async def raw(socket):
        for _ in range(500):
            await socket.send(b"")

    return _flood(at, bytes(3000), raw)


def websocket_pings(at):
    async def raw(socket):
        for _ in range(500):
            await socket.ping()

    return _flood(at, bytes(6000), raw)


def names(at):
    """Names that are bound and left again, as many as go."""
    session = _dial(at)
    count = 0
    with _closing(session):
        session.send(connect(at.key, tunnel=False))
        session.recv()
        began, said = time.monotonic(), "went on"
        try:
            while time.monotonic() < began + FLOOD:
                count += 1
                number = struct.pack(">I", count)
                session.send(frame(BIND, number + json.dumps({"subdomain": f"spare-{count}"}).encode()))
                session.recv()
                session.send(frame(UNBIND, number + b'{"reason":"closed"}'))
        except Exception as error:  # noqa: BLE001 - whatever ends it
            said = f"{type(error).__name__}: {error}"[:100]
    return Outcome(100 * count, 1, 0, None, f"{count} names, {said}")
