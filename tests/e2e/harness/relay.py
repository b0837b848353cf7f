"""A relay in front of a daemon, TCP and UDP on one port. It can drop UDP datagrams."""

import asyncio
import contextlib

from .loop import Loop

ANY = lambda packet: True  # noqa: E731
# 1-RTT packets (RFC 9000, section 17.3), which follow a handshake.
SHORT = lambda packet: not packet[0] & 0x80  # noqa: E731


class Relay(Loop):
    """Drops the datagrams for which `drops` is true, in both directions. TCP always passes."""

    def __init__(self, port):
        self.upstream = ("127.0.0.1", port)
        self.drops = None
        self.dropped = self.passed = self.tcp_connections = 0
        super().__init__()
        self.call(self._start())

    def stop(self):
        self.call(self._stop())
        self.end()

    async def _start(self):
        while True:
            self.tcp = await asyncio.start_server(self._pipe, "127.0.0.1", 0)
            self.port = self.tcp.sockets[0].getsockname()[1]
            try:
                self.udp, _ = await self.loop.create_datagram_endpoint(
                    lambda: Front(self), local_addr=("127.0.0.1", self.port)
                )
                break
            except OSError:  # the port is free for TCP only
                self.tcp.close()
        self.address = f"127.0.0.1:{self.port}"

    async def _stop(self):
        self.udp.close()
        self.tcp.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pipe(self, reader, writer):
        self.tcp_connections += 1
        with contextlib.suppress(OSError):
            up_reader, up_writer = await asyncio.open_connection(*self.upstream)
            await asyncio.gather(self._copy(reader, up_writer), self._copy(up_reader, writer))

    @staticmethod
    async def _copy(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    def _passes(self, packet):
        if self.drops and self.drops(packet):
            self.dropped += 1
            return False
        self.passed += 1
        return True


class Front(asyncio.DatagramProtocol):
    """The side of the clients. Each client address gets its own socket towards the daemon."""

    def __init__(self, relay):
        self.relay, self.backs = relay, {}

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, client):
        if self.relay._passes(data):
            if client not in self.backs:
                self.backs[client] = self.relay.loop.create_task(self._open(client))
            self.backs[client].add_done_callback(lambda back: back.cancelled() or back.result().sendto(data))

    async def _open(self, client):
        protocol = Back(self, client)
        transport, _ = await self.relay.loop.create_datagram_endpoint(lambda: protocol, remote_addr=self.relay.upstream)
        return transport

    def connection_lost(self, _error):
        for back in self.backs.values():
            if back.done():
                back.result().close()


class Back(asyncio.DatagramProtocol):
    """The side of the daemon, for one client."""

    def __init__(self, front, client):
        self.front, self.client = front, client

    def datagram_received(self, data, _daemon):
        if self.front.relay._passes(data):
            self.front.transport.sendto(data, self.client)
