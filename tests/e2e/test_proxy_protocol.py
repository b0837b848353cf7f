"""The PROXY protocol: listed proxies say whose connections theirs are, and no one else can."""

import socket
import ssl
import subprocess
import time

import pytest

from harness import raw
from harness.haproxy import VERSIONS, Haproxy
from harness.process import wait_for

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.fixture
def recorder():
    recorder = raw.Recorder(lambda head, connection: ANSWER)
    yield recorder
    recorder.stop()


@pytest.fixture
def proxied(own_daemon, recorder):
    """A tunnel at a daemon whose proxies are at 127.0.0.1. UDP has no PROXY protocol, so the client needs none."""
    daemon = own_daemon(
        more='[proxies]\nprotocol_from = ["127.0.0.1"]\n[rates]\nrequests_per_address = "1/s burst 3"\n'
    )
    client = daemon.client(recorder.target, "whose", transport="quic")
    yield client
    client.stop()


def tls(daemon, connection):
    return daemon.tls("http/1.1").wrap_socket(connection, server_hostname=daemon.host("whose"))


def ask(client, connection):
    connection.sendall(b"GET / HTTP/1.1\r\nhost: " + client.host.encode() + b"\r\n\r\n")
    return int(raw.read_head(connection).split()[1])


def connect(client, header, source="127.0.0.1"):
    """A proxy's connection, with TLS behind these bytes."""
    connection = socket.create_connection(("127.0.0.1", client.daemon.port), timeout=10, source_address=(source, 0))
    connection.sendall(header)
    return tls(client.daemon, connection)


def seen(recorder):
    return dict(raw.fields(recorder.heads[-1]))[b"x-forwarded-for"].decode()


@pytest.mark.parametrize("option", VERSIONS)
@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_the_visitor_of_a_proxy_counts(proxied, recorder, tmp_path, option, http):
    """Services see its address, and it has a rate of its own."""
    daemon = proxied.daemon
    haproxy = Haproxy(tmp_path / "haproxy", daemon.port, option)
    host = proxied.host

    def status(source):
        command = [
            "curl", "-sS", "--max-time", "20", http, "--cacert", daemon.ca, "--interface", source, "--output", "/dev/null",
            "--resolve", f"{host}:{haproxy.port}:127.0.0.1", "--write-out", "%{http_code}", f"https://{host}:{haproxy.port}/",
        ]
        return subprocess.run([str(part) for part in command], capture_output=True, check=True, timeout=30).stdout

    for source in ("127.0.0.2", "127.0.0.3"):
        assert status(source) == b"200"
        assert seen(recorder) == source
    assert b"429" in [status("127.0.0.2") for _ in range(4)]
    assert status("127.0.0.4") == b"200"
    haproxy.stop()


def test_port_80_redirects_behind_a_proxy(proxied, tmp_path):
    daemon = proxied.daemon
    haproxy = Haproxy(tmp_path / "haproxy", daemon.http_port, "send-proxy")
    command = ["curl", "-sS", "--max-time", "20", "-H", f"host: {proxied.host}", "--write-out", "%{redirect_url}"]
    result = subprocess.run([*command, f"http://127.0.0.1:{haproxy.port}/a"], capture_output=True, check=True, timeout=30)
    assert result.stdout.decode() == daemon.url("whose", "/a")
    haproxy.stop()
    # Without a header, the proxy gets nothing.
    bare = subprocess.run([*command, f"http://127.0.0.1:{daemon.http_port}/a"], capture_output=True, timeout=30, check=False)
    assert bare.returncode != 0


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n",
        SIGNATURE + b"\x20\x00\x00\x00",
        SIGNATURE + b"\x20\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x01\x00\x02",
    ],
)
def test_a_proxy_that_names_no_visitor_stands_for_itself(proxied, recorder, header):
    with connect(proxied, header) as connection:
        assert ask(proxied, connection) == 200
    assert seen(recorder) == "127.0.0.1"


def test_an_address_of_version_6(proxied, recorder):
    with connect(proxied, b"PROXY TCP6 2001:db8::7 ::1 4000 443\r\n") as connection:
        assert ask(proxied, connection) == 200
    assert seen(recorder) == "2001:db8::7"


@pytest.mark.parametrize(
    "header",
    [b"", b"PROXY TCP4 nowhere 127.0.0.1 1 2\r\n", b"PROXY TCP4 " + b"1" * 200, SIGNATURE + b"\x21\x11\xff\xff"],
    ids=["none", "malformed", "endless", "too-long"],
)
def test_a_listed_proxy_has_to_speak_it(proxied, header):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(proxied, header)


def test_others_cannot_use_it(proxied, recorder):
    """A header from elsewhere is bad TLS. Without one, all is well, and the address is the peer's."""
    header = b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"
    for bad in (header, SIGNATURE + b"\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x01\x00\x02"):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(proxied, bad, source="127.0.0.5")
    with connect(proxied, b"", source="127.0.0.5") as connection:
        assert ask(proxied, connection) == 200
    assert seen(recorder) == "127.0.0.5"


def test_a_header_has_to_come_in_time(own_daemon):
    daemon = own_daemon(limits='handshake_timeout = "1s"', more='[proxies]\nprotocol_from = ["127.0.0.0/8"]\n')
    for begin in (b"", b"PROXY TCP4 ", SIGNATURE):
        with daemon.connect() as connection:
            connection.sendall(begin)
            began = time.monotonic()
            assert connection.recv(1) == b""
            assert time.monotonic() - began < 5
    wait_for(lambda: daemon.ready(), "the daemon goes on")
