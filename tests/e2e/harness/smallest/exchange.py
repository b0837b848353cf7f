"""Exchanges: sections 8 and 9."""

import asyncio
import struct

from .wire import (
    CANCELLED, DATA, END, MOST_BODY, RESET, RESPONSE, TRAILERS, WINDOW, encode, encode_fields, encode_response,
)

# Where the request's body broke off.
BREAK = object()


class Abandoned(Exception):
    """The exchange was reset, or its session has ended."""


class Exchange:
    """One request and its response. `carrier` sends frames."""

    def __init__(self, carrier, number, request, end):
        self.carrier, self.number, self.request = carrier, number, request
        self.body = asyncio.Queue()
        self.request_ended, self.response_ended, self.abandoned = end, False, False
        self.final_head_sent = False
        if end:
            self.body.put_nowait(None)
        self.credit, self.to_return = carrier.credit, 0
        self.more_credit = asyncio.Event()
        self.task = None

    @property
    def over(self):
        return self.abandoned or self.request_ended and self.response_ended

    def received(self, kind, flags, payload):
        """A frame of the request's direction; its id is taken off."""
        if kind == DATA and payload:
            self.body.put_nowait(payload)
        if kind == TRAILERS or flags & END:
            self.request_ended = True
            self.body.put_nowait(BREAK if kind == RESET else None)

    def abandon(self):
        """The peer does not want it any more: its connection to the service is closed."""
        self.abandoned = True
        if self.task:
            self.task.cancel()

    async def read(self):
        """The next bytes of the request's body. None at its end. Where it breaks off, the exchange ends."""
        part = await self.body.get()
        if part is BREAK:
            self.reset(CANCELLED)
            raise Abandoned
        if part is not None:
            self.to_return += len(part)
            if self.to_return >= WINDOW // 2 and not self.request_ended:
                self.carrier.return_credit(self.number, self.to_return)
                self.to_return = 0
        return part

    def send_head(self, status, reason, fields, end=False):
        self._send(RESPONSE, encode_response(status, reason, fields), end)
        self.final_head_sent = status >= 200

    async def send_body(self, data):
        while data:
            while self.credit == 0:
                self.more_credit.clear()
                await self.more_credit.wait()
            part, data = data[: min(MOST_BODY, self.credit)], data[min(MOST_BODY, self.credit) :]
            self.credit -= len(part)
            self._send(DATA, part)

    def send_trailers(self, fields):
        self._send(TRAILERS, encode_fields(fields), True)

    def end(self):
        self._send(DATA, b"", True)

    def _send(self, kind, payload, end=False):
        if self.abandoned:
            raise Abandoned
        self.carrier.send_part(self.number, encode(kind, struct.pack(">I", self.number) + payload, END * end), end)
        self.response_ended = end

    def break_off(self, code):
        """The service has failed: what was sent of its response goes out first."""
        if not self.final_head_sent:
            self.reset(code)
        elif not self.abandoned:
            self._send(RESET, struct.pack(">I", code), True)
            self.stop_upload()

    def reset(self, code):
        if not self.over:
            self.abandoned = True
            self.carrier.send_reset(self.number, code)

    def stop_upload(self):
        """The response is out, and nothing more of the request's body is wanted."""
        if not self.request_ended and not self.abandoned:
            self.request_ended = True
            self.carrier.send_no_error(self.number)
