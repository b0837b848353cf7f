"""Proofs in another server's zone: the daemon updates knot by RFC 2136, a program, or an HTTP service."""

import base64
import subprocess

import pytest
from aiohttp import web

from harness.certified import Certified, names_of
from harness.cok import DOMAIN
from harness.dns_servers import TSIG, Knot
from harness.pebble import PROOFS_OF_TWO, Pebble
from harness.ports import free_port
from harness.process import wait_for

CHALLENGE = f"_acme-challenge.{DOMAIN}."
ZONE = f"{DOMAIN}."


class Elsewhere:
    """knot for the zone, the ACME server that asks it, and a daemon with a solver."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.knot = Knot(folder / "knot", {ZONE: []}, address="127.0.0.1", port=self.port)
        self.pebble = Pebble(folder / "pebble", f"127.0.0.1:{self.port}", authorization_reuse=0)
        self.daemons = []
        (folder / "secret").write_text(TSIG[2] + "\n")

    def start(self, solver):
        self.daemons.append(Certified(self.folder / f"cokd{len(self.daemons)}", self.pebble, solver=solver))
        return self.daemons[-1]

    def rfc2136(self, key=TSIG[0], secret="secret"):
        return f"""provider = "rfc2136"
server = "127.0.0.1:{self.port}"
zone = "{DOMAIN}"
tsig_name = "{key}"
tsig_algorithm = "{TSIG[1]}"
tsig_secret_file = "{self.folder / secret}"
"""

    def values(self):
        return self.knot.ask(CHALLENGE, "TXT", "+short")

    def update(self, what, name, value):
        """The script for nsupdate that adds or deletes a value."""
        change = {"present": f'add {name} 0 IN TXT "{value}"', "cleanup": f'delete {name} 0 IN TXT "{value}"'}[what]
        return f"server 127.0.0.1 {self.port}\nzone {ZONE}\nupdate {change}\nsend\n"

    def nsupdate(self, what, name, value):
        key, algorithm, secret = TSIG
        subprocess.run(
            ["nsupdate", "-y", f"{algorithm}:{key}:{secret}"], input=self.update(what, name, value), text=True,
            check=True, capture_output=True, timeout=20,
        )

    def stop(self):
        for program in (*self.daemons, self.pebble, self.knot):
            program.stop()


@pytest.fixture
def elsewhere(tmp_path):
    elsewhere = Elsewhere(tmp_path)
    yield elsewhere
    elsewhere.stop()


def whole(elsewhere, daemon):
    """Proves base and wildcard name together, twice, and checks that no value stays. Returns the solver's calls."""
    daemon.issued()
    daemon.ca = elsewhere.pebble.root()
    assert names_of(daemon.leaf()) == {DOMAIN, f"*.{DOMAIN}"}
    assert daemon.curl("", "/health/ready").stdout == b"ready\n"
    wait_for(lambda: elsewhere.values() == [], "the values are removed")
    start = len(daemon.process.lines)
    daemon.renew()
    daemon.issued(start=start)
    wait_for(lambda: elsewhere.values() == [], "the values are removed")
    assert not daemon.failures()
    assert elsewhere.pebble.proofs() in PROOFS_OF_TWO
    again = elsewhere.pebble.proofs() - 2
    return ["present", "present", "cleanup", "cleanup"] + ["present"] * again + ["cleanup"] * again


def test_dynamic_updates(elsewhere):
    """A value from another party stays."""
    elsewhere.nsupdate("present", CHALLENGE, "of-somebody-else")
    daemon = elsewhere.start(elsewhere.rfc2136())
    daemon.issued()
    wait_for(lambda: elsewhere.values() == ['"of-somebody-else"'], "the daemon's own values are removed")
    elsewhere.nsupdate("cleanup", CHALLENGE, "of-somebody-else")
    start = len(daemon.process.lines)
    daemon.renew()
    daemon.issued(start=start)
    wait_for(lambda: elsewhere.values() == [], "the values are removed")
    assert not daemon.failures()


def test_a_key_without_permission(elsewhere):
    """knot knows the key but refuses the update. The error says who has to act."""
    daemon = elsewhere.start(elsewhere.rfc2136(key="other."))
    error = daemon.process.wait_event("not_issued")["error"]
    assert "ACL" in error and "other." in error and CHALLENGE in error, error
    assert daemon.curl("", "/health/live").stdout == b"ok\n"


def test_a_wrong_key(elsewhere):
    (elsewhere.folder / "wrong").write_text(base64.b64encode(b"another secret of the same length").decode())
    daemon = elsewhere.start(elsewhere.rfc2136(secret="wrong"))
    error = daemon.process.wait_event("not_issued")["error"]
    assert "cokd" in error and any(word in error.lower() for word in ("tsig", "signature", "secret")), error
    assert daemon.curl("", "/health/live").stdout == b"ok\n"


def test_a_program(elsewhere):
    """The program's arguments are those of lego: present or cleanup, the name, the value."""
    key, algorithm, secret = TSIG
    calls = elsewhere.folder / "calls"
    program = elsewhere.folder / "hook"
    program.write_text(f"""#!/bin/sh
set -eu
echo "$@" >>{calls}
case $1 in
    present) change="add $2 0 IN TXT \\"$3\\"" ;;
    cleanup) change="delete $2 0 IN TXT \\"$3\\"" ;;
    *) exit 9 ;;
esac
printf 'server 127.0.0.1 {elsewhere.port}\\nzone {ZONE}\\nupdate %s\\nsend\\n' "$change" |
    nsupdate -y {algorithm}:{key}:{secret}
""")
    program.chmod(0o755)
    daemon = elsewhere.start(f'provider = "exec"\nprogram = "{program}"')
    expected = whole(elsewhere, daemon)
    lines = [line.split() for line in calls.read_text().splitlines()]
    assert [line[0] for line in lines] == expected
    assert {line[1] for line in lines} == {CHALLENGE}
    assert {line[2] for line in lines if line[0] == "present"} == {line[2] for line in lines if line[0] == "cleanup"}


def test_a_program_that_fails(elsewhere):
    """The error quotes the program's output."""
    program = elsewhere.folder / "hook"
    program.write_text("#!/bin/sh\necho 'the zone is frozen' >&2\nexit 3\n")
    program.chmod(0o755)
    daemon = elsewhere.start(f'provider = "exec"\nprogram = "{program}"')
    error = daemon.process.wait_event("not_issued")["error"]
    assert str(program) in error and "3" in error and "the zone is frozen" in error, error
    assert daemon.curl("", "/health/live").stdout == b"ok\n"


@pytest.fixture
def hook(services, elsewhere):
    """An HTTP service that changes the zone for requests with the password."""
    calls = []

    async def change(request):
        expected = "Basic " + base64.b64encode(b"cokd:secret of the tests for updates!").decode()
        if request.headers.get("authorization") != expected:
            return web.Response(status=401, text="who are you?")
        body = await request.json()
        calls.append((request.path, body))
        await services.loop.run_in_executor(None, elsewhere.nsupdate, request.path[1:], body["fqdn"], body["value"])
        return web.json_response({})

    async def go():
        app = web.Application()
        app.add_routes([web.post("/present", change), web.post("/cleanup", change)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = services.call(go())
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", calls
    services.call(runner.cleanup())


def httpreq(elsewhere, url, password):
    (elsewhere.folder / "password").write_text(password + "\n")
    file = elsewhere.folder / "password"
    return f'provider = "httpreq"\nurl = "{url}"\nusername = "cokd"\npassword_file = "{file}"'


def test_an_http_service(elsewhere, hook):
    url, calls = hook
    expected = whole(elsewhere, elsewhere.start(httpreq(elsewhere, url, "secret of the tests for updates!")))
    assert [path.removeprefix("/") for path, _ in calls] == expected
    assert {body["fqdn"] for _, body in calls} == {CHALLENGE}


def test_a_wrong_password(elsewhere, hook):
    url, calls = hook
    daemon = elsewhere.start(httpreq(elsewhere, url, "guessed"))
    error = daemon.process.wait_event("not_issued")["error"]
    assert "401" in error and url.removeprefix("http://") in error and "guessed" not in error, error
    assert calls == [] and daemon.curl("", "/health/live").stdout == b"ok\n"
