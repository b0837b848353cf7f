"""WebSocket visitors: over HTTP/1.1 with the websockets library, over HTTP/2 with wsproto.

The websockets library runs on its own asyncio loop. Its threaded API reads and writes one TLS connection from two
threads at once, which crashes Python's ssl module before 3.13."""

import asyncio
import threading

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage

from .http2 import Http2


class WebSocket:
    """One connection, used from one thread."""

    def __init__(self, daemon, name, path, **options):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        try:
            self.socket = self.call(self._connect(daemon, name, path, options))
        except BaseException:
            self._stop()
            raise

    async def _connect(self, daemon, name, path, options):
        plain = daemon.connect()
        plain.setblocking(False)
        url = daemon.url(name, path).replace("https", "wss", 1)
        options = {"compression": None, "max_size": None, "close_timeout": 5, **options}
        return await connect(url, sock=plain, ssl=daemon.tls(), **options)

    def call(self, coroutine, deadline=60):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(deadline)

    def send(self, message):
        self.call(self.socket.send(message))

    def recv(self):
        return self.call(self.socket.recv())

    def recv_parts(self):
        """Returns the fragments of one message."""

        async def parts():
            return [part async for part in self.socket.recv_streaming()]

        return self.call(parts())

    def ping(self):
        """Sends a ping and waits for its pong."""

        async def there_and_back():
            await (await self.socket.ping())

        self.call(there_and_back())

    def close(self, code=1000, reason=""):
        self.call(self.socket.close(code, reason))

    def vanish(self):
        """Ends the TCP connection without a closing handshake."""
        self.loop.call_soon_threadsafe(self.socket.transport.abort)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        self._stop()

    def _stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)


class Chat:
    """A WebSocket in one stream of an HTTP/2 connection."""

    def __init__(self, visitor):
        self.stream = visitor.request(
            "/chat", method="CONNECT", protocol="websocket", end=False, extra=[("sec-websocket-version", "13")]
        )
        self.response = self.stream.response()
        self.protocol = Connection(ConnectionType.CLIENT)

    def send(self, *events):
        for event in events:
            self.stream.send(self.protocol.send(event))

    def receive(self):
        """Returns the next event. The parts of a message are joined."""
        parts = []
        while True:
            for event in self.protocol.events():
                if not isinstance(event, (TextMessage, BytesMessage)):
                    return event
                parts.append(event.data)
                if event.message_finished:
                    return type(event)(data=type(parts[0])().join(map(type(parts[0]), parts)))
            self.stream.wait(lambda: self.stream.data or self.stream.ended)
            self.protocol.receive_data(self.stream.read(len(self.stream.data)) if self.stream.data else None)


class OverHttp1:
    """A WebSocket's visitor over HTTP/1.1."""

    def __init__(self, client):
        self.socket = WebSocket(client.daemon, client.name, "/")

    def send(self, text):
        self.socket.send(text)

    def recv(self):
        return self.socket.recv()

    def until_closed(self):
        """Returns the lengths of the messages up to the Close frame, and that frame. The library answers it."""
        lengths = []
        while True:
            try:
                lengths.append(len(self.recv()))
            except ConnectionClosed as closed:
                assert closed.rcvd_then_sent
                return lengths, (closed.rcvd.code, closed.rcvd.reason)

    def leave(self):
        self.socket.__exit__()


class OverHttp2:
    """A WebSocket's visitor in a stream of an HTTP/2 connection."""

    def __init__(self, client):
        self.visitor = Http2(client.daemon, client.name)
        self.chat = Chat(self.visitor)
        assert self.chat.response[b":status"] == b"200"

    def send(self, text):
        self.chat.send(TextMessage(text))

    def recv(self):
        return self.chat.receive().data

    def until_closed(self):
        lengths = []
        while not isinstance(event := self.chat.receive(), CloseConnection):
            lengths.append(len(event.data))
        self.chat.send(event.response())
        # Only the end of the stream follows the Close frame.
        self.chat.stream.wait(lambda: self.chat.stream.ended or self.chat.stream.reset is not None)
        assert self.chat.stream.ended and not self.chat.stream.data
        self.chat.stream.send(b"", end=True)
        return lengths, (event.code, event.reason)

    def leave(self):
        self.visitor.socket.close()
