"""Visitors that stand still: they ask for much and read nothing, or announce an upload and send nothing."""

import socket
import threading
import time

import h2.settings

from . import raw
from .http2 import Http2

# An honest visitor comes from here, since limits count by address.
ELSEWHERE = "127.0.0.2"
# The largest flow-control window (RFC 9113, section 6.9.1).
WIDE = (1 << 31) - 1


def visit(daemon, name, source="127.0.0.1", buffer=None, deadline=20):
    """Opens a TLS connection to a tunnel's name from an address, with a small receive buffer if asked for."""
    connection = socket.socket()
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(deadline)
    connection.bind((source, 0))
    connection.connect((daemon.address, daemon.port))
    return daemon.tls("http/1.1").wrap_socket(connection, server_hostname=daemon.host(name))


def ask(daemon, name, path, **more):
    """Sends a GET request over HTTP/1.1 and reads nothing."""
    connection = visit(daemon, name, **more)
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {daemon.host(name)}\r\n\r\n".encode())
    return connection


def begin_upload(daemon, name, path, length, sent=b"x", **more):
    """Announces an upload and sends only its first bytes."""
    connection = visit(daemon, name, **more)
    head = f"POST {path} HTTP/1.1\r\nhost: {daemon.host(name)}\r\ncontent-length: {length}\r\n\r\n"
    connection.sendall(head.encode() + sent)
    return connection


class WideHttp2(Http2):
    """A visitor whose windows take everything, and that reads nothing."""

    def __init__(self, daemon, name):
        super().__init__(daemon, name)
        self.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WIDE})
        self.connection.increment_flow_control_window(WIDE - 65535)
        self.flush()


class Honest:
    """A visitor from elsewhere that asks for one path again and again. `failures` has what went wrong."""

    def __init__(self, daemon, name, path="/", every=0.05, source=ELSEWHERE):
        self.daemon, self.name, self.path, self.every, self.source = daemon, name, path, every, source
        self.failures, self.times = [], []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.wait(self.every):
            begun = time.monotonic()
            try:
                with ask(self.daemon, self.name, self.path, source=self.source) as connection:
                    head = raw.read_head(connection)
                    if not head.startswith(b"HTTP/1.1 200"):
                        self.failures.append(head)
                    else:
                        raw.read_exactly(connection, int(dict(raw.fields(head))[b"content-length"]))
            except (OSError, EOFError) as why:
                self.failures.append(repr(why))
            self.times.append(time.monotonic() - begun)
