"""Services with aiohttp and websockets, in one event loop on their own thread."""

import asyncio
import hashlib

from aiohttp import web
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from .loop import Loop

# The length of each message in a WebSocket's flood.
FLOOD = 1 << 20


class Services(Loop):
    """`web` is an aiohttp service, `ws` an echoing WebSocket service; both are targets for a tunnel."""

    def __init__(self):
        super().__init__()
        self.confirmed = {}
        self.open_streams = self.swallowed = 0
        self.call(self._start())

    def stop(self):
        self.call(self._stop())
        self.end()

    async def _start(self):
        app = web.Application(client_max_size=1 << 40, handler_args={"max_field_size": 65536, "max_line_size": 65536})
        app.router.add_route("*", "/echo", self._echo)
        app.router.add_route("*", "/hash", self._hash)
        app.router.add_get("/cookies", self._cookies)
        app.router.add_get("/steps/{stream}/{count}", self._steps)
        app.router.add_get("/endless", self._endless)
        app.router.add_get("/news", self._news)
        app.router.add_route("*", "/swallow", self._swallow)
        app.router.add_post("/refuse", self._refuse)
        app.router.add_route("*", "/silent", self._silent)
        self.runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        self.web = f"http://127.0.0.1:{self.port}"
        self.ws_server = await serve(
            self._ws, "127.0.0.1", 0, max_size=64 << 20,
            select_subprotocol=lambda _, offered: "chat.v2" if "chat.v2" in offered else None,
        )
        self.ws = f"http://127.0.0.1:{self.ws_server.sockets[0].getsockname()[1]}"
        self.ws_closed = []
        self.uploads = []

    async def _stop(self):
        await self.runner.cleanup()
        self.ws_server.close()
        await self.ws_server.wait_closed()

    async def _echo(self, request):
        """Streams the body back as it arrives."""
        response = web.StreamResponse(headers={"content-type": "application/octet-stream"})
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk)
        return response

    async def _hash(self, request):
        digest, length = hashlib.sha256(), 0
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            length += len(chunk)
        return web.json_response({"sha256": digest.hexdigest(), "length": length})

    async def _swallow(self, request):
        """Records in `uploads` the number of bytes, and whether the body was complete."""
        length, whole = 0, False
        try:
            async for chunk in request.content.iter_any():
                length += len(chunk)
                self.swallowed = length
            whole = True
            return web.Response()
        finally:
            self.uploads.append((length, whole))

    async def _cookies(self, _request):
        response = web.Response(text="ok")
        for number in range(3):
            response.set_cookie(f"c{number}", str(number))
        return response

    async def _steps(self, request):
        """Writes event n+1 only after the visitor has confirmed n, which it does outside the tunnel."""
        stream, count = request.match_info["stream"], int(request.match_info["count"])
        confirmed = self.confirmed[stream] = asyncio.Queue()
        response = web.StreamResponse(headers={"content-type": request.query.get("type", "text/event-stream")})
        await response.prepare(request)
        for number in range(count):
            await response.write(f"data: {number}\n\n".encode())
            assert await confirmed.get() == number
        return response

    def confirm(self, stream, number):
        self.loop.call_soon_threadsafe(self.confirmed[stream].put_nowait, number)

    async def _endless(self, request):
        """Writes bytes as fast as the visitor reads, until it leaves."""
        await self._flood(request, web.StreamResponse(), bytes(65536))

    async def _news(self, request):
        """Writes events as fast as the visitor reads, until it leaves."""
        response = web.StreamResponse(headers={"content-type": "Text/Event-Stream; charset=utf-8"})
        await self._flood(request, response, b"data: now\n\n" * 5000)

    async def _flood(self, request, response, piece):
        await response.prepare(request)
        self.open_streams += 1
        try:
            while True:
                await response.write(piece)
        finally:
            self.open_streams -= 1

    async def _refuse(self, _request):
        """Answers without reading the body."""
        return web.Response(status=413, text="no")

    async def _silent(self, _request):
        """Never answers."""
        self.open_streams += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.open_streams -= 1

    async def _ws(self, connection):
        """Echoes messages. Five words are commands."""
        try:
            async for message in connection:
                match message:
                    case "close":
                        await connection.close(4321, "as you wish")
                    case "fragments":
                        await connection.send(iter(["in ", "three ", "parts"]))
                    case "ping":
                        # The answer waits for the visitor's pong.
                        await (await connection.ping(b"from the service"))
                        await connection.send("ponged")
                    case "traceparent":
                        await connection.send(connection.request.headers[message])
                    case "flood":
                        while True:
                            await connection.send(bytes(FLOOD))
                    case _:
                        await connection.send(message)
        except ConnectionClosed:
            pass  # closed by a code other than 1000 and 1001
        self.ws_closed.append((connection.close_code, connection.close_reason))
