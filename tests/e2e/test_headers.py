"""Header fields and request targets after the tunnel, byte for byte at a recording service."""

import pytest

from harness import raw
from harness.http2 import Http2
from harness.http3 import Http3

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def recorder(tunnel):
    """A recording service behind a tunnel. Tests may replace `answer`."""
    recorder = raw.Recorder(lambda head, connection: recorder.answer)
    recorder.answer = OK
    recorder.client = tunnel(recorder.target)
    yield recorder
    recorder.stop()


@pytest.fixture(params=[None, Http2, Http3], ids=["h1", "h2", "h3"])
def tracing_visitor(request):
    """Returns a function that sends one request with these fields, over each version of HTTP."""

    def ask(client, fields):
        if request.param is None:
            client.curl("/", "--http1.1", *(part for name, value in fields for part in ("--header", f"{name}: {value}")))
        else:
            with request.param(client.daemon, client.name) as visitor:
                visitor.request("/", extra=fields).read()

    return ask


def received(recorder):
    return dict(raw.fields(recorder.heads[-1]))


def test_hop_by_hop_fields_end_at_their_hop(recorder, http):
    options = ["--header", "x-kept: 1", "--header", "keep-alive: timeout=5", "--header", "te: gzip, trailers"]
    if http == "--http1.1":
        options += ["--header", "connection: x-dropped, te", "--header", "x-dropped: 1"]
    else:
        options[5] = "te: trailers"
        options[2:4] = []
    recorder.client.curl("/", http, *options)
    fields = received(recorder)
    assert fields[b"x-kept"] == b"1" and fields[b"te"] == b"trailers"
    assert not {b"x-dropped", b"keep-alive", b"proxy-connection"} & set(fields)
    own = b"\r\nconnection: x-own\r\nx-own: 1\r\nkeep-alive: timeout=5\r\nx-kept: 1\r\n\r\n"
    recorder.answer = OK.replace(b"\r\n\r\n", own)
    head = recorder.client.curl("/", http, "--include").stdout.lower()
    assert b"x-kept: 1" in head and b"x-own" not in head and b"keep-alive" not in head


# Fields that name the visitor, its scheme, the host, the port, a prefix, the original URL or a certificate.
CLAIMS = [
    "x-forwarded-for", "forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip", "cf-connecting-ipv6",
    "x-client-ip", "x-cluster-client-ip", "fastly-client-ip", "fly-client-ip", "x-original-forwarded-for",
    "x-envoy-external-address", "x-proxyuser-ip", "wl-proxy-client-ip", "proxy-client-ip", "x-appengine-user-ip",
    "client-ip", "x-remote-ip", "http-client-ip", "http-x-forwarded-for",
    "x-forwarded-proto", "x-forwarded-scheme", "x-scheme", "x-url-scheme", "x-forwarded-ssl", "front-end-https",
    "cf-visitor", "cloudfront-forwarded-proto",
    "x-forwarded-host", "x-forwarded-server", "x-host", "x-original-host", "x-http-host-override",
    "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-path", "x-script-name", "x-original-url", "x-rewrite-url",
    "x-original-uri", "x-forwarded-user",
    "x-ssl-client-verify", "ssl-client-cert", "x-client-cert", "client-cert", "client-cert-chain",
    "x-forwarded-client-cert",
]
SPELLINGS = [str, str.upper, lambda name: name.replace("-", "_"), lambda name: name.replace("-", "_", 1)]
# What looks like a claim and is none.
HARMLESS = ["my_field", "x_api_key", "x-requested-with", "x-http-method-override", "x-request-id", "x-original-filename"]


def test_the_visitor_is_named_and_claims_are_not_believed(recorder, tracing_visitor):
    client = recorder.client
    for spelling in SPELLINGS:
        # HTTP/2 and HTTP/3 have names in lower case only.
        claims = [(spelling(name).lower(), "6.6.6.6") for name in CLAIMS]
        harmless = [(name, "kept") for name in HARMLESS]
        tracing_visitor(client, [*claims[::2], *harmless, *claims[1::2]])
        fields = raw.fields(recorder.heads[-1])
        assert b"6.6.6.6" not in recorder.heads[-1]
        names = [name for name, _ in fields]
        assert [name.decode() for name in names if name.decode() in HARMLESS] == HARMLESS
        assert len(names) == len(set(names))
        fields = dict(fields)
        host = f"{client.daemon.host(client.name)}:{client.daemon.port}"
        assert fields[b"host"].decode() == host
        assert fields[b"x-forwarded-for"] == fields[b"x-real-ip"] == b"127.0.0.1"
        assert fields[b"x-forwarded-proto"] == b"https"
        assert fields[b"x-forwarded-host"].decode() == host
        assert fields[b"x-forwarded-port"] == b"%d" % client.daemon.port
        assert fields[b"forwarded"].decode() == f'for=127.0.0.1;host="{host}";proto=https'


def test_fields_for_proxies_end_here(recorder, http):
    """`Proxy` would become the variable HTTP_PROXY of a CGI service."""
    fields = ["proxy: http://evil.example", "proxy-authorization: Basic eDp5", "proxy_authorization: x"]
    recorder.client.curl("/", http, *(part for field in fields for part in ("--header", field)))
    assert not [name for name in received(recorder) if name.startswith(b"proxy")]


def test_a_trusted_proxy_names_its_visitor(own_daemon, transport, recorder):
    """Its fields stay, except for those that only look like them. The daemon adds the proxy's address."""
    daemon = own_daemon(transport=transport, more='[proxies]\ntrusted = ["127.0.0.0/8"]\n[http]\nvia = true')
    client = daemon.client(recorder.target)
    sent = {
        "x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "http", "x-forwarded-host": "www.example.com",
        "true-client-ip": "6.6.6.6", "x-forwarded-prefix": "/app", "x_real_ip": "7.7.7.7", "proxy": "evil",
    }
    client.curl("/", *(part for name, value in sent.items() for part in ("--header", f"{name}: {value}")))
    fields = {name.decode(): value.decode() for name, value in received(recorder).items()}
    assert fields["x-forwarded-for"] == "6.6.6.6, 127.0.0.1" and fields["x-real-ip"] == "6.6.6.6"
    for name in ("x-forwarded-proto", "x-forwarded-host", "true-client-ip", "x-forwarded-prefix"):
        assert fields[name] == sent[name]
    assert not {"x_real_ip", "proxy", "x-forwarded-port"} & set(fields)
    # Via is an option.
    assert fields["via"] == "2 tunnel.test"
    recorder.client.curl("/")
    assert b"via" not in received(recorder)


def test_fields_keep_their_order(recorder, tracing_visitor):
    """Also around those that are dropped."""
    sent = ["x-e", "x-real-ip", "x-a", "accept-language", "x_forwarded_for", "x-d", "te", "x-b", "x-c"]
    tracing_visitor(recorder.client, [(name, "trailers") for name in sent])
    names = [name.decode() for name, _ in raw.fields(recorder.heads[-1])]
    assert [name for name in names if name in sent and name not in ("x-real-ip", "te")] == [
        "x-e", "x-a", "accept-language", "x-d", "x-b", "x-c"
    ]


def test_a_loop_ends_with_508(recorder, tunnel, http):
    """A request says which tunnels it has been in (RFC 8586). One that comes back to its tunnel gets 508."""
    client = recorder.client
    host = client.daemon.host(client.name)
    client.curl("/", http, "--header", "cdn-loop: other.example;x=1, another")
    listed = [value for name, value in raw.fields(recorder.heads[-1]) if name == b"cdn-loop"]
    assert listed == [b"other.example;x=1, another", host.encode()]
    # A second tunnel, whose service is the first.
    second = tunnel("http://127.0.0.1:1")
    status = ["--output", "/dev/null", "--write-out", "%{http_code}"]
    back = ["--header", f"cdn-loop: {second.host}, {host.upper()} ; x=1"]
    before = len(recorder.heads)
    assert client.curl("/", http, *back, *status).stdout == b"508"
    assert b"Loop detected" in client.curl("/", http, *back, "--data", "body").stdout
    assert len(recorder.heads) == before
    assert client.curl("/", http, "--header", f"cdn-loop: {second.host}", *status).stdout == b"200"


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"


@pytest.mark.parametrize(
    "trace",
    [
        [],
        [("traceparent", PARENT), ("tracestate", STATE)],
        [("traceparent", PARENT.replace("-01", "-00"))],
        [("tracestate", STATE)],
        [("traceparent", "nonsense"), ("tracestate", "nonsense")],
        [("traceparent", PARENT), ("traceparent", PARENT.upper())],
    ],
    ids=["none", "sampled", "unsampled", "state-alone", "invalid", "twice"],
)
def test_a_trace_passes_unchanged(recorder, tracing_visitor, trace):
    """The daemon records no span, so it does not change the trace fields (W3C Trace Context)."""
    tracing_visitor(recorder.client, trace)
    # The order of fields with different names does not matter.
    seen = sorted(raw.fields(recorder.heads[-1]), key=lambda field: field[0])
    seen = [field for field in seen if field[0].startswith(b"trace")]
    assert seen == [(name.encode(), value.encode()) for name, value in trace]


@pytest.mark.parametrize(
    ("option", "expected"),
    [("rewrite", "127.0.0.1:{port}"), ("my.own:81", "my.own:81"), ("preserve", "{name}.tunnel.test:{https}")],
)
def test_host_as_configured(recorder, tunnel, option, expected):
    client = tunnel(recorder.target, options=["--host-header", option])
    client.curl("/")
    wanted = expected.format(port=recorder.port, name=client.name, https=client.daemon.port)
    assert received(recorder)[b"host"].decode() == wanted


TARGETS = [
    b"/%7Euser/%2F..%2f/%00?q=%20+%3D",
    b"//double//slashes///",
    b"/a/../b/./c",
    b"/?",
    b"/??a=b&&c=d;e?f",
    b"/semi;colon,comma=1!$&'()*",
    b"/pipe|quote\"brace{}",
    b"/caf\xc3\xa9",
    b"/%zz%",
    b"/:80/@x",
]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_targets_pass_byte_for_byte(recorder, target):
    with raw.connect(recorder.client.daemon, recorder.client.name) as connection:
        host = recorder.client.daemon.host(recorder.client.name).encode()
        connection.sendall(b"GET " + target + b" HTTP/1.1\r\nhost: " + host + b"\r\n\r\n")
        assert b" 200 " in raw.read_head(connection).splitlines()[0]
    assert recorder.heads[-1].split(b"\r\n")[0] == b"GET " + target + b" HTTP/1.1"


@pytest.mark.parametrize("target", [t for t in TARGETS if t.isascii()], ids=repr)
def test_targets_pass_byte_for_byte_over_streams(recorder, multiplexed, target):
    with multiplexed(recorder.client.daemon, recorder.client.name) as visitor:
        assert visitor.request(target).response()[b":status"] == b"200"
    assert recorder.heads[-1].split(b"\r\n")[0] == b"GET " + target + b" HTTP/1.1"


def test_absolute_targets_and_asterisk(recorder):
    """An absolute target's authority overrides Host (RFC 9112, section 3.2.2)."""
    host = recorder.client.daemon.host(recorder.client.name).encode()
    for line, expected in [
        (b"GET https://" + host + b"/x?y HTTP/1.1", b"GET /x?y HTTP/1.1"),
        (b"OPTIONS * HTTP/1.1", b"OPTIONS * HTTP/1.1"),
    ]:
        with raw.connect(recorder.client.daemon, recorder.client.name) as connection:
            other = host if b"*" in line else b"elsewhere.example"
            connection.sendall(line + b"\r\nhost: " + other + b"\r\n\r\n")
            assert b" 200 " in raw.read_head(connection).splitlines()[0]
        assert recorder.heads[-1].split(b"\r\n")[0] == expected
        assert received(recorder)[b"host"] == host


def test_values_outside_ascii_pass_both_ways(recorder):
    value = bytes(range(0x80, 0x100)) + b" \tx"
    recorder.answer = OK.replace(b"\r\n\r\n", b"\r\nx-odd: " + value + b"\r\n\r\n")
    with raw.connect(recorder.client.daemon, recorder.client.name) as connection:
        host = recorder.client.daemon.host(recorder.client.name).encode()
        connection.sendall(b"GET / HTTP/1.1\r\nhost: " + host + b"\r\nx-odd: " + value + b"\r\n\r\n")
        answer = dict(raw.fields(raw.read_head(connection)))
    assert received(recorder)[b"x-odd"] == value and answer[b"x-odd"] == value


def test_repeated_cookies_stay_apart(web, http):
    answer = web.curl("/cookies", http, "--include").stdout.decode().lower()
    cookies = [line for line in answer.splitlines() if line.startswith("set-cookie:")]
    assert [cookie.split("=")[0] for cookie in cookies] == ["set-cookie: c0", "set-cookie: c1", "set-cookie: c2"]


def test_an_unknown_method_passes(recorder, http):
    recorder.client.curl("/", http, "--request", "BREW")
    assert recorder.heads[-1].startswith(b"BREW / HTTP/1.1\r\n")


def test_split_cookies_are_joined(recorder, multiplexed):
    """HTTP/2 and HTTP/3 may split Cookie into several fields (RFC 9113, section 8.2.3). The service gets one."""
    with multiplexed(recorder.client.daemon, recorder.client.name) as visitor:
        visitor.request("/", extra=[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]).read()
    assert [value for name, value in raw.fields(recorder.heads[-1]) if name == b"cookie"] == [b"a=1; b=2; c=3"]


def test_repeated_fields_keep_their_order(recorder, http):
    recorder.client.curl("/", http, "--header", "x-many: 1", "--header", "x-many: 2,3", "--header", "x-many: 4")
    assert [value for name, value in raw.fields(recorder.heads[-1]) if name == b"x-many"] == [b"1", b"2,3", b"4"]


def test_values_outside_ascii_pass_over_streams(recorder, multiplexed):
    value = bytes(range(0x80, 0x100))
    recorder.answer = OK.replace(b"\r\n\r\n", b"\r\nx-odd: " + value + b"\r\n\r\n")
    with multiplexed(recorder.client.daemon, recorder.client.name) as visitor:
        headers = visitor.request("/", extra=[(b"x-odd", value)]).response()
    assert received(recorder)[b"x-odd"] == value and headers[b"x-odd"] == value


def test_long_heads(site, http):
    """30 KiB pass, 60 KiB get 431."""
    for size, expected in [(30, b"200"), (60, b"431")]:
        fields = [part for n in range(size // 6) for part in ("--header", f"x-long{n or ''}: {'x' * 6 * 1024}")]
        answer = site.curl("/headers", http, *fields, "--write-out", "%{http_code}", check=False)
        assert answer.stdout[-3:] == expected, (size, answer.stderr)


def test_one_long_field(site, http):
    answer = site.curl("/headers", http, "--header", "x-long: " + "x" * 30 * 1024)
    assert answer.stdout == b"x" * 30 * 1024


def test_long_response_heads(recorder, http):
    long = b"".join(b"x-long%d: %s\r\n" % (n, b"y" * 1024) for n in range(30))
    recorder.answer = OK.replace(b"\r\n\r\n", b"\r\n" + long + b"\r\n")
    assert recorder.client.curl("/", http, "--include").stdout.count(b"y" * 1024) == 30
    recorder.answer = OK.replace(b"\r\n\r\n", b"\r\n" + long * 3 + b"\r\n")
    assert recorder.client.curl("/", http, "--write-out", "%{http_code}").stdout.endswith(b"502")
