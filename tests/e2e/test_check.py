"""`cokd check`: what is around the configuration, as the service will find it. Exit code 1 if something is missing or in the
way, 2 for mistakes in the configuration."""

import os
import re
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from harness.authority import Authority
from harness.certified import cokd
from harness.cok import DOMAIN, KEY, digest
from harness.dns_servers import PARENT, Knot
from harness.netns import Namespace
from harness.ports import free_port
from harness.process import HERE

KEYS = f'[[keys]]\nname = "laptop"\nsecret_sha256 = "{digest(KEY)}"\n'
OLD = f'[[keys]]\nname = "old"\nsecret_sha256 = "{digest("old")}"\nexpires = "2020-01-01T00:00:00Z"\n'
HERE_4, HERE_6, ELSEWHERE = "192.0.2.1", "2001:db8::1", "198.51.100.7"


class Configuration:
    """A configuration file. Each part can be replaced."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "cokd.toml"
        self.state = folder / "state"
        self.tls, self.keys, self.more = 'mode = "self-signed"', KEYS, ""
        self.listen = {"https": '["127.0.0.1:0"]', "http": "[]", "admin": '"127.0.0.1:0"'}

    def check(self, *options, inside=HERE):
        """Returns exit code and output lines."""
        listen = "".join(f"{key} = {value}\n" for key, value in self.listen.items())
        self.file.write_text(
            f'domain = "{DOMAIN}"\nstate_dir = "{self.state}"\n[listen]\n{listen}[tls]\n{self.tls}\n{self.keys}{self.more}'
        )
        code, out, err = cokd("check", "--config", self.file, *options, inside=inside)
        return code, (out + err).splitlines()


@pytest.fixture
def configuration(tmp_path):
    return Configuration(tmp_path)


def test_a_good_one_says_one_line(configuration):
    assert configuration.check() == (0, [f"{configuration.file}: no mistakes"])
    assert not configuration.state.exists(), "a check writes nothing"


def test_keys(configuration):
    """An expired key is named. Without a valid key no client can connect."""
    configuration.keys = KEYS + OLD
    code, (_, line) = configuration.check()
    assert code == 0 and line.startswith('keys: expired: "old";')
    configuration.keys = OLD
    code, (_, _, line) = configuration.check()
    assert code == 1 and line == "keys: none is valid, so no client can connect; make one: cokd key create --name laptop"
    configuration.keys = ""
    code, (_, line) = configuration.check()
    assert code == 1 and line.startswith("keys: there is none,")
    # What the line says helps.
    assert cokd("key", "create", "--name", "laptop", "--config", configuration.file)[0] == 0
    assert configuration.check()[0] == 0
    # A store that cannot be read is not an empty one.
    for log in configuration.state.glob("store.db-*"):
        log.unlink()
    (configuration.state / "store.db").write_bytes(b"no database" * 1000)
    code, (_, line) = configuration.check()
    assert code == 1 and line.startswith("keys: ") and "damaged" in line, line


def test_ports(configuration):
    """A port that is used twice is a mistake. A port that another program has is named with that program."""
    port = free_port()
    configuration.listen |= {"https": f'["127.0.0.1:{port}"]', "http": f'["0.0.0.0:{port}"]'}
    code, lines = configuration.check()
    assert code == 2 and lines == [
        f"{configuration.file}: listen.http: 0.0.0.0:{port} is used twice over TCP: listen.https has 127.0.0.1:{port}"
    ]
    configuration.listen["http"] = "[]"
    assert configuration.check()[0] == 0
    for kind, carried in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
        with socket.socket(type=kind) as other:
            other.bind(("127.0.0.1", port))
            if kind == socket.SOCK_STREAM:
                other.listen()
            code, (_, line) = configuration.check()
        assert code == 1 and f"(process {os.getpid()}) has 127.0.0.1:{port} over {carried}" in line, line
    configuration.listen["https"] = '["198.51.100.1:443"]'
    code, (_, *lines) = configuration.check()
    assert code == 1 and lines == ["listen.https: this machine has no address 198.51.100.1"] * 2


def test_a_running_daemon_has_its_ports(own_daemon):
    """Its own ports are no one else's."""
    daemon = own_daemon()
    daemon.config.write_text(daemon.config.read_text().replace('https = ["127.0.0.1:0"]', f'https = ["{daemon.https}"]'))
    assert cokd("check", "--config", daemon.config)[0] == 0
    # Other programs' ports are.
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        daemon.config.write_text(re.sub(r'^admin = ".*"', f'admin = "127.0.0.1:{port}"', daemon.config.read_text(), flags=re.M))
        code, out, _ = cokd("check", "--config", daemon.config)
    assert code == 1 and f"(process {os.getpid()}) has 127.0.0.1:{port} over TCP" in out


def test_an_open_admin_address(configuration):
    configuration.listen["admin"] = '"0.0.0.0:0"'
    code, (_, line) = configuration.check()
    assert code == 0 and line.startswith("listen.admin: 0.0.0.0:0 shows metrics and health to everyone")


@pytest.fixture
def open_folder():
    """A folder that every user may enter. pytest's own are for their owner alone."""
    with tempfile.TemporaryDirectory(prefix="cok-check-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.needs("root")
def test_files_are_seen_as_the_user_will(open_folder):
    """Root can read every file. The daemon's user cannot, and the line says how it can."""
    configuration = Configuration(open_folder)
    certificate, key = open_folder / "cert.pem", open_folder / "key.pem"
    for file, text in zip((certificate, key), Authority(open_folder / "authority").pair(DOMAIN, f"*.{DOMAIN}")):
        file.write_text(text)
        file.chmod(0o600)
    configuration.tls = f'mode = "files"\ncert = "{certificate}"\nkey = "{key}"'
    configuration.state.mkdir(mode=0o777)
    configuration.state.chmod(0o777)
    user = ("--user", "nobody", "--resolver", f"127.0.0.1:{free_port()}")
    certificate.chmod(0o644)
    code, (line,) = configuration.check(*user)
    assert code == 2 and line.startswith(f"{configuration.file}: tls.key: {key} may not be read by the user nobody; "), line
    assert f"LoadCredential={key.name}:{key} under [Service]" in line
    key.chmod(0o644)
    assert configuration.check(*user)[0] == 0
    configuration.state.chmod(0o755)
    code, (line,) = configuration.check(*user)
    assert code == 2 and "state_dir: the user nobody may not write to" in line
    code, (line,) = configuration.check("--user", "no-such-user")
    assert code == 2 and 'there is no user "no-such-user"' in line


def test_a_pipe_is_no_secret(configuration, tmp_path):
    """It would block a reader without end. A relative path may name a credential, so the configuration takes any."""
    os.mkfifo(tmp_path / "pipe")
    pipe = os.path.relpath(tmp_path / "pipe")
    configuration.more = f'[admin]\ntoken_file = "{pipe}"\n'
    assert configuration.check() == (2, [f"{configuration.file}: admin.token_file: {pipe} is not a regular file"])


def test_a_state_directory_that_is_a_file(configuration):
    configuration.state.write_text("")
    code, (line,) = configuration.check()
    assert code == 2 and line == f"{configuration.file}: state_dir: {configuration.state} is not a directory"


def test_an_access_log_without_a_folder(configuration, tmp_path):
    configuration.more = f'[access_log]\nto = "{tmp_path}/logs/access.log"\n'
    code, lines = configuration.check()
    assert code == 1 and f"access_log.to: {tmp_path}/logs is not there" in lines
    (tmp_path / "logs").mkdir()
    code, lines = configuration.check()
    assert not [line for line in lines if line.startswith("access_log")]


@pytest.fixture
def world():
    """A network of its own with this machine's public addresses, where port 53 is free."""
    world = Namespace("check")
    for address in (f"{HERE_4}/32", f"{HERE_6}/128"):
        world.ip("address", "add", address, "dev", "lo")
    yield world
    world.delete()


def test_records(configuration, world, tmp_path):
    """Each missing record is printed in zone-file form. Once the printed lines stand in the zone, all is well."""
    zone = f"{DOMAIN}."
    knot = Knot(tmp_path / "knot", {zone: []}, inside=world)
    certificate, key = Authority(tmp_path / "authority").files(DOMAIN, f"*.{DOMAIN}")
    configuration.tls = f'mode = "files"\ncert = "{certificate}"\nkey = "{key}"'
    configuration.listen["https"] = '["[::]:0"]'

    def check(*options):
        code, (_, *lines) = configuration.check("--resolver", f"{PARENT}:53", *options, inside=world)
        return code, lines

    try:
        code, lines = check()
        start = f"DNS: missing in the zone {DOMAIN}: "
        assert code == 1 and all(line.startswith(start) for line in lines), lines
        records = [line.removeprefix(start) for line in lines]
        assert records == [
            f"{name}{DOMAIN}. 3600 IN {kind} {address}"
            for name in ("", "*.") for kind, address in (("A", HERE_4), ("AAAA", HERE_6))
        ]
        knot.change(zone, records[:2])
        code, lines = check()
        assert code == 1 and [line.removeprefix(start) for line in lines] == records[2:]
        knot.change(zone, records)
        assert check() == (0, [f"DNS: all records that lead here are there: {DOMAIN} and *.{DOMAIN}"])
        # A record that leads to another machine. If that machine forwards to this one, the operator says so.
        knot.change(zone, [f"{DOMAIN}. 60 IN A {ELSEWHERE}", f"*.{DOMAIN}. 60 IN CNAME {DOMAIN}."])
        code, lines = check()
        assert code == 1 and len(lines) == 2, lines
        assert lines[0].startswith(f"DNS: {DOMAIN}. leads to {ELSEWHERE}, and not to this machine; it should be: {records[0]}")
        assert check("--address", ELSEWHERE)[0] == 0
        # The daemon listens at no public IPv4 address, so a router may have it.
        configuration.listen["https"] = f'["[{HERE_6}]:0"]'
        code, lines = check()
        assert code == 0 and all("which has to forward to this machine" in line for line in lines), lines
        configuration.listen["https"] = '["[::]:0"]'
        # A resolver that does not answer says nothing about records.
        knot.stop()
        code, (line,) = check()
        assert code == 0 and line.startswith("DNS: cannot check the records: "), line
    finally:
        knot.stop()


def test_health(own_daemon):
    """`cokd health` is 0 while visitors can use the daemon, at the socket and at the address. It is 1 with the reason
    otherwise."""
    daemon = own_daemon()
    for where in ((), ("--admin", daemon.admin)):
        assert cokd("health", "--config", daemon.config, *where) == (0, "ready\n", "")
    assert cokd("health", "--config", "/none", "--admin", daemon.admin) == (0, "ready\n", "")
    # A mistake that someone has saved is not yet the running daemon's.
    good = daemon.config.read_text()
    for mistake in ("no-such-key = 1\n", "broken\n"):
        daemon.config.write_text(good + mistake)
        assert cokd("health", "--config", daemon.config) == (0, "ready\n", "")
    (state,) = re.findall(r'^state_dir = "(.*)"', good, re.MULTILINE)
    assert cokd("health", "--state-dir", state) == (0, "ready\n", "")
    daemon.process.popen.send_signal(signal.SIGSTOP)
    code, out, err = cokd("health", "--state-dir", state)
    assert (code, out) == (1, "") and "no answer within 3 s" in err
    daemon.process.popen.send_signal(signal.SIGCONT)
    daemon.stop()
    for where in (("--config", daemon.config), ("--state-dir", state), ("--admin", daemon.admin)):
        code, out, err = cokd("health", *where)
        assert (code, out) == (1, "") and "cannot ask the daemon at" in err
    code, _, err = cokd("health", "--config", "/none")
    assert code == 1 and "cannot read the configuration /none" in err


def test_health_without_a_certificate(issuance):
    """A daemon that waits for its certificate is not ready, and says why."""
    acme = issuance(proxy=True)
    acme.proxy.hold("challenge")
    daemon = acme.start()
    code, out, err = cokd("health", "--config", daemon.config)
    assert (code, out) == (1, "") and err.startswith("cokd: not ready: there is no certificate yet"), err


def test_nothing_is_asked_of_others(configuration):
    """Not even the resolver gets a packet: a self-signed daemon needs no DNS."""
    with socket.socket(type=socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.1", 0))
        resolver.setblocking(False)
        assert configuration.check("--resolver", "127.0.0.1:{}".format(resolver.getsockname()[1]))[0] == 0
        with pytest.raises(BlockingIOError):
            resolver.recv(1)


def test_the_help_names_the_exit_codes():
    _, out, _ = cokd("check", "--help")
    assert "Exit codes: 0 all is well, 1 something around" in out.replace("\n", " ")
