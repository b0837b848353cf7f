"""Whatever a service says of its response's length: the visitor gets the right body, or 502. No response becomes another's."""

import ssl
import subprocess

import pytest

from harness import raw
from harness.outcome import VERSIONS, ask

HELLO = b"5\r\nhello\r\n0\r\n\r\n"


@pytest.fixture
def origin(tunnel):
    """A service that gives each request the bytes `recorder.response`, and closes where `recorder.closes`."""

    def answer(_head, connection):
        if not recorder.closes:
            return recorder.response
        connection.sendall(recorder.response)

    recorder = raw.Recorder(answer)
    recorder.closes = False
    recorder.client = tunnel(recorder.target)
    yield recorder
    recorder.stop()


def visit(origin, version, **more):
    return ask(origin.client.daemon, origin.client.name, version, **more)


WHOLE = {
    "a length too short with chunked": (b"content-length: 3\r\ntransfer-encoding: chunked", HELLO),
    "a length too long with chunked": (b"transfer-encoding: chunked\r\ncontent-length: 50", HELLO),
    "equal lengths": (b"content-length: 5\r\ncontent-length: 5", b"hello"),
    "equal lengths in a list": (b"content-length: 5, 5", b"hello"),
    "white space before a colon": (b"content-length : 5\r\nx-odd\t: 1", b"hello"),
    "a field that Connection names": (b"connection: content-length\r\ncontent-length: 5", b"hello"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", WHOLE)
def test_what_the_parser_decided_counts(origin, version, case):
    fields, body = WHOLE[case]
    origin.response = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n" + body
    for _ in range(2):
        got = visit(origin, version)
        assert (got.status, got.body, got.whole) == (200, b"hello", True)
        assert got.values(b"content-length") in ([], [b"5"])


REFUSED = {
    "different lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "a length with a sign": b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
    "a length in words": b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nhello",
    "a length without end": b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhello",
    "two codings": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n" + HELLO,
    "two codings in two fields": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n" + HELLO,
    "chunked twice": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n" + HELLO,
    "another coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
    "chunked over HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + HELLO,
    "no head": b"hello\r\n\r\n",
    "a NUL in a value": b"HTTP/1.1 200 OK\r\nx-odd: a\0b\r\ncontent-length: 5\r\n\r\nhello",
    "a bare CR in a value": b"HTTP/1.1 200 OK\r\nx-odd: a\rb\r\ncontent-length: 5\r\n\r\nhello",
    "a 101 without being asked": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "interim responses without end": b"HTTP/1.1 102 Processing\r\n\r\n" * 2000,
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trusted_is_refused(origin, version, case):
    origin.response, origin.closes = REFUSED[case], True
    assert visit(origin, version).status == 502


@pytest.mark.parametrize("version", VERSIONS)
def test_an_end_by_closing(origin, version):
    for head in (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200\r\n\r\n"):
        origin.response, origin.closes = head + b"hello", True
        got = visit(origin, version)
        assert (got.status, got.body, got.whole) == (200, b"hello", True), head


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("method, status", [("HEAD", 200), ("HEAD", 304), ("GET", 204), ("GET", 304)])
def test_a_length_without_a_body(origin, version, method, status):
    """It describes another response, and is kept where the RFC allows it."""
    for fields, kept in [
        (b"content-length: 7\r\ncontent-length: 7", [b"7"]),
        (b"content-length: seven", []),
        (b"content-length: 7\r\ntransfer-encoding: chunked", []),
    ]:
        origin.response = b"HTTP/1.1 %d Fine\r\n" % status + fields + b"\r\n\r\n"
        got = visit(origin, version, method=method, bodiless=True)
        assert (got.status, got.body, got.whole) == (status, b"", True)
        assert got.values(b"content-length") == ([] if status == 204 else kept)


def test_order_and_reason_are_kept(origin):
    origin.response = (
        b"HTTP/1.1 299 As You Like It\r\nx-b: 1\r\nconnection: keep-alive\r\nx-a: 2\r\nkeep-alive: timeout=5\r\n"
        b"transfer-encoding: chunked\r\nx-d: 3\r\nx-c: 4\r\n\r\n" + HELLO
    )
    got = visit(origin, "h1")
    assert got.reason == b"As You Like It"
    assert [name for name, _ in got.fields if name.startswith(b"x-")] == [b"x-b", b"x-a", b"x-d", b"x-c"]


@pytest.mark.parametrize("target", [b"/caf\xe9?q=\xff", b'/"<>|`?{}^\\'], ids=["bytes", "signs"])
def test_targets_reach_the_service_as_they_were_sent(origin, target):
    origin.response = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    for _ in range(2):
        with raw.connect(origin.client.daemon, origin.client.name) as connection:
            connection.sendall(b"GET " + target + b" HTTP/1.1\r\nhost: %s\r\n\r\n" % origin.client.host.encode())
            status = raw.read_head(connection).split(b" ")[1]
        assert status == b"200"
        assert origin.heads[-1].split(b"\r\n")[0] == b"GET " + target + b" HTTP/1.1"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
         "/CN=localhost", "-days", "1", "-keyout", folder / "key", "-out", folder / "cert"],
        check=True, capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


class Abrupt(raw.Recorder):
    """Speaks TLS and closes without close_notify, as many programs do."""

    def __init__(self, certificate, answer):
        self.certificate = certificate
        super().__init__(answer)

    def _serve(self, connection):
        try:
            secured = self.certificate.wrap_socket(connection, server_side=True)
        except OSError:
            return
        super()._serve(secured)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "head, whole",
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n", False),
    ],
    ids=["no-length", "length", "short", "chunked"],
)
def test_tls_without_close_notify(certificate, tunnel, version, head, whole):
    """On loopback, an end without close_notify ends a body without a length. A known length still counts."""
    service = Abrupt(certificate, lambda _head, connection: connection.sendall(head + b"hello"))
    client = tunnel(f"https://127.0.0.1:{service.port}")
    got = ask(client.daemon, client.name, version)
    if whole:
        assert (got.status, got.body, got.whole) == (200, b"hello", True)
    else:
        assert (got.status, got.whole) in [(200, False), (502, True)]
    service.stop()
