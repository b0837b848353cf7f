"""Wrong input: DNS queries, certificate files, and credentials. Each gets a clear error, and the daemon serves on."""

import datetime
import os
import random
import socket
import struct
from types import SimpleNamespace

import pytest

from harness.authority import DAY, Authority
from harness.certified import EMBEDDED, Certified, cokd, serial_of
from harness.cok import DOMAIN, Daemon
from harness.dns_servers import dig
from harness.ports import free_port
from harness.process import wait_for

NAMES = (DOMAIN, f"*.{DOMAIN}")
CHALLENGE = f"_acme-challenge.{DOMAIN}"


# DNS queries


def question(name, kind=16, number=1, flags=0x0100, counts=(1, 0, 0, 0), tail=b""):
    """Encodes a query (RFC 1035, section 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", number, flags, *counts) + labels + b"\0" + struct.pack(">HH", kind, 1) + tail


def code(reply):
    return reply[3] & 0xF


FORMERR, NOTIMP, REFUSED = 1, 4, 5


# Networks of this machine. The daemon limits the responses to each.
OURS, NOISY = "127.0.0.1", "127.53.0.1"


class Responder:
    """The daemon's DNS responder, queried with raw bytes."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))

    def udp(self, message, source=OURS, deadline=5):
        """Returns the response, or None if none comes in time."""
        with socket.socket(type=socket.SOCK_DGRAM) as asker:
            asker.bind((source, 0))
            asker.settimeout(deadline)
            asker.connect(self.address)
            asker.send(message)
            try:
                return asker.recv(65535)
            except TimeoutError:
                return None

    def tcp(self):
        return socket.create_connection(self.address, timeout=20)


@pytest.fixture
def held(issuance):
    """A daemon in the middle of an issuance, which serves the values of its proofs."""
    acme = issuance(proxy=True)
    acme.proxy.hold("challenge")
    acme.start()
    assert acme.proxy.held.wait(20)
    return acme


def test_dns_queries(held):
    """Queries for other zones, malformed ones and long ones get the specified response or none. Valid queries still work."""
    responder = Responder(held.dns)
    host, port = responder.address
    values = dig(host, CHALLENGE, "TXT", "+short", port=port)
    assert len(values) == 2
    # Some resolvers use random case against forged responses: the response repeats it.
    mixed = "_aCmE-cHALLenge.TuNNel.TEst."
    lines = dig(host, mixed, "TXT", "+noall", "+question", "+answer", port=port)
    assert sum(mixed in line for line in lines) == 3, lines
    assert sorted(dig(host, CHALLENGE, "TXT", "+short", "+tcp", port=port)) == sorted(values)

    for name in ("example.com", "test", DOMAIN, "x" + CHALLENGE, f"_acme-challenge.other{DOMAIN}"):
        assert code(responder.udp(question(name))) == REFUSED, name
    assert code(responder.udp(question(CHALLENGE, kind=252))) == REFUSED, "no zone transfer"
    assert code(responder.udp(question(CHALLENGE, flags=0x2900))) == NOTIMP, "no updates"
    assert code(responder.udp(question(CHALLENGE, counts=(2, 0, 0, 0)))) == FORMERR
    assert code(responder.udp(question(CHALLENGE, tail=bytes(4000)))) == FORMERR, "too long"
    # A name that points at itself.
    loop = struct.pack(">HHHHHH", 5, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c" + struct.pack(">HH", 16, 1)
    assert code(responder.udp(loop)) == FORMERR
    # Type ANY gets a short response, which is useless for amplification.
    assert len(responder.udp(question(CHALLENGE, kind=255))) < 512

    whole = question(CHALLENGE)
    noise = random.Random(53)
    with socket.socket(type=socket.SOCK_DGRAM) as asker:
        asker.bind((NOISY, 0))
        for length in range(len(whole)):
            asker.sendto(whole[:length], responder.address)
        for _ in range(300):
            broken = bytearray(whole)
            for _ in range(noise.randrange(1, 6)):
                broken[noise.randrange(len(broken))] = noise.randrange(256)
            asker.sendto(bytes(broken), responder.address)
            asker.sendto(noise.randbytes(noise.randrange(0, 600)), responder.address)
        # A response never gets a response.
        asker.sendto(question(CHALLENGE, flags=0x8100), responder.address)
    # Other networks do not notice, and the limited network soon gets responses again.
    assert sorted(dig(host, CHALLENGE, "TXT", "+short", port=port)) == sorted(values)
    wait_for(lambda: len(responder.udp(whole, NOISY, 0.5) or b"") > 100, "queries from there are answered")

    # Over TCP: truncated, shorter than announced, far too long, and many silent connections.
    silent = [responder.tcp() for _ in range(80)]
    for message in (b"", b"\0", b"\0\x10abc", b"\xff\xff" + bytes(70000), b"\0\0"):
        with responder.tcp() as connection:
            try:
                connection.sendall(message)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError:
                pass
    for connection in silent:
        connection.close()
    wait_for(lambda: len(_tcp_values(host, port)) == 2, "queries over TCP are answered")

    held.proxy.release()
    held.issued()
    assert not held.daemon.failures()
    # The certificate may be there before the last of its challenges is taken back.
    wait_for(lambda: _tcp_values(host, port) == [], "no challenge is left")


def _tcp_values(host, port):
    try:
        return [line for line in dig(host, CHALLENGE, "TXT", "+short", "+tcp", port=port) if line.startswith('"')]
    except AssertionError:
        return []


# Certificates in files


class Files:
    """A daemon's certificate and key, and an authority that makes them."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = Authority(folder / "authority")
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.tls = f'mode = "files"\ncert = "{self.cert}"\nkey = "{self.key}"'

    def put(self, pair):
        """Replaces the files by new ones, as certbot does."""
        for path, text in zip((self.cert, self.key), pair):
            if text is not None:
                new = path.with_suffix(".new")
                new.write_text(text)
                os.replace(new, path)

    def good(self):
        return self.authority.pair(*NAMES)


def truncated(files):
    cert, key = files.good()
    return cert[: len(cert) // 2], key


def no_key(files):
    return files.good()[0], "nothing\n"


def mismatched(files):
    return files.good()[0], files.good()[1]


def expired(files):
    return files.authority.pair(*NAMES, begins=-10 * DAY, ends=-1 * datetime.timedelta(seconds=10))


def of_other_names(files):
    return files.authority.pair("other.test", "*.other.test")


def without_wildcard(files):
    return files.authority.pair(DOMAIN)


# The faults, and what the error must name in addition to the file.
BROKEN = {
    truncated: ("cert.pem", ""),
    no_key: ("key.pem", ""),
    mismatched: ("key.pem", "does not belong to"),
    expired: ("cert.pem", "expired"),
    of_other_names: ("cert.pem", DOMAIN),
    without_wildcard: ("cert.pem", f"*.{DOMAIN}"),
}


def test_files_at_the_start(tmp_path):
    """The daemon does not start with an unusable pair. One line names the file and the reason."""
    files = Files(tmp_path)
    for broken, (file, why) in BROKEN.items():
        files.put(broken(files))
        with pytest.raises(AssertionError) as failed:
            Daemon(tmp_path / "cokd", tls=files.tls)
        said = str(failed.value)
        assert str(tmp_path / file) in said and why in said, (broken.__name__, said)
        assert "panicked" not in said
        code_, _, said = cokd("check", "--config", tmp_path / "cokd" / "cokd.toml")
        assert code_ == 2 and f"tls.{file.removesuffix('.pem')}: {tmp_path / file}: " in said and why in said, said
    files.cert.unlink()
    code_, _, said = cokd("check", "--config", tmp_path / "cokd" / "cokd.toml")
    assert code_ == 2 and "cert" in said and str(files.cert) in said, said


def test_files_that_change(tmp_path):
    """The daemon serves a new pair without a restart. It refuses a broken pair with a clear line and keeps the previous one."""
    files = Files(tmp_path)
    files.put(files.good())
    daemon = Daemon(tmp_path / "cokd", tls=files.tls)
    daemon.ca = files.authority.ca_file
    try:
        def served():
            with daemon.tls().wrap_socket(daemon.connect(), server_hostname=DOMAIN) as connection:
                return connection.getpeercert()["serialNumber"]

        assert daemon.curl("", "/health/ready").stdout == b"ready\n"
        first = served()
        # Each pair takes two checks of the files. test_files_at_the_start covers the other faults.
        for broken in (mismatched, expired):
            file, why = BROKEN[broken]
            start = len(daemon.process.lines)
            files.put(broken(files))
            error = daemon.process.wait_event("certificate_refused", start=start)["error"]
            assert str(tmp_path / file) in error and why in error, (broken.__name__, error)
            assert served() == first
        start = len(daemon.process.lines)
        files.put(files.good())
        daemon.process.wait_event("certificate", start=start, source="files")
        wait_for(lambda: served() != first, "the new pair is served")
        assert daemon.curl("", "/health/ready").stdout == b"ready\n"
        # A copy overwrites one file after the other: the daemon does not load a half-written pair.
        second, start = served(), len(daemon.process.lines)
        cert, key = files.good()
        files.cert.write_text(cert)
        files.key.write_text(key)
        daemon.process.wait_event("certificate", start=start, source="files")
        assert served() not in (first, second)
        assert "certificate_refused" not in "\n".join(daemon.process.lines[start:])
    finally:
        daemon.stop()


def test_files_that_become_valid(tmp_path):
    """One line refuses a certificate that is not valid yet. The daemon serves it once it is valid."""
    files = Files(tmp_path)
    files.put(files.good())
    daemon = Daemon(tmp_path / "cokd", tls=files.tls)
    daemon.ca = files.authority.ca_file
    try:
        start = len(daemon.process.lines)
        files.put(files.authority.pair(*NAMES, begins=datetime.timedelta(seconds=16)))
        refused = daemon.process.wait_event("certificate_refused", start=start)
        assert "not valid before" in refused["error"]
        daemon.process.wait_event("certificate", start=start, source="files", deadline=60)
        assert sum("certificate_refused" in line for line in daemon.process.lines) == 1
        assert daemon.metric("cok_certificate_failures_total") == 1
        assert daemon.curl("", "/health/ready").stdout == b"ready\n"
    finally:
        daemon.stop()


# Credentials


def test_missing_credentials(tmp_path):
    """One line names the configuration key and the file of each, and the daemon does not start."""
    none = tmp_path / "none"
    dns = f'dns = ["127.0.0.1:{free_port()}"]'
    rfc2136 = f'provider = "rfc2136"\nserver = "127.0.0.1:53"\ntsig_name = "k."\ntsig_secret_file = "{none}"'
    httpreq = f'provider = "httpreq"\nurl = "https://hook.test"\nusername = "u"\npassword_file = "{none}"'
    cases = {
        "eab_hmac_key_file": (dns, f'eab_key_id = "k"\neab_hmac_key_file = "{none}"', EMBEDDED),
        "ca_file": (dns, f'ca_file = "{none}"', EMBEDDED),
        "tsig_secret_file": ("", "", rfc2136),
        "password_file": ("", "", httpreq),
        "program": ("", "", f'provider = "exec"\nprogram = "{none}"'),
    }
    for key, (listen, acme, solver) in cases.items():
        config = tmp_path / f"{key}.toml"
        config.write_text(
            f'domain = "{DOMAIN}"\nstate_dir = "{tmp_path / "state"}"\n[listen]\nhttps = ["127.0.0.1:0"]\n'
            f'http = ["127.0.0.1:0"]\nadmin = "127.0.0.1:0"\n{listen}\n'
            f'[acme]\ndirectory = "https://127.0.0.1:1/dir"\n{acme}\n[acme.dns]\n{solver}\n'
        )
        for command in ("check", "run"):
            code_, _, said = cokd(command, "--config", config)
            lines = [line for line in said.splitlines() if str(none) in line]
            assert code_ == 2 and len(lines) == 1 and key in lines[0], (command, key, said)


def test_a_server_that_is_not_trusted(issuance, tmp_path):
    """The error names the server's address and the fault. The same holds for an unreachable server."""
    acme = issuance()
    other = Authority(tmp_path / "other").ca_file
    for number, (directory, ca_file, why) in enumerate([
        (acme.pebble.directory, other, "certificate"),
        (f"https://127.0.0.1:{free_port()}/dir", acme.pebble.ca_file, "refused"),
    ]):
        server = SimpleNamespace(directory=directory, ca_file=ca_file)
        daemon = Certified(tmp_path / f"cokd{number}", server, f"127.0.0.1:{free_port()}")
        error = daemon.process.wait_event("not_issued")["error"]
        assert directory.removeprefix("https://").split("/")[0] in error and why in error.lower(), error
        assert daemon.curl("", "/health/live").stdout == b"ok\n"
        daemon.stop()


def test_invalid_credentials(tmp_path, issuance):
    """The error does not quote the file's content, since it may be a secret."""
    acme = issuance(external_account=True)
    secret = tmp_path / "eab.key"
    secret.write_text("this is no base64url!\n")
    with pytest.raises(AssertionError) as failed:
        acme.start(acme=f'eab_key_id = "kid-1"\neab_hmac_key_file = "{secret}"')
    assert str(secret) in str(failed.value) and "no base64url!" not in str(failed.value)
    # A well-formed key that the server does not know: the daemon logs the refusal and serves on.
    secret.write_text("c2VjcmV0IG9mIG5vYm9keSBhdCBhbGwsIGJ1dCBsb25nIGVub3VnaA\n")
    daemon = acme.start(acme=f'eab_key_id = "kid-1"\neab_hmac_key_file = "{secret}"')
    assert daemon.process.wait_event("not_issued")["error"]
    assert daemon.curl("", "/health/live").stdout == b"ok\n"
    assert serial_of(daemon.leaf())
