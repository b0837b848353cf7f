"""A session over WebSocket: section 2, credit of section 9, order of section 10, liveness of section 11."""

import asyncio
import itertools
import socket
import ssl
import struct

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from .session import Session
from .wire import END, NO_ERROR, PING, REQUEST, RESET, WINDOW_UPDATE, decode, encode

SILENCE, DEAD = 15, 30


class OverWebSocket(Session):
    """All frames through one pipe. What waits goes out in the order of section 10."""

    @classmethod
    async def open(cls, address, host, ca):
        session, tls = cls(), ssl.create_default_context(cafile=ca)
        plain = socket.create_connection(address, 10)
        plain.setblocking(False)
        session.socket = await connect(
            f"wss://{host}:{address[1]}/_cok/tunnel", sock=plain, ssl=tls, server_hostname=host,
            subprotocols=["cok.v1"], compression=None, max_size=128 * 1024, ping_interval=None,
        )
        assert session.socket.subprotocol == "cok.v1"
        session.waiting, session.order = asyncio.PriorityQueue(), itertools.count()
        session.tasks = [asyncio.create_task(session._write()), asyncio.create_task(session._read())]
        return session

    async def _write(self):
        while True:
            await self.socket.send((await self.waiting.get())[2])

    async def _read(self):
        try:
            while True:
                try:
                    message = await asyncio.wait_for(self.socket.recv(), SILENCE)
                except TimeoutError:
                    self.send_control(encode(PING, bytes(8)))
                    message = await asyncio.wait_for(self.socket.recv(), DEAD - SILENCE)
                buffer = bytearray(message)
                for kind, flags, payload in decode(buffer):
                    self._received(kind, flags, payload)
                assert not buffer, "the message ends within a frame"
        except (ConnectionClosed, TimeoutError) as reason:
            self.end(reason)

    def _received(self, kind, flags, payload):
        if not REQUEST <= kind <= WINDOW_UPDATE:
            return self.control_received(kind, payload)
        number, payload = int.from_bytes(payload[:4], "big"), payload[4:]
        if kind == REQUEST:
            self.exchanges = {old: exchange for old, exchange in self.exchanges.items() if not exchange.over}
            return self.opened(number, payload, bool(flags & END))
        exchange = self.exchanges.get(number)
        if exchange is None or exchange.over:
            return None  # It has crossed the end.
        if kind == RESET and not flags & END:
            return exchange.abandon()
        if kind == WINDOW_UPDATE:
            exchange.credit += int.from_bytes(payload, "big")
            return exchange.more_credit.set()
        return exchange.received(kind, flags, payload)

    def _queue(self, priority, frame):
        self.waiting.put_nowait((priority, next(self.order), frame))

    def send_control(self, frame):
        self._queue(0, frame)

    def send_part(self, _number, frame, _end):
        self._queue(2, frame)

    def send_reset(self, number, code):
        self._queue(1, encode(RESET, struct.pack(">II", number, code)))

    def send_no_error(self, number):
        # Behind the response: nothing of that is dropped.
        self._queue(2, encode(RESET, struct.pack(">II", number, NO_ERROR)))

    def return_credit(self, number, increment):
        self._queue(1, encode(WINDOW_UPDATE, struct.pack(">II", number, increment)))

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await self.socket.close()
        self.end(EOFError())
