"""The smallest client, written from proto/PROTOCOL.md alone: section 16 over WebSocket and QUIC, with further tunnels.

It shares no code with cok-client. A reader who wants to write a client in another language can follow it."""

import asyncio
import itertools
import json
import socket
import ssl
import struct

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamDataReceived, StreamReset
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

# Section 3: types of frames.
CONNECT, CONNECT_ACK, DRAIN, BIND, BOUND, REFUSED, UNBIND = 1, 2, 3, 4, 5, 6, 7
REQUEST, RESPONSE, DATA, TRAILERS, RESET, WINDOW_UPDATE = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15
PING, PONG, ERROR = 0xF0, 0xF1, 0xFF
END = 0x01
SKIPPED = range(0x80, 0xF0)

# Section 8: codes of Reset.
NO_ERROR, CANCELLED, UNPROCESSED, LOCAL_REFUSED, LOCAL_TIMEOUT, LOCAL_BROKEN = range(6)

WINDOW = 262144
MOST_BODY = 16373
SILENCE, DEAD = 15, 30


class Refused(Exception):
    """The daemon refused the session or a tunnel. `code` says why."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.code, self.retryable = error["code"], error["retryable"]


class Abandoned(Exception):
    """The exchange was reset, or its session has ended."""


# ---- frames and heads, sections 3 to 5 ----


def encode(kind, payload=b"", flags=0):
    return struct.pack(">BBBI", 1, kind, flags, len(payload)) + payload


def encode_json(kind, message, tunnel=None):
    number = b"" if tunnel is None else struct.pack(">I", tunnel)
    return encode(kind, number + json.dumps(message).encode())


def decode(buffer):
    """Takes whole frames off a bytearray: type, flags and payload of each."""
    while len(buffer) >= 7:
        version, kind, flags, length = struct.unpack_from(">BBBI", buffer)
        assert version == 1, version
        if len(buffer) < 7 + length:
            return
        payload = bytes(buffer[7 : 7 + length])
        del buffer[: 7 + length]
        yield kind, flags, payload


class Reader:
    """Reads the parts of a payload in order."""

    def __init__(self, payload):
        self.payload, self.at = payload, 0

    def take(self, length):
        part = self.payload[self.at : self.at + length]
        assert len(part) == length, "the payload ends too early"
        self.at += length
        return part

    def number(self, length):
        return int.from_bytes(self.take(length), "big")

    def fields(self):
        return [(self.take(self.number(2)), self.take(self.number(2))) for _ in range(self.number(2))]


def encode_fields(fields):
    parts = [struct.pack(">H", len(fields))]
    for part in itertools.chain.from_iterable(fields):
        parts.append(struct.pack(">H", len(part)) + part)
    return b"".join(parts)


def encode_response(status, reason, fields, microseconds=0):
    """A response head. This client does not measure the time to its first byte."""
    return struct.pack(">HIB", status, microseconds, len(reason)) + reason + encode_fields(fields)


class Request:
    """A request head, behind the id of its exchange."""

    def __init__(self, payload):
        reader = Reader(payload)
        self.tunnel = reader.number(4)
        self.method = reader.take(reader.number(1))
        self.target = reader.take(reader.number(2))
        self.scheme = ("http", "https")[reader.number(1)]
        self.authority = reader.take(reader.number(2))
        self.fields = reader.fields()
        assert reader.at == len(payload), "bytes behind the last field"


# ---- exchanges, sections 8 and 9 ----


class Exchange:
    """One request and its response. `carrier` sends frames and counts credit, or leaves that to QUIC."""

    def __init__(self, carrier, number, request, end):
        self.carrier, self.number, self.request = carrier, number, request
        self.body = asyncio.Queue()
        self.request_ended, self.response_ended, self.abandoned = end, False, False
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
            self.body.put_nowait(None)

    def abandon(self):
        """The peer does not want it any more: its connection to the service is closed."""
        self.abandoned = True
        if self.task:
            self.task.cancel()

    async def read(self):
        """The next bytes of the request's body. None at its end."""
        part = await self.body.get()
        if part is not None:
            self.to_return += len(part)
            if self.to_return >= WINDOW // 2 and not self.request_ended:
                self.carrier.return_credit(self.number, self.to_return)
                self.to_return = 0
        return part

    def send_head(self, status, reason, fields, end=False):
        self._send(RESPONSE, encode_response(status, reason, fields), end)

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

    def reset(self, code):
        if not self.over:
            self.abandoned = True
            self.carrier.send_reset(self.number, code)

    def stop_upload(self):
        """The response is out, and nothing more of the request's body is wanted."""
        if not self.request_ended and not self.abandoned:
            self.request_ended = True
            self.carrier.send_no_error(self.number)


# ---- the service, section 13 ----

HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"te", b"upgrade"}


async def forward(exchange, host, port):
    """Forwards a request to the service, over a connection of its own."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return exchange.reset(LOCAL_REFUSED)
    upload = asyncio.create_task(send_request(exchange, writer))
    try:
        await send_response(exchange, reader)
        exchange.stop_upload()
    except Abandoned:
        pass
    except (OSError, ValueError, EOFError):
        exchange.reset(LOCAL_BROKEN)
    finally:
        upload.cancel()
        writer.close()


async def send_request(exchange, writer):
    request = exchange.request
    # An upgrade is declined: the service does not see that it was asked for.
    fields = [(name, value) for name, value in request.fields if name not in HOP_BY_HOP]
    names = {name for name, _ in fields}
    chunked = not exchange.request_ended and b"content-length" not in names
    fields += [(b"host", request.authority), (b"connection", b"close")] + [(b"transfer-encoding", b"chunked")] * chunked
    lines = [request.method + b" " + request.target + b" HTTP/1.1"] + [name + b": " + value for name, value in fields]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
    try:
        while (part := await exchange.read()) is not None:
            writer.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
    except OSError:
        pass  # The service may answer without the rest.


async def read_fields(reader):
    fields = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip()))
    return fields


async def send_response(exchange, reader):
    while True:
        version, status, reason = ((await reader.readuntil(b"\r\n")).strip() + b"  ").split(b" ", 2)
        if not version.startswith(b"HTTP/1."):
            raise ValueError(version)
        status, fields = int(status), await read_fields(reader)
        kept = [(name, value) for name, value in fields if name not in HOP_BY_HOP]
        if status >= 200:
            break
        exchange.send_head(status, b"", kept)
    fields = dict(fields)
    bodiless = exchange.request.method == b"HEAD" or status in (204, 304)
    exchange.send_head(status, reason.strip(), kept, bodiless)
    if bodiless:
        return
    if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
        while length := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await exchange.send_body(await reader.readexactly(length))
            await reader.readexactly(2)
        if trailers := await read_fields(reader):
            return exchange.send_trailers(trailers)
    else:
        left = int(fields[b"content-length"]) if b"content-length" in fields else None
        while left != 0:
            part = await reader.read(65536 if left is None else min(left, 65536))
            if not part and left:
                raise EOFError
            if not part:
                break
            left = left if left is None else left - len(part)
            await exchange.send_body(part)
    exchange.end()


# ---- a session, sections 6 and 7 ----


class Session:
    """What both transports have in common. `targets` are hosts and ports of services, by tunnel id."""

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
            exchange.task = asyncio.create_task(forward(exchange, *target))
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


# ---- WebSocket, section 2 ----


class OverWebSocket(Session):
    """All frames through one pipe. What waits goes out in the order of section 10."""

    @classmethod
    async def open(cls, address, host, tls):
        session = cls()
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
        if kind == RESET:
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


# ---- QUIC, section 17 ----


class Unlimited(int):
    """QUIC keeps the credit, and aioquic keeps what the credit does not allow yet."""

    def __new__(cls):
        return super().__new__(cls, 1 << 62)

    def __sub__(self, _other):
        return self


class OverQuic(Session):
    """Control frames on the client's first stream, and a stream of the daemon's for each exchange."""

    credit = Unlimited()

    @classmethod
    async def open(cls, address, host, tls_file):
        session = cls()
        configuration = QuicConfiguration(alpn_protocols=["cok/1"], server_name=host, idle_timeout=DEAD)
        configuration.load_verify_locations(cafile=tls_file)
        loop = asyncio.get_running_loop()
        _, session.protocol = await loop.create_datagram_endpoint(
            lambda: Streams(session, QuicConnection(configuration=configuration)), local_addr=("127.0.0.1", 0)
        )
        session.quic, session.buffers = session.protocol._quic, {}
        session.protocol.connect(address)
        await asyncio.wait_for(session.protocol.wait_connected(), 10)
        session.control = session.quic.get_next_available_stream_id()
        session.early = []
        session.tasks = [asyncio.create_task(session._show_life())]
        return session

    async def connect(self, *arguments, **members):
        ack = await super().connect(*arguments, **members)
        self.credit, early, self.early = Unlimited(), self.early, None
        for stream in early:
            self._frames(stream)
        return ack

    async def _show_life(self):
        while True:
            await asyncio.sleep(5)
            await self.protocol.ping()

    def received(self, stream, data, fin):
        buffer = self.buffers.setdefault(stream, bytearray())
        buffer += data
        if stream != self.control and self.early is not None:
            self.early.append(stream)  # It has overtaken ConnectAck.
            return
        self._frames(stream)
        exchange = self.exchanges.get(stream)
        if fin and exchange and not exchange.request_ended:
            exchange.abandon()  # FIN without END.

    def _frames(self, stream):
        for kind, flags, payload in decode(self.buffers[stream]):
            if stream == self.control:
                self.control_received(kind, payload)
            elif kind not in SKIPPED:
                number, payload = int.from_bytes(payload[:4], "big"), payload[4:]
                assert number == stream // 4 + 1, "the id is the number of the stream"
                if kind == REQUEST:
                    self.opened(number, payload, bool(flags & END))
                    self.exchanges[stream] = self.exchanges.pop(number)
                else:
                    self.exchanges[stream].received(kind, flags, payload)

    @staticmethod
    def _stream(number):
        return 4 * (number - 1) + 1

    def send_control(self, frame):
        self.quic.send_stream_data(self.control, frame)
        self.protocol.transmit()

    def send_part(self, number, frame, end):
        self.quic.send_stream_data(self._stream(number), frame, end)
        self.protocol.transmit()

    def send_reset(self, number, code):
        self.quic.reset_stream(self._stream(number), code)
        self.send_no_error(number, code)

    def send_no_error(self, number, code=NO_ERROR):
        self.quic.stop_stream(self._stream(number), code)
        self.protocol.transmit()

    def return_credit(self, _number, _increment):
        pass

    async def close(self):
        for task in self.tasks:
            task.cancel()
        self.protocol.close()
        await self.protocol.wait_closed()
        self.end(EOFError())


class Streams(QuicConnectionProtocol):
    """Hands the events of a QUIC connection to its session."""

    def __init__(self, session, quic):
        super().__init__(quic)
        self.session = session

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self.session.received(event.stream_id, event.data, event.end_stream)
        elif isinstance(event, (StreamReset, StopSendingReceived)):
            if exchange := self.session.exchanges.get(event.stream_id):
                exchange.abandon()
        elif isinstance(event, ConnectionTerminated):
            self.session.end(ConnectionError(event.reason_phrase or event.error_code))


async def open_session(transport, address, host, ca):
    """Connects to a daemon over `ws` or `quic`, without asking for a session yet."""
    if transport == "quic":
        return await OverQuic.open(address, host, str(ca))
    return await OverWebSocket.open(address, host, ssl.create_default_context(cafile=str(ca)))
