"""cokd and cok-client as an operator and a developer start them."""

import hashlib
import itertools
import ssl
import subprocess
from pathlib import Path

from .process import BIN_DIR, Process

DOMAIN = "tunnel.test"
KEY = "cok_test-key-of-the-end-to-end-suite"

_numbers = itertools.count()


def digest(key):
    return hashlib.sha256(key.encode()).hexdigest()


class Daemon:
    """A cokd with its own folder, on free ports."""

    def __init__(self, folder, limits="", keys="", https="127.0.0.1:0"):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / "cokd.toml"
        self.config.write_text(
            f"""
domain = "{DOMAIN}"
state_dir = "{self.folder}/state"
[listen]
https = ["{https}"]
http = ["127.0.0.1:0"]
admin = "127.0.0.1:0"
[tls]
mode = "self-signed"
[limits]
{limits}
[[keys]]
name = "test"
secret_sha256 = "{digest(KEY)}"
max_tunnels = 1000
{keys}
"""
        )
        self.start()

    def start(self):
        self.process = Process(BIN_DIR / "cokd", "run", "--config", self.config, "--log-format", "json")
        try:
            self.process.wait_event("ready")
            addresses = {
                name: self.process.wait_event("listening", listener=name)["address"]
                for name in ("https", "http", "admin")
            }
        except AssertionError:
            self.process.kill()
            raise
        self.https, self.http, self.admin = (addresses[name] for name in ("https", "http", "admin"))
        self.port = int(self.https.rpartition(":")[2])
        self.http_port = int(self.http.rpartition(":")[2])
        self.ca = self.folder / "state" / "authority" / "ca.pem"

    def host(self, name):
        return f"{name}.{DOMAIN}" if name else DOMAIN

    def url(self, name, path="/"):
        return f"https://{self.host(name)}:{self.port}{path}"

    def curl(self, name, path="/", *options, check=True, deadline=60):
        """curl as a visitor; its completed process, with bytes on standard output."""
        host = self.host(name)
        result = subprocess.run(
            ["curl", "-sS", "--max-time", str(deadline), "--path-as-is", "--cacert", self.ca,
             "--resolve", f"{host}:{self.port}:127.0.0.1", *options, self.url(name, path)],
            capture_output=True, check=False, timeout=deadline + 10,
        )
        if check:
            assert result.returncode == 0, result.stderr.decode()
        return result

    def tls(self, alpn=None):
        context = ssl.create_default_context(cafile=str(self.ca))
        if alpn:
            context.set_alpn_protocols([alpn])
        return context

    def client(self, target, name=None, wait=True, key=KEY, options=("--verbose",), state=None):
        client = Client(self, target, name or f"t{next(_numbers)}", key, options, state)
        if wait:
            try:
                client.wait_online()
            except AssertionError:
                client.stop()
                raise
        return client

    def stop(self):
        return self.process.stop()


class Client:
    """A cok-client with one tunnel."""

    def __init__(self, daemon, target, name, key, options, state):
        self.daemon, self.target, self.name, self.key, self.options = daemon, target, name, key, options
        self.state = state or daemon.folder / f"client-{name}"
        self.key_file = daemon.folder / f"key-{next(_numbers)}"
        self.key_file.write_text(key)
        self.start()

    def start(self):
        self.process = Process(
            BIN_DIR / "cok-client", "http", self.target, "--subdomain", self.name, "--transport", "ws",
            "--server", self.daemon.url(""), "--connect-to", self.daemon.https, "--ca-file", self.daemon.ca,
            "--api-key-file", self.key_file, "--state-dir", self.state, "--log-format", "json",
            *self.options,
        )

    def wait_online(self, start=0):
        self.url = self.process.wait_event("connected", start=start)["url"]

    def stop(self):
        return self.process.stop()

    def curl(self, path="/", *options, **more):
        return self.daemon.curl(self.name, path, *options, **more)
