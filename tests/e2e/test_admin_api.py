"""The JSON API for operators: its description holds for every answer, and its figures are true."""

import json
import time

import pytest
from openapi_spec_validator import validate

from harness.admin import API, DESCRIPTION, TOKEN, Admin, Description, Events, token_file
from harness.cok import KEY
from harness.keys import ask
from harness.ports import free_port
from harness.process import wait_for
from harness.websocket import WebSocket

LISTENERS = 32


@pytest.fixture
def operated(own_daemon, tmp_path):
    """A daemon whose admin address has a token."""
    return own_daemon(more=token_file(tmp_path))


@pytest.fixture
def listen():
    """Returns a function that listens to a daemon's events until the end of the test."""
    listening = []

    def make(admin):
        listening.append(Events(admin))
        return listening[-1]

    yield make
    for events in listening:
        events.stop()


def test_the_description_is_valid_and_served(operated):
    """What the daemon serves is the file of the repository, and is valid OpenAPI 3.1."""
    served = Admin(operated).get("/openapi.json")
    assert served == json.loads(DESCRIPTION.read_text())
    validate(served)


def test_every_answer_is_as_described(operated, own_daemon, nginx, listen, tmp_path):
    """Each path is asked for each status that the description names, and each answer must fit."""
    described = Description(DESCRIPTION.read_text())
    admin = Admin(operated, TOKEN)
    client = operated.client(nginx.target, "demo")
    session = admin.tunnel("demo")["session"]
    parameters = {"name": "demo", "id": session, "key": "made"}

    def check(method, path, status, body=None, headers=None, asked=admin, **values):
        answer = asked.ask(method, path.format(**{**parameters, **values}), body, headers)
        assert answer.status == status, (method, path, answer.status, answer.text)
        described.check(path, method, answer)
        return answer

    # Who may not ask, at every path.
    for path, item in described.document["paths"].items():
        for method in (method.upper() for method in item if method != "parameters"):
            check(method, path, 421, headers={"Host": "evil.example"})
            check(method, path, 403, headers={"Origin": "http://evil.example"})
            if "security" in item[method.lower()]:
                for asked in (Admin(operated), Admin(operated, "not-the-token-of-the-suite")):
                    check(method, path, 401, asked=asked)

    for path in ("/openapi.json", "/tunnels", "/sessions", "/status", "/history", "/certificate", "/keys"):
        check("GET", path, 200)
    check("GET", "/tunnels/{name}", 200)
    check("GET", "/tunnels/{name}", 404, name="none")
    check("GET", "/sessions/{id}", 200)
    for method in ("GET", "DELETE"):
        check(method, "/sessions/{id}", 404, id="none")

    # Keys.
    check("POST", "/keys", 201, {"name": "made", "subdomains": ["demo-*"], "requests": "10/s", "max_exchanges": 3})
    check("POST", "/keys", 400, {"name": ""})
    check("POST", "/keys", 409, {"name": "made"})
    check("GET", "/keys", 200)
    check("GET", "/keys/{key}", 200)
    check("PATCH", "/keys/{key}", 200, {"expires": "2099-01-01T00:00:00Z"})
    check("PATCH", "/keys/{key}", 400, {"max_tunnels": 0})
    check("PATCH", "/keys/{key}", 409, {"max_tunnels": 1}, key="test")
    check("POST", "/keys/{key}/rotate", 200, {"grace_seconds": 60})
    check("POST", "/keys/{key}/rotate", 400, {"grace_seconds": -1})
    check("POST", "/keys/{key}/rotate", 409, key="test")
    check("DELETE", "/keys/{key}/record", 409)
    check("DELETE", "/keys/{key}", 409, key="test")
    check("DELETE", "/keys/{key}", 200)
    check("DELETE", "/keys/{key}/record", 200)
    for method, path, body in [
        ("GET", "/keys/{key}", None), ("PATCH", "/keys/{key}", {}), ("DELETE", "/keys/{key}", None),
        ("POST", "/keys/{key}/rotate", None), ("DELETE", "/keys/{key}/record", None),
    ]:
        check(method, path, 404, body)

    # Events have an end only here.
    events = [listen(admin) for _ in range(LISTENERS)]
    for stream in events:
        assert stream.response.status == 200
        assert stream.response.getheader("content-type") == "text/event-stream"
    described.seen.add(("/events", "get", "200"))
    check("GET", "/events", 503)

    # The configuration, and the certificate.
    check("POST", "/reload", 200)
    good = operated.config.read_text()
    operated.config.write_text(good + "\n[nonsense]\n")
    check("POST", "/reload", 409)
    operated.config.write_text(good)
    check("POST", "/certificate/renew", 409)
    acme = f"""
[acme]
directory = "https://127.0.0.1:{free_port()}/directory"
[acme.dns]
provider = "exec"
program = "/bin/true"
"""
    (tmp_path / "second").mkdir()
    ordering = own_daemon(tls='mode = "acme"', more=acme + token_file(tmp_path / "second"))
    check("POST", "/certificate/renew", 202, asked=Admin(ordering, TOKEN))
    check("GET", "/certificate", 200, asked=Admin(ordering))

    check("DELETE", "/sessions/{id}", 200)
    check("POST", "/drain", 202)
    operated.process.wait_exit()
    client.stop()
    missing = described.documented() - described.seen
    assert not missing, sorted(missing)


def test_every_event_is_as_described(operated, nginx, listen):
    """Tunnels, traffic, status and points come as events, in the form that the lists have."""
    described = Description(DESCRIPTION.read_text())
    events = listen(Admin(operated))
    events.wait("resync")
    client = operated.client(nginx.target, "demo")
    schemas = {"tunnel": "Tunnel", "status": "Status", "history": "Point"}
    assert events.wait("tunnel", lambda tunnel: tunnel["state"] == "online")["name"] == "demo"
    for _ in range(3):
        client.curl("/")
    row = events.wait("traffic", lambda rows: rows[0]["requests"] == 3)[0]
    assert row["name"] == "demo" and row["requests_per_second"] > 0
    events.wait("status", lambda status: status["tunnels"]["online"] == 1)
    events.wait("history", lambda point: point["requests"] > 0)
    for name, schema in schemas.items():
        for data in events.named(name):
            described.check_value({"$ref": f"#/components/schemas/{schema}"}, data)
    for rows in events.named("traffic"):
        described.check_value({"type": "array", "items": {"$ref": "#/components/schemas/TrafficRow"}}, rows)
    client.process.kill()
    events.wait("tunnel", lambda tunnel: tunnel["state"] == "away")


def test_events_name_only_what_changes(operated, nginx, listen):
    """Ten tunnels stand idle while one is used: no event names the ten."""
    clients = [operated.client(nginx.target, f"idle-{number}") for number in range(3)]
    busy = operated.client(nginx.target, "busy")
    events = listen(Admin(operated))
    events.wait("status")
    # What the first look found comes as a list, not as events.
    start = len(events.events)
    for count in range(1, 4):
        busy.curl("/")
        events.wait("traffic", lambda rows, count=count: rows[0]["requests"] == count, start)
    named = {row["name"] for rows in events.named("traffic", start) for row in rows if row["requests"]}
    assert named == {"busy"} and not events.named("tunnel", start)
    for client in [*clients, busy]:
        client.stop()


def test_the_figures_of_a_tunnel_are_true(daemon, services, tunnel, transport):
    """Requests, open exchanges and bytes in both directions count exactly, on both transports."""
    admin = Admin(daemon)
    client = tunnel(services.web)
    shown = admin.tunnel(client.name)
    assert (shown["state"], shown["transport"], shown["requests"]) == ("online", transport, 0)
    assert shown["url"] == client.url and shown["key_name"] == "test" and shown["client_address"] == "127.0.0.1"
    sent = client.curl("/echo", "--data-binary", "x" * 5000).stdout
    client.curl("/nothing")
    wait_for(lambda: admin.tunnel(client.name)["open_exchanges"] == 0, "both requests are over")
    shown = admin.tunnel(client.name)
    assert (shown["requests"], shown["bytes_in"]) == (2, 5000)
    assert shown["bytes_out"] >= len(sent) > 0 and shown["requests_per_second"] > 0
    client.stop()
    wait_for(lambda: admin.tunnel(client.name)["state"] == "away", "the tunnel is away")
    shown = admin.tunnel(client.name)
    assert shown["session"] is shown["transport"] is shown["client_version"] is None and shown["requests"] == 2


def test_a_websocket_counts_while_it_is_open(daemon, services, tunnel):
    """What lasts shows its bytes as they pass, not at its end."""
    admin = Admin(daemon)
    client = tunnel(services.ws)
    socket = WebSocket(daemon, client.name, "/chat")
    before = wait_for(lambda: (now := admin.tunnel(client.name))["open_exchanges"] == 1 and now, "it is open")
    socket.send("x" * 1000)
    wait_for(lambda: admin.tunnel(client.name)["bytes_in"] >= before["bytes_in"] + 1000, "its bytes count")
    assert admin.tunnel(client.name)["requests"] == 1
    socket.close()
    wait_for(lambda: admin.tunnel(client.name)["open_exchanges"] == 0, "it has ended")


def test_a_session_that_is_ended_comes_back(operated, nginx, transport):
    """Its client connects again, under another session, and its name works again."""
    admin = Admin(operated, TOKEN)
    client = operated.client(nginx.target, "demo", transport=transport)
    before = admin.tunnel("demo")["session"]
    assert admin.get(f"/sessions/{before}")["tunnels"] == ["demo"]
    start = len(client.process.lines)
    assert admin.ask("DELETE", f"/sessions/{before}").json()["id"] == before
    client.wait_online(start)
    after = wait_for(lambda: admin.tunnel("demo")["session"] not in (None, before) and admin.tunnel("demo"), "it is back")
    assert after["state"] == "online" and client.curl("/").stdout == b"<h1>hello</h1>\n"
    assert [session["id"] for session in admin.get("/sessions")] == [after["session"]]
    operated.process.wait_event("session_ended", session=before)
    client.stop()


def test_the_last_hour_has_requests_errors_and_percentiles(operated, services):
    """A point of ten seconds has what came in it, and its percentiles rise."""
    admin = Admin(operated)
    client = operated.client(services.web, "web")
    broken = operated.client(f"127.0.0.1:{free_port()}", "broken")
    began = time.time()
    for _ in range(5):
        client.curl("/echo", "--data-binary", "x" * 1000)
        assert broken.curl("/", "--output", "/dev/null", "--write-out", "%{http_code}").stdout == b"502"

    def points():
        shown = admin.get("/history")["points"]
        return shown if sum(point["requests"] for point in shown) >= 10 else None

    shown = wait_for(points, "all requests are in points that have ended")
    assert sum(point["requests"] for point in shown) == 10 and sum(point["errors"] for point in shown) == 5
    assert sum(point["bytes_in"] for point in shown) == 5000 and sum(point["bytes_out"] for point in shown) >= 5000
    for point in shown:
        assert began - 20 <= point["at"] <= time.time()
        if point["requests"]:
            assert 0 < point["p50_ms"] <= point["p90_ms"] <= point["p99_ms"] < 10_000
        else:
            assert point["p50_ms"] is None
    client.stop()
    broken.stop()


def test_the_status_follows_a_drain(operated, nginx):
    """Readiness and phase change at once when the daemon is asked to stop, while a download goes on."""
    admin = Admin(operated, TOKEN)
    client = operated.client(nginx.target, "demo")
    status = admin.get("/status")
    assert status["health"]["ready"] and status["phase"] == "serving" and status["tunnels"]["online"] == 1
    visitor = client.start_curl("/random.bin", "--limit-rate", "100k", "--output", "/dev/null")
    wait_for(lambda: admin.get("/status")["open_exchanges"] == 1, "the download runs")
    assert admin.ask("POST", "/drain").status == 202
    operated.process.wait_event("drain_asked")
    operated.process.wait_event("draining")
    visitor.kill()
    client.stop()
    operated.process.wait_exit()


def test_a_wrong_key_counts_as_refused(operated, nginx):
    """Refusals show in the status."""
    client = operated.client(nginx.target, "demo", key=KEY + "-wrong", wait=False)
    wait_for(lambda: Admin(operated).get("/status")["refused"]["by_rate"]["keys"] == 1, "the wrong key is counted")
    client.stop()


def test_listeners_leave_room_for_operators(operated, listen):
    """As many listeners as there may be take no connection of others, through the socket either."""
    admin = Admin(operated)
    for _ in range(LISTENERS):
        listen(admin).wait("status")
    assert admin.get("/status")["health"]["ready"] and ask(operated, "GET", f"{API}/status")[0] == 200
