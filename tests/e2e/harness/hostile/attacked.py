"""What an attacker knows: where the daemon is, and the name of a tunnel."""

import socket
import ssl
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import raw


@dataclass
class Attacked:
    """A daemon as an attacker at the address `source` sees it. `scale` multiplies the size of an attack."""

    address: str
    port: int
    domain: str
    ca: str
    name: str
    key: str
    source: str
    scale: float = 1.0

    @classmethod
    def of(cls, daemon, name, key, source, scale):
        return cls(daemon.address, daemon.port, daemon.host(""), str(daemon.ca), name, key, source, scale)

    def fields(self):
        return asdict(self)

    def host(self, name):
        return f"{name}.{self.domain}" if name else self.domain

    def url(self, name, path="/"):
        return f"https://{self.host(name)}:{self.port}{path}"

    def tls(self, alpn=None):
        context = ssl.create_default_context(cafile=self.ca)
        if alpn:
            context.set_alpn_protocols([alpn])
        return context

    def connect(self, deadline=20):
        return socket.create_connection((self.address, self.port), timeout=deadline, source_address=(self.source, 0))

    def visit(self, alpn="http/1.1"):
        """Opens a visitor's TLS connection to the tunnel."""
        return raw.connect(self, self.name, alpn)

    def many(self, number):
        """Returns this number at the attack's scale."""
        return max(1, int(number * self.scale))

    def established(self, sources=()):
        """Returns how many TCP connections from the attacker, or from these sources, the daemon has open. A connection that
        the daemon has closed does not count, even if the attacker has not read that far."""
        local = f"{_hex(self.address)}:{self.port:04X}"
        remote = {_hex(source) for source in sources or [self.source]}
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:] + Path("/proc/net/tcp6").read_text().splitlines()[1:]
        rows = (line.split()[1:4] for line in lines)
        return sum(mine == local and peer[:8] in remote and state == "01" for mine, peer, state in rows)

    def until_closed(self, began, limit, left=0, sources=()):
        """Waits until the daemon has closed all TCP connections but `left`. Returns the seconds since `began`."""
        end = time.monotonic() + limit
        while self.established(sources) > left:
            if time.monotonic() > end:
                return None
            time.sleep(0.02)
        return time.monotonic() - began


def _hex(address):
    return socket.inet_aton(address)[::-1].hex().upper()
