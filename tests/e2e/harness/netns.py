"""Network namespaces: a home and an internet, and the paths between them. They need root.

They are isolated from this machine's own network and change nothing in it."""

import ctypes
import fcntl
import itertools
import json
import os
import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import needs
from .process import BIN_DIR, end, spawn

DAEMON = "10.0.0.1"
MTU = 1500

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def _ip(*arguments):
    result = subprocess.run(["ip", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=20)
    if result.returncode:
        needs.lacking(f"network namespaces: ip {' '.join(map(str, arguments))}: {result.stderr.strip()}")
    return result.stdout


def enter(namespace, function):
    """Calls the function in the network namespace of that path. Returns its result."""

    def run():
        with open(namespace) as opened:
            # Moves this thread alone.
            if _libc.setns(opened.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
        return function()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def delete_orphans():
    """Deletes namespaces of test processes that were killed."""
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
        owner = name.removeprefix("cok-").partition("-")[0]
        if name.startswith("cok-") and owner.isdecimal() and not os.path.exists(f"/proc/{owner}"):
            shutil.rmtree(f"/etc/netns/{name}", ignore_errors=True)
            _ip("netns", "delete", name)


class Namespace:
    """One network namespace, in which programs and sockets can be started."""

    def __init__(self, name):
        needs.root("only root can make network namespaces")
        needs.command("nft")
        # Unique on the machine, since another run may be under way.
        self.name = f"cok-{os.getpid()}-{next(_numbers)}-{name}"
        _ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def delete(self):
        shutil.rmtree(self._etc, ignore_errors=True)
        _ip("netns", "delete", self.name)

    @property
    def _etc(self):
        """Returns the folder that replaces files of /etc in this namespace (ip-netns(8))."""
        return Path("/etc/netns") / self.name

    def resolver(self, address):
        """Sets the resolver for programs that start in this namespace from now on."""
        self._etc.mkdir(parents=True, exist_ok=True)
        (self._etc / "resolv.conf").write_text(f"nameserver {address}\noptions timeout:2 attempts:1\n")

    def command(self, *command):
        """Returns the command line that executes a program in this namespace, without a fork."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def enter(self, function):
        """Calls the function in this namespace and returns its result. Sockets and devices that it opens stay there."""
        return enter(f"/run/netns/{self.name}", function)

    def ip(self, *arguments):
        return _ip("-n", self.name, *arguments)

    def address(self, device, *address):
        """Adds an address to a device and starts it."""
        self.ip("address", "add", *address, "dev", device)
        self.ip("link", "set", device, "up")

    def sysctl(self, name, value):
        def write():
            with open(f"/proc/sys/{name}", "w") as setting:
                setting.write(str(value))

        self.enter(write)

    def nft(self, *arguments, rules=None):
        """Runs a command of nftables. Returns its parsed JSON, or None if `rules` are added."""
        command = self.command("nft", *(["--file", "-"] if rules else ["--json", *arguments]))
        result = subprocess.run(command, input=rules, capture_output=True, text=True, check=False, timeout=20)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)["nftables"] if result.stdout else []

    def bytes(self, device, direction):
        """Returns how many bytes a device has sent (`tx`) or received (`rx`)."""
        (link,) = json.loads(_ip("-n", self.name, "-json", "-statistics", "link", "show", "dev", device))
        return link["stats64"][direction]["bytes"]

    def drop(self, what, hooks=("input", "output")):
        """Drops matching packets in both directions until `let_pass`."""
        chains = "".join(f"chain {hook} {{ type filter hook {hook} priority 0; {what} drop; }};" for hook in hooks)
        self.nft(rules=f"table inet dropped {{ {chains} }}")

    def let_pass(self):
        self.nft("delete", "table", "inet", "dropped")

    def count(self, what):
        """Counts matching packets that are sent, even those that are dropped. Returns a function that gives the count."""
        table = f"counted{next(_numbers)}"
        chain = f"chain output {{ type filter hook output priority -10; {what} counter; }};"
        self.nft(rules=f"table inet {table} {{ {chain} }}")

        def counted():
            listing = self.nft("list", "table", "inet", table)
            (rule,) = [entry["rule"] for entry in listing if "rule" in entry]
            return next(part["counter"]["packets"] for part in rule["expr"] if "counter" in part)

        return counted

    def sources(self, port):
        """Records senders of UDP to that port. Returns a function that gives their addresses and ports."""
        table = f"sources{next(_numbers)}"
        noted = "set seen { type ipv4_addr . inet_service; flags dynamic; size 1000; };"
        rule = f"udp dport {port} add @seen {{ ip saddr . udp sport }};"
        self.nft(rules=f"table inet {table} {{ {noted} chain input {{ type filter hook input priority 0; {rule} }}; }}")

        def seen():
            (set_,) = [entry["set"] for entry in self.nft("list", "set", "inet", table, "seen") if "set" in entry]
            return {tuple(source["concat"]) for source in set_.get("elem", [])}

        return seen

    def tun(self, device):
        """Returns a new TUN interface as an open file."""

        def open_device():
            file = os.open("/dev/net/tun", os.O_RDWR)
            # TUNSETIFF, with IFF_TUN and IFF_NO_PI.
            fcntl.ioctl(file, 0x400454CA, struct.pack("16sH22x", device.encode(), 0x0001 | 0x1000))
            return file

        return self.enter(open_device)


class Network:
    """A home, an internet with the daemon's address DAEMON, and paths between them. At first there is no path. Packets
    from home take the last path added or chosen."""

    def __init__(self):
        self.namespaces, self.links = [], []
        try:
            self.home, self.internet = self.add("home"), self.add("internet")
            self.internet.address("lo", f"{DAEMON}/32")
        except BaseException:
            self.delete()
            raise

    def add(self, name):
        namespace = Namespace(name)
        self.namespaces.append(namespace)
        return namespace

    def delete(self):
        for link in self.links:
            end(link)
        for namespace in self.namespaces:
            namespace.delete()

    def cable(self, number=1, at_home=None):
        """Adds a path by 10.`number`.0.0/24 to the home, or to the namespace `at_home`."""
        home, device = at_home or self.home, f"way{number}"
        home.ip("link", "add", device, "type", "veth", "peer", "name", device, "netns", self.internet.name)
        home.address(device, f"10.{number}.0.2/24")
        self.internet.address(device, f"10.{number}.0.1/24")
        home.ip("route", "replace", "default", "via", f"10.{number}.0.1")

    def unplug(self, number):
        """Removes a path and the home's address on it."""
        self.home.ip("link", "delete", f"way{number}")

    def router(self):
        """Adds a path through a router with NAT. Returns the router's namespace."""
        router = self.add("router")
        self.cable(at_home=router)
        self.home.ip("link", "add", "lan", "type", "veth", "peer", "name", "lan", "netns", router.name)
        self.home.address("lan", "192.168.0.2/24")
        router.address("lan", "192.168.0.1/24")
        self.home.ip("route", "replace", "default", "via", "192.168.0.1")
        router.sysctl("net/ipv4/ip_forward", 1)
        hide = 'type nat hook postrouting priority 100; oifname "way1" masquerade fully-random;'
        router.nft(rules=f"table inet nat {{ chain out {{ {hide} }}; }}")
        return router

    def link(self, **options):
        """Adds a path with the options of cok-link (tests/link): delay, rate, queue, loss, seed."""
        ends = [side.tun("way9") for side in (self.home, self.internet)]
        for side, mine, other in ((self.home, 2, 1), (self.internet, 1, 2)):
            # Room for packets that arrive while the link waits for a processor.
            side.ip("link", "set", "way9", "mtu", MTU, "txqueuelen", 2000)
            side.address("way9", f"10.9.0.{mine}", "peer", f"10.9.0.{other}")
        self.home.ip("route", "replace", "default", "via", "10.9.0.1")
        options = [f"--{name}={value}" for name, value in options.items()]
        # A delay of the link would distort the measurement, so it gets priority where that is allowed.
        first = ["sh", "-c", 'chrt --fifo --pid 1 $$ 2>/dev/null; exec "$@"', "sh"]
        self.links.append(spawn([*first, BIN_DIR / "cok-link", *options], stdin=ends[0], stdout=ends[1]))
        for file in ends:
            os.close(file)
