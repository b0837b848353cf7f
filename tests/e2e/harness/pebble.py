"""pebble from Debian: an ACME server (RFC 8555) in strict mode. Only the tests trust its certificates."""

import json
import re
import ssl
import urllib.request

from .authority import Authority
from .ports import CLOSE, LISTEN, TIME_WAIT, free_port, states
from .process import HERE, Process, wait_for

# An external account for account binding: identifier and HMAC key in base64url.
EXTERNAL_ACCOUNT = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W")

# The number of proofs in two orders for two names without reuse. pebble reuses one in a hundred even at 0 percent.
PROOFS_OF_TWO = [3, 4]


class Pebble:
    """Queries only `dns` ("address:port") for proofs. `nonce_reject` and `authorization_reuse` are percentages.
    A restart loses all accounts, orders and authorizations. The port stays, and the signing keys change."""

    def __init__(
        self, folder, dns, nonce_reject=0, authorization_reuse=100, external_account=False, validity=None, inside=HERE
    ):
        self.folder, self.dns, self.inside = folder, dns, inside
        self.nonce_reject, self.authorization_reuse = nonce_reject, authorization_reuse
        self.external_account, self.validity = external_account, validity
        self.authority = Authority(folder)
        self.ca_file = self.authority.ca_file
        self._certificate, self._key = self.authority.files("127.0.0.1")
        self.ports = None
        self.processes = []
        self.start()

    def start(self):
        # Another program may take a free port before pebble does.
        for attempt in range(5):
            ports = self.ports or (self.inside.enter(free_port), self.inside.enter(free_port))
            process = self._start(*ports)
            try:
                process.wait_line(lambda line: "ACME directory available" in line, "directory")
                # The line comes before it listens. Its certificate shows that no other program answers there.
                for path in (f"{ports[0]}/dir", f"{ports[1]}/roots/0"):
                    wait_for(lambda path=path: self._answers(process, f"https://127.0.0.1:{path}"), "pebble answers")
                break
            except AssertionError:
                process.kill()
                if attempt == 4 or not any("address already in use" in line for line in process.lines):
                    raise
        self.ports, self.process = ports, process
        self.processes.append(process)
        self.directory = f"https://127.0.0.1:{ports[0]}/dir"

    def _start(self, port, management):
        settings = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(self._certificate),
            "privateKey": str(self._key),
            "httpPort": 5002,
            "tlsPort": 5001,
            "externalAccountBindingRequired": self.external_account,
            "externalAccountMACKeys": dict([EXTERNAL_ACCOUNT]),
        }
        if self.validity:
            settings["certificateValidityPeriod"] = self.validity
        config = self.folder / "pebble.json"
        config.write_text(json.dumps({"pebble": settings}))
        return Process(
            "pebble", "-strict", "-config", config, "-dnsserver", self.dns,
            env={
                "PEBBLE_VA_NOSLEEP": "1",
                "PEBBLE_WFE_NONCEREJECT": str(self.nonce_reject),
                "PEBBLE_AUTHZREUSE": str(self.authorization_reuse),
            },
            inside=self.inside,
        )

    def orders(self):
        """Returns the number of orders, including those before restarts."""
        return sum("There are now" in line and "orders in the db" in line for p in self.processes for line in p.lines)

    def settle(self):
        """Waits until all received requests are done and counted. pebble finishes the request of a killed sender, and its
        log lines arrive late."""

        def asked():
            return sum("GET /dir -> " in line for line in self.process.lines)

        def left():
            return set(states(self.ports[0]).values()) - {TIME_WAIT, CLOSE, LISTEN}

        self.inside.enter(lambda: wait_for(lambda: not left(), "pebble has no connections"))
        before = asked()
        self._get(self.directory)
        wait_for(lambda: asked() > before, "pebble's lines have arrived")

    def accounts(self):
        """Returns the number of accounts, including those before restarts."""
        return sum("accounts in memory" in line for p in self.processes for line in p.lines)

    def proofs(self):
        """Returns the number of proofs that it verified."""
        looked = re.compile(r"Pulled a task from the Tasks queue")
        return sum(bool(looked.search(line)) for process in self.processes for line in process.lines)

    def root(self):
        """Returns a file with the root of its certificates, which changes at each start."""
        path = self.folder / f"root-{len(self.processes)}.pem"
        # Written once, since visitors may be reading it.
        if not path.exists():
            path.write_bytes(self._get(f"https://127.0.0.1:{self.ports[1]}/roots/0"))
        return path

    def _answers(self, process, url):
        assert process.popen.poll() is None, process.output()
        try:
            return self._get(url)
        except OSError:
            return None

    def _get(self, url):
        context = ssl.create_default_context(cafile=str(self.ca_file))

        def fetch():
            with urllib.request.urlopen(url, timeout=20, context=context) as answer:
                return answer.read()

        return self.inside.enter(fetch)

    def restart(self):
        self.stop()
        self.start()

    def stop(self):
        return self.process.stop()
