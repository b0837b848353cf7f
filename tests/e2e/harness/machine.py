"""A machine with systemd: a container that boots Debian, with the packages under test. It needs root.

It has its own network, and its file changes are lost when it stops. The suite's programs can run in its network."""

import fcntl
import functools
import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from . import needs
from .cok import DOMAIN, KEY, Daemon, digest
from .netns import enter
from .process import BIN_DIR, DEADLINE, end, spawn, wait_for

SUITES = ["bookworm", "trixie"]
MIRROR = os.environ.get("COK_DEBIAN_MIRROR", "http://deb.debian.org/debian")
PACKAGES = "systemd,systemd-sysv,dbus,libpam-systemd,iproute2,ca-certificates"
MAKE_PACKAGES = Path(__file__).parents[2] / "packages"
MAINTAINER = {"DEBFULLNAME": "The tests of cok", "DEBEMAIL": "tests@cok.test"}


@functools.cache
def root(suite=SUITES[0]):
    """Returns a folder with an installed Debian of that release. It is made once, kept outside the checkout, and read-only afterwards."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cok-tests"
    made = cache / f"{suite}-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    # One worker makes it, and the others wait. The kernel drops the lock of a process that ends.
    with open(cache / f"{suite}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _install(suite, made)
    return made


def _install(suite, made):
    """Installs that release of Debian into this folder, which is there only once it is complete."""
    needs.command("debootstrap")
    making = made.with_name(f"{made.name}.{os.getpid()}")
    making.mkdir()
    try:
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(making), MIRROR]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr
        shutil.rmtree(making / "var/cache/apt/archives")
        making.chmod(0o755)
        making.rename(made)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def packages(folder, version=None, env=os.environ):
    """Makes the packages of the binaries under test. Returns their folder."""
    env = {**env, "COK_BIN_DIR": str(BIN_DIR.resolve()), "COK_DEB_FAST": "1", **MAINTAINER}
    env |= {"COK_DEB_VERSION": version} if version else {}
    result = subprocess.run([MAKE_PACKAGES, folder], env=env, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


class Machine:
    """A booted container."""

    def __init__(self, log, suite=SUITES[0]):
        needs.root("only root can boot a container")
        needs.command("systemd-nspawn")
        self.log = log
        with open(log, "wb") as console:
            self.container = spawn(
                [
                    "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network",
                    "--volatile=overlay", f"--machine=cok-{suite}-{os.getpid()}", "--directory", root(suite), "--boot",
                ],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )
        try:
            self.leader = wait_for(self._leader, "the container's first process")
            wait_for(self._booted, "the container has booted", deadline=60)
        except AssertionError:
            print(Path(log).read_text(errors="replace")[-3000:])
            self.stop()
            raise

    def _leader(self):
        """Returns the child process that is process 1 in the container."""
        children = Path(f"/proc/{self.container.pid}/task/{self.container.pid}/children").read_text().split()
        for child in children:
            status = Path(f"/proc/{child}/status").read_text()
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
            if len(numbers) > 2 and numbers[-1] == "1":
                return int(child)
        return None

    def _booted(self):
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def path(self, path):
        """Returns this machine's path of a file in the container. It does not resolve absolute links."""
        return Path(f"/proc/{self.leader}/root") / path.lstrip("/")

    def run(self, *command, check=True, deadline=120):
        """Runs a command in the container. Returns its completed process, with text output."""
        enter = ["nsenter", "--target", str(self.leader), "--all", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"]
        command = enter + [str(part) for part in command]
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=deadline
        )
        assert not check or result.returncode == 0, f"{command[8:]}: {result.stdout}{result.stderr}"
        return result

    def systemctl(self, *arguments, **more):
        return self.run("systemctl", "--no-pager", "--full", *arguments, **more)

    def show(self, unit, property_):
        return self.systemctl("show", "--value", "--property", property_, unit).stdout.strip()

    def install(self, *packages):
        """Installs packages by dpkg, as an operator does."""
        self.path("/root").mkdir(exist_ok=True)
        names = []
        for package in packages:
            shutil.copy(package, self.path("/root"))
            names.append(f"/root/{Path(package).name}")
        return self.run("dpkg", "--install", *names)

    def command(self, *command):
        """Returns the command line that starts a program of this machine in the container's network."""
        return ["nsenter", "--target", str(self.leader), "--net", *map(str, command)]

    def enter(self, function):
        """Calls the function in the container's network. Returns its result."""
        return enter(f"/proc/{self.leader}/ns/net", function)

    def connect(self, namespace, here, there):
        """Connects it with a namespace by a cable, with these addresses and their prefix lengths."""
        namespace.ip("link", "add", "up0", "type", "veth", "peer", "name", "net0", "netns", self.leader)
        namespace.address("up0", there)
        self.run("ip", "address", "add", here, "dev", "net0")
        self.run("ip", "link", "set", "net0", "up")

    def stop(self):
        """Stops the container with all its processes."""
        if self.container.poll() is None:
            self.container.send_signal(signal.SIGTERM)
            try:
                self.container.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                end(self.container)


class Service(Daemon):
    """cokd as the package's service on a machine, with the details for its clients and visitors."""

    def __init__(self, machine, folder, limits="", more="", top="", tls='mode = "self-signed"'):
        self.machine = self.inside = machine
        self.folder, self.env, self.transport = folder, None, "ws"
        self.address, self.port, self.http_port, self.https = "127.0.0.1", 443, 80, "127.0.0.1:443"
        self.admin = "127.0.0.1:9180"
        self.limits, self.more, self.top, self.certificates = limits, more, top, tls
        self.ca = folder / "ca.pem"
        self.configure()

    def configure(self, limits=None, more=None, domain=DOMAIN):
        """Writes the configuration without a reload."""
        limits, more = self.limits if limits is None else limits, self.more if more is None else more
        self.machine.path("/etc/cokd/cokd.toml").write_text(
            f'domain = "{domain}"\n{self.top}\n[tls]\n{self.certificates}\n[limits]\n{limits}\n[[keys]]\nname = "test"\n'
            f'secret_sha256 = "{digest(KEY)}"\nmax_tunnels = 1000\n{more}\n'
        )

    def trust(self):
        """Trusts the certificate authority that the service made at its first start."""
        made = self.machine.path("/var/lib/private/cokd/authority/ca.pem")
        wait_for(made.exists, "the service has made its authority")
        shutil.copy(made, self.ca)

    def pid(self):
        return int(self.machine.show("cokd", "MainPID"))

    def wait_replaced(self, pid, deadline=DEADLINE):
        """Waits until another process serves."""
        return wait_for(
            lambda: self.pid() not in (0, pid) and self.machine.show("cokd", "ActiveState") == "active" and self.pid(),
            "another process serves", deadline, 0.1,
        )

    def stop(self):
        self.machine.systemctl("stop", "cokd-http.socket", "cokd-https.socket", "cokd-quic.socket", "cokd.service")
