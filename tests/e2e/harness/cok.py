"""cokd and cok-client as an operator and a developer start them."""

import hashlib
import itertools
import json
import socket
import ssl
import subprocess
from pathlib import Path

from .process import BIN_DIR, HERE, Process, spawn

DOMAIN = "tunnel.test"
# The allocators return freed memory to the system at once, so that tests can judge resident memory. The first setting
# is for large blocks of the C library's allocator (client), the second for pages of the daemon's.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "32768", "MALLOC_ARENA_MAX": "1", "MIMALLOC_PURGE_DELAY": "0"}

KEY = "cok_test-key-of-the-end-to-end-suite"

# Every test that sends traffic through a tunnel runs once for each of these.
TRANSPORTS = ["ws", "quic"]

_numbers = itertools.count()


def digest(key):
    return hashlib.sha256(key.encode()).hexdigest()


class Daemon:
    """A cokd with its own folder, on free ports. It accepts tunnels over any transport; `transport` is its clients'
    default. `inside` is the place of the daemon and its visitors. `listen`, `tls` and `more` are the rest of its
    configuration. Visitors trust its own authority, or `ca` once that is set."""

    def __init__(
        self, folder, limits="", keys="", https="127.0.0.1:0", state=None, env=None, transport="ws", inside=HERE,
        admin="127.0.0.1:0", listen="", tls='mode = "self-signed"', more="",
    ):
        self.env, self.transport, self.inside = env, transport, inside
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state = state or self.folder / "state"
        self.config = self.folder / "cokd.toml"
        self.config.write_text(
            f"""
domain = "{DOMAIN}"
state_dir = "{self.state}"
[listen]
https = ["{https}"]
http = ["127.0.0.1:0"]
admin = "{admin}"
{listen}
[tls]
{tls}
[limits]
{limits}
[[keys]]
name = "test"
secret_sha256 = "{digest(KEY)}"
max_tunnels = 1000
{keys}
{more}
"""
        )
        self.ca = self.state / "authority" / "ca.pem"
        self.start()

    def start(self):
        command = [BIN_DIR / "cokd", "run", "--config", self.config, "--log-format", "json"]
        self.process = Process(*command, env=self.env, inside=self.inside)
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
        self.address, _, port = self.https.rpartition(":")
        self.port = int(port)
        self.http_port = int(self.http.rpartition(":")[2])

    def host(self, name):
        return f"{name}.{DOMAIN}" if name else DOMAIN

    def url(self, name, path="/"):
        return f"https://{self.host(name)}:{self.port}{path}"

    def curl_command(self, name, path="/", *options, deadline=60):
        host = self.host(name)
        return self.inside.command(
            "curl", "-sS", "--max-time", str(deadline), "--path-as-is", "--cacert", self.ca,
            "--resolve", f"{host}:{self.port}:{self.address}", *options, self.url(name, path),
        )

    def admin_get(self, path):
        """Returns status and text of a response from the admin address."""
        command = self.inside.command(
            "curl", "-sS", "--max-time", "20", "--write-out", "\n%{http_code}", f"http://{self.admin}{path}"
        )
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        body, _, status = text.rpartition("\n")
        return int(status), body

    def ready(self):
        return self.admin_get("/health/ready")[0] == 200

    def metrics(self):
        """Returns all samples by name and labels."""
        samples = (line.rsplit(" ", 1) for line in self.admin_get("/metrics")[1].splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def metric(self, name):
        return self.metrics()[name]

    def answered(self, status=200):
        """Returns the number of finished requests with this status."""
        return self.metrics().get(f'cok_requests_total{{status="{status}"}}', 0)

    def curl(self, name, path="/", *options, check=True, deadline=60):
        """Runs curl as a visitor. Returns its completed process, with bytes on standard output."""
        command = self.curl_command(name, path, *options, deadline=deadline)
        result = subprocess.run(command, capture_output=True, check=False, timeout=deadline + 10)
        if check:
            assert result.returncode == 0, result.stderr.decode()
        return result

    def start_curl(self, name, path="/", *options, deadline=60):
        """Starts curl as a visitor. Its output can be read as it arrives."""
        command = self.curl_command(name, path, "--no-buffer", *options, deadline=deadline)
        return spawn(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def connect(self, deadline=20):
        """Opens a visitor's TCP connection."""
        return self.inside.enter(lambda: socket.create_connection((self.address, self.port), timeout=deadline))

    def tls(self, alpn=None):
        context = ssl.create_default_context(cafile=str(self.ca))
        if alpn:
            context.set_alpn_protocols([alpn])
        return context

    def client(
        self, target, name=None, wait=True, key=KEY, options=("--verbose",), state=None, transport=None, inside=HERE
    ):
        transport = transport or self.transport
        client = Client(self, target, name or f"t{next(_numbers)}", key, options, state, transport, inside)
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

    def __init__(self, daemon, target, name, key, options, state, transport, inside):
        self.daemon, self.target, self.name, self.key, self.options = daemon, target, name, key, options
        self.transport, self.inside = transport, inside
        self.state = state or daemon.folder / f"client-{name}"
        self.key_file = daemon.folder / f"key-{next(_numbers)}"
        self.key_file.write_text(key)
        self.start()

    def start(self):
        self.process = Process(
            BIN_DIR / "cok-client", "http", self.target, "--subdomain", self.name, "--transport", self.transport,
            "--server", self.daemon.url(""), "--connect-to", self.daemon.https, "--ca-file", self.daemon.ca,
            "--api-key-file", self.key_file, "--state-dir", self.state, "--log-format", "json",
            *self.options,
            # Most tests judge a client's memory and output without what the inspector adds.
            env={"COK_INSPECT": "off", **(self.daemon.env or {})}, inside=self.inside,
        )

    def wait_online(self, start=0):
        """Waits for the tunnel and checks its transport."""
        event = self.process.wait_event("connected", start=start)
        assert self.transport in (event["transport"], "auto"), event
        self.url = event["url"]

    def stop(self):
        return self.process.stop()

    def curl(self, path="/", *options, **more):
        return self.daemon.curl(self.name, path, *options, **more)

    def start_curl(self, path="/", *options, **more):
        return self.daemon.start_curl(self.name, path, *options, **more)

    @property
    def host(self):
        return self.daemon.host(self.name)


class Dev(Process):
    """`cokd dev` on a free port, or with `options`. `info` is the line that it prints."""

    def __init__(self, state, *arguments, options=("--https-port", "0"), inside=HERE):
        self.inside = inside
        super().__init__(
            BIN_DIR / "cokd", "dev", *arguments, *options, "--json", "--state-dir", state, inside=inside
        )
        try:
            self.info = json.loads(self.wait_stdout())
        except BaseException:
            self.kill()
            raise
        self.port = int(self.info["server"].rpartition(":")[2])

    def curl(self, url, *options):
        """Runs curl as a visitor. curl resolves names under .localhost by itself."""
        command = ["curl", "-sS", "--max-time", "30", "--cacert", self.info["ca_file"], *options, url]
        return subprocess.run(self.inside.command(*command), capture_output=True, check=True, timeout=40).stdout
