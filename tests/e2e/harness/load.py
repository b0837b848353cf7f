"""A steady load by visitors of every kind, and the service behind it."""

import itertools
import json
import ssl
import subprocess
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from aioquic.h3.connection import ErrorCode
from h2.errors import ErrorCodes

from .http2 import Http2
from .http3 import Http3
from .process import BIN_DIR, DEADLINE, Process, wait_for

# How many names have visitors who stay, and visitors who have one connection for all.
STAYING = 2
# How long a visitor who has one connection for all waits after an answer.
THINKS = 0.1
# How often a visitor over HTTP/3 who waits for an answer makes sure that the server is still there.
PINGS = 0.5


class Site:
    """Small answers, downloads and uploads of a second, WebSockets and streams of events (tests/load). `target` is what a
    tunnel leads to."""

    def __init__(self, inside):
        self._process = Process(BIN_DIR / "cok-load", "serve", inside=inside)
        self.target, self.inside = self._process.wait_stdout(), inside
        self.stop = self._process.stop

    def asked(self):
        """The queries that requests for `/` have come with: what has reached the service, answered or not."""

        def fetch():
            with urllib.request.urlopen(f"{self.target}/asked", timeout=20) as answer:
                return set(answer.read().decode().split())

        return self.inside.enter(fetch)


@dataclass
class Visit:
    """One request: its kind, when it was due, when it got a connection or began to open one, whether another request had
    that connection before, and when it was answered or failed, and why."""

    kind: str
    due: float
    asked: float | None = None
    reused: bool = False
    ended: float | None = None
    why: object = None

    @property
    def took(self):
        return self.ended - self.due

    def died_with(self, killed, gone):
        """Whether it had its connection before a process that was killed was gone, and broke off with it."""
        if isinstance(self.why, Exception):
            over = not isinstance(self.why, (TimeoutError, ConnectionRefusedError))
            broke_off = over and isinstance(self.why, (OSError, EOFError, Forgotten))
        else:
            broke_off = "broke_off" in self.why
        return broke_off and self.asked is not None and self.asked < gone and killed < self.ended


class Load:
    """Visits of a site through the tunnels of these clients, `rate` a second: most of them small, on kept connections, of
    which there are no more for a name than a browser has; a quarter on connections of their own; and a tenth that takes a
    second (tests/load). Beside them, for each of two names, one visitor over HTTP/2 and one over HTTP/3, one with a WebSocket
    and one with a stream of events; the last two come back when they were told that it is over.

    Nothing is asked again but what a visitor has to expect: that a connection that was kept is over by the time that the
    next request gets there, and that the server says that it has not looked at a request.

    `answered` and `failed` have the visits, `rate` how many there were a second, `late` by how much one was sent later than
    it was to be, since there was too much to do, `told` how often one of those who stay was told, and `repeated` the
    queries of what was asked again."""

    def __init__(self, service, site, clients, rate):
        self.service, self.site, self.clients = service, site, clients
        self.answered, self.failed, self.repeated, self.told, self.late = [], [], [], 0, 0
        names = [client.name for client in clients]
        self._stop, self.began, self._caught_up = threading.Event(), time.monotonic(), threading.Semaphore(0)
        self._queries = itertools.count()
        self._process = Process(
            BIN_DIR / "cok-load", "visit", f"--address={service.address}:{service.port}", f"--ca={service.ca}",
            f"--rate={rate}", f"--staying={STAYING}", *[service.host(name) for name in names],
            inside=service.inside, stdin=subprocess.PIPE,
        )
        self._threads = [threading.Thread(target=self._read, daemon=True)] + [
            threading.Thread(target=service.inside.enter, args=[partial(self._keep_asking, over, name)], daemon=True)
            for name in names[:STAYING] for over in (OverHttp2, OverHttp3)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Ends when the last visit has."""
        if not self._stop.is_set():
            lasted = time.monotonic() - self.began
            self._stop.set()
            self._process.popen.stdin.close()
            assert self._process.wait_exit(60) == 0, self._process.output()
            for thread in self._threads:
                thread.join(60)
                assert not thread.is_alive()
            self.rate = (len(self.answered) + len(self.failed)) / lasted

    def catch_up(self):
        """Waits until all visits that have begun by now are answered or have failed, nobody else waits for a connection,
        and those who stay are here."""
        self._process.popen.stdin.write(b"\n")
        self._process.popen.stdin.flush()
        assert self._caught_up.acquire(timeout=60), "all that has begun is over, and those who stay are here"

    def describe(self, visit):
        """A visit that failed, in words."""
        due, asked, ended = (moment and f"{moment - self.began:.2f}" for moment in (visit.due, visit.asked, visit.ended))
        return f"{visit.kind}, due at {due} s, asked at {asked} s, failed at {ended} s: {visit.why!r}"

    def _read(self):
        """What the process says, to its end."""
        for line in iter(self._process.next_stdout, None):
            said = json.loads(line)
            if said == "caught_up":
                self._caught_up.release()
                continue
            [(kind, value)] = said.items()
            if kind == "visit":
                visit = Visit(**value)
                (self.failed if visit.why else self.answered).append(visit)
            elif kind == "repeated":
                self.repeated.append(value)
            elif kind == "told":
                self.told += 1
            else:
                self.late = max(self.late, value)

    def _query(self, visit):
        """One of its own for each time that something is asked."""
        visit.asked, visit.reused = time.monotonic(), False
        return f"over-{next(self._queries)}"

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
                visit.ended = time.monotonic()
                self.answered.append(visit)
            except Exception as why:
                visit.ended, visit.why = time.monotonic(), why
                self.failed.append(visit)
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
