"""The inspector of a running client, as scripts and its page use it."""

import json
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager

from .process import BIN_DIR, wait_for

ON = ("--verbose", "--inspect", "0")


class Inspector:
    """Asks the inspector of `client`, which it finds over the control socket as the commands do."""

    def __init__(self, client):
        self.client = client
        path = wait_for(lambda: next(iter((client.state / "run").glob("*.sock")), None), "no control socket")
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(20)
            control.connect(str(path))
            control.sendall(b'{"command": "inspector"}\n')
            answer = json.loads(control.makefile().readline())
        assert answer["answer"] == "inspector", answer
        self.address, self.token = answer["address"], answer["token"]
        self.port = int(self.address.rpartition(":")[2])
        self.url = f"http://{self.address}"
        self.secret_url = f"{self.url}/#{self.token}"

    def open(self, path, method="GET", body=None, timeout=60, **fields):
        """Asks and returns the open response, whatever its status. `fields` replace those of the request."""
        fields = {"Authorization": f"Bearer {self.token}", **{name.replace("_", "-"): text for name, text in fields.items()}}
        request = urllib.request.Request(
            self.url + path, data=body, method=method, headers={name: text for name, text in fields.items() if text}
        )
        try:
            return urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            return error

    def status(self, path, **more):
        with self.open(path, **more) as response:
            return response.status

    def bytes(self, path, **more):
        with self.open(f"/api/v1/{path}", **more) as response:
            content = response.read()
            assert response.status < 300, (response.status, content)
            return content

    def get(self, path, **more):
        return json.loads(self.bytes(path, **more))

    def list(self, **filters):
        """Returns the requests, newest first."""
        return self.get(f"requests?{urllib.parse.urlencode(filters)}")["requests"]

    def ended(self, path, count=1, **filters):
        """Waits until `count` requests for the path have ended. Returns the newest of them, with everything about it."""

        def found():
            lines = [line for line in self.list(path=path, **filters) if line["state"] != "open"]
            return len(lines) >= count and lines[0]

        return self.detail(wait_for(found, f"no {count} requests for {path}")["id"])

    def detail(self, number, reveal=False):
        return self.get(f"requests/{number}" + ("?reveal" if reveal else ""))

    def body(self, number, side="response", decoded=False):
        return self.bytes(f"requests/{number}/{side}/body" + ("?decoded" if decoded else ""))

    def shown(self, number, side="response", query=""):
        return self.get(f"requests/{number}/{side}/shown?{query}")

    def messages(self, number, **more):
        return self.get(f"requests/{number}/messages?{urllib.parse.urlencode(more)}")

    def replay(self, number, **edit):
        """Repeats a request and waits for its end. Returns its line of the list."""
        body = json.dumps(edit).encode() if edit else b""
        return self.get(f"requests/{number}/replay?wait", method="POST", body=body)

    @contextmanager
    def events(self, query=""):
        """Follows the requests. Yields an iterator over pairs of a name and data."""

        def pairs(response):
            name = None
            for line in response:
                line = line.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

        with self.open(f"/api/v1/events?{query}") as response:
            yield pairs(response)

    def command(self, *words):
        """A command line that asks this client."""
        return [BIN_DIR / "cok-client", *words, "--state-dir", self.client.state]

    def run(self, *words, check=True, **more):
        """Runs a command that asks this client. Returns its completed process."""
        result = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=60, check=False, **more)
        assert not check or result.returncode == 0, result.stderr
        return result


def field(fields, name):
    """Returns the values of a field."""
    return [field["value"] for field in fields if field["name"] == name]
