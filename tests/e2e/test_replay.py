"""Repeating captured requests: as they were, edited, from a script and from the command line."""

import hashlib
import hmac
import json
import os
import stat
import subprocess

import pytest
from aiohttp import web

from harness.ports import free_port
from harness.process import wait_for
from harness.websocket import WebSocket

SECRET = b"a secret of the sender and the service"


class Hook:
    """A service that verifies signatures over raw bodies, as webhooks have them. It records what it gets."""

    def __init__(self, services, port=0):
        self.services, self.port, self.got = services, port, []
        self.runner = services.call(self._start())

    async def _start(self):
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self.port = runner.addresses[0][1]
        return runner

    async def _take(self, request):
        body = await request.read()
        self.got.append((request.method, request.path_qs, list(request.raw_headers), body))
        wanted = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
        is_signed = hmac.compare_digest(request.headers.get("X-Signature", ""), wanted)
        has_token = request.headers.get("Authorization") == "Bearer t0ken"
        return web.Response(status=204 if is_signed and has_token else 401)

    def stop(self):
        self.services.call(self.runner.cleanup())


@pytest.fixture
def hook(services):
    hooks = []

    def start(port=0):
        hooks.append(Hook(services, port))
        return hooks[-1]

    yield start
    for one in hooks:
        one.stop()


def signed(body):
    signature = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    return ["-H", f"X-Signature: {signature}", "-H", "Authorization: Bearer t0ken", "-H", "Content-Type: application/json"]


def test_a_signed_webhook_verifies_again(inspected, hook, tmp_path, http):
    """The body's bytes, the order of fields, duplicates and hidden secrets are the same, byte for byte."""
    service = hook()
    client, inspector = inspected(f"http://127.0.0.1:{service.port}")
    body = tmp_path / "body"
    body.write_bytes(b'{"text": "gr\xc3\xbc\xc3\x9fe\\u0000", "n": 1.0}\r\n\n' + os.urandom(100_000))
    more = ["-H", "X-Twice: one", "-H", "X-Twice: two"]
    client.curl("/hook?a=1&a=2&token=x", http, "--data-binary", f"@{body}", *signed(body.read_bytes()), *more)
    one = inspector.ended("/hook")
    assert one["status"] == 204 and "t0ken" not in json.dumps(one)
    again = inspector.replay(one["id"])
    assert (again["status"], again["replay_of"], again["state"]) == (204, one["id"], "complete")
    assert service.got[0] == service.got[1]
    assert [line["id"] for line in inspector.list(path="/hook")] == [again["id"], one["id"]]


@pytest.mark.parametrize("size", [0, 500, 60_000, 200_000])
def test_a_request_that_came_while_the_service_was_down(inspected, hook, tmp_path, size):
    port = free_port()
    client, inspector = inspected(f"http://127.0.0.1:{port}")
    body = tmp_path / "body"
    body.write_bytes(os.urandom(size))
    answer = client.curl("/hook", "--data-binary", f"@{body}", *signed(body.read_bytes()), "-w", "%{http_code}", "-o", "/dev/null")
    assert answer.stdout == b"502"
    one = inspector.ended("/hook")
    assert one["request"]["captured"] == size and not one["incomplete"], one["request"]
    service = hook(port)
    assert inspector.replay(one["id"])["status"] == 204
    assert service.got[0][3] == body.read_bytes()


def test_an_edited_replay_changes_what_was_edited_and_nothing_else(inspected, hook):
    service = hook()
    client, inspector = inspected(f"http://127.0.0.1:{service.port}")
    client.curl("/hook?token=s3cret&n=1", "--data", "old", *signed(b"new body"))
    one = inspector.ended("/hook")
    assert one["status"] == 401
    again = inspector.replay(one["id"], body="new body", target=one["target"].replace("n=1", "n=2"))
    assert again["status"] == 204
    method, path, fields, body = service.got[1]
    assert (method, path, body) == ("POST", "/hook?token=s3cret&n=2", b"new body")
    names = [name.lower() for name, _ in fields]
    assert names == [name.lower() for name, _ in service.got[0][2]]
    assert dict(fields)[b"content-length"] == b"8"
    # Fields by their places keep hidden values; new ones are added.
    places = [{"name": each["name"], "original": place} for place, each in enumerate(one["request"]["fields"])]
    again = inspector.replay(one["id"], method="PUT", fields=[*places, {"name": "X-New", "value": "1"}], body_base64="bmV3IGJvZHk=")
    assert again["status"] == 204 and again["method"] == "PUT"
    fields = service.got[2][2]
    assert dict((name.lower(), value) for name, value in fields)[b"x-new"] == b"1"
    for wrong in (
        {"method": "NO METHOD"}, {"target": "relative"}, {"target": "/a b"}, {"fields": [{"name": "a\nb", "value": "x"}]},
        {"fields": [{"name": "a", "value": "x\r\ny: z"}]}, {"fields": [{"name": "a"}]},
        {"fields": [{"name": "a", "original": 1000}]}, {"body": "x", "body_base64": "eA=="}, {"body_base64": "!"},
        {"fields": [{"name": "Transfer-Encoding", "value": "chunked"}]},
    ):
        refused = inspector.open(f"/api/v1/requests/{one['id']}/replay", method="POST", body=json.dumps(wrong).encode())
        assert refused.status == 422, wrong
    for wrong in (b"{", b"[]", b'{"colour": 1}'):
        assert inspector.status(f"/api/v1/requests/{one['id']}/replay", method="POST", body=wrong) == 400
    assert len(service.got) == 3


def test_what_cannot_be_repeated_is_refused(inspected, services):
    client, inspector = inspected(services.ws)
    with WebSocket(client.daemon, client.name, "/chat") as chat:
        chat.send("x")
        chat.recv()
    one = inspector.ended("/chat")
    refused = inspector.open(f"/api/v1/requests/{one['id']}/replay", method="POST", body=b"")
    assert refused.status == 409 and "WebSocket" in json.load(refused)["error"]


def test_a_replay_that_fails_says_why(inspected, services, hook):
    service = hook()
    client, inspector = inspected(f"http://127.0.0.1:{service.port}")
    client.curl("/hook", "--data", "x")
    one = inspector.ended("/hook")
    service.stop()
    again = inspector.replay(one["id"])
    assert (again["state"], again["status"]) == ("failed", None) and "refused" in again["failure"]


def test_the_command_repeats_and_edits(inspected, hook, tmp_path):
    """With an editor of the test, which changes path and body. Its file is private, and gone afterwards."""
    service = hook()
    client, inspector = inspected(f"http://127.0.0.1:{service.port}")
    client.curl("/hook", "--data-binary", "as it was", *signed(b"as it was"))
    number = str(inspector.ended("/hook")["id"])
    line = inspector.run("replay", number).stdout
    assert " POST  /hook  204 " in line and f"replay of {number}" in line
    answer = json.loads(inspector.run("replay", number, "--json").stdout)
    assert answer["replay_of"] == int(number) and service.got[2] == service.got[0]
    editor = tmp_path / "editor"
    editor.write_text(
        f"#!/bin/sh\nstat -c %a \"$1\" > {tmp_path}/mode\necho \"$1\" > {tmp_path}/path\ncp \"$1\" {tmp_path}/form\n"
        "sed -i -e '1s,/hook,/other,' -e 's/as it was/as it is/' \"$1\"\n"
    )
    editor.chmod(0o755)
    more = {"env": {**os.environ, "VISUAL": "", "EDITOR": f"{editor} "}}
    edited = inspector.run("replay", number, "--edit", **more)
    assert "/other" in edited.stdout and " 401 " in edited.stdout
    method, path, fields, body = service.got[3]
    assert (path, body) == ("/other", b"as it is")
    assert dict(fields)[b"authorization"] == b"Bearer t0ken"
    assert (tmp_path / "mode").read_text().strip() == "600" and "t0ken" not in (tmp_path / "form").read_text()
    assert not os.path.exists((tmp_path / "path").read_text().strip())
    editor.write_text("#!/bin/sh\nexit 1\n")
    failed = inspector.run("replay", number, "--edit", check=False, **more)
    assert failed.returncode == 1 and "nothing was sent" in failed.stderr and len(service.got) == 4
    missing = inspector.run("replay", "99999", check=False)
    assert missing.returncode == 1 and "no such request" in missing.stderr


def test_an_archive_is_written_whole_and_replaces_no_link(inspected, hook, tmp_path):
    service = hook()
    client, inspector = inspected(f"http://127.0.0.1:{service.port}")
    client.curl("/hook?n=1", "--data", "one", *signed(b"one"))
    client.curl("/hook?n=2", "--data", "two", *signed(b"two"))
    inspector.ended("/hook", 2)
    file = tmp_path / "requests.har"
    inspector.run("har", str(file))
    archive = json.loads(file.read_text())["log"]
    assert archive["version"] == "1.2" and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry["request"]["postData"]["text"] for entry in archive["entries"]] == ["one", "two"]
    assert [entry["response"]["status"] for entry in archive["entries"]] == [204, 204]
    assert "t0ken" not in file.read_text()
    only = json.loads(inspector.run("har", "-", "text=n=2").stdout)["log"]
    assert [entry["request"]["url"].endswith("/hook?n=2") for entry in only["entries"]] == [True]
    link = tmp_path / "link.har"
    link.symlink_to(file)
    for place in (str(link), "/dev/null", str(tmp_path)):
        refused = inspector.run("har", place, check=False)
        assert refused.returncode == 1 and "not a regular file" in refused.stderr, place


def test_a_curl_line_sends_the_same_request(inspected, daemon, hook, tmp_path):
    """The line of the page, run by a shell, reaches the service with the same method, path, fields and body."""
    service = hook()
    client, inspector = inspected(f"http://127.0.0.1:{service.port}")
    client.curl("/hook/../it's?a=$HOME&b=`id`", "--path-as-is", "--data-binary", "it's $HOME", *signed(b"it's $HOME"))
    number = inspector.ended("/hook")["id"]
    line = inspector.bytes(f"requests/{number}/curl?reveal").decode()
    more = f" --cacert {daemon.ca} --resolve {client.host}:{daemon.port}:{daemon.address}"
    subprocess.run(["sh", "-c", line.replace("curl ", f"curl -sS{more} ", 1)], check=True, timeout=60, capture_output=True)
    wait_for(lambda: len(service.got) == 2, "no request of the line")
    assert [one[:2] + one[3:] for one in service.got][0] == [one[:2] + one[3:] for one in service.got][1]
