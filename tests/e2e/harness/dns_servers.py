"""Real DNS servers from Debian: knot is authoritative for zones, and unbound is a strict recursive resolver."""

import itertools
import signal
import subprocess

from .process import HERE, Process, wait_for

DAEMON, PARENT, RESOLVER = "127.0.0.1", "127.0.0.2", "127.0.0.3"

# The key with permission to update zones: name, algorithm, secret.
TSIG = ("cokd.", "hmac-sha256", "c2VjcmV0IG9mIHRoZSB0ZXN0cyBmb3IgdXBkYXRlcyE=")

_serials = itertools.count(1)


def dig(server, name, kind, *options, port=53, inside=HERE):
    """Returns a name server's response in lines, in full unless `options` have `+short`. A query without a response is
    repeated, as by any resolver, since datagrams can get lost."""
    command = inside.command("dig", f"@{server}", "-p", str(port), name, kind, "+time=2", "+tries=3", *options)
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert result.returncode == 0, result.stdout + result.stderr
    # Comments also stand in short form: a datagram that was lost and asked for again, for one.
    return [line for line in result.stdout.splitlines() if not ("+short" in options and line.startswith(";"))]


class Knot:
    """Serves `zones`, which maps absolute names to lines of a zone file. It adds an SOA record and an NS record, which
    names `ns.<zone>` with this server's address."""

    def __init__(self, folder, zones, address=PARENT, port=53, inside=HERE):
        self.folder, self.address, self.port, self.inside = folder, address, port, inside
        folder.mkdir(parents=True)
        (folder / "db").mkdir()
        self.zones = {}
        for name, records in zones.items():
            self._write(name, records)
        key, algorithm, secret = TSIG
        listed = "".join(
            f"  - domain: {name}\n    file: {self._file(name)}\n    acl: [update]\n" for name in self.zones
        )
        # The first key may change TXT records at one name. The second key has no permission.
        config = folder / "knot.conf"
        config.write_text(
            f"""
server:
    rundir: {folder}
    listen: {address}@{port}
    background-workers: 1
    udp-workers: 1
    tcp-workers: 1
database:
    storage: {folder}/db
log:
  - target: stderr
    any: info
key:
  - id: {key}
    algorithm: {algorithm}
    secret: {secret}
  - id: other.
    algorithm: {algorithm}
    secret: {secret}
acl:
  - id: update
    key: {key}
    action: update
    update-type: TXT
    update-owner: name
    update-owner-match: sub-or-equal
    update-owner-name: _acme-challenge.tunnel.test.
template:
  - id: default
    storage: {folder}
    zonefile-sync: -1
    zonefile-load: whole
zone:
{listed}"""
        )
        self.process = Process("knotd", "-c", config, inside=inside)
        wait_for(self._answers, "knot answers")

    def _file(self, name):
        return self.folder / f"{name}zone"

    def _write(self, name, records):
        self.zones[name] = records
        origin = "" if name == "." else name
        lines = [
            f"{name} 0 IN SOA ns.{origin} hostmaster.{origin} {next(_serials)} 3600 600 86400 0",
            f"{name} 0 IN NS ns.{origin}",
            f"ns.{origin} 0 IN A {self.address}",
            *records,
        ]
        self._file(name).write_text("\n".join(lines) + "\n")

    def _answers(self):
        assert self.process.popen.poll() is None, self.process.output()
        try:
            return all(self.ask(name, "SOA", "+short") for name in self.zones)
        except AssertionError:
            return False

    def ask(self, name, kind, *options):
        return dig(self.address, name, kind, *options, port=self.port, inside=self.inside)

    def change(self, name, records):
        """Replaces a zone's records."""
        self._write(name, records)
        # knot reads zone files again on SIGHUP.
        self.process.popen.send_signal(signal.SIGHUP)
        serial = self._file(name).read_text().split()[6]
        wait_for(lambda: any(serial in line.split() for line in self.ask(name, "SOA", "+short")), "the zone has changed")

    def stop(self):
        return self.process.stop()


class Unbound:
    """Resolves from the root server `root`. It minimises query names (RFC 9156) and randomises their case
    (draft-vixie-dnsext-dns0x20). It rejects responses that change the case."""

    def __init__(self, folder, root=PARENT, address=RESOLVER, inside=HERE):
        folder.mkdir(parents=True)
        self.address, self.inside = address, inside
        hints = folder / "root.hints"
        hints.write_text(f". 3600 IN NS ns.\nns. 3600 IN A {root}\n")
        config = folder / "unbound.conf"
        config.write_text(
            f"""
server:
    directory: "{folder}"
    chroot: ""
    username: ""
    pidfile: "{folder}/unbound.pid"
    use-syslog: no
    logfile: ""
    verbosity: 1
    log-queries: yes
    do-daemonize: no
    num-threads: 1
    interface: {address}
    access-control: 127.0.0.0/8 allow
    do-ip6: no
    do-not-query-localhost: no
    local-zone: "test." nodefault
    root-hints: "{hints}"
    module-config: "iterator"
    qname-minimisation: yes
    qname-minimisation-strict: yes
    use-caps-for-id: yes
    infra-cache-min-rtt: 50
remote-control:
    control-enable: no
"""
        )
        self.process = Process("unbound", "-d", "-c", config, inside=inside)
        wait_for(self._answers, "unbound answers")

    def _answers(self):
        assert self.process.popen.poll() is None, self.process.output()
        try:
            return self.ask(".", "SOA", "+short")
        except AssertionError:
            return False

    def ask(self, name, kind, *options):
        return dig(self.address, name, kind, *options, inside=self.inside)

    def stop(self):
        return self.process.stop()
