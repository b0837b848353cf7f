"""A steady load by visitors of every kind, and the service behind it."""

import asyncio
import itertools
import random
import socket
import ssl
import sys
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web
from aioquic.h3.connection import ErrorCode

from .http3 import Http3
from .loop import Loop
from .process import Process, wait_for

# What takes a second does so by its pauses: they are the load, and nothing waits for them.
PIECES, PIECE, PAUSE = 10, b"x" * 1000, 0.1
# How many connections a browser has to one name.
BROWSER = 6
# How often a visitor over HTTP/3 asks for something.
THINKS = 0.05


class Site:
    """Small answers, downloads and uploads of a second, WebSockets and streams of events, by a process of its own. `target`
    is what a tunnel leads to."""

    def __init__(self, inside):
        self._process = Process(sys.executable, "-m", "harness.load", cwd=Path(__file__).parents[1], inside=inside)
        self.target = self._process.wait_stdout()
        self.stop = self._process.stop


async def serve():
    """What that process does, once it has said where."""

    async def hello(_request):
        return web.Response(text="hello")

    async def slow(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(PIECES):
            await response.write(PIECE)
            await asyncio.sleep(PAUSE)
        return response

    async def upload(request):
        return web.Response(text=str(len(await request.read())))

    async def talk(request):
        response = web.WebSocketResponse()
        await response.prepare(request)
        async for message in response:
            await response.send_str(message.data)
        return response

    async def news(request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(b"data: now\n\n")
            await asyncio.sleep(PAUSE)

    app = web.Application()
    app.router.add_get("/", hello)
    app.router.add_get("/slow", slow)
    app.router.add_post("/upload", upload)
    app.router.add_get("/talk", talk)
    app.router.add_get("/news", news)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


class _Resolver(aiohttp.abc.AbstractResolver):
    def __init__(self, address):
        self.address = address

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [dict(hostname=host, host=self.address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self):
        pass


class Load(Loop):
    """Visits of these names over TCP, `rate` a second: most of them small, on kept connections, of which there are no more
    for a name than a browser has; a quarter on connections of their own; and a tenth that takes a second. Beside them, for
    each of two names, one visitor over HTTP/3, one with a WebSocket and one with a stream of events, who come back when
    they were told that it is over.

    `times` has how long each visit took from when it was to begin, `times_http3` the same of those over HTTP/3, `told` how
    often one of the last two kinds was told, and `failures` what became of those that failed."""

    def __init__(self, service, names, rate):
        super().__init__(service.inside)
        self.service, self.times, self.times_http3, self.told, self.failures = service, [], [], 0, []
        self._tasks, self._names, self._stop, self._begin = set(), itertools.cycle(names), threading.Event(), time.monotonic()
        self._turns = {name: asyncio.Semaphore(BROWSER) for name in names}
        self._here, self._staying = 0, 2 * len(names[:2])
        self._visits = asyncio.run_coroutine_threadsafe(self._visit(rate, names[:2]), self.loop)
        self._threads = [
            threading.Thread(target=service.inside.enter, args=[lambda name=name: self._visit_http3(name)], daemon=True)
            for name in names[:2]
        ]
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Ends when the last visit has; how long each took."""
        if not self._stop.is_set():
            self._stop.set()
            self._visits.result(60)
            for thread in self._threads:
                thread.join(60)
                assert not thread.is_alive()
            self.end()
        return self.times

    def catch_up(self):
        """Waits until all visits that have begun by now are answered or have failed, and those who stay are here."""

        async def done():
            await asyncio.gather(*self._tasks)

        self.call(done())
        wait_for(lambda: self._here == self._staying, "WebSockets and streams of events are open")

    async def _visit(self, rate, names):
        context = ssl.create_default_context(cafile=str(self.service.ca))

        def session(keep):
            resolver = _Resolver(self.service.address)
            connector = aiohttp.TCPConnector(ssl=context, resolver=resolver, force_close=not keep, limit=0)
            return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30))

        async with session(True) as kept, session(False) as fresh:
            await asyncio.gather(
                self._keep_on(kept, self._in_turn, rate * 0.65),
                self._keep_on(fresh, self._small, rate * 0.25),
                self._keep_on(fresh, self._download, rate * 0.05),
                self._keep_on(fresh, self._upload, rate * 0.05),
                *(self._stay(fresh, kind, name) for kind in (self._talk, self._listen) for name in names),
            )
            await asyncio.gather(*self._tasks)

    async def _keep_on(self, session, kind, rate):
        due = time.monotonic()
        while not self._stop.is_set():
            task = asyncio.create_task(self._one(session, kind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += random.uniform(0.5, 1.5) / rate
            await asyncio.sleep(max(0, due - time.monotonic()))

    async def _one(self, session, kind):
        began = time.monotonic()
        try:
            await kind(session, next(self._names))
            self.times.append(time.monotonic() - began)
        except Exception as why:
            self._failed(began, kind.__name__, why)

    async def _stay(self, session, kind, name):
        """Comes again each time that it is over."""
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                await kind(session, name, began)
                self.told += not self._stop.is_set()
            except Exception as why:
                self._failed(began, kind.__name__, why)

    @asynccontextmanager
    async def _is_here(self, began):
        self.times.append(time.monotonic() - began)
        self._here += 1
        try:
            yield
        finally:
            self._here -= 1

    async def _talk(self, session, name, began):
        async with session.ws_connect(self.service.url(name, "/talk")) as talk, self._is_here(began):
            while not self._stop.is_set():
                await talk.send_str("hello")
                message = await talk.receive(20)
                if message.type == aiohttp.WSMsgType.CLOSE:
                    assert message.data == aiohttp.WSCloseCode.GOING_AWAY, message
                    return
                if message.type != aiohttp.WSMsgType.TEXT:
                    raise ConnectionError(message)
                assert message.data == "hello", message
                await asyncio.sleep(PAUSE)

    async def _listen(self, session, name, began):
        async with session.get(self.service.url(name, "/news"), timeout=aiohttp.ClientTimeout()) as response:
            assert response.status == 200, response.status
            async with self._is_here(began):
                # Fails unless the stream ends properly.
                async for line in response.content:
                    assert line in (b"data: now\n", b"\n"), line
                    if self._stop.is_set():
                        return

    def _failed(self, began, what, why):
        self.failures.append(f"{began - self._begin:.2f} s after the first: {what}: {why!r}")

    async def _in_turn(self, session, name):
        # Not by the pool's own limit, which forgets who waits when connections break.
        async with self._turns[name]:
            await self._small(session, name)

    async def _small(self, session, name):
        async with session.get(self.service.url(name)) as response:
            assert (response.status, await response.text()) == (200, "hello"), response.status

    async def _download(self, session, name):
        async with session.get(self.service.url(name, "/slow")) as response:
            assert response.status == 200 and await response.read() == PIECE * PIECES, response.status

    async def _upload(self, session, name):
        async def pieces():
            for _ in range(PIECES):
                yield PIECE
                await asyncio.sleep(PAUSE)

        async with session.post(self.service.url(name, "/upload"), data=pieces()) as response:
            assert (response.status, await response.text()) == (200, str(len(PIECE) * PIECES)), response.status

    def _visit_http3(self, name):
        """One request after the other on one connection, and on the next one once that is closed: what a closed
        connection has not answered is repeated, as a browser does (RFC 9114, section 5.2)."""
        visitor = None
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                while True:
                    visitor = visitor or self._connected(name)
                    response = visitor.request("/")
                    response.wait(lambda: response.ended or response.reset is not None, "an answer")
                    # It was not processed, be it that the connection is closed or that it came too late for it.
                    if response.ended or not (visitor.closed or response.reset == ErrorCode.H3_REQUEST_REJECTED):
                        break
                    visitor.leave()
                    visitor = None
                status = response.response()[b":status"]
                assert (status, response.read()) == (b"200", b"hello"), status
                self.times_http3.append(time.monotonic() - began)
            except Exception as why:
                self._failed(began, "HTTP/3", why)
                visitor = visitor and visitor.leave()
            self._stop.wait(THINKS)
        if visitor:
            visitor.leave()

    def _connected(self, name):
        """A connection; one that is closed in the middle of its handshake is tried again."""
        while True:
            try:
                return Http3(self.service, name)
            except ConnectionError:
                assert not self._stop.is_set()


if __name__ == "__main__":
    asyncio.run(serve())
