"""A steady load by visitors of every kind, and the service behind it."""

import asyncio
import errno
import itertools
import random
import socket
import ssl
import sys
import threading
import time
import urllib.request
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp import web
from aioquic.h3.connection import ErrorCode
from h2.errors import ErrorCodes

from .http2 import Http2
from .http3 import Http3
from .loop import Loop
from .process import DEADLINE, Process, wait_for

# What takes a second does so by its pauses: they are the load, and nothing waits for them.
PIECES, PIECE, PAUSE = 10, b"x" * 1000, 0.1
# How many connections a browser has to one name.
BROWSER = 6
# How long a visitor who has one connection for all waits after an answer.
THINKS = 0.1
# How often a visitor over HTTP/3 who waits for an answer makes sure that the server is still there.
PINGS = 0.5


class Site:
    """Small answers, downloads and uploads of a second, WebSockets and streams of events, by a process of its own. `target`
    is what a tunnel leads to."""

    def __init__(self, inside):
        self._process = Process(sys.executable, "-m", "harness.load", cwd=Path(__file__).parents[1], inside=inside)
        self.target, self.inside = self._process.wait_stdout(), inside
        self.stop = self._process.stop

    def asked(self):
        """The queries that requests for `/` have come with: what has reached the service, answered or not."""

        def fetch():
            with urllib.request.urlopen(f"{self.target}/asked", timeout=20) as answer:
                return set(answer.read().decode().split())

        return self.inside.enter(fetch)


async def serve():
    """What that process does, once it has said where."""

    queries = []

    async def hello(request):
        queries.append(request.query_string)
        return web.Response(text="hello")

    async def asked(_request):
        return web.Response(text="\n".join(queries))

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
    app.router.add_get("/asked", asked)
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


@dataclass
class Visit:
    """One request: its kind, when it was due, when it got a connection or began to open one, whether another request had
    that connection before, and when it was answered or failed, and why."""

    kind: str
    due: float
    asked: float | None = None
    reused: bool = False
    ended: float | None = None
    why: Exception | None = None

    @property
    def took(self):
        return self.ended - self.due

    def died_with(self, killed, gone):
        """Whether it had its connection before a process that was killed was gone, and broke off with it."""
        if isinstance(self.why, TimeoutError) or getattr(self.why, "errno", None) == errno.ECONNREFUSED:
            return False
        broke_off = isinstance(self.why, (aiohttp.ClientError, OSError, EOFError, Forgotten))
        return broke_off and self.asked is not None and self.asked < gone and killed < self.ended


class Load(Loop):
    """Visits of a site through the tunnels of these clients, `rate` a second: most of them small, on kept connections, of
    which there are no more for a name than a browser has; a quarter on connections of their own; and a tenth that takes a
    second. Beside them, for each of two names, one visitor over HTTP/2 and one over HTTP/3, one with a WebSocket and one
    with a stream of events; the last two come back when they were told that it is over.

    Nothing is asked again but what a visitor has to expect: that a connection that was kept is over by the time that the
    next request gets there, and that the server says that it has not looked at a request.

    `answered` and `failed` have the visits, `rate` how many there were a second, `late` by how much one was sent later than
    it was to be, since there was too much to do, `told` how often one of those who stay was told, and `repeated` the
    queries of what was asked again."""

    def __init__(self, service, site, clients, rate):
        super().__init__(service.inside)
        self.service, self.site, self.clients = service, site, clients
        self.answered, self.failed, self.repeated, self.told, self.late = [], [], [], 0, 0
        names = [client.name for client in clients]
        self._tasks, self._names, self._stop, self.began = set(), itertools.cycle(names), threading.Event(), time.monotonic()
        self._queries = itertools.count()
        self._turns = {name: asyncio.Semaphore(BROWSER) for name in names}
        self._waiting, self._here, self._staying = 0, 0, 2 * len(names[:2])
        self._visits = asyncio.run_coroutine_threadsafe(self._visit(rate, names[:2]), self.loop)
        self._threads = [
            threading.Thread(target=service.inside.enter, args=[partial(self._keep_asking, over, name)], daemon=True)
            for name in names[:2] for over in (OverHttp2, OverHttp3)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Ends when the last visit has."""
        if not self._stop.is_set():
            lasted = time.monotonic() - self.began
            self._stop.set()
            self._visits.result(60)
            for thread in self._threads:
                thread.join(60)
                assert not thread.is_alive()
            self.rate = (len(self.answered) + len(self.failed)) / lasted
            self.end()

    def catch_up(self):
        """Waits until all visits that have begun by now are answered or have failed, nobody else waits for a connection,
        and those who stay are here."""

        async def done():
            await asyncio.gather(*self._tasks)

        self.call(done())
        wait_for(lambda: not self._waiting, "nobody waits for a connection")
        wait_for(lambda: self._here == self._staying, "WebSockets and streams of events are open")

    def describe(self, visit):
        """A visit that failed, in words."""
        due, asked, ended = (moment and f"{moment - self.began:.2f}" for moment in (visit.due, visit.asked, visit.ended))
        return f"{visit.kind}, due at {due} s, asked at {asked} s, failed at {ended} s: {visit.why!r}"

    async def _visit(self, rate, names):
        context = ssl.create_default_context(cafile=str(self.service.ca))
        reuse = aiohttp.TraceConfig()

        async def reused(_session, context, _):
            if context.trace_request_ctx:
                context.trace_request_ctx.reused = True

        reuse.on_connection_reuseconn.append(reused)

        def session(keep):
            resolver = _Resolver(self.service.address)
            connector = aiohttp.TCPConnector(ssl=context, resolver=resolver, force_close=not keep, limit=0)
            session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30), trace_configs=[reuse])
            # By itself it sends every GET a second time whose connection ends without an answer, be it a new one: nobody
            # would learn of a connection that was accepted and dropped.
            assert session._retry_connection
            session._retry_connection = False
            return session

        async with session(True) as kept, session(False) as fresh:
            await asyncio.gather(
                self._keep_on(kept, self._in_turn, rate * 0.65, fresh),
                self._keep_on(fresh, self._small, rate * 0.25),
                self._keep_on(fresh, self._download, rate * 0.05),
                self._keep_on(fresh, self._upload, rate * 0.05),
                *(self._stay(fresh, kind, name) for kind in (self._talk, self._listen) for name in names),
            )
            await asyncio.gather(*self._tasks)

    async def _keep_on(self, session, kind, rate, *more):
        due = time.monotonic()
        while not self._stop.is_set():
            task = asyncio.create_task(self._one(session, kind, *more))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += random.uniform(0.5, 1.5) / rate
            await asyncio.sleep(max(0, due - time.monotonic()))
            self.late = max(self.late, time.monotonic() - due)

    async def _one(self, session, kind, *more):
        visit = Visit(kind.__name__, time.monotonic())
        try:
            await kind(session, next(self._names), visit, *more)
            self._answered(visit)
        except Exception as why:
            self._failed(visit, why)

    def _answered(self, visit):
        visit.ended = time.monotonic()
        self.answered.append(visit)

    def _failed(self, visit, why):
        visit.ended, visit.why = time.monotonic(), why
        self.failed.append(visit)

    async def _stay(self, session, kind, name):
        """Comes again each time that it is over."""
        while not self._stop.is_set():
            now = time.monotonic()
            visit = Visit(kind.__name__, now, asked=now)
            try:
                await kind(session, name, visit)
                self.told += not self._stop.is_set()
            except Exception as why:
                self._failed(visit, why)

    @asynccontextmanager
    async def _is_here(self, visit):
        # What becomes of it after that is another matter.
        self._answered(replace(visit))
        self._here += 1
        try:
            yield
        finally:
            self._here -= 1

    async def _talk(self, session, name, visit):
        async with session.ws_connect(self.service.url(name, "/talk")) as talk, self._is_here(visit):
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

    async def _listen(self, session, name, visit):
        async with session.get(self.service.url(name, "/news"), timeout=aiohttp.ClientTimeout()) as response:
            assert response.status == 200, response.status
            async with self._is_here(visit):
                # Fails unless the stream ends properly.
                async for line in response.content:
                    assert line in (b"data: now\n", b"\n"), line
                    if self._stop.is_set():
                        return

    async def _in_turn(self, session, name, visit, again):
        # Not by the pool's own limit, which forgets who waits when connections break.
        self._waiting += 1
        async with self._turns[name]:
            self._waiting -= 1
            await self._small(session, name, visit, again)

    def _query(self, visit):
        """One of its own for each time that something is asked."""
        visit.asked, visit.reused = time.monotonic(), False
        return str(next(self._queries))

    async def _small(self, session, name, visit, again=None):
        query = self._query(visit)
        try:
            response = await session.get(self.service.url(name, f"/?{query}"), trace_request_ctx=visit)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not (visit.reused and again):
                raise
            self.repeated.append(query)
            return await self._small(again, name, visit)
        async with response:
            assert (response.status, await response.text()) == (200, "hello"), response.status

    async def _download(self, session, name, visit):
        self._query(visit)
        async with session.get(self.service.url(name, "/slow")) as response:
            assert response.status == 200 and await response.read() == PIECE * PIECES, response.status

    async def _upload(self, session, name, visit):
        async def pieces():
            for _ in range(PIECES):
                yield PIECE
                await asyncio.sleep(PAUSE)

        self._query(visit)
        async with session.post(self.service.url(name, "/upload"), data=pieces()) as response:
            assert (response.status, await response.text()) == (200, str(len(PIECE) * PIECES)), response.status

    def _keep_asking(self, connect, name):
        """One request after the other on one connection, and on the next one once that is over."""
        connection = None
        while not self._stop.is_set():
            visit = Visit(connect.version, time.monotonic())
            try:
                while True:
                    if connection and connection.is_over():
                        connection = connection.leave()
                    query = self._query(visit)
                    visit.reused = connection is not None
                    connection = connection or connect(self.service, name)
                    try:
                        answer = connection.ask(f"/?{query}")
                        break
                    except (NotProcessed, Forgotten) as why:
                        if isinstance(why, Forgotten) and not visit.reused:
                            raise
                        self.repeated.append(query)
                        connection = connection.leave()
                assert answer == (b"200", b"hello"), answer
                self._answered(visit)
            except Exception as why:
                self._failed(visit, why)
                connection = connection and connection.leave()
            self._stop.wait(THINKS)
        if connection:
            connection.leave()


class Forgotten(Exception):
    """The server knows nothing of a connection any more, because it is another process (RFC 9000, section 10.3)."""


class NotProcessed(Exception):
    """The server has said that it has not looked at a request, so that it may be sent again, whatever it asks for."""


class OverHttp2:
    """A visitor's connection (RFC 9113, section 6.8)."""

    version = "HTTP/2"

    def __init__(self, service, name):
        self.visitor = Http2(service, name)

    def is_over(self):
        """Looks at what has come since the last answer."""
        self.visitor.socket.setblocking(False)
        try:
            while True:
                self.visitor.receive()
        except ssl.SSLWantReadError:
            return self.visitor.last_stream is not None
        except (OSError, EOFError):
            return True
        finally:
            self.visitor.socket.settimeout(20)

    def ask(self, path):
        number = self.visitor.connection.get_next_available_stream_id()
        refused = lambda: self.visitor.last_stream is not None and number > self.visitor.last_stream  # noqa: E731
        try:
            stream = self.visitor.request(path)
            stream.wait(lambda: stream.ended or stream.reset is not None or refused())
        except (OSError, EOFError):
            if not refused():
                raise
        if refused() or stream.reset == ErrorCodes.REFUSED_STREAM:
            raise NotProcessed
        return stream.response()[b":status"], stream.read()

    def leave(self):
        self.visitor.socket.close()


class OverHttp3:
    """A visitor's connection (RFC 9114, section 5.2)."""

    version = "HTTP/3"

    def __init__(self, service, name):
        self.visitor = Http3(service, name)

    def is_over(self):
        return self.visitor.closed or self.visitor.goaways

    def ask(self, path):
        response, deadline = self.visitor.request(path), time.monotonic() + DEADLINE
        while not self._is_answered(response):
            assert time.monotonic() < deadline, "no answer in time"
            # Else it might have nothing to say, and not hear of it, when the server forgets the connection.
            self.visitor.do(lambda: self.visitor.quic.send_ping(0))
        if response.ended:
            return response.response()[b":status"], response.read()
        if response.reset == ErrorCode.H3_REQUEST_REJECTED or any(response.id >= first for first in self.visitor.goaways):
            raise NotProcessed
        if self.visitor.closed == (None, "stateless reset"):
            raise Forgotten
        raise ConnectionError(f"reset: {response.reset}, connection: {self.visitor.closed}")

    def _is_answered(self, response):
        """Whether there is an answer or the end of the connection, for which it waits a while."""
        with suppress(AssertionError):
            response.wait(lambda: response.ended or response.reset is not None, "an answer", PINGS)
        return response.ended or response.reset is not None or self.visitor.closed

    def leave(self):
        self.visitor.leave()


if __name__ == "__main__":
    asyncio.run(serve())
