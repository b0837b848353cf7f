"""A session over QUIC: section 17."""

import asyncio
import struct

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamDataReceived, StreamReset

from .session import Session
from .wire import END, NO_ERROR, REQUEST, SKIPPED, WINDOW_UPDATE, decode, encode

IDLE = 30


class OverQuic(Session):
    """Control frames on the client's first stream, and a stream of the daemon's for each exchange."""

    @classmethod
    async def open(cls, address, host, ca):
        session = cls()
        configuration = QuicConfiguration(alpn_protocols=["cok/1"], server_name=host, idle_timeout=IDLE)
        configuration.load_verify_locations(cafile=ca)
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
        early, self.early = self.early, None
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
            if stream == self.control and kind == WINDOW_UPDATE:
                number, increment = struct.unpack(">II", payload)
                # Without the exchange, it has crossed the end.
                if exchange := self.exchanges.get(self._stream(number)):
                    exchange.credit += increment
                    exchange.more_credit.set()
            elif stream == self.control:
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

    def return_credit(self, number, increment):
        self.send_control(encode(WINDOW_UPDATE, struct.pack(">II", number, increment)))

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
