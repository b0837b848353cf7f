"""The daemon's own responses to visitors: error pages, redirects, health, and time-outs."""

import json
import re
import socket
import subprocess
import urllib.request

import h2.exceptions
import pytest

from harness import raw
from harness.cok import Daemon
from harness.http2 import Http2
from harness.ports import free_port


def code(answer):
    return answer.stdout[-3:]


def test_no_service(tunnel, http, tmp_path):
    """The visitor gets 502: HTML for browsers, JSON for programs, text for the rest. None leaks the service's address."""
    port = free_port()
    client = tunnel(f"http://127.0.0.1:{port}")
    page = client.curl("/", http, "--header", "accept: text/html,*/*", "--include").stdout
    assert b" 502" in page.splitlines()[0] and b"<h1>Service not running</h1>" in page
    # It does not load again by itself, since no Retry-After says when.
    assert b"http-equiv" not in page and b"Only the tunnel's owner can change that." in page
    document = json.loads(client.curl("/", http, "--header", "accept: application/json").stdout)
    assert document["status"] == 502 and document["error"] == "Service not running"
    text = client.curl("/", http).stdout
    assert text.startswith(b"Service not running\n") and str(port).encode() not in page + text
    (tmp_path / "data").write_bytes(bytes(3 << 20))
    posted = client.curl("/", http, "--data-binary", f"@{tmp_path}/data", "--write-out", "%{http_code}")
    assert code(posted) == b"502"


STATUSES = {
    404: ("No such tunnel", "nobody"),
    421: ("Misdirected request", None),
    502: ("Service not running", "absent"),
    503: ("Tunnel offline", "away"),
    504: ("Service too slow", "slow"),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory, services, transport):
    """A daemon with a tunnel for each kind of failure."""
    daemon = Daemon(tmp_path_factory.mktemp("broken"), limits='reconnect_grace = "0s"', transport=transport)
    clients = [
        daemon.client(f"http://127.0.0.1:{free_port()}", "absent"),
        daemon.client(services.web, "slow", options=["--response-timeout", "1"]),
    ]
    daemon.client(services.web, "away").stop()
    yield daemon
    for client in clients:
        client.stop()
    daemon.stop()


@pytest.mark.parametrize("status", STATUSES)
def test_each_page_in_each_form(broken, multiplexed, status):
    """Browsers get HTML, programs get JSON, and others get text."""
    title, name = STATUSES[status]
    with multiplexed(broken, name or "nobody") as visitor:

        def ask(accept):
            extra = [("accept", accept)] if accept else []
            stream = visitor.request("/silent", extra=extra, authority=None if name else "www.example.com")
            headers = stream.response()
            assert headers[b":status"] == b"%d" % status and headers[b"cache-control"] == b"no-store"
            assert (b"retry-after" in headers) == (status == 503)
            return headers, stream.read().decode()

        headers, text = ask("text/html,application/xhtml+xml,*/*;q=0.8")
        assert headers[b"content-type"].startswith(b"text/html") and f"<h1>{title}</h1>" in text
        # Retry-After says 10 s, and not all visitors come back in the same second.
        assert bool(re.search('<meta http-equiv="refresh" content="1[0-2]">', text)) == (status == 503)
        assert (f"<code>{broken.host(name)}</code>" in text) if name else ("<code>" not in text)
        headers, text = ask("application/json")
        assert headers[b"content-type"] == b"application/json"
        document = json.loads(text)
        assert (document["status"], document["error"]) == (status, title) and document["message"]
        assert document["tunnel"] == (broken.host(name) if name else None)
        assert document["turn"] == {404: "visitor", 421: "operator"}.get(status, "owner")
        for accept in ("*/*", None):
            headers, text = ask(accept)
            assert headers[b"content-type"].startswith(b"text/plain") and text.startswith(f"{title}\n")
            assert "127.0.0.1" not in text


def test_a_page_for_head_is_only_a_head(broken, multiplexed):
    """No content follows, in any version (RFC 9110, section 9.3.2)."""
    for name in ("nobody", "absent", "away"):
        with raw.connect(broken, name) as connection:
            host = broken.host(name).encode()
            connection.sendall(b"HEAD / HTTP/1.1\r\nhost: " + host + b"\r\nconnection: close\r\n\r\n")
            assert int(dict(raw.fields(raw.read_head(connection)))[b"content-length"]) > 0
            assert connection.recv(1) == b""
        with multiplexed(broken, name) as visitor:
            stream = visitor.request("/", method="HEAD")
            stream.response()
            assert stream.read() == b""


def test_an_upload_to_nowhere_is_answered(broken, http, tmp_path):
    """The page arrives although the visitor is still sending."""
    (tmp_path / "data").write_bytes(bytes(20 << 20))
    for name, status in (("nobody", b"404"), ("away", b"503"), ("absent", b"502")):
        answer = broken.curl(
            name, "/", http, "--data-binary", f"@{tmp_path}/data", "--header", "expect:",
            "--output", "/dev/null", "--write-out", "%{http_code}", check=False,
        )
        assert code(answer) == status, (name, answer)


def test_unknown_names(daemon, http):
    assert code(daemon.curl("nobody", "/", http, "--write-out", "%{http_code}")) == b"404"
    # TLS itself refuses a name that the certificate does not cover.
    assert daemon.curl("a.b", "/", http, "--insecure", check=False).returncode == 35


def test_routing_goes_by_the_authority(site, daemon, multiplexed):
    """SNI and authority may differ within the daemon's names. Other authorities get 421."""
    with multiplexed(daemon, "nobody") as visitor:
        inside = visitor.request("/", authority=daemon.host("site"))
        assert inside.response()[b":status"] == b"200"
        impossible = visitor.request("/", authority=daemon.host("-"))
        assert impossible.response()[b":status"] == b"404"
        outside = visitor.request("/", authority="www.example.com")
        assert outside.response()[b":status"] == b"421"


def test_a_slow_service(tunnel, services):
    client = tunnel(services.web, options=["--response-timeout", "1"])
    answer = client.curl("/silent", "--write-out", "%{http_code}")
    assert answer.stdout.startswith(b"Service too slow\n") and code(answer) == b"504"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: user@site.tunnel.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: \xff\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: site.tunnel.test\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: site.tunnel.test\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: site.tunnel.test\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: site.tunnel.test\r\nx y: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: site.tunnel.test\r\nx: 1\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : site.tunnel.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: site.tunnel.test\r\nx: \x00\r\n\r\n",
        b"GET  / HTTP/1.1\r\nhost: site.tunnel.test\r\n\r\n",
    ],
)
def test_invalid_requests(site, daemon, request_):
    with raw.connect(daemon, "site") as connection:
        connection.sendall(request_)
        assert b" 400 " in raw.read_head(connection).splitlines()[0]


def test_no_request_is_smuggled(tunnel):
    """Of a request with two lengths, the service sees exactly one with unambiguous framing, or none."""
    chunked = b"0\r\n\r\n"

    def answer(head, connection):
        if b"transfer-encoding: chunked" in head.lower():
            assert raw.read_exactly(connection, len(chunked)) == chunked
        return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    recorder = raw.Recorder(answer)
    client = tunnel(recorder.target)
    with raw.connect(client.daemon, client.name) as connection:
        connection.sendall(
            b"POST / HTTP/1.1\r\nhost: %s\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
            b"%sGET /another HTTP/1.1\r\nhost: %s\r\n\r\n" % (client.host.encode(), chunked, client.host.encode())
        )
        status = raw.read_head(connection).splitlines()[0]
        assert b" 200 " in status or b" 400 " in status
    for head in recorder.heads:
        assert not (b"content-length" in head.lower() and b"transfer-encoding" in head.lower())
        assert head.count(b" HTTP/1.1\r\n") == 1
    recorder.stop()


def test_plain_http_redirects(daemon):
    def ask(host):
        return subprocess.run(
            ["curl", "-si", "-H", f"host: {host}", f"http://{daemon.http}/a%20b?c"], capture_output=True, check=True
        ).stdout.decode().lower()

    answer = ask(f"demo.tunnel.test:{daemon.http_port}")
    assert " 308 " in answer.splitlines()[0]
    assert f"location: https://demo.tunnel.test:{daemon.port}/a%20b?c\r\n" in answer
    assert " 421 " in ask("www.example.com").splitlines()[0]
    # A foreign host must not become a redirect target.
    assert " 308 " not in ask("www.example.com/.tunnel.test").splitlines()[0]


def test_health_and_metrics(site, daemon):
    site.curl("/")
    for path, text in [("/health", b"ok\n"), ("/health/live", b"ok\n"), ("/health/ready", b"ready\n")]:
        assert daemon.curl("", path).stdout == text
        if path != "/health":
            assert urllib.request.urlopen(f"http://{daemon.admin}{path}").read() == text
    assert json.load(urllib.request.urlopen(f"http://{daemon.admin}/health"))["status"] == "ok"
    metrics = daemon.metrics()
    for name in ("cok_connections_total", 'cok_requests_total{status="200"}', "cok_active_tunnels"):
        assert metrics[name] > 0, name
    assert any(name.startswith("cok_request_duration_seconds_bucket") for name in metrics)
    assert daemon.curl("", "/metrics", "--write-out", "%{http_code}").stdout.endswith(b"404")


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
def test_silent_connections_are_closed(own_daemon, alpn):
    """A silent visitor's connection is closed, for each ALPN protocol."""
    daemon = own_daemon(limits='header_timeout = "1s"')
    with raw.connect(daemon, "anything", alpn) as connection:
        while connection.recv(1000):
            pass  # HTTP/2 begins with the server's settings
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as plain:
        # Before TLS, the longer handshake time-out applies.
        plain.settimeout(0.2)
        with pytest.raises(TimeoutError):
            plain.recv(1)


def test_idle_http2_connections_get_goaway(own_daemon, nginx):
    """Running streams go on after GOAWAY."""
    daemon = own_daemon(limits='header_timeout = "1s"')
    client = daemon.client(nginx.target, "idle")
    with Http2(daemon, "idle") as visitor:
        assert visitor.request("/").read() == b"<h1>hello</h1>\n"
        # GOAWAY comes with a PING, which the h2 library does not expect after it.
        with pytest.raises((EOFError, h2.exceptions.ProtocolError)):
            while True:
                visitor.receive()
    client.stop()
