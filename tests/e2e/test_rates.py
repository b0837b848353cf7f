"""Rates: requests above one get 429 and a time to come again, bytes above one wait."""

import time

import grpc
import pytest

from harness import raw
from harness.grpc_channel import open_channel
from harness.http3 import Http3
from harness.keys import Keys
from harness.process import wait_for
from harness.small_client import SmallClient

FIELDS = {b"retry-after", b"ratelimit", b"ratelimit-policy"}
RATES = {"visitor": "requests_per_address", "tunnel": "requests_per_tunnel", "key": "requests_per_key"}


@pytest.fixture
def limited(own_daemon, nginx):
    """Returns a function that opens a tunnel at a daemon with these rates."""

    def make(rates, **more):
        daemon = own_daemon(more=f"[rates]\n{rates}", **more)
        return daemon.client(nginx.target, "limited")

    return make


def get(connection, host):
    """Returns status and fields of a response over HTTP/1.1, after its body."""
    connection.sendall(b"GET / HTTP/1.1\r\nhost: " + host.encode() + b"\r\n\r\n")
    head = raw.read_head(connection)
    fields = dict(raw.fields(head))
    raw.read_exactly(connection, int(fields[b"content-length"]))
    return int(head.split()[1]), fields


@pytest.mark.parametrize("whose", RATES)
def test_requests_over_a_rate(limited, whose):
    """On one connection that goes on, the response says whose rate it is and when to come again. Then there is a place."""
    client = limited(f'{RATES[whose]} = "1/s burst 3"')
    with raw.connect(client.daemon, client.name) as connection:
        for _ in range(3):
            assert get(connection, client.host)[0] == 200
        status, fields = get(connection, client.host)
        assert status == 429 and fields[b"retry-after"] == b"1", fields
        assert fields[b"ratelimit-policy"] == f'"{whose}";q=3;w=3'.encode()
        assert fields[b"ratelimit"] == f'"{whose}";r=0;t=1'.encode()
        wait_for(lambda: get(connection, client.host)[0] == 200, "a place again")
    refused = f'cok_refused_total{{rate="{whose}_requests"}}'
    assert client.daemon.metric(refused) >= 1
    client.stop()


def test_requests_over_a_rate_on_streams(limited, multiplexed):
    """The connection and its other streams go on. What was uploaded is read and dropped."""
    client = limited('requests_per_tunnel = "1/s burst 3"')
    with multiplexed(client.daemon, client.name) as visitor:
        streams = [visitor.request("/") for _ in range(4)]
        statuses = [stream.response()[b":status"] for stream in streams]
        assert sorted(statuses) == [b"200", b"200", b"200", b"429"]
        refused = streams[statuses.index(b"429")].response()
        assert refused.keys() >= FIELDS, refused
        upload = visitor.request("/", "POST", end=False)
        assert upload.response()[b":status"] == b"429"
        upload.send(bytes(10_000), end=True)
        wait_for(lambda: visitor.request("/").response()[b":status"] == b"200", "a place again", every=0.3)
    client.stop()


def test_a_page_of_the_kind_that_the_visitor_takes(limited):
    client = limited('requests_per_tunnel = "1/s burst 1"')
    client.curl("/")
    page = client.curl("/", "--include", "--header", "accept: text/html").stdout
    assert b"429" in page.splitlines()[0] and b"<h1>Too many requests</h1>" in page
    assert b'"status":429' in client.curl("/", "--header", "accept: application/json").stdout
    client.stop()


def test_grpc_hears_that_a_quota_is_used_up(limited):
    client = limited('requests_per_tunnel = "1/s burst 1"')
    client.curl("/")
    with open_channel(client.daemon, client.name) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/echo/Unary")(b"", timeout=30)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    client.stop()


def test_addresses_have_rates_of_their_own(limited):
    """Two visitors, and two more behind a trusted proxy."""
    client = limited('requests_per_address = "1/s burst 1"\n[proxies]\ntrusted = ["127.0.0.9"]')

    def status(*options):
        return client.curl("/", "--output", "/dev/null", "--write-out", "%{http_code}", *options).stdout

    assert [status("--interface", "127.0.0.2") for _ in range(2)] == [b"200", b"429"]
    assert status("--interface", "127.0.0.3") == b"200"
    through = [status("--interface", "127.0.0.9", "-H", f"x-forwarded-for: 192.0.2.{number}") for number in (1, 1, 2)]
    assert through == [b"200", b"429", b"200"]
    # A proxy that names no visitor stands for many.
    assert [status("--interface", "127.0.0.9") for _ in range(3)] == [b"200"] * 3
    # Who is no proxy stands for itself.
    assert status("--interface", "127.0.0.3", "-H", "x-forwarded-for: 192.0.2.9") == b"429"
    client.stop()


def test_a_reload_changes_rates(limited):
    client = limited('requests_per_tunnel = "1/s burst 1"')
    client.curl("/")
    assert client.daemon.curl(client.name, "/", "--output", "/dev/null", "--write-out", "%{http_code}").stdout == b"429"
    text = client.daemon.config.read_text()
    client.daemon.config.write_text(text.replace('"1/s burst 1"', '"none"'))
    client.daemon.process.popen.send_signal(1)
    client.daemon.process.wait_event("reloaded")
    for _ in range(5):
        assert client.curl("/").stdout == b"<h1>hello</h1>\n"
    client.stop()


@pytest.mark.parametrize("rate", ["bytes_per_tunnel", "bytes_per_key"])
def test_bytes_over_a_rate_wait(limited, nginx, transport, rate):
    """A download and an upload of 3 MiB take two seconds, since only the first MiB may go at once. None is lost."""
    client = limited(f'{rate} = "1MiB/s burst 1MiB"', transport=transport)
    data = bytes(range(256)) * (3 << 12)
    nginx.add("three.bin", data)
    began = time.monotonic()
    assert client.curl("/three.bin").stdout == data
    assert 1.5 < time.monotonic() - began < 10
    began = time.monotonic()
    upload = client.daemon.folder / "three.bin"
    upload.write_bytes(data)
    client.curl("/uploads/three.bin", "--upload-file", upload)
    assert 1.5 < time.monotonic() - began < 10
    assert (nginx.site / "uploads" / "three.bin").read_bytes() == data
    client.stop()


def test_connections_over_a_rate_are_closed_before_tls(limited):
    """Other addresses and trusted proxies get in."""
    client = limited('connections_per_address = "1/s burst 2"\n[proxies]\ntrusted = ["127.0.0.9"]')

    def gets_in(address):
        return client.curl("/", "--interface", address, check=False).returncode == 0

    assert [gets_in("127.0.0.2") for _ in range(2)] == [True, True]
    assert not all(gets_in("127.0.0.2") for _ in range(3))
    assert gets_in("127.0.0.3")
    assert all(gets_in("127.0.0.9") for _ in range(5))
    assert client.daemon.metric('cok_refused_total{rate="connections"}') >= 1
    wait_for(lambda: gets_in("127.0.0.2"), "a place again", every=0.3)
    client.stop()


@pytest.mark.alone
def test_handshakes_over_a_rate_wait(limited):
    """They wait instead of failing, and hold up neither other addresses nor what is established."""
    client = limited('handshakes_per_address = "2/s burst 2"')
    began = time.monotonic()
    for _ in range(4):
        assert client.curl("/", "--interface", "127.0.0.2").stdout == b"<h1>hello</h1>\n"
    assert time.monotonic() - began > 0.8
    began = time.monotonic()
    assert client.curl("/", "--interface", "127.0.0.3").stdout == b"<h1>hello</h1>\n"
    assert time.monotonic() - began < 0.9
    client.stop()


def test_quic_handshakes_over_a_rate_prove_their_address_and_wait(own_daemon, nginx):
    """Without a proof, only so many may begin."""
    daemon = own_daemon(more='[rates]\nhandshakes_per_address = "2/s burst 2"')
    client = daemon.client(nginx.target, "limited")
    for _ in range(6):
        with Http3(daemon, client.name) as visitor:
            assert visitor.request("/").read() == b"<h1>hello</h1>\n"
    assert daemon.metric("cok_quic_retries_total") >= 2
    client.stop()


def status_of(daemon, name, source="127.0.0.1"):
    options = ("--interface", source, "--output", "/dev/null", "--write-out", "%{http_code}")
    return daemon.curl(name, "/", *options).stdout


def test_a_client_sets_a_rate_for_its_visitors(own_daemon, nginx, transport):
    """Each visitor of the tunnel has the rate of its own. The client's other tunnels have none."""
    daemon, target = own_daemon(), ("127.0.0.1", nginx.port)
    client = SmallClient(daemon, transport, target)
    _, name = client.bind(target, rules={"rate": {"per_second": 1, "burst": 2}})
    assert [status_of(daemon, name, "127.0.0.2") for _ in range(3)] == [b"200", b"200", b"429"]
    assert status_of(daemon, name, "127.0.0.3") == b"200"
    assert [status_of(daemon, client.ack["subdomain"], "127.0.0.2") for _ in range(4)] == [b"200"] * 4
    client.stop()


def test_a_key_has_rates_of_its_own(own_daemon, nginx):
    """They act at once, on tunnels that run."""
    daemon = own_daemon()
    keys = Keys(daemon)
    client = daemon.client(nginx.target, "own", key=keys.create("own", "--requests", "1/s burst 2"))
    assert [status_of(daemon, "own") for _ in range(3)] == [b"200", b"200", b"429"]
    keys.do("edit", "own", "--requests", "1000/s")
    wait_for(lambda: [status_of(daemon, "own") for _ in range(4)] == [b"200"] * 4, "the key has another rate", every=1)
    client.stop()
