"""Ways to a daemon for visitors that have no options for its address or its authority."""

import asyncio
import contextlib
import re
import socket
import threading

from . import raw
from .loop import Loop


class Forward:
    """A forward proxy. Answers CONNECT for any name with a connection to `daemon`. `url` is for HTTPS_PROXY."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[near], daemon=True).start()

    def _serve(self, near):
        if not raw.read_head(near).startswith(b"CONNECT "):
            near.close()
            return
        far = self.daemon.connect()
        far.settimeout(None)
        near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=pump, args=[far, near], daemon=True).start()
        pump(near, far)

    def stop(self):
        self.listener.close()


def pump(source, sink):
    """Copies bytes up to their end, and then ends the sink's."""
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            end.close()


class Door(Loop):
    """Takes plain connections to a tunnel, over TLS and with the tunnel's host. `port` is its port on 127.0.0.1."""

    def __init__(self, client):
        super().__init__()
        self.daemon, self.host = client.daemon, client.host
        self.server = self.call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, near, near_out):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await near.readuntil(b"\r\n\r\n")
            far, far_out = await asyncio.open_connection(
                self.daemon.address, self.daemon.port, ssl=self.daemon.tls("http/1.1"), server_hostname=self.host
            )
            far_out.write(re.sub(rb"(?i)\r\nhost:[^\r]*", b"\r\nHost: " + self.host.encode(), head, count=1))
            await asyncio.gather(self._copy(near, far_out), self._copy(far, near_out))

    @staticmethod
    async def _copy(source, sink):
        """Copies bytes up to their end. TLS has no half-close here, so the end closes both directions."""
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()

    def stop(self):
        self.loop.call_soon_threadsafe(self.server.close)
        self.end()
