"""A session and its tunnels: sections 6 and 7. The transports have the rest."""

import asyncio
import itertools
import json

from .exchange import Exchange
from .service import forward
from .wire import (
    BIND, BOUND, CONNECT, CONNECT_ACK, DRAIN, END, ERROR, PING, PONG, REFUSED, SKIPPED, UNBIND, UNPROCESSED, WINDOW,
    Request, encode, encode_json,
)


class Refused(Exception):
    """The daemon refused the session or a tunnel. `code` says why."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.code, self.retryable = error["code"], error["retryable"]


class Session:
    """What both transports have in common. `targets` are hosts and ports of services, by tunnel id, or coroutine
    functions that answer exchanges."""

    credit = WINDOW

    def __init__(self):
        self.targets, self.exchanges = {}, {}
        self.ack, self.answers, self.unbound = None, {}, asyncio.Queue()
        self.tunnels = itertools.count(1)
        self.ended = asyncio.get_running_loop().create_future()

    async def connect(self, key, instance, target=None, **members):
        """Asks for a session; without a target, it has no first tunnel."""
        self.ack = asyncio.get_running_loop().create_future()
        self.targets = {0: target} if target else {}
        self.send_control(encode_json(CONNECT, {"key": key, "instance": instance, "tunnel": bool(target), **members}))
        self.ack = await asyncio.wait_for(self.ack, 10)
        self.credit = self.ack.get("initial_window", WINDOW)
        return self.ack

    async def bind(self, target, **members):
        """Asks for a further tunnel. Returns its id and its Bound."""
        number = next(self.tunnels)
        self.targets[number] = target
        self.answers[number] = asyncio.get_running_loop().create_future()
        self.send_control(encode_json(BIND, members, number))
        return number, await self.answers[number]

    def unbind(self, number, deadline_ms=0):
        self.targets.pop(number, None)
        self.send_control(encode_json(UNBIND, {"reason": "closed", "deadline_ms": deadline_ms}, number))

    def control_received(self, kind, payload):
        """A frame that belongs to the session or to a tunnel."""
        if kind == PING:
            self.send_control(encode(PONG, payload))
        elif kind == CONNECT_ACK:
            self.ack.set_result(json.loads(payload))
        elif kind == ERROR:
            self.end(Refused(json.loads(payload)))
        elif kind in (BOUND, REFUSED, UNBIND):
            number, message = int.from_bytes(payload[:4], "big"), json.loads(payload[4:])
            if kind == UNBIND:
                self.targets.pop(number, None)
                self.unbound.put_nowait((number, message))
            elif kind == BOUND:
                self.answers.pop(number).set_result(message)
            else:
                self.targets.pop(number, None)
                self.answers.pop(number).set_exception(Refused(message))
        elif kind not in (PONG, DRAIN) and kind not in SKIPPED:
            raise AssertionError(f"frame of type {kind:#x}")

    def opened(self, number, payload, end):
        """A request has come."""
        exchange = self.exchanges[number] = Exchange(self, number, Request(payload), end)
        target = self.targets.get(exchange.request.tunnel)
        if target is None:
            exchange.reset(UNPROCESSED)
        else:
            answer = target(exchange) if callable(target) else forward(exchange, *target)
            exchange.task = asyncio.create_task(answer)
        return exchange

    def end(self, reason):
        """Nothing more comes: all that wait get the reason."""
        waiting = [self.ended, *self.answers.values()] + [self.ack] * isinstance(self.ack, asyncio.Future)
        for future in waiting:
            if not future.done():
                future.set_exception(reason)
                future.exception()  # It may be that no task looks at it.
        for exchange in self.exchanges.values():
            exchange.abandon()
