"""Visitors that send small requests at a steady rate, independent of earlier responses."""

import threading
import time

from . import raw


class Visitors:
    """Sends `rate` requests a second over `connections` connections, until it is stopped. Records the time of each request
    in seconds. The time counts from when the request is due, so that a stall shows in all requests that it delays."""

    def __init__(self, daemon, name, path="/", rate=50, connections=10, deadline=60):
        self.daemon, self.name, self.deadline = daemon, name, deadline
        self.request = f"GET {path} HTTP/1.1\r\nhost: {daemon.host(name)}\r\n\r\n".encode()
        self.times, self.failures = [], []
        self._rate, self._connections, self._stop = rate, connections, threading.Event()
        self._begin = time.monotonic()
        self._threads = [threading.Thread(target=self._visit, args=[number]) for number in range(connections)]
        for thread in self._threads:
            thread.start()

    def _visit(self, number):
        connection = None
        due = self._begin + number / self._rate
        while not self._stop.wait(max(0, due - time.monotonic())):
            try:
                connection = connection or raw.connect(self.daemon, self.name, deadline=self.deadline)
                self._ask(connection)
                self.times.append(time.monotonic() - due)
            except (OSError, EOFError, AssertionError) as why:
                self.failures.append(f"{due - self._begin:.2f} s after the first: {why!r}")
                connection = None
            due += self._connections / self._rate
        if connection:
            connection.close()

    def _ask(self, connection):
        connection.sendall(self.request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(4096) or b"the connection ended\r\n\r\n"
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        raw.read_exactly(connection, int(dict(raw.fields(head))[b"content-length"]) - len(body))

    def stop(self):
        """Stops, and waits for the last response."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.times
