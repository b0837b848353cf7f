"""cokd as a systemd service, installed from its package on a booted machine, with socket activation."""

import json
import os
import re
import shutil
import socket
import threading
import time
from contextlib import contextmanager
from datetime import datetime

import pytest
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from harness import raw
from harness.authority import Authority
from harness.cok import DOMAIN, KEY, TRANSPORTS
from harness.http3 import Http3
from harness.load import Load, Site
from harness.machine import Machine, Service, packages
from harness.pebble import Pebble
from harness.ports import free_port
from harness.process import DEADLINE, Process, wait_for
from harness.visitors import Visitors

# The minimum rate of the load in requests a second; a lower rate proves nothing.
RATE = 200
RESTARTS = 20 if os.environ.get("COK_LONG") else 8
SOCKETS = ["cokd-http.socket", "cokd-https.socket", "cokd-quic.socket"]


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    return packages(tmp_path_factory.mktemp("debs"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory, debs):
    """A booted machine with both packages installed. The service has not started yet."""
    machine = Machine(tmp_path_factory.mktemp("machine") / "console")
    try:
        machine.install(debs / "cokd.deb", debs / "cok-client.deb")
        yield machine
    finally:
        machine.stop()


@pytest.fixture
def service(machine, tmp_path):
    """The service enabled and running, with short limits."""
    service = Service(machine, tmp_path, limits='drain_timeout = "1500ms"')
    machine.systemctl("enable", "--now", "cokd")
    service.trust()
    yield service
    service.stop()
    machine.systemctl("reset-failed", check=False)


class Home(raw.Recorder):
    """A local service, which answers two paths only once the test releases them."""

    def __init__(self):
        self.go = {path: threading.Event() for path in ("/first", "/second")}
        super().__init__(self._greet)

    def _greet(self, head, _connection):
        if gate := self.go.get(head.split()[1].decode()):
            gate.wait(DEADLINE)
        return b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"

    def wait_asked(self, times):
        wait_for(lambda: len(self.heads) == times, f"request {times} is here")


@pytest.fixture
def home(machine):
    """A `Home` in the machine's network."""
    home = machine.enter(Home)
    yield home
    home.stop()


def wait_status(machine, *said, unit="cokd"):
    """Waits until the unit's status has a line with all of `said`. The journal lags a little."""
    shown = ""

    def seen():
        nonlocal shown
        shown = machine.systemctl("status", "--lines=50", unit, check=False).stdout
        return any(all(part in line for part in said) for line in shown.splitlines())

    try:
        wait_for(seen, f"the status says {said}", deadline=10, every=0.1)
    except AssertionError as why:
        raise AssertionError(f"{why}\n{shown}") from None


def test_units_and_sandbox(machine):
    """systemd finds no fault with the units, and the sandbox is as tight as documented."""
    units = ["cokd.service", *SOCKETS, "cokd-dns.socket"]
    verified = machine.run("systemd-analyze", "verify", "--man=no", *[f"/lib/systemd/system/{unit}" for unit in units])
    assert verified.stdout + verified.stderr == ""
    said = machine.run("systemd-analyze", "security", "--no-pager", "cokd.service").stdout
    exposure = re.search(r"Overall exposure level for cokd.service: ([0-9.]+)", said)
    assert exposure and float(exposure[1]) <= 1.1, said


def test_the_package_says_what_to_do(machine):
    """Without a domain, a start fails with one clear line. Only a visitor starts the service again, at most every 2 s."""
    machine.systemctl("start", "cokd", check=False)
    wait_status(machine, "/etc/cokd/cokd.toml", "domain")
    wait_for(lambda: machine.show("cokd", "ActiveState") == "failed", "it has given up")
    assert (machine.show("cokd", "ExecMainStatus"), machine.show("cokd", "NRestarts")) == ("2", "0")
    assert machine.show("cokd", "RestartUSec") == "2s"

    def started():
        return int(machine.show("cokd", "ExecMainStartTimestampMonotonic"))

    starts = [started()]
    with machine.enter(lambda: socket.create_connection(("127.0.0.1", 443))):
        for _ in range(2):
            wait_for(lambda: started() != starts[-1], "the visitor has it start again", every=0.1)
            starts.append(started())
    assert starts[2] - starts[1] > 1.9e6
    machine.systemctl("stop", *SOCKETS, "cokd")
    machine.systemctl("reset-failed", check=False)
    for program in ("cokd", "cok-client"):
        for file in (f"man/man1/{program}.1.gz", f"bash-completion/completions/{program}", f"zsh/vendor-completions/_{program}"):
            machine.run("test", "-s", f"/usr/share/{file}")
    assert "/etc/cokd/cokd.toml" in machine.run("dpkg-query", "--show", "--showformat=${Conffiles}", "cokd").stdout


class FirstFlight:
    """A visitor over HTTP/3 that sends its first packets once and no others."""

    def __init__(self, service, name):
        configuration = QuicConfiguration(alpn_protocols=H3_ALPN, server_name=service.host(name))
        self.quic = QuicConnection(configuration=configuration)
        self.quic.connect((service.address, service.port), now=time.monotonic())
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((service.address, service.port))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self):
        for data, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            self.socket.send(data)

    def receive(self):
        self.socket.settimeout(DEADLINE)
        return self.socket.recv(2000)


@pytest.mark.parametrize("kind", ["tcp", "udp", "http3"])
def test_activation(machine, tmp_path, kind):
    """The first visitor starts the service and gets its response. The service has no capability, yet it serves low ports."""
    service = Service(machine, tmp_path)
    # An earlier start makes the authority that visitors trust.
    machine.systemctl("start", "cokd")
    service.trust()
    service.stop()
    machine.systemctl("start", *SOCKETS)
    try:
        assert machine.show("cokd", "ActiveState") == "inactive"
        if kind == "tcp":
            assert b" 404 " in service.curl("nobody", "/", "--include", "--http1.1").stdout
        elif kind == "udp":
            # Each packet is sent once, so the service answers the packet that started it.
            with machine.enter(lambda: FirstFlight(service, "nobody")) as visitor:
                visitor.send()
                assert visitor.receive()
        else:
            with machine.enter(lambda: Http3(service, "nobody")) as visitor:
                assert visitor.request("/").response()[b":status"] == b"404"
        wait_for(lambda: machine.show("cokd", "ActiveState") == "active", "it is started")
        facts = machine.path(f"/proc/{service.pid()}/status").read_text()
        assert all(int(facts.split(f"Cap{kind}:")[1].split()[0], 16) == 0 for kind in ("Prm", "Eff", "Bnd", "Amb"))
        assert int(facts.split("Uid:")[1].split()[0]) > 60000
    finally:
        service.stop()


@pytest.mark.parametrize("carried", ["ws", "quic"])
def test_all_protocols(machine, service, home, carried):
    """All versions of HTTP pass over both transports, through the sockets of systemd."""
    client = service.client(home.target, f"all-{carried}", transport=carried, inside=machine)
    for version in ("1.1", "2"):
        answer = client.curl("/", f"--http{version}", "--write-out", " over %{http_version}").stdout
        assert answer == b"hello over " + version.encode()
        # In IPv4 notation, although the socket is an IPv6 one.
        assert b"x-forwarded-for: 127.0.0.1\r\n" in home.heads[-1].lower()
    with machine.enter(lambda: Http3(service, client.name)) as visitor:
        assert visitor.request("/").read() == b"hello"
    client.stop()


@pytest.fixture
def loaded(service, machine):
    """A load of 200 requests a second to ten tunnels over both transports, with uploads and downloads of one second."""
    site = Site(machine)
    clients = [
        # Without an access log.
        service.client(site.target, f"load{number}", options=(), transport=TRANSPORTS[number % 2], inside=machine)
        for number in range(10)
    ]
    load = Load(service, site, clients, RATE)
    yield load
    load.stop()
    for client in clients:
        client.stop()
    site.stop()


def answered(load, more):
    seen = len(load.answered)
    wait_for(lambda: len(load.answered) > seen + more, "visitors are answered")


def finished(load):
    """Returns the time of the slowest response, without the load's own delay."""
    load.stop()
    slowest = max(load.answered, key=lambda visit: visit.took)
    print(
        f"{len(load.answered)} answers, {load.rate:.0f} a second; the slowest, {slowest.kind}, after {slowest.took:.2f} s, "
        f"of which the load itself may have been late by {load.late:.2f} s; {len(load.repeated)} were asked again; told "
        f"{load.told} times; failed: {len(load.failed)}"
    )
    for visit in load.failed[:10]:
        print(load.describe(visit))
    # Times below the delay of the machine's own timers prove nothing.
    return slowest.took - load.late


def nothing_lost(load):
    slowest = finished(load)
    assert not load.failed
    # No repeated request reached the service the first time.
    assert not load.site.asked().intersection(load.repeated)
    assert slowest <= 3


@pytest.mark.alone
def test_restarts_lose_nothing(machine, service, loaded):
    """The daemon restarts again and again under load. Every request gets its response, the slowest within 3 s. WebSockets and
    streams of events last for the whole drain time and then end cleanly."""
    answered(loaded, 200)
    for _ in range(RESTARTS):
        pid = service.pid()
        machine.systemctl("restart", "cokd")
        assert service.pid() not in (0, pid)
        loaded.catch_up()
    nothing_lost(loaded)
    assert loaded.rate >= RATE
    # Each of them ended cleanly each time, and no client was cut off.
    assert loaded.told == RESTARTS * 4
    assert not [cut_off(client) for client in loaded.clients if cut_off(client)]


@pytest.mark.alone
def test_kills(machine, service, loaded):
    """The daemon is killed 5 times. Only requests on broken connections fail. Every new request gets its response in 4 s."""
    answered(loaded, 200)
    kills = []
    for _ in range(5):
        pid, killed = service.pid(), time.monotonic()
        machine.systemctl("kill", "--signal=KILL", "cokd")
        service.wait_replaced(pid)
        # The clock of the visits.
        kills.append((killed, int(machine.show("cokd", "ActiveExitTimestampMonotonic")) / 1e6))
        loaded.catch_up()
    slowest = finished(loaded)
    others = [visit for visit in loaded.failed if not any(visit.died_with(*kill) for kill in kills)]
    assert not others, [loaded.describe(visit) for visit in others]
    assert len(loaded.failed) <= 5 * 60
    assert loaded.rate >= RATE and slowest <= 4


def journal(machine, pid):
    """Returns the journal of the service's process."""
    lines = machine.run("journalctl", "--unit=cokd", "--output=json", f"_PID={pid}").stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_clients_get_a_drain_message(machine, service, home):
    """Every client learns of a restart before its session ends, and reconnects at once to the next process."""
    clients = [service.client(home.target, transport=transport, inside=machine) for transport in TRANSPORTS]
    seen = [len(client.process.lines) for client in clients]
    machine.systemctl("restart", "cokd")
    ready = wait_for(
        lambda: [entry for entry in journal(machine, service.pid()) if entry.get("COK_EVENT") == "ready"], "it is ready"
    )[0]
    for client, start in zip(clients, seen):
        back = client.process.wait_event("connected", start=start)
        assert back["transport"] == client.transport
        after = datetime.fromisoformat(back["timestamp"]).timestamp() - int(ready["__REALTIME_TIMESTAMP"]) / 1e6
        print(f"{client.transport}: back {after * 1000:.0f} ms after the next process was ready")
        # Shorter than the time-out of a silent session.
        assert after < 2
        assert cut_off(client, start) == []
        client.stop()


def cut_off(client, start=0):
    """Returns the client's log lines about sessions that ended without a Drain."""
    return [line for line in client.process.lines[start:] if '"event":"disconnected"' in line]


def test_hand_over_to_the_next_process(machine, service, home):
    """New visitors during the drain get a response at once. Visitors at its end get one from the next process. Over HTTP/3 too,
    the visitor does not have to repeat its request."""
    service.configure(limits='drain_timeout = "20s"')
    machine.systemctl("reload", "cokd")
    client = service.client(home.target, inside=machine)
    pid = service.pid()
    with (
        client.start_curl("/first", "--http1.1") as first,
        machine.enter(lambda: FirstFlight(service, client.name)) as visitor,
    ):
        home.wait_asked(1)
        machine.systemctl("restart", "--no-block", "cokd")
        wait_for(lambda: machine.show("cokd", "ActiveState") == "deactivating", "it is stopping")
        assert client.curl("/").stdout == b"hello" and service.pid() == pid
        with client.start_curl("/second", "--http1.1") as second:
            home.wait_asked(3)
            home.go["/first"].set()
            assert first.stdout.read() == b"hello"
            wait_for(lambda: "new visitors wait" in machine.run("journalctl", f"_PID={pid}").stdout, "it accepts no more")
            visitor.send()
            assert service.pid() == pid
            home.go["/second"].set()
            assert second.stdout.read() == b"hello"
            assert visitor.receive()
    service.wait_replaced(pid)
    client.stop()


def test_reload(machine, service):
    """The service applies a valid configuration. It refuses a broken or impossible one with the reason. The process and its
    state stay."""
    pid = service.pid()
    service.configure(limits='drain_timeout = "4s"')
    machine.systemctl("reload", "cokd")
    service.configure(limits='drain_timeout = "soon"')
    assert machine.systemctl("reload", "cokd", check=False).returncode != 0
    wait_status(machine, "drain_timeout")
    service.configure(domain="other.test")
    assert machine.systemctl("reload", "cokd", check=False).returncode != 0
    wait_status(machine, "domain: cannot change while cokd runs")
    assert service.pid() == pid and machine.show("cokd", "ActiveState") == "active"
    # By signal, too: the unit's state follows the daemon's notification.
    service.configure(limits='drain_timeout = "5s"')
    before = machine.show("cokd", "StateChangeTimestampMonotonic")
    machine.systemctl("kill", "--signal=HUP", "--kill-who=main", "cokd")
    wait_for(
        lambda: machine.show("cokd", "StateChangeTimestampMonotonic") != before
        and machine.show("cokd", "ActiveState") == "active",
        "it was reloading and is ready",
    )
    assert service.pid() == pid


def test_journal(machine, service):
    """Entries have fields and priorities. Each line of an error message has priority error, and none has an escape sequence."""

    def entries():
        return journal(machine, service.pid())

    ready = wait_for(lambda: [entry for entry in entries() if entry.get("COK_EVENT") == "ready"], "the entry is there")[0]
    assert ready["MESSAGE"] == f"serving {DOMAIN}" and ready["COK_DOMAIN"] == DOMAIN
    assert (ready["PRIORITY"], ready["SYSLOG_IDENTIFIER"]) == ("5", "cokd")
    # The buffer size of the socket unit, which the kernel doubles. The daemon itself may not set as much.
    udp = next(entry for entry in entries() if entry.get("COK_EVENT") == "udp")
    assert (udp["COK_RECEIVE_BUFFER"], udp["COK_SEND_BUFFER"]) == (str(16 << 20), str(16 << 20))
    service.configure(limits='drain_timeout = "soon"')
    machine.systemctl("kill", "--signal=HUP", "--kill-who=main", "cokd")
    refused = wait_for(
        lambda: [entry for entry in entries() if "drain_timeout" in entry["MESSAGE"]], "the mistake is logged"
    )[0]
    assert refused["PRIORITY"] in ("3", "4") and "/etc/cokd/cokd.toml:" in refused["MESSAGE"]
    assert all(isinstance(entry["MESSAGE"], str) and "\x1b" not in entry["MESSAGE"] for entry in entries())


def test_watchdog(machine, service):
    """systemd replaces a process that hangs."""
    pid = service.pid()
    machine.systemctl("kill", "--signal=STOP", "cokd")
    service.wait_replaced(pid, deadline=40)
    assert b" 404 " in service.curl("nobody", "/", "--include", "--http1.1").stdout


def test_the_watchdog_is_fed(machine, service, home):
    """A working process outlives its watchdog's time-out many times."""
    limit = 2
    with dropped_in(machine, "cokd.service", f"[Service]\nWatchdogSec={limit}s\n"):
        machine.systemctl("restart", "cokd")
        pid, client = service.pid(), service.client(home.target, inside=machine)
        visitors = Visitors(service, client.name)

        def fed():
            """Returns the time of the last watchdog ping in seconds."""
            return int(machine.show("cokd", "WatchdogTimestampMonotonic")) / 1e6

        first = fed()
        wait_for(lambda: fed() > first + 3.5 * limit or service.pid() != pid, "it was fed for so long", every=0.1)
        visitors.stop()
        client.stop()
        assert service.pid() == pid and machine.show("cokd", "NRestarts") == "0"
        assert visitors.times and not visitors.failures


def test_a_stop_takes_longer(machine, service, home):
    """Running requests may outlast the unit's stop time-out, since the daemon asks systemd for more time."""
    service.configure(limits='drain_timeout = "20s"')
    with dropped_in(machine, "cokd.service", "[Service]\nTimeoutStopSec=1s\n"):
        machine.systemctl("restart", "cokd")
        client = service.client(home.target, inside=machine)
        with client.start_curl("/first", "--http1.1") as visitor:
            home.wait_asked(1)
            machine.systemctl("stop", "--no-block", *SOCKETS, "cokd")
            wait_for(lambda: machine.show("cokd", "ActiveState") == "deactivating", "it is stopping")
            time.sleep(4)  # the duration of the request: a parameter of the test, not a condition
            home.go["/first"].set()
            assert visitor.stdout.read() == b"hello"
        wait_for(lambda: machine.show("cokd", "ActiveState") == "inactive", "it has stopped")
        assert machine.show("cokd", "Result") == "success"
        client.stop()


@pytest.fixture
def newer(tmp_path):
    """The same packages with a later version."""
    return packages(tmp_path / "newer", "99.0.0")


@pytest.mark.alone
def test_upgrade_loses_nothing(machine, service, newer, loaded):
    """A newer package is installed over the running service. The operator's configuration stays."""
    pid, configuration = service.pid(), machine.path("/etc/cokd/cokd.toml")
    before = configuration.read_text()
    machine.install(newer / "cokd.deb")
    assert service.wait_replaced(pid) and configuration.read_text() == before
    answered(loaded, 200)
    nothing_lost(loaded)


@pytest.mark.parametrize("mode", ["self-signed", "acme"])
def test_another_resolver_has_the_port(machine, tmp_path, mode):
    """The socket unit says so. The service runs without the port, and names it if its configuration needs it."""

    def bound():
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taken.bind(("127.0.0.1", 53))
        return taken

    service = Service(machine, tmp_path, tls=f'mode = "{mode}"')
    machine.systemctl("enable", "cokd-dns.socket")
    with machine.enter(bound):
        machine.systemctl("start", *SOCKETS, "cokd", check=False)
        wait_status(machine, ":53", "Address already in use", unit="cokd-dns.socket")
        if mode == "acme":
            wait_status(machine, "cannot listen on [::]:53 for DNS", "cokd-dns.socket")
        service.trust()
        assert b" 404 " in service.curl("nobody", "/", "--include", "--http1.1").stdout
    service.stop()
    machine.systemctl("disable", "cokd-dns.socket")
    machine.systemctl("reset-failed", check=False)


@pytest.fixture
def by_default(machine, tmp_path):
    """The service with only its ACME server configured. cokd answers DNS itself, and cokd-dns.socket is not enabled."""
    pebble = Pebble(tmp_path / "pebble", "127.0.0.1:53", inside=machine)
    ca_file = machine.path("/etc/cokd/pebble.pem")
    shutil.copy(pebble.ca_file, ca_file)
    acme = f'[acme]\ndirectory = "{pebble.directory}"\nca_file = "/etc/cokd/pebble.pem"\n'
    service = Service(machine, tmp_path, tls="", more=acme)
    yield service
    service.stop()
    machine.systemctl("disable", "--now", "cokd-dns.socket")
    machine.systemctl("reset-failed", check=False)
    pebble.stop()
    ca_file.unlink()


def test_the_socket_for_dns_is_missing(machine, by_default):
    """The service serves a self-signed certificate. Log, status and `cokd check` all say what to do. After that there is a
    certificate at once."""

    def check():
        return machine.run("cokd", "check", "--resolver", "127.0.0.1:53", check=False).stdout

    assert "cokd-dns.socket is not enabled: systemctl enable --now cokd-dns.socket\n" in check()
    machine.systemctl("start", "cokd")
    why = machine.show("cokd", "StatusText")
    mend = "systemctl enable cokd-dns.socket && systemctl restart cokd"
    assert why.startswith("cannot listen on [::]:53 for DNS: Permission denied") and why.endswith(mend)
    assert f"cokd-dns.socket is not enabled: {mend}\n" in check()
    status, body = by_default.admin_get("/health/ready")
    assert status == 503 and body == f"not ready: there is no certificate yet, and a self-signed one is served: {why}\n"
    wait_for(
        lambda: [e for e in journal(machine, by_default.pid()) if e["MESSAGE"].startswith(f"{why};")], "the journal says so"
    )
    by_default.trust()
    assert b" 404 " in by_default.curl("nobody", "/", "--include", "--http1.1").stdout
    for command in mend.split(" && "):
        machine.run(*command.split())
    wait_for(by_default.ready, "there is a certificate", deadline=60, every=0.2)
    entries = journal(machine, by_default.pid())
    assert not [entry for entry in entries if entry.get("COK_EVENT") in ("waiting", "not_issued", "dns_unavailable")]
    assert machine.show("cokd", "StatusText") == "" and machine.show("cokd", "NRestarts") == "0"
    assert "is not enabled" not in check()


def test_the_clients_unit(machine, service, home):
    """`cok-client service` keeps the tunnels of a user's configuration up with the user's service manager."""
    machine.run("useradd", "--create-home", "dev")
    number = machine.run("id", "--user", "dev").stdout.strip()
    with open(machine.path("/etc/hosts"), "a") as hosts:
        hosts.write(f"127.0.0.1 {DOMAIN}\n")
    folder = machine.path("/home/dev/.config/cok")
    folder.mkdir(parents=True)
    shutil.copy(service.ca, folder / "ca.pem")
    (folder / "key").write_text(KEY)
    (folder / "client.toml").write_text(
        f'server = "https://{DOMAIN}"\napi_key_file = "key"\nca_file = "ca.pem"\n'
        f'[tunnels.demo]\ntarget = "{home.target}"\n'
    )
    machine.run("chown", "--recursive", "dev:", "/home/dev/.config")
    machine.systemctl("start", f"user@{number}")

    def dev(*command, **more):
        environment = [f"XDG_RUNTIME_DIR=/run/user/{number}", "HOME=/home/dev"]
        return machine.run("runuser", "--user", "dev", "--", "env", *environment, *command, **more).stdout

    assert "systemctl --user enable --now cok-client" in dev("cok-client", "service", "install")
    dev("systemctl", "--user", "enable", "--now", "cok-client")
    wait_for(lambda: service.curl("demo", "/").stdout == b"hello", "the tunnel carries")
    assert "state: active" in dev("cok-client", "service", "status")
    pid = dev("systemctl", "--user", "show", "--value", "--property=MainPID", "cok-client")
    dev("systemctl", "--user", "kill", "--signal=KILL", "cok-client")
    wait_for(
        lambda: dev("systemctl", "--user", "show", "--value", "--property=MainPID", "cok-client") not in ("0\n", pid)
        and service.curl("demo", "/").stdout == b"hello",
        "it is started again",
    )
    assert "removed" in dev("cok-client", "service", "uninstall")
    assert dev("systemctl", "--user", "is-active", "cok-client", check=False) == "inactive\n"
    assert not (folder.parent / "systemd/user/cok-client.service").exists()


def test_the_machines_client(machine, service, home):
    """The package's unit keeps the tunnels of /etc/cok/client.toml up, with a key that only root can read."""
    unit = "/lib/systemd/system/cok-client.service"
    verified = machine.run("systemd-analyze", "verify", "--man=no", unit)
    assert verified.stdout + verified.stderr == ""
    machine.path("/etc/hosts").write_text(f"127.0.0.1 localhost {DOMAIN}\n")
    file, folder = machine.path("/etc/cok/client.toml"), machine.path("/etc/cok")
    assert "#server = " in file.read_text(), "the package has an example"
    shutil.copy(service.ca, folder / "ca.pem")
    (folder / "ca.pem").chmod(0o644)
    file.write_text(f'server = "https://{DOMAIN}"\nca_file = "ca.pem"\n[tunnels.here]\ntarget = "{home.target}"\n')
    try:
        # Without the key, the status says what is missing.
        machine.systemctl("start", "cok-client", check=False)
        wait_status(machine, "status=243/CREDENTIALS", unit="cok-client")
        (folder / "key").write_text(KEY)
        (folder / "key").chmod(0o600)
        machine.systemctl("enable", "--now", "cok-client")
        wait_for(lambda: service.curl("here", "/").stdout == b"hello", "the tunnel carries")
        pid = machine.show("cok-client", "MainPID")
        facts = machine.path(f"/proc/{pid}/status").read_text()
        assert all(int(facts.split(f"Cap{kind}:")[1].split()[0], 16) == 0 for kind in ("Prm", "Eff", "Bnd", "Amb"))
        assert int(facts.split("Uid:")[1].split()[0]) > 60000
        shown = machine.run("cok-client", "status", "--json", "--state-dir", "/var/lib/cok-client").stdout
        assert "here" in shown
        file.write_text(file.read_text().replace("[tunnels.here]", "[tunnels.there]"))
        machine.systemctl("reload", "cok-client")
        wait_for(lambda: service.curl("there", "/").stdout == b"hello", "the new tunnel carries")
        assert machine.show("cok-client", "MainPID") == pid
        # A mistake is not tried again and again.
        file.write_text('server = "nowhere"\n[tunnels.x]\n')
        machine.systemctl("restart", "cok-client", check=False)
        wait_for(lambda: machine.show("cok-client", "ActiveState") == "failed", "it has given up")
        assert machine.show("cok-client", "ExecMainStatus") == "2"
    finally:
        machine.systemctl("disable", "--now", "cok-client", check=False)
        machine.systemctl("reset-failed", check=False)


@contextmanager
def dropped_in(machine, unit, text):
    """Adds a drop-in to a unit for the duration of the context."""
    folder = machine.path(f"/etc/systemd/system/{unit}.d")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.conf").write_text(text)
    machine.systemctl("daemon-reload")
    try:
        yield
    finally:
        machine.systemctl("stop", *SOCKETS, "cokd")
        shutil.rmtree(folder)
        machine.systemctl("daemon-reload")
        machine.systemctl("reset-failed", check=False)


@pytest.mark.parametrize(
    ("unit", "text", "top", "said"),
    [
        ("cokd-http.socket", "[Socket]\nFileDescriptorName=htps\n", "", 'handed over a socket named "htps"'),
        ("cokd-quic.socket", "[Socket]\nFileDescriptorName=https\n", "", 'socket "https" is a datagram socket'),
        ("cokd.service", "[Service]\nLoadCredential=missing:/etc/missing\n", "", "status=243/CREDENTIALS"),
        ("cokd.service", "", 'state_dir = "/var/lib/roots"', "/var/lib/roots"),
    ],
    ids=["name", "type", "credential", "state"],
)
def test_bad_input(machine, tmp_path, unit, text, top, said):
    """The status has one clear line, and starts are at least 2 s apart."""
    machine.run("install", "-d", "-m", "0700", "/var/lib/roots")
    Service(machine, tmp_path, top=top)
    with dropped_in(machine, unit, text):
        machine.systemctl("start", *SOCKETS, "cokd", check=False)
        wait_status(machine, said)
        before, began = int(machine.show("cokd", "NRestarts")), time.monotonic()
        wait_for(lambda: int(machine.show("cokd", "NRestarts")) >= before + 2, "it is tried again", every=0.1)
        assert time.monotonic() - began > 1.9


def enabled(machine):
    """Returns the links that start the service or one of its sockets at boot."""
    folder = machine.path("/etc/systemd/system")
    return {str(link.relative_to(folder)) for link in folder.rglob("cokd*") if link.is_symlink()}


def test_a_removed_package_is_gone(machine, service, debs):
    """Removal keeps the configuration. A purge deletes the configuration, the state and the enabled units."""
    machine.systemctl("enable", "cokd-dns.socket")
    machine.run("dpkg", "--remove", "cokd")
    assert machine.show("cokd", "ActiveState") == "inactive" and machine.show("cokd-https.socket", "ActiveState") == "inactive"
    assert machine.path("/etc/cokd/cokd.toml").exists() and machine.path("/var/lib/private/cokd").exists()
    machine.run("dpkg", "--purge", "cokd")
    assert not machine.path("/etc/cokd").exists() and not machine.path("/var/lib/private/cokd").exists()
    assert not enabled(machine)
    machine.install(debs / "cokd.deb")
    service.configure()


def test_a_fresh_installation(machine, tmp_path, debs):
    """The documented steps suffice: the package, the domain, and one command that also enables the service at boot."""
    machine.run("dpkg", "--purge", "cokd")
    said = machine.install(debs / "cokd.deb").stdout
    assert "then: systemctl enable --now cokd\n" in said and "systemctl enable --now cokd-dns.socket\n" in said
    assert not enabled(machine)
    service = Service(machine, tmp_path)
    machine.systemctl("enable", "--now", "cokd")
    try:
        assert all(machine.show(unit, "ActiveState") == "active" for unit in (*SOCKETS, "cokd"))
        assert enabled(machine) == {
            "multi-user.target.wants/cokd.service", *(f"sockets.target.wants/{unit}" for unit in SOCKETS)
        }
        service.trust()
        assert b" 404 " in service.curl("nobody", "/", "--include", "--http1.1").stdout
    finally:
        service.stop()


def test_secrets_are_credentials(machine, tmp_path):
    """The configuration names files that only root may read, by relative paths."""
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.files(DOMAIN, f"*.{DOMAIN}")
    for name, file in (("cert.pem", certificate), ("key.pem", key)):
        machine.run("install", "-d", "-m", "0700", "/etc/cokd/private")
        shutil.copy(file, machine.path(f"/etc/cokd/private/{name}"))
    service = Service(machine, tmp_path, tls='mode = "files"\ncert = "cert.pem"\nkey = "key.pem"')
    service.ca = authority.ca_file

    def check(tls):
        service.certificates = f'mode = "files"\n{tls}'
        service.configure()
        result = machine.run("cokd", "check", check=False)
        return result.returncode, result.stdout + result.stderr

    # Root could read them, and the service could not. It says how the service can.
    code, said = check('cert = "/etc/cokd/private/cert.pem"\nkey = "/etc/cokd/private/key.pem"')
    for name in ("cert", "key"):
        path = f"/etc/cokd/private/{name}.pem"
        assert f"tls.{name}: {path} may not be read by the service's user" in said
        assert f"LoadCredential={name}.pem:{path} under [Service]" in said and code == 2
    code, said = check('cert = "cert.pem"\nkey = "key.pem"')
    assert code == 2 and "cokd.service has no credential key.pem" in said, said
    loaded = "".join(f"LoadCredential={name}:/etc/cokd/private/{name}\n" for name in ("cert.pem", "key.pem"))
    with dropped_in(machine, "cokd.service", f"[Service]\n{loaded}"):
        # Only what the credentials hold could be wrong now, and it is right. DNS cannot be asked here.
        code, said = check('cert = "cert.pem"\nkey = "key.pem"')
        assert code == 0 and "no mistakes" in said, said
        machine.systemctl("start", *SOCKETS, "cokd")
        assert b" 404 " in service.curl("nobody", "/", "--include", "--http1.1").stdout
        # The running daemon says what it serves: no other user can read it.
        shown = json.loads(machine.run("cokd", "cert", "status", "--json").stdout)
        assert shown["source"] == "files" and shown["names"] == [DOMAIN, f"*.{DOMAIN}"] and shown["managed"]
        # The credential's source is checked, too.
        shutil.copy(certificate, machine.path("/etc/cokd/private/key.pem"))
        code, said = check('cert = "cert.pem"\nkey = "key.pem"')
        assert code == 2 and "tls.key: /etc/cokd/private/key.pem: there is no private key" in said, said


# A shell script that sets records of a name server over HTTP.
HOOK = """#!/bin/bash
case $1 in
    present) path=set-txt body="{\\"host\\": \\"$2\\", \\"value\\": \\"$3\\"}" ;;
    cleanup) path=clear-txt body="{\\"host\\": \\"$2\\"}" ;;
esac
exec 3<>/dev/tcp/127.0.0.1/PORT
printf 'POST /%s HTTP/1.0\\r\\ncontent-length: %d\\r\\n\\r\\n%s' "$path" "${#body}" "$body" >&3
read -r version status rest <&3
[[ $status == 200 ]]
"""


def test_a_program_proves_the_domain(machine, tmp_path):
    """An operator's DNS program runs in the unit's sandbox, and the service gets its certificate with it."""
    dns, told = (machine.enter(free_port) for _ in range(2))
    names = Process(
        "pebble-challtestsrv", "-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{told}", "-http01", "",
        "-https01", "", "-tlsalpn01", "", inside=machine,
    )
    pebble = Pebble(tmp_path / "pebble", f"127.0.0.1:{dns}", inside=machine)
    hook = machine.path("/usr/local/bin/hook")
    hook.write_text(HOOK.replace("PORT", str(told)))
    hook.chmod(0o755)
    shutil.copy(pebble.ca_file, machine.path("/etc/cokd/pebble.pem"))
    service = Service(
        machine, tmp_path, tls='mode = "acme"',
        more=f"""[acme]
directory = "{pebble.directory}"
ca_file = "/etc/cokd/pebble.pem"
[acme.dns]
provider = "exec"
program = "/usr/local/bin/hook"
""",
    )
    machine.systemctl("start", "cokd")
    try:
        wait_for(
            lambda: any(entry.get("COK_EVENT") == "issued" for entry in journal(machine, service.pid())),
            "there is a certificate", deadline=60, every=0.2,
        )
        service.ca = pebble.root()
        assert b" 404 " in service.curl("nobody", "/", "--include", "--http1.1").stdout
    finally:
        service.stop()
        pebble.stop()
        names.stop()
