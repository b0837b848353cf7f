"""Certificates by ACME: the first one, renewal under load, restarts, and servers that lose accounts or refuse."""

import json
import threading

import pytest

from harness import raw
from harness.acme_account import deactivate
from harness.certified import Certified, cokd, moment, names_of, plain, serial_of, valid_now
from harness.cok import DOMAIN, TRANSPORTS
from harness.http3 import Http3
from harness.pebble import EXTERNAL_ACCOUNT, PROOFS_OF_TWO
from harness.ports import free_port
from harness.process import wait_for
from harness.visitors import Visitors

NAMES = {DOMAIN, f"*.{DOMAIN}"}


def test_the_first_certificate(issuance, nginx, record_property):
    """Within 5 s of the start, visitors trust the certificate over HTTP/1.1, 2 and 3. It covers the base name and a
    tunnel's name."""
    acme = issuance()
    daemon = acme.start()
    event = acme.issued()
    first = json.loads(daemon.process.lines[0])
    seconds = moment(event["timestamp"]) - moment(first["timestamp"])
    print(f"the first certificate after {seconds:.2f} s")
    record_property("seconds_to_the_first_certificate", seconds)
    assert seconds < 5

    leaf = daemon.leaf()
    assert names_of(leaf) == NAMES and valid_now(leaf) and "Pebble" in event["issuer"]
    assert daemon.process.wait_event("certificate", source="acme")["not_after"] == leaf.not_valid_after_utc.timestamp()
    assert acme.pebble.orders() == 1
    for transport in TRANSPORTS:
        client = daemon.client(nginx.target, f"site-{transport}", transport=transport)
        for version in ("--http1.1", "--http2"):
            assert daemon.curl("", "/health/ready", version).stdout == b"ready\n"
            assert client.curl("/", version).stdout == b"<h1>hello</h1>\n"
        for name in ("", client.name):
            with Http3(daemon, name) as visitor:
                assert serial_of(visitor.quic.tls._peer_certificate) == serial_of(leaf)
        client.stop()
    assert serial_of(daemon.leaf("any-name")) == serial_of(leaf)


def test_a_self_signed_certificate_until_the_first_one(issuance):
    """Until the first certificate, the daemon serves a self-signed one, says so, and is not ready."""
    acme = issuance(proxy=True)
    acme.proxy.hold("finalize")
    daemon = acme.start()
    daemon.process.wait_event("stand_in")
    assert acme.proxy.held.wait(20)
    stand_in = daemon.leaf()
    assert names_of(stand_in) == NAMES and "cok" in stand_in.issuer.rfc4514_string()
    status, why = daemon.admin_get("/health/ready")
    assert (status, why) == (503, "not ready: there is no certificate yet, and a self-signed one is served\n")
    assert daemon.admin_get("/health/live")[0] == 200
    # Visitors that trust the daemon's own authority are served already.
    assert daemon.curl("", "/health/ready", "--write-out", "%{http_code}").stdout == b"not ready\n503"
    assert daemon.metric("cok_certificate_renewals_total") == 0
    status = daemon.status()
    assert status["serial"] is None and status["last_error"] is None

    acme.proxy.release()
    event = acme.issued()
    wait_for(daemon.ready, "it is ready")
    leaf = daemon.leaf()
    assert daemon.metric("cok_certificate_expiry_seconds") == leaf.not_valid_after_utc.timestamp()
    assert daemon.metric("cok_certificate_renewals_total") == 1
    assert daemon.metric("cok_certificate_failures_total") == 0
    status = daemon.status()
    assert set(status["names"]) == NAMES and status["issuer"] == event["issuer"] and status["source"] == "acme"
    assert plain(status["serial"]) == serial_of(leaf)
    assert daemon.curl("", "/health/ready").stdout == b"ready\n"
    # The human-readable form.
    code, text, _ = cokd("cert", "status", "--config", daemon.config)
    assert code == 0 and f"{DOMAIN}, *.{DOMAIN}" in text and "no daemon runs" not in text, text
    daemon.stop()
    assert "no daemon runs" in cokd("cert", "status", "--config", daemon.config)[1]


class Newcomers:
    """Visitors that open a new connection for each request, over TCP and QUIC in turn, until they are stopped."""

    def __init__(self, daemon, names):
        self.daemon, self.names = daemon, names
        self.serials, self.failures = set(), []
        self.count = {"tcp": 0, "quic": 0}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._come, args=[way]) for way in (self._tcp, self._quic)]
        for thread in self._threads:
            thread.start()

    def _come(self, way):
        number = 0
        while not self._stop.wait(0.02):
            name, number = self.names[number % len(self.names)], number + 1
            try:
                way(name)
                self.count[way.__name__.strip("_")] += 1
            except (OSError, EOFError, AssertionError) as why:
                self.failures.append(f"{way.__name__} {name!r}: {why!r}")

    def _tcp(self, name):
        with raw.connect(self.daemon, name) as connection:
            self.serials.add(connection.getpeercert()["serialNumber"])
            path = "/" if name else "/health/live"
            request = f"GET {path} HTTP/1.1\r\nhost: {self.daemon.host(name)}\r\nconnection: close\r\n\r\n"
            connection.sendall(request.encode())
            status = raw.read_head(connection).split(b"\r\n")[0]
            assert status == b"HTTP/1.1 200 OK", status

    def _quic(self, name):
        with Http3(self.daemon, name) as visitor:
            self.serials.add(serial_of(visitor.quic.tls._peer_certificate).upper())

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_renewal_under_load(issuance, nginx):
    """The daemon gets four new certificates under load. No handshake fails, and open connections and tunnels stay."""
    acme = issuance()
    daemon = acme.start()
    acme.issued()
    clients = [daemon.client(nginx.target, f"site-{transport}", transport=transport) for transport in TRANSPORTS]
    staying = [Visitors(daemon, client.name, connections=3, rate=30) for client in clients]
    coming = Newcomers(daemon, ["", *(client.name for client in clients)])
    with Http3(daemon, clients[0].name) as kept:
        before = set(coming.serials)
        for _ in range(4):
            event = acme.renewed()
            seen = dict(coming.count)
            wait_for(lambda: all(coming.count[way] > seen[way] + 3 for way in seen), "visitors come after the renewal")
            before.add(plain(event["serial"]).upper())
        assert not kept.closed
    coming.stop()
    for visitors in staying:
        visitors.stop()
        assert not visitors.failures, visitors.failures
        assert len(visitors.times) > 50
    assert not coming.failures, coming.failures
    # Python keeps leading zeros.
    serials = {serial.lstrip("0") for serial in coming.serials}
    assert len(serials) >= 4 and before - {""} <= serials
    for client in clients:
        assert "disconnected" not in client.process.output()
    assert daemon.metric("cok_certificate_renewals_total") == 5
    assert daemon.metric("cok_active_tunnels") == len(clients)


def test_a_restart_keeps_everything(issuance):
    """After a restart the daemon serves the stored certificate at once and places no order."""
    acme = issuance(proxy=True)
    daemon = acme.start()
    acme.issued()
    serial = serial_of(daemon.leaf())
    for _ in range(3):
        daemon.restart()
        # It is ready at once, without the ACME server.
        assert daemon.ready() and serial_of(daemon.leaf()) == serial
        daemon.process.wait_event("certificate", source="acme")
        assert daemon.curl("", "/health/ready").stdout == b"ready\n"
    assert acme.proxy.orders() == 1 and len(acme.proxy.payloads("account")) == 1
    # Another server has its own account and certificates.
    assert len(list((daemon.state / "acme").iterdir())) == 1
    for path in daemon.store().rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_damaged_files(issuance):
    """The daemon sets damaged files aside, says so, and serves the previous certificate. Without one it orders a new one.
    Without an account it makes a new account."""
    acme = issuance()
    daemon = acme.start()
    acme.issued()
    first = serial_of(daemon.leaf())
    acme.renewed()
    daemon.stop()
    newest, kept = daemon.store() / "generations" / "0002" / "chain.pem", daemon.store() / "generations" / "0001"
    newest.write_bytes(newest.read_bytes()[:700])
    daemon.start()
    assert str(newest) in daemon.process.wait_event("damaged")["damage"]
    assert serial_of(daemon.leaf()) == first and daemon.ready()
    wait_for(lambda: not newest.parent.exists(), "it is set aside")
    assert list((daemon.store() / "damaged").iterdir()) and acme.pebble.orders() == 2
    daemon.stop()
    (kept / "key.pem").write_bytes(b"")
    for name in ("account.json", "state.json"):
        (daemon.store() / name).write_text("{")
    daemon.start()
    daemon.process.wait_event("stand_in")
    acme.issued()
    assert len([line for line in daemon.process.lines if '"damaged"' in line]) >= 3
    assert acme.pebble.orders() == 3 and not daemon.failures()
    assert daemon.curl("", "/health/ready").stdout == b"ready\n"


def test_two_daemons_with_one_state(issuance, tmp_path):
    """A new version may start before the old one ends. Both serve, one orders, and the other takes over from it."""
    acme = issuance()
    daemon = acme.start()
    acme.issued()
    second = Certified(tmp_path / "second", acme.pebble, f"127.0.0.1:{free_port()}", state=daemon.state)
    try:
        assert serial_of(second.leaf()) == serial_of(daemon.leaf()) and second.ready()
        second.process.wait_line(lambda line: "another process renews" in line, "a message about the other daemon")
        acme.renewed()
        assert acme.pebble.orders() == 2
        latest = serial_of(daemon.leaf())
        daemon.stop()
        # It reads the other daemon's certificate.
        wait_for(lambda: serial_of(second.leaf()) == latest, "it takes over")
        assert acme.pebble.orders() == 2 and not second.failures()
    finally:
        second.stop()


def test_a_server_that_has_lost_its_accounts(issuance):
    """Renewal makes a new account."""
    acme = issuance()
    daemon = acme.start()
    acme.issued()
    first = serial_of(daemon.leaf())
    acme.pebble.restart()
    start = len(daemon.process.lines)
    acme.renewed()
    daemon.process.wait_event("account", start=start)
    assert serial_of(daemon.leaf()) != first and not daemon.failures()
    assert daemon.curl("", "/health/ready").stdout == b"ready\n"
    # The daemon sets the invalid account aside and keeps the new one.
    daemon.restart()
    acme.renewed()
    assert not daemon.failures()


def test_an_account_that_was_deactivated(issuance):
    """Renewal makes a new account once and sets the deactivated one aside (RFC 8555, section 7.3.6)."""
    acme = issuance(proxy=True)
    daemon = acme.start()
    acme.issued()
    first, account = serial_of(daemon.leaf()), daemon.store() / "account.json"
    old = json.loads(account.read_text())
    deactivate(acme.proxy, old)
    acme.renewed()
    assert serial_of(daemon.leaf()) != first and not daemon.failures()
    assert json.loads(account.read_text())["id"] != old["id"]
    (aside,) = (daemon.store() / "damaged").iterdir()
    assert json.loads(aside.read_text()) == old
    assert len(acme.proxy.payloads("account")) == 2


def test_a_new_account_key(issuance):
    """The operator requests a new account key along with a certificate. The account stays, and its key changes."""
    acme = issuance()
    daemon = acme.start()
    acme.issued()
    kept = daemon.store() / "account.json"
    old = json.loads(kept.read_text())
    acme.renewed("--new-account-key")
    new = json.loads(kept.read_text())
    assert new["id"] == old["id"] and new["key_pkcs8"] != old["key_pkcs8"]
    assert acme.pebble.accounts() == 1 and not daemon.failures()
    # The new key is the valid one.
    acme.renewed()
    assert json.loads(kept.read_text()) == new and acme.pebble.orders() == 3
    wait_for(lambda: not daemon.status()["requested"], "no request is left")


def test_half_of_all_nonces_are_rejected(issuance):
    acme = issuance(nonce_reject=50)
    daemon = acme.start()
    acme.issued()
    for _ in range(3):
        acme.renewed()
    assert not daemon.failures()


@pytest.mark.parametrize("reuse", [0, 100], ids=["proven anew", "proof reused"])
def test_authorizations(issuance, reuse):
    """The server may require a new proof for each order, or reuse proofs."""
    acme = issuance(authorization_reuse=reuse)
    daemon = acme.start()
    acme.issued()
    assert acme.pebble.proofs() == 2
    acme.renewed()
    assert acme.pebble.proofs() in ([2] if reuse else PROOFS_OF_TWO)
    assert not daemon.failures()


def test_an_external_account(issuance, tmp_path):
    """The server requires an account binding. Without it the error says so; with it the daemon gets a certificate."""
    acme = issuance(external_account=True)
    daemon = acme.start()
    error = daemon.process.wait_event("not_issued")["error"]
    assert "externalAccount" in error or "external account" in error.lower(), error
    wait_for(lambda: error == daemon.status()["last_error"], "the status says it")
    daemon.stop()
    identifier, key = EXTERNAL_ACCOUNT
    (tmp_path / "eab.key").write_text(key + "\n")
    binding = f'eab_key_id = "{identifier}"\neab_hmac_key_file = "{tmp_path / "eab.key"}"'
    # The wait after the failure is not over.
    acme.start(acme=binding)
    acme.issued()


def test_a_browser(issuance, nginx, browse):
    """Chromium, which trusts the ACME server's root, accepts the chain for the base name and a tunnel's name."""
    acme = issuance()
    daemon = acme.start()
    acme.issued()
    client = daemon.client(nginx.target, "site")
    driver = browse(str(daemon.ca), f"--host-resolver-rules=MAP *.{DOMAIN} 127.0.0.1, MAP {DOMAIN} 127.0.0.1", "--disable-quic")
    for url, text in ((daemon.url("", "/health/ready"), "ready"), (client.url, "hello")):
        driver.get(url)
        assert text in driver.page_source and driver.execute_script("return isSecureContext && location.protocol") == "https:"
    acme.renewed()
    driver.get(daemon.url("", "/health/ready"))
    assert "ready" in driver.page_source


def test_a_browser_that_trusts_another_root(issuance, browse, tmp_path):
    """The previous test proves little if this browser accepts any certificate."""
    acme = issuance()
    daemon = acme.start()
    acme.issued()
    driver = browse(str(acme.pebble.ca_file), f"--host-resolver-rules=MAP {DOMAIN} 127.0.0.1", "--disable-quic")
    driver.get(daemon.url("", "/health/ready"))
    assert driver.title == "Privacy error" and "ERR_CERT_AUTHORITY_INVALID" in driver.page_source
