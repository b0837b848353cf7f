"""A daemon that gets its certificate by ACME, from an operator's and a visitor's view."""

import datetime
import json
import ssl
import subprocess
import threading
import time

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from .acme_proxy import AcmeProxy
from .cok import DOMAIN, Daemon
from .pebble import Pebble
from .ports import free_port
from .process import BIN_DIR, HERE, wait_for

EMBEDDED = 'provider = "embedded"'


def cokd(*arguments, inside=HERE, env=None):
    """Runs a command of the operator. Returns exit code, standard output and standard error."""
    command = inside.command(BIN_DIR / "cokd", *arguments)
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=30, env=env
    )
    return result.returncode, result.stdout, result.stderr


class Certified(Daemon):
    """A daemon that orders from `server` (Pebble or AcmeProxy). `solver` has the lines of [acme.dns], and `acme` more
    lines of [acme]. `dns` is the address where the embedded solver answers queries."""

    def __init__(self, folder, server, dns=None, solver=EMBEDDED, acme="", **more):
        self.server, self.dns = server, dns
        acme = f"""
[acme]
directory = "{server.directory}"
contact = ["mailto:ops@{DOMAIN}"]
ca_file = "{server.ca_file}"
{acme}
[acme.dns]
{solver}
"""
        listen = f'dns = ["{dns}"]' if dns else ""
        super().__init__(folder, listen=listen, tls='mode = "acme"', more=acme + more.pop("more", ""), **more)

    def issued(self, start=0, deadline=60):
        """Waits until a new certificate is issued and served."""
        event = self.process.wait_event("issued", start=start, deadline=deadline)
        wait_for(lambda: serial_of(self.leaf()) == plain(event["serial"]), "the new certificate is served")
        return event

    def leaf(self, name="", deadline=20):
        """Returns the served certificate without verifying it."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(self.connect(deadline), server_hostname=self.host(name)) as connection:
            return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))

    def status(self):
        """Returns the output of `cokd cert status`."""
        code, out, err = cokd("cert", "status", "--config", self.config, "--json", inside=self.inside)
        assert code == 0, err
        return json.loads(out)

    def renew(self, *options):
        """Runs `cokd cert renew`, which asks the running daemon."""
        code, _, err = cokd("cert", "renew", "--config", self.config, *options, inside=self.inside)
        assert code == 0, err

    def store(self):
        """Returns the state folder of its ACME server."""
        (folder,) = (self.state / "acme").iterdir()
        return folder

    def restart(self):
        self.stop()
        self.start()

    def failures(self, start=0):
        """Returns the log events of failed attempts."""
        lines = [json.loads(line) for line in self.process.lines[start:] if line.startswith("{")]
        return [line for line in lines if line.get("event") == "not_issued"]


def serial_of(certificate):
    return f"{certificate.serial_number:x}"


def plain(serial):
    """Converts a serial number from the daemon's form to the form of `serial_of`."""
    return serial.replace(":", "").lower().lstrip("0")


def names_of(certificate):
    extension = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    return set(extension.value.get_values_for_type(x509.DNSName))


def valid_now(certificate):
    return certificate.not_valid_before_utc.timestamp() <= time.time() < certificate.not_valid_after_utc.timestamp()


def moment(value):
    """Converts a time of a status to seconds since 1970."""
    return value if isinstance(value, (int, float)) else datetime.datetime.fromisoformat(value).timestamp()


class Issuance:
    """An ACME server and a daemon that gets its certificate there with the embedded solver."""

    def __init__(self, folder, proxy=False, **pebble):
        self.folder, self.daemon = folder, None
        self.dns = f"127.0.0.1:{free_port()}"
        self.pebble = Pebble(folder / "pebble", self.dns, **pebble)
        self.proxy = AcmeProxy(self.pebble) if proxy else None

    def start(self, **daemon):
        """Starts the daemon, which has no certificate yet."""
        self.daemon = Certified(self.folder / "cokd", self.proxy or self.pebble, self.dns, **daemon)
        return self.daemon

    def trust(self):
        """From now on visitors and clients trust only certificates that pebble signed."""
        self.daemon.ca = self.pebble.root()

    def issued(self, **more):
        """Waits for a new certificate, which visitors and clients then trust."""
        event = self.daemon.issued(**more)
        self.trust()
        return event

    def renewed(self, *options):
        """Requests a new certificate as an operator does, and waits for it."""
        start = len(self.daemon.process.lines)
        self.daemon.renew(*options)
        return self.issued(start=start)

    def orders_within(self, seconds=6):
        """Returns the number of orders in this time. No condition can show that no order comes."""
        before = self.pebble.orders()
        threading.Event().wait(seconds)
        return self.pebble.orders() - before

    def stop(self):
        for program in (self.daemon, self.proxy, self.pebble):
            if program:
                program.stop()
