"""The admin API over HTTP, as its description has it, and its events."""

import json
import socket
import threading
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

from openapi_schema_validator import OAS31Validator, oas31_format_checker

from .process import wait_for

API = "/api/v1"
TOKEN = "a-token-of-the-end-to-end-suite"
DESCRIPTION = Path(__file__).parents[3] / "daemon/src/admin/openapi.json"


def token_file(folder):
    """Returns the section of the configuration for a token, whose file it makes."""
    file = Path(folder) / "admin-token"
    file.write_text(f"{TOKEN}\n")
    return f'[admin]\ntoken_file = "{file}"\n'


class Answer:
    def __init__(self, response):
        self.status, self.headers = response.status, dict(response.getheaders())
        self.kind = response.getheader("content-type", "").split(";")[0]
        self.text = response.read().decode()

    def json(self):
        return json.loads(self.text)


class Admin:
    """The API of a daemon at its admin address. `token` goes along with each request."""

    def __init__(self, daemon, token=None):
        self.address, self.token = daemon.admin.rpartition(":"), token

    def connect(self):
        return HTTPConnection(self.address[0], int(self.address[2]), timeout=30)

    def request(self, method, path, body=None, headers=None):
        """Returns the connection and the response, whose body is unread."""
        connection = self.connect()
        token = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        body = None if body is None else json.dumps(body)
        connection.request(method, API + path, body, {**token, **(headers or {})})
        return connection, connection.getresponse()

    def ask(self, method, path, body=None, headers=None):
        connection, response = self.request(method, path, body, headers)
        with closing(connection):
            return Answer(response)

    def get(self, path):
        """Returns the JSON of an answer with status 200."""
        answer = self.ask("GET", path)
        assert answer.status == 200, (path, answer.status, answer.text)
        return answer.json()

    def tunnel(self, name):
        return self.get(f"/tunnels/{name}")


class Description:
    """The description of the API. It notes which of its answers were seen."""

    def __init__(self, text):
        self.document = json.loads(text)
        self.seen = set()

    def documented(self):
        """Returns every path, method and status, but for those of failures that no test can cause."""
        return {
            (path, method, status)
            for path, item in self.document["paths"].items()
            for method, operation in item.items() if method != "parameters"
            for status in operation["responses"] if status != "default"
        }

    def check(self, path, method, answer):
        """Holds an answer against what is said of it. The answer may have no member that is not described."""
        operation = self.document["paths"][path][method.lower()]
        described = self.resolve(operation["responses"][str(answer.status)])
        content = described["content"]
        assert answer.kind in content, (path, answer.status, answer.kind)
        self.seen.add((path, method.lower(), str(answer.status)))
        schema = content[answer.kind]["schema"]
        self.check_value(schema, answer.json() if answer.kind == "application/json" else answer.text)

    def check_value(self, schema, value):
        components = {"schemas": {name: closed(part) for name, part in self.document["components"]["schemas"].items()}}
        whole = {**closed(schema), "components": components}
        OAS31Validator(whole, format_checker=oas31_format_checker).validate(value)

    def resolve(self, part):
        while "$ref" in part:
            *_, kind, name = part["$ref"].split("/")
            part = self.document["components"][kind][name]
        return part


def closed(schema):
    """The same schema, but objects have only the members that it names."""
    if not isinstance(schema, dict):
        return [closed(part) for part in schema] if isinstance(schema, list) else schema
    schema = {key: closed(part) for key, part in schema.items()}
    # An error names its code, and whatever belongs to that.
    if "properties" in schema and list(schema["properties"]) != ["code"]:
        schema.setdefault("additionalProperties", False)
    return schema


class Events:
    """A stream of events, which a thread reads."""

    def __init__(self, admin):
        self.connection = admin.connect()
        self.connection.connect()
        self.socket, self.events = self.connection.sock, []
        self.connection.request("GET", f"{API}/events")
        self.response = self.connection.getresponse()
        if self.response.status == 200:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        name = None
        for line in self.response:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                self.events.append((name, json.loads(value)))

    def named(self, name, start=0):
        return [data for event, data in list(self.events)[start:] if event == name]

    def wait(self, name, matches=lambda data: True, start=0):
        """Waits for an event's data that matches."""
        return wait_for(lambda: [data for data in self.named(name, start) if matches(data)], f"an event {name}")[0]

    def stop(self):
        # The thread still reads.
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
