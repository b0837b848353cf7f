"""Rules for visitors: who is let in, over all versions of HTTP, and what the service sees of it."""

import base64

import grpc
import pytest
from websockets.exceptions import InvalidStatus

from harness import raw
from harness.cok import KEY
from harness.file_client import FileClient
from harness.grpc_channel import open_channel
from harness.http2 import Http2
from harness.http3 import Http3
from harness.process import BIN_DIR, Process, wait_for
from harness.websocket import WebSocket

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BASIC = ("authorization", "Basic " + base64.b64encode(b"me:secret").decode())
WRONG = ("authorization", "Basic " + base64.b64encode(b"me:wrong").decode())


@pytest.fixture
def service():
    recorder = raw.Recorder(lambda head, connection: OK)
    yield recorder
    recorder.stop()


@pytest.fixture(params=["h1", "h2", "h3"])
def ask(request):
    """Returns a function that sends requests over one version of HTTP: over one connection, except with curl. It returns
    the status and the fields of the response."""
    visitors = {}

    def over_http1(client, path, method="GET", fields=()):
        options = [part for name, value in fields for part in ("--header", f"{name}: {value}")]
        head = client.curl(path, "--http1.1", "--include", "--request", method, *options).stdout
        status, _, rest = head.partition(b"\r\n")
        return int(status.split()[1]), dict(raw.fields(status + b"\r\n" + rest.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"))

    def multiplexed(client, path, method="GET", fields=()):
        kind = Http2 if request.param == "h2" else Http3
        visitor = visitors.get(client.name) or visitors.setdefault(client.name, kind(client.daemon, client.name))
        stream = visitor.request(path, method, extra=fields)
        head = dict(stream.response())
        stream.read()
        return int(head[b":status"]), head

    yield over_http1 if request.param == "h1" else multiplexed
    for visitor in visitors.values():
        visitor.__exit__(None, None, None)


def seen(service):
    """The fields of the last request that the service has got."""
    return dict(raw.fields(service.heads[-1]))


def test_a_password_lets_visitors_in_and_stays_with_the_daemon(tunnel, service, ask):
    client = tunnel(service.target, options=("--basic-auth", "me:secret", "--basic-auth", "you:other"))
    for fields in ([], [WRONG], [("authorization", "Bearer abc")]):
        status, head = ask(client, "/", fields=fields)
        assert status == 401 and head[b"www-authenticate"] == b'Basic realm="tunnel", charset="UTF-8"'
        assert head[b"cache-control"] == b"no-store" and head[b"x-content-type-options"] == b"nosniff"
        assert b"frame-ancestors 'none'" in head[b"content-security-policy"]
    assert service.heads == []
    status, head = ask(client, "/", fields=[BASIC])
    assert status == 200 and b"content-security-policy" not in head
    assert b"authorization" not in seen(service)
    log = client.daemon.process.output() + client.process.output()
    assert "secret" not in log and BASIC[1] not in log


def test_a_preflight_passes_without_a_password(tunnel, service, ask):
    client = tunnel(service.target, options=("--basic-auth", "me:secret"))
    preflight = [("origin", "https://a.test"), ("access-control-request-method", "PUT")]
    assert ask(client, "/", "OPTIONS", preflight)[0] == 200
    assert ask(client, "/", "OPTIONS", preflight[:1])[0] == 401
    assert ask(client, "/", "OPTIONS", [*preflight, ("x-http-method-override", "PUT")])[0] == 401
    assert ask(client, "/", "GET", preflight)[0] == 401


def test_a_question_before_an_upgrade_is_no_preflight(tunnel, service):
    client = tunnel(service.target, options=("--basic-auth", "me:secret", "--upgrade", "tcp"))
    fields = ("origin: https://a.test", "access-control-request-method: PUT", "connection: upgrade", "upgrade: tcp")
    options = [part for field in fields for part in ("--header", field)]
    head = client.curl("/", "--http1.1", "--include", "--request", "OPTIONS", *options).stdout
    assert head.startswith(b"HTTP/1.1 401") and service.heads == []


def test_networks_are_denied_before_they_are_allowed(tunnel, service, ask):
    for options, status in (
        (("--allow-cidr", "127.0.0.0/8"), 200),
        (("--allow-cidr", "192.0.2.0/24"), 403),
        (("--deny-cidr", "127.0.0.1"), 403),
        (("--deny-cidr", "192.0.2.0/24"), 200),
        (("--allow-cidr", "127.0.0.0/8", "--deny-cidr", "::ffff:127.0.0.0/104"), 403),
    ):
        client = tunnel(service.target, options=options)
        assert ask(client, "/", fields=[("x-forwarded-for", "192.0.2.7")])[0] == status, options


def test_only_allowed_paths_reach_the_service(tunnel, service, ask):
    client = tunnel(service.target, options=("--allow-path", "/api", "--allow-path", "/hooks/"))
    for path in ("/api", "/api/x?y=/../z", "/api/group%2Fproject", "/hooks/"):
        assert ask(client, path)[0] == 200, path
    count = len(service.heads)
    for path in ("/", "/apis", "/hooks", "/api/../x", "/api/%2e%2e/x", "/api/..;/x", "/api/..%5cx", "//api", "/api%2fx"):
        assert ask(client, path)[0] == 404, path
    assert len(service.heads) == count


def test_a_visitor_has_the_rate_that_the_client_sets(tunnel, service, ask):
    client = tunnel(service.target, options=("--visitor-rate", "1/s burst 3"))
    statuses = [ask(client, "/")[0] for _ in range(8)]
    assert statuses[:3] == [200] * 3 and 429 in statuses


def test_a_trusted_proxy_names_the_visitor(own_daemon, service, transport):
    daemon = own_daemon(transport=transport, more='[proxies]\ntrusted = ["127.0.0.1"]')
    client = daemon.client(service.target, options=("--allow-cidr", "192.0.2.0/24"))
    status = ("--output", "/dev/null", "--write-out", "%{http_code}")
    for value, expected in (("192.0.2.7", b"200"), ("192.0.2.7, 6.6.6.6", b"403"), ("6.6.6.6, 192.0.2.7", b"200"), ("x", b"403")):
        assert client.curl("/", "--header", f"x-forwarded-for: {value}", *status).stdout == expected, value
    client.stop()


def test_a_websocket_needs_the_password(tunnel, services):
    client = tunnel(services.ws, options=("--basic-auth", "me:secret"))
    with pytest.raises(InvalidStatus) as refused:
        WebSocket(client.daemon, client.name, "/")
    assert refused.value.response.status_code == 401
    with WebSocket(client.daemon, client.name, "/", additional_headers=[BASIC]) as socket:
        socket.send("inside")
        assert socket.recv() == "inside"
    with Http2(client.daemon, client.name) as visitor:
        more = {"method": "CONNECT", "protocol": "websocket", "end": False}
        fields = [("sec-websocket-version", "13")]
        for extra, status in ((fields, b"401"), ([*fields, BASIC], b"200")):
            assert dict(visitor.request("/", extra=extra, **more).response())[b":status"] == status


def test_grpc_gets_a_status_of_its_own(daemon, service, transport):
    for options, code in (
        (("--basic-auth", "me:secret"), grpc.StatusCode.UNAUTHENTICATED),
        (("--allow-path", "/other"), grpc.StatusCode.UNIMPLEMENTED),
        (("--deny-cidr", "127.0.0.0/8"), grpc.StatusCode.PERMISSION_DENIED),
    ):
        client = daemon.client(service.target, transport=transport, options=options)
        with open_channel(daemon, client.name) as channel, pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/echo/Unary")(b"", timeout=30)
        assert error.value.code() is code and "tunnel" in error.value.details()
        client.stop()


def test_new_rules_hold_on_an_open_connection(daemon, service, transport, tmp_path, ask):
    """A reload changes the rules of a tunnel. Visitors that keep their connection obey them, and its address stays."""
    name = f"rules-{transport}"
    (tmp_path / "passwords").write_text("me:secret\n")
    client = FileClient(daemon, tmp_path, {name: service.target}, transport=transport)
    client.online(name)
    client.name, client.curl = name, lambda *args: daemon.curl(name, *args)
    assert ask(client, "/")[0] == 200
    client.write({name: {"target": service.target, "basic_auth_file": "passwords"}})
    assert client.reload() == f"reloaded: changed {name}"
    wait_for(lambda: ask(client, "/")[0] == 401, "the password")
    assert ask(client, "/", fields=[BASIC])[0] == 200
    client.write({name: {"target": service.target, "allow_path": ["/x"]}})
    client.reload()
    wait_for(lambda: ask(client, "/")[0] == 404, "the path")
    client.stop()


def test_rules_move_with_the_tunnel(own_daemon, service, transport):
    """A client that comes back, with or without its session, has its rules at once."""
    daemon = own_daemon(transport=transport)
    client = daemon.client(service.target, options=("--basic-auth", "me:secret", "--name-timeout", "0"))
    status = ("--output", "/dev/null", "--write-out", "%{http_code}")
    daemon.stop()
    start = len(client.process.output())
    daemon.config.write_text(daemon.config.read_text().replace('"127.0.0.1:0"', f'"{daemon.https}"', 1))
    daemon.start()
    wait_for(lambda: client.curl("/", *status, check=False).stdout in (b"401", b"200"), "the tunnel")
    assert client.curl("/", *status).stdout == b"401", client.process.output()[start:]
    assert client.curl("/", "--user", "me:secret", *status).stdout == b"200"
    client.stop()


def test_rules_that_cannot_be_used_end_the_client(daemon, tmp_path):
    (tmp_path / "empty").write_text("\n")
    for options, why in (
        (("--allow-path", "/a/*"), "leave the * out"),
        (("--allow-cidr", "10.0.0.1/8"), "has bits behind"),
        (("--visitor-rate", "10"), "10/s"),
        (("--basic-auth-file", str(tmp_path / "empty")), "has no USER:PASSWORD"),
        (("--share-links",), "for one name"),
    ):
        process = Process(
            BIN_DIR / "cok-client", "http", "1", "--server", daemon.url(""), "--api-key", KEY, "--ca-file", daemon.ca,
            "--state-dir", tmp_path / "state", *options,
        )
        assert process.wait_exit(20) == 2 and why in process.output(), process.output()
