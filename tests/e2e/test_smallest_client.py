"""A client that was written from the specification alone serves real traffic, over both transports."""

import hashlib
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness import smallest
from harness.cok import DOMAIN, KEY
from harness.loop import Loop
from harness.small_client import SmallClient
from harness.smallest import Refused, wire

VECTORS = Path(__file__).parents[2] / "proto" / "vectors" / "valid.json"


def place(url):
    parts = urlsplit(url)
    return parts.hostname, parts.port


@pytest.fixture
def start(daemon, transport):
    """Starts smallest clients. They are stopped after the test."""
    clients = []

    def start(target, **members):
        clients.append(SmallClient(daemon, transport, target, **members))
        return clients[-1]

    yield start
    for client in clients:
        client.stop()


@pytest.fixture
def web_place(services):
    return place(services.web)


def test_the_vectors_have_their_meaning():
    vectors = {row["name"]: bytes.fromhex(row["hex"]) for row in json.loads(VECTORS.read_text())}
    whole = bytearray(b"".join(vectors.values()))
    frames = dict(zip(vectors, wire.decode(whole), strict=True))
    assert not whole
    kind, flags, payload = frames["request"]
    request = wire.Request(payload[4:])
    assert (kind, flags, request.tunnel) == (wire.REQUEST, wire.END, 0)
    assert (request.method, request.target) == (b"GET", b"/a%20b?q=1")
    assert request.fields == [(b"accept", b"*/*"), (b"x-empty", b"")]
    assert wire.Request(frames["request-tunnel"][2][4:]).tunnel == 2
    head = wire.encode_response(404, b"Not here", [], 1500)
    assert vectors["response-reason"] == wire.encode(wire.RESPONSE, bytes([0, 0, 0, 1]) + head, wire.END)
    head = wire.encode_response(103, b"", [(b"link", b"</a.css>")])
    assert vectors["response-interim"] == wire.encode(wire.RESPONSE, bytes([0, 0, 0, 1]) + head)
    assert vectors["data-end"] == wire.encode(wire.DATA, bytes([0, 0, 0, 1]) + b"bye", wire.END)
    assert vectors["bind"] == wire.encode(wire.BIND, bytes([0, 0, 0, 1]) + b'{"kind":"http"}')


def test_traffic_passes(daemon, start, web_place, tmp_path):
    client = start(web_place, subdomain="smallest")
    assert client.ack["subdomain"] == "smallest" and client.ack["url"] == daemon.url("smallest")[:-1]
    # More than a window in both directions.
    (tmp_path / "body").write_bytes(body := os.urandom(3 << 20))
    upload = ["--data-binary", f"@{tmp_path}/body"]
    digest = {"sha256": hashlib.sha256(body).hexdigest(), "length": len(body)}
    for options in ([], ["--header", "transfer-encoding: chunked"], ["--header", "expect: 100-continue"]):
        posted = daemon.curl("smallest", "/hash", *upload, *options)
        assert json.loads(posted.stdout) == digest
    assert daemon.curl("smallest", "/echo", *upload).stdout == body


def test_a_large_download(daemon, start, nginx):
    nginx.add("large.bin", large := os.urandom(24 << 20))
    start(place(nginx.target), subdomain="smallest-large")
    assert daemon.curl("smallest-large", "/large.bin").stdout == large
    assert daemon.curl("smallest-large", "/large.bin", "--range", "5-9").stdout == large[5:10]
    head = daemon.curl("smallest-large", "/large.bin", "--head").stdout.lower()
    assert b"content-length: %d\r\n" % len(large) in head


def test_further_tunnels(daemon, start, web_place, nginx):
    """Two more tunnels than Connect's own; one ends, and the others go on."""
    client = start(place(nginx.target), subdomain="smallest-0")
    first, _ = client.bind(web_place, subdomain="smallest-1")
    second, picked = client.bind(place(nginx.target))
    assert (first, second) == (1, 2) and picked not in ("smallest-0", "smallest-1")
    hello = b"<h1>hello</h1>\n"
    assert [daemon.curl(name).stdout for name in ("smallest-0", picked)] == [hello] * 2
    assert daemon.curl("smallest-1", "/echo", "--data", "ping").stdout == b"ping"
    client.unbind(first)
    status = ["--output", "/dev/null", "--write-out", "%{http_code}"]
    assert daemon.curl("smallest-1", "/echo", *status).stdout == b"503"
    assert daemon.curl("smallest-0").stdout == hello
    # Its name is free for the same client, under a new id.
    again, name = client.bind(web_place, subdomain="smallest-1")
    assert (again, name) == (3, "smallest-1")
    assert daemon.curl("smallest-1", "/echo", "--data", "pong").stdout == b"pong"


def test_a_name_moves_to_a_new_id(daemon, start, web_place, nginx):
    client = start(None)
    assert client.ack["subdomain"] is None and client.ack["url"] is None
    client.bind(place(nginx.target), subdomain="smallest-move")
    assert daemon.curl("smallest-move").stdout == b"<h1>hello</h1>\n"
    client.bind(web_place, subdomain="smallest-move")
    number, message = client.next_unbind()
    assert (number, message["reason"]) == (1, "moved")
    assert daemon.curl("smallest-move", "/echo", "--data", "ping").stdout == b"ping"


def test_a_twin_takes_one_tunnel(daemon, start, web_place, nginx):
    """Another session of the same key and instance displaces the tunnel that it asks for, and no other."""
    first, second = start(None), start(None, version="twin 2")
    first.bind(place(nginx.target), subdomain="smallest-twin")
    first.bind(place(nginx.target), subdomain="smallest-only")
    second.bind(web_place, subdomain="smallest-twin")
    number, message = first.next_unbind()
    assert (number, message["reason"], message["version"]) == (1, "replaced", "twin 2")
    assert message["address"].startswith("127.0.0.1")
    assert daemon.curl("smallest-twin", "/echo", "--data", "ping").stdout == b"ping"
    assert daemon.curl("smallest-only").stdout == b"<h1>hello</h1>\n"
    # It asks again, but does not displace the other in turn.
    with pytest.raises(Refused) as refused:
        first.bind(place(nginx.target), subdomain="smallest-twin", take_over=False)
    assert refused.value.code == "name_taken"
    assert daemon.curl("smallest-twin", "/echo", "--data", "pong").stdout == b"pong"


REFUSED = [
    ("an unknown rule", {"rules": {"later": ["a:b"]}}, "unsupported"),
    ("a malformed rule", {"rules": {"basic_auth": ["a"]}}, "unsupported"),
    ("rules that are no object", {"rules": []}, "unsupported"),
    ("an unknown kind", {"kind": "tcp"}, "unsupported"),
    ("no name", {"subdomain": "a_b"}, "name_forbidden"),
]


@pytest.mark.parametrize(("members", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_refused_tunnel_leaves_the_others_alone(daemon, start, nginx, members, code):
    client = start(place(nginx.target), subdomain="smallest-kept")
    with pytest.raises(Refused) as refused:
        client.bind(place(nginx.target), **members)
    assert refused.value.code == code and refused.value.retryable is False
    client.bind(place(nginx.target), subdomain="smallest-later")
    assert [daemon.curl(name).returncode for name in ("smallest-kept", "smallest-later")] == [0, 0]


def test_a_session_is_refused(daemon, transport):
    loop = Loop()
    session = loop.call(smallest.open_session(transport, ("127.0.0.1", daemon.port), DOMAIN, daemon.ca))
    with pytest.raises(Refused) as refused:
        loop.call(session.connect("cok_wrong", "smallest"))
    assert refused.value.code == "unauthorized"
    loop.call(session.close())
    loop.end()


def test_a_declined_upgrade(daemon, start, services):
    start(place(services.web), subdomain="smallest-upgrade")
    upgrade = ["--http1.1", "--header", "connection: upgrade", "--header", "upgrade: raw"]
    for body in ([], ["--data", "a body"]):
        answer = daemon.curl("smallest-upgrade", "/echo", "--write-out", "%{http_code}", *upgrade, *body).stdout
        assert answer == (b"a body" if body else b"") + b"200"


def test_a_service_that_is_down(daemon, start):
    start(("127.0.0.1", 1), subdomain="smallest-down")
    assert daemon.curl("smallest-down", "/", "--output", "/dev/null", "--write-out", "%{http_code}").stdout == b"502"
