"""A service may answer before it has read the upload, and close. The visitor hears the answer each time."""

import socket
import threading

import h2.config
import h2.connection
import h2.events
import pytest

from harness import raw
from harness.outcome import VERSIONS, ask
from harness.process import wait_for

TRIES = 8
UPLOAD = b"u" * 2_000_000


def reset(connection):
    """Closes with the upload unread: the kernel sends RST."""
    connection.recv(1, socket.MSG_PEEK)
    connection.close()


def end(connection):
    """Ends its side, and reads the rest of the upload."""
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(20)
    while connection.recv(65536):
        pass


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("close", [reset, end])
@pytest.mark.parametrize("read", [0, 300_000], ids=["after-the-head", "in-mid-upload"])
@pytest.mark.parametrize("place", ["tcp", "unix"])
def test_a_refusal_is_heard(tunnel, tmp_path, version, close, read, place):
    def answer(_head, connection):
        raw.read_exactly(connection, read)
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 7\r\n\r\ntoo big")
        close(connection)

    service = raw.Recorder(answer)
    target = service.target
    if place == "unix":
        service.listener.close()
        service = OnUnix(answer, tmp_path / "socket")
        target = f"unix:{tmp_path}/socket"
    client = tunnel(target)
    for _ in range(TRIES):
        got = ask(client.daemon, client.name, version, method="POST", body=UPLOAD)
        assert (got.status, got.body, got.whole) == (413, b"too big", True)
    service.stop()


class OnUnix(raw.Recorder):
    def __init__(self, answer, path):
        super().__init__(answer)
        self.listener.close()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refusal_without_a_length(tunnel, version):
    """Behind a reset, an end is no proof that the body is whole. Behind a FIN it is."""

    def answer(head, connection):
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\n\r\ntoo big")
        (end if b"/end" in head else reset)(connection)

    service = raw.Recorder(answer)
    client = tunnel(service.target)
    for _ in range(TRIES):
        got = ask(client.daemon, client.name, version, path="/end", method="POST", body=UPLOAD)
        assert (got.status, got.body, got.whole) == (413, b"too big", True)
        got = ask(client.daemon, client.name, version, path="/reset", method="POST", body=UPLOAD)
        assert (got.status, got.whole) in [(413, False), (502, True)]
    service.stop()


def ends(client):
    return [line for line in client.process.lines if "the HTTP/2 connection to the service ended" in line]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refusal_over_h2c(tunnel, version):
    """A service of HTTP/2 answers, and resets the stream or closes the connection."""

    def serve(connection):
        peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        peer.initiate_connection()
        connection.sendall(peer.data_to_send())
        while data := connection.recv(65536):
            for event in peer.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    peer.send_headers(event.stream_id, [(":status", "413"), ("content-length", "7")])
                    peer.send_data(event.stream_id, b"too big", end_stream=True)
                    if service.closes:
                        connection.sendall(peer.data_to_send())
                        connection.close()
                        return
                    peer.reset_stream(event.stream_id, 0)
            connection.sendall(peer.data_to_send())

    service = H2c(serve)
    client = tunnel(f"h2c://127.0.0.1:{service.port}")
    for service.closes in (False, True):
        for number in range(TRIES):
            got = ask(client.daemon, client.name, version, method="POST", body=UPLOAD)
            assert (got.status, got.body, got.whole) == (413, b"too big", True), service.closes
            if service.closes:
                # It says nothing of its end, so a request that comes before the end would be lost.
                wait_for(lambda: len(ends(client)) == number + 1, "the client knows of the end")
    service.stop()


class H2c(raw.Recorder):
    def __init__(self, serve):
        self.serve = serve
        super().__init__(None)

    def _serve(self, connection):
        try:
            self.serve(connection)
        except OSError:
            pass
        finally:
            connection.close()
