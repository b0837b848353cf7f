"""Which certificates of `https://` targets on other machines are accepted."""

import hashlib
import json
import socket
import ssl
import subprocess
import threading

import pytest

from harness import needs
from harness.authority import Authority
from harness.process import BIN_DIR, wait_for


def own_address():
    """An address of this machine that is not loopback; `None` without one."""
    found = json.loads(subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout)
    addresses = [info["local"] for link in found for info in link["addr_info"]]
    return next((address for address in addresses if not address.startswith("127.")), None)


@pytest.fixture
def elsewhere(tmp_path):
    """A TLS service with a certificate of an authority that the system does not know. Returns its target, the file of its
    authority, and the SHA-256 of its certificate."""
    address = own_address()
    if address is None:
        needs.lacking("an address besides loopback")
    authority = Authority(tmp_path / "authority")
    cert, key = authority.files(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = socket.create_server((address, 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as stream:
                    stream.recv(65536)
                    stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(cert.read_text())).hexdigest()
    yield f"https://{address}:{listener.getsockname()[1]}", authority.ca_file, digest
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def named(digest):
    return ["--target-fingerprint", f"sha256:{digest}"]


def untrusted(client):
    page = client.curl("/", "--write-out", "%{http_code}").stdout.decode()
    assert page.startswith("Service not trusted\n") and page.endswith("502")
    wait_for(lambda: "cannot trust" in client.process.output(), "the client's log names the certificate")


def test_an_unknown_certificate_is_refused(tunnel, elsewhere):
    """The authorities of the server, which the harness names by --ca-file, do not count either."""
    untrusted(tunnel(elsewhere[0]))


def test_a_fingerprint_allows_a_certificate(tunnel, elsewhere):
    target, _, digest = elsewhere
    colons = ":".join(digest[n : n + 2] for n in range(0, 64, 2)).upper()
    for fingerprint in (f"sha256:{digest}", f"sha256:{colons}"):
        client = tunnel(target, options=[*named("0" * 64), "--target-fingerprint", fingerprint])
        assert client.curl("/").stdout == b"ok"


def test_an_authority_allows_its_certificates(tunnel, elsewhere):
    target, ca_file, _ = elsewhere
    assert tunnel(target, options=["--target-ca-file", ca_file]).curl("/").stdout == b"ok"


def test_another_fingerprint_is_refused(tunnel, elsewhere):
    target, _, digest = elsewhere
    client = tunnel(target, options=named("0" * 64))
    untrusted(client)
    assert digest in client.process.output()


def test_a_wrong_fingerprint_or_file_is_a_mistake():
    for flags in (["--target-fingerprint", "sha256:12"], ["--target-ca-file", "/nonexistent"]):
        result = subprocess.run(
            [BIN_DIR / "cok-client", "3000", "--server", "https://x.test", "--api-key", "k", *flags],
            capture_output=True, text=True, timeout=20, check=False,
        )
        assert result.returncode == 2 and flags[1] in result.stderr
