"""What a service wrote before it died reaches the visitor, and then the transfer breaks off."""

import socket
import struct
import time

import pytest

from harness import raw
from harness.outcome import VERSIONS, ask

TRIES = 10


def chunk(text):
    return b"%x\r\n%s\r\n" % (len(text), text)


def close(connection):
    """FIN, without the last chunk."""
    connection.shutdown(socket.SHUT_WR)


def reset(connection):
    """RST. Bytes that the client's machine has not handed over would be lost with it, so it comes a little later."""
    time.sleep(0.05)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture(params=[close, reset])
def dying(request, tunnel):
    """A service that dies behind some words. Tests set `words`."""

    def answer(_head, connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + recorder.framing + b"\r\n\r\n")
        for words in recorder.words:
            connection.sendall(words)
        request.param(connection)

    recorder = raw.Recorder(answer)
    recorder.client = tunnel(recorder.target)
    yield recorder
    recorder.stop()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("last", [b"last words", b"last" * 25_000], ids=["few", "many"])
def test_last_words_arrive(dying, version, last):
    dying.framing, dying.words = b"transfer-encoding: chunked", [chunk(b"start\n"), chunk(last)]
    for _ in range(TRIES):
        got = ask(dying.client.daemon, dying.client.name, version)
        assert (got.status, got.whole) == (200, False)
        assert got.body == b"start\n" + last


@pytest.mark.parametrize("version", VERSIONS)
def test_last_words_of_a_known_length_arrive(dying, version):
    dying.framing, dying.words = b"content-length: 100", [b"last words"]
    for _ in range(TRIES):
        got = ask(dying.client.daemon, dying.client.name, version)
        assert (got.status, got.whole, got.body) == (200, False, b"last words")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_head_alone_arrives(dying, version):
    """The service dies right behind its head. The visitor gets it, or 502."""
    dying.framing, dying.words = b"content-length: 100", []
    for _ in range(TRIES):
        got = ask(dying.client.daemon, dying.client.name, version)
        assert (got.status, got.whole, got.body) == (200, False, b"") or (got.status, got.whole) == (502, True)


def test_over_http_1_0_the_end_of_the_connection_is_not_the_end_of_the_body(dying):
    """A body without a length ends with the connection. One that broke off ends with a reset."""
    dying.framing, dying.words = b"transfer-encoding: chunked", [chunk(b"start\n"), chunk(b"last words")]
    for _ in range(TRIES):
        got = dying.client.curl("/", "--http1.0", "--no-alpn", check=False)
        assert got.returncode and got.stdout == b"start\nlast words"


@pytest.mark.parametrize("dying", [reset], indirect=True)
def test_an_unread_upload_does_not_cost_the_last_words(dying):
    """The visitor is still sending when the service dies. Bytes that the daemon has not read reset a closed connection."""
    dying.framing, dying.words = b"transfer-encoding: chunked", [chunk(b"start\n"), chunk(b"last words")]
    for _ in range(TRIES):
        got = ask(dying.client.daemon, dying.client.name, "h1", method="POST", body=bytes(300_000))
        assert (got.status, got.whole) == (200, False)
        assert got.body == b"start\nlast words"
