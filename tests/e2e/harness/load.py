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

# The number of names with long-lived visitors and with visitors that use one connection for all requests.
STAYING = 2
# The pause after a response of a visitor that uses one connection.
THINKS = 0.1
# How often a visitor over HTTP/3 probes the server during its wait for a response.
PINGS = 0.5


class Site:
    """The service of tests/load: small responses, transfers of one second, WebSockets and streams of events. `target` is
    its address for a tunnel."""

    def __init__(self, inside):
        self._process = Process(BIN_DIR / "cok-load", "serve", inside=inside)
        self.target, self.inside = self._process.wait_stdout(), inside
        self.stop = self._process.stop

    def asked(self):
        """Returns the queries of all requests for `/` that reached the service, answered or not."""

        def fetch():
            with urllib.request.urlopen(f"{self.target}/asked", timeout=20) as answer:
                return set(answer.read().decode().split())

        return self.inside.enter(fetch)


@dataclass
class Visit:
    """One request with its times and its result. `asked` is the time when it took or opened a connection. `reused` is
    true if that connection carried an earlier request."""

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
        """Returns whether its connection was to a killed process and broke off with it."""
        if isinstance(self.why, Exception):
            over = not isinstance(self.why, (TimeoutError, ConnectionRefusedError))
            broke_off = over and isinstance(self.why, (OSError, EOFError, Forgotten))
        else:
            broke_off = "broke_off" in self.why
        return broke_off and self.asked is not None and self.asked < gone and killed < self.ended


class Load:
    """Visits a site through the tunnels of these clients, `rate` times a second (tests/load). Most visits are small and use
    kept connections, at most a browser's number for each name. A quarter uses new connections. A tenth takes a second.
    Each of two names has four more visitors: one over HTTP/2, one over HTTP/3, one with a WebSocket, and one with a
    stream of events. The last two connect again after a clean end.

    A visitor repeats a request if the server closed a kept connection before the request arrived. It also does if the
    server says that it has not processed the request. It repeats no other request.

    `answered` and `failed` have the visits, and `rate` is their rate. `late` is the longest delay of a visit's start on a
    busy machine. `told` counts clean ends of long-lived visits. `repeated` has the queries of repeated requests."""

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
        """Stops the load and waits for its last visit."""
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
        """Waits until all visits that have begun by now are over. No visit waits for a connection then, and all long-lived
        visits are connected."""
        self._process.popen.stdin.write(b"\n")
        self._process.popen.stdin.flush()
        assert self._caught_up.acquire(timeout=60), "all visits are over, and the long-lived ones are connected"

    def describe(self, visit):
        """Describes a failed visit."""
        due, asked, ended = (moment and f"{moment - self.began:.2f}" for moment in (visit.due, visit.asked, visit.ended))
        return f"{visit.kind}, due at {due} s, asked at {asked} s, failed at {ended} s: {visit.why!r}"

    def _read(self):
        """Reads the reports of the process until it ends."""
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
        """Returns a query that no other request has."""
        visit.asked, visit.reused = time.monotonic(), False
        return f"over-{next(self._queries)}"

    def _keep_asking(self, connect, name):
        """Sends one request after another on one connection, and opens a new one when it ends."""
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
    """A new server process does not know the connection (RFC 9000, section 10.3)."""


class NotProcessed(Exception):
    """The server says that it has not processed a request, so that any method may be repeated."""


class OverHttp2:
    """A visitor's connection (RFC 9113, section 6.8)."""

    version = "HTTP/2"

    def __init__(self, service, name):
        self.visitor = Http2(service, name)

    def is_over(self):
        """Returns whether the server closed it since the last response."""
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
            # Without the probe it may send nothing, and not learn that the server lost the connection.
            self.visitor.do(lambda: self.visitor.quic.send_ping(0))
        if response.ended:
            return response.response()[b":status"], response.read()
        if response.reset == ErrorCode.H3_REQUEST_REJECTED or any(response.id >= first for first in self.visitor.goaways):
            raise NotProcessed
        if self.visitor.closed == (None, "stateless reset"):
            raise Forgotten
        raise ConnectionError(f"reset: {response.reset}, connection: {self.visitor.closed}")

    def _is_answered(self, response):
        """Waits briefly for a response or the end of the connection. Returns whether one came."""
        with suppress(AssertionError):
            response.wait(lambda: response.ended or response.reset is not None, "an answer", PINGS)
        return response.ended or response.reset is not None or self.visitor.closed

    def leave(self):
        self.visitor.leave()
