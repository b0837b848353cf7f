"""Traces through cok: what the daemon and the client record, and what visitors and services see of it."""

import threading
import time

import pytest

from harness import raw
from harness.authority import Authority
from harness.cok import Dev
from harness.collector import Collector
from harness.http3 import Http3
from harness.process import wait_for
from harness.traced_service import TracedService
from harness.websocket import WebSocket

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"
STATE = "vendor=opaque,other=1"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
# How much longer a stop takes with a collector that hangs.
FLUSH = 1.25


@pytest.fixture
def traced():
    service = TracedService()
    yield service
    service.stop()


@pytest.fixture
def recorder():
    """A service that records the heads of its requests."""
    recorder = raw.Recorder(lambda _head, _connection: OK)
    yield recorder
    recorder.stop()


@pytest.fixture
def collect():
    """Returns a function that starts collectors, which end with the test."""
    collectors = []

    def start(*args, **more):
        collectors.append(Collector(*args, **more))
        return collectors[-1]

    yield start
    for collector in collectors:
        collector.stop()


@pytest.fixture
def collector(collect):
    return collect()


@pytest.fixture
def open_tunnel(own_daemon, transport):
    """Returns a function that opens a tunnel of a daemon with these variables, which its client has as well."""

    def make(target, env, **more):
        return own_daemon(env=env, transport=transport, **more).client(target)

    clients = []

    def kept(*args, **more):
        clients.append(make(*args, **more))
        return clients[-1]

    yield kept
    for client in clients:
        client.stop()


def received(recorder, name, request=-1):
    """Returns the values of a field in a request that the service has got."""
    return [value.decode() for field, value in raw.fields(recorder.heads[request]) if field == name.encode()]


def nested(collector, count=1):
    """Waits for the spans of so many requests with one attempt. Returns them from the outermost to the innermost."""
    spans = [
        collector.wait(service, kind, count)
        for service in ("cokd", "cok-client")
        for kind in ("SERVER", "CLIENT")
    ]
    for outer, inner in zip(spans, spans[1:]):
        assert [span.parent for span in inner] == [span.id for span in outer]
        assert [span.trace for span in inner] == [span.trace for span in outer]
    return spans


# Without a collector.


def test_every_request_is_recorded(tunnel, traced):
    """cok adds nothing, so the service decides about each request."""
    client = tunnel(traced.target)
    for _ in range(5):
        assert client.curl("/").stdout == b"hello"
    spans = traced.wait_spans(5)
    assert [span.parent for span in spans] == [None] * 5


def test_the_visitors_span_is_the_parent(tunnel, traced):
    client = tunnel(traced.target)
    client.curl("/", "--header", f"traceparent: {PARENT}")
    [span] = traced.wait_spans(1)
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)


def test_without_a_collector_the_fields_pass_byte_for_byte(tunnel, recorder):
    """Even fields that are wrong pass as they are: cok takes no part."""
    client = tunnel(recorder.target)
    for parent in (PARENT, UNSAMPLED, "nonsense", PARENT.upper()):
        client.curl("/", "--header", f"traceparent: {parent}", "--header", f"tracestate: {STATE}")
        assert (received(recorder, "traceparent"), received(recorder, "tracestate")) == ([parent], [STATE])
    client.curl("/")
    assert received(recorder, "traceparent") == []


# With a collector.


def test_one_trace_from_the_visitor_to_the_service(open_tunnel, collector, traced, http):
    """Visitor, daemon, client and service each have a span under the one before, and the visitor's state reaches all."""
    client = open_tunnel(traced.target, collector.env())
    client.curl("/?token=s3cret-query", http, "--header", f"traceparent: {PARENT}", "--header", f"tracestate: {STATE}",
                "--header", "authorization: Bearer s3cret-header", "--header", "cookie: session=s3cret-cookie")
    [[request], [attempt], [exchange], [to_service]] = nested(collector)
    [served] = traced.wait_spans(1)
    assert (request.trace, request.parent) == (TRACE, SPAN)
    assert (f"{served.context.trace_id:032x}", f"{served.parent.span_id:016x}") == (TRACE, to_service.id)
    assert served.context.trace_state.to_header() == STATE
    assert {span.state for span in (request, attempt, exchange, to_service)} == {STATE}
    assert {span.name for span in (request, attempt, exchange, to_service)} == {"GET"}
    assert request.attributes == {
        "http.request.method": "GET", "url.path": "/", "url.scheme": "https", "server.address": client.host,
        "server.port": client.daemon.port, "network.protocol.version": http.removeprefix("--http"),
        "client.address": "127.0.0.1", "http.response.status_code": 200, "cok.tunnel": client.name,
        "cok.ending": "complete",
    }
    assert (attempt["cok.attempt"], attempt["cok.transport"], exchange["cok.transport"]) == (1, *[client.transport] * 2)
    assert f"http://{to_service['server.address']}:{to_service['server.port']}" == traced.target
    # The ends of a request have clocks of their own, which are the same here.
    assert request.began <= attempt.began <= exchange.began and exchange.ended <= request.ended + 0.5
    assert not any(span.failed for span in collector.spans)
    assert "s3cret" not in str(collector.spans)


def test_a_visitor_over_http3_is_recorded_as_well(open_tunnel, collector, recorder):
    client = open_tunnel(recorder.target, collector.env())
    with Http3(client.daemon, client.name) as visitor:
        stream = visitor.request("/", extra=[("traceparent", PARENT)])
        assert (stream.response()[b":status"], stream.read()) == (b"200", b"ok")
    [[request], _, _, [to_service]] = nested(collector)
    assert (request.trace, request.parent, request["network.protocol.version"]) == (TRACE, SPAN, "3")
    assert received(recorder, "traceparent") == [f"00-{TRACE}-{to_service.id}-01"]


def test_a_request_without_a_parent_begins_a_trace(open_tunnel, collector, recorder):
    """A state without a parent belongs to a trace that is lost, so it goes. A parent that is wrong counts as none."""
    client = open_tunnel(recorder.target, collector.env())
    client.curl("/")
    client.curl("/", "--header", "traceparent: nonsense", "--header", f"tracestate: {STATE}")
    requests, _, _, to_service = nested(collector, 2)
    assert [span.parent for span in requests] == ["", ""] and requests[0].trace != requests[1].trace
    for number, span in enumerate(to_service):
        assert received(recorder, "traceparent", number) == [f"00-{span.trace}-{span.id}-01"]
        assert received(recorder, "tracestate", number) == []


def test_an_absent_service(open_tunnel, collector):
    """The visitor gets 502, and each span says why."""
    client = open_tunnel("127.0.0.1:9", collector.env())
    assert client.curl("/", "--write-out", "%{http_code}").stdout.endswith(b"502")
    [[request], [attempt], [exchange], [to_service]] = nested(collector)
    for span in (request, attempt, exchange, to_service):
        assert span.failed and span["error.type"] == "service_refused", span
    assert (request["http.response.status_code"], request["cok.ending"]) == (502, "failed")
    assert to_service["http.response.status_code"] is None


def test_a_failure_of_the_service(open_tunnel, collector):
    """A status of 500 is the daemon's and the service's failure. One of 404 is a failure only for those that asked."""
    recorder = raw.Recorder(lambda head, _: b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % head.split(b"/")[1][:3])
    client = open_tunnel(recorder.target, collector.env())
    client.curl("/500")
    client.curl("/404")
    spans = nested(collector, 2)
    assert [[span["error.type"] for span in pair] for pair in spans] == [
        ["500", None], ["500", "404"], ["500", None], ["500", "404"],
    ]
    assert all(span.failed == bool(span["error.type"]) for pair in spans for span in pair)
    recorder.stop()


def test_a_request_that_is_sent_again(open_tunnel, collector):
    """The client is killed under a request. The daemon waits for it, and each attempt has a span that its session gets."""
    stop = threading.Event()

    def answer(_head, _connection):
        if len(recorder.heads) == 1:
            stop.wait(60)
            return None
        return OK

    recorder = raw.Recorder(answer)
    client = open_tunnel(recorder.target, collector.env())
    visit = client.start_curl("/again", "--header", f"traceparent: {PARENT}")
    wait_for(lambda: recorder.heads, "the service has the request")
    client.process.kill()
    client.start()
    assert visit.stdout.read() == b"ok" and visit.wait(20) == 0
    [request] = collector.wait("cokd", "SERVER")
    first, second = collector.wait("cokd", "CLIENT", 2)
    assert [first["cok.attempt"], second["cok.attempt"]] == [1, 2]
    assert {first.parent, second.parent} == {request.id} and request.parent == SPAN
    assert first.failed and first["error.type"] == "session_lost" and not second.failed and not request.failed
    # Over QUIC, the session ends only when its successor is there.
    waits = [span for span in collector.of("cokd") if span.name == "wait"]
    assert len(waits) == 1 or (client.transport == "quic" and not waits)
    for wait in waits:
        assert (wait.kind, wait.parent) == ("INTERNAL", request.id)
        assert first.began < wait.began < wait.ended <= second.began + 0.001
    [exchange] = collector.wait("cok-client", "SERVER")
    assert exchange.parent == second.id, "the killed client has exported nothing"
    [sent_first], [sent_again] = received(recorder, "traceparent", 0), received(recorder, "traceparent", 1)
    assert sent_first.split("-")[1] == sent_again.split("-")[1] == TRACE
    [to_service] = collector.wait("cok-client", "CLIENT")
    assert sent_again.split("-")[2] == to_service.id != sent_first.split("-")[2]
    stop.set()
    recorder.stop()


def test_a_tunnel_that_stays_away(open_tunnel, collector, recorder):
    """The wait for a session is a span of its own. There is no attempt."""
    client = open_tunnel(recorder.target, collector.env(), limits='reconnect_grace = "1s"')
    client.stop()
    assert client.curl("/", "--write-out", "%{http_code}").stdout.endswith(b"503")
    [request] = collector.wait("cokd", "SERVER")
    assert (request["error.type"], request["http.response.status_code"]) == ("offline", 503)
    [wait] = collector.wait("cokd", "INTERNAL")
    assert (wait.name, wait.parent) == ("wait", request.id) and wait.took > 0.1
    assert not [span for span in collector.of("cokd") if span.kind == "CLIENT"]


def test_a_websocket_lasts_to_its_end(open_tunnel, collector, services):
    """The spans of a WebSocket come at its end. The service has got the id of the innermost one."""
    client = open_tunnel(services.ws, collector.env())
    with WebSocket(client.daemon, client.name, "/chat?token=s3cret") as visitor:
        visitor.send("traceparent")
        parent = visitor.recv()
        opened = time.time()
        visitor.send("hello")
        assert visitor.recv() == "hello"
        assert collector.spans == []
    [[request], [attempt], [exchange], [to_service]] = nested(collector)
    assert parent == f"00-{request.trace}-{to_service.id}-01"
    assert (request["http.response.status_code"], request["cok.lasting"]) == (101, "websocket")
    assert (request["cok.ending"], exchange["cok.ending"]) == ("complete", "complete")
    assert all(span.began < opened < span.ended for span in (request, attempt, exchange, to_service))
    assert not any(span.failed for span in collector.spans) and "s3cret" not in str(collector.spans)


def test_a_visitor_who_leaves(open_tunnel, collector, services):
    """A visitor may leave, so no span has failed."""
    client = open_tunnel(services.web, collector.env())
    visit = client.start_curl("/endless")
    visit.stdout.read(1)
    visit.kill()
    visit.wait()
    [[request], _, [exchange], _] = nested(collector)
    assert (request["cok.ending"], exchange["cok.ending"]) == ("visitor_left", "visitor_left")
    assert not any(span.failed for span in collector.spans)


# Which requests are recorded.


@pytest.mark.parametrize(
    ("sampler", "parent", "records"),
    [
        (None, UNSAMPLED, False),
        ("always_off", PARENT, False),
        ("always_off", None, False),
        ("always_on", UNSAMPLED, True),
        ("parentbased_always_off", None, False),
        ("parentbased_always_off", PARENT, True),
        ("traceidratio:0", PARENT, False),
        ("parentbased_traceidratio:1", None, True),
    ],
)
def test_samplers(open_tunnel, collector, recorder, sampler, parent, records):
    """The standard's variables decide. What is not recorded passes byte for byte, so the visitor's trace goes on."""
    name, _, argument = (sampler or "").partition(":")
    client = open_tunnel(
        recorder.target, collector.env(OTEL_TRACES_SAMPLER=name, OTEL_TRACES_SAMPLER_ARG=argument)
    )
    fields = ["--header", f"traceparent: {parent}", "--header", f"tracestate: {STATE}"] if parent else []
    client.curl("/", *fields)
    if records:
        [[request], _, _, [to_service]] = nested(collector)
        assert received(recorder, "traceparent") == [f"00-{request.trace}-{to_service.id}-01"]
        assert request.trace == TRACE or parent is None
    else:
        # A stop sends all that waits.
        client.stop()
        client.daemon.stop()
        assert collector.spans == []
        assert received(recorder, "traceparent") == ([parent] if parent else [])
    assert received(recorder, "tracestate") == ([STATE] if parent else [])


def test_visitors_cannot_force_recording(open_tunnel, collector, recorder):
    """A flood of requests with the sampled flag: ten a second are recorded. The others pass byte for byte."""
    count = 300
    client = open_tunnel(recorder.target, collector.env(OTEL_TRACES_SAMPLER="parentbased_always_off"))
    began = time.monotonic()
    client.curl(f"/[1-{count}]", "--header", f"traceparent: {PARENT}", "--output", "/dev/null")
    took = time.monotonic() - began
    client.stop()
    client.daemon.stop()
    recorded = len(collector.of("cokd", cok_ending="complete"))
    assert 10 <= recorded <= 10 + 10 * took + 1
    assert len(recorder.heads) == count
    changed = [number for number in range(count) if received(recorder, "traceparent", number) != [PARENT]]
    exchanges = len([span for span in collector.of("cok-client") if span.kind == "SERVER"])
    assert max(recorded, exchanges) <= len(changed) <= recorded + exchanges


# What a collector can do.


def test_secure_collectors(open_tunnel, collect, recorder, tmp_path):
    """HTTPS with an authority of its own, compression, and a key in a field."""
    authority = Authority(tmp_path / "collector")
    collector = collect(pem=authority.files("127.0.0.1"))
    env = collector.env(
        OTEL_EXPORTER_OTLP_CERTIFICATE=str(authority.ca_file), OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_HEADERS="x-key=a%20b", OTEL_RESOURCE_ATTRIBUTES="service.namespace=tests",
    )
    client = open_tunnel(recorder.target, env)
    client.curl("/")
    nested(collector)
    for path, fields in collector.requests:
        assert (path, fields["x-key"], fields["content-encoding"]) == ("/v1/traces", "a b", "gzip")


def test_an_untrusted_collector_gets_nothing(open_tunnel, collect, recorder, tmp_path):
    collector = collect(pem=Authority(tmp_path / "collector").files("127.0.0.1"))
    client = open_tunnel(recorder.target, collector.env())
    assert client.curl("/").stdout == b"ok"
    event = client.daemon.process.wait_event("traces_lost")
    assert "certificate" in event["error"].lower() and collector.requests == []


def slow(handler):
    time.sleep(3)
    handler.reply(200, b"")


def garbage(handler):
    handler.wfile.write(b"\x00\xff no HTTP at all\r\n\r\n" * 100)
    handler.close_connection = True


def refuse(handler):
    handler.reply(503, b"later", retry_after="3600")


def hanging(collect):
    """Returns the address of a collector that takes connections and requests, and never answers."""
    collector = collect(lambda _handler: collector.stopped.wait(60))
    return collector.url


ILL = {
    "hangs": hanging,
    "is slow": lambda collect: collect(slow).url,
    "answers garbage": lambda collect: collect(garbage).url,
    "refuses": lambda collect: collect(refuse).url,
    "is absent": lambda _collect: "http://127.0.0.1:9",
    "has no address": lambda _collect: "http://collector.invalid:4318",
}


@pytest.mark.parametrize("what", ILL)
def test_an_ill_collector_costs_traffic_nothing(open_tunnel, collect, recorder, what):
    """All requests are answered at once, and neither end stops later than its flush allows."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": ILL[what](collect), "OTEL_BSP_SCHEDULE_DELAY": "10",
           "OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8"}
    client = open_tunnel(recorder.target, env)
    result = client.curl("/[1-200]", "--write-out", "%{http_code} %{time_total}\n", "--output", "/dev/null")
    answers = [line.split() for line in result.stdout.split(b"\n") if line]
    assert [status for status, _ in answers] == [b"200"] * 200
    assert max(float(took) for _, took in answers) < 2
    wait_for(lambda: client.daemon.metric("cok_trace_spans_lost_total"), "the lost spans are counted")
    for program in (client, client.daemon):
        began = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - began < FLUSH + 3, what
    if what not in ("hangs", "is slow"):
        assert client.daemon.process.wait_event("traces_lost")["level"] == "WARN"


def test_wrong_variables_cost_a_warning_each(open_tunnel, collector, recorder):
    """They count as if they were not set. A value that may hold a secret is not logged."""
    wrong = {
        "OTEL_TRACES_SAMPLER": "sometimes", "OTEL_BSP_MAX_QUEUE_SIZE": "many", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_HEADERS": "s3cret",
    }
    client = open_tunnel(recorder.target, collector.env(**wrong))
    client.curl("/")
    nested(collector)
    for process in (client.daemon.process, client.process):
        warnings = [line for line in process.lines if '"trace_setting"' in line]
        assert len(warnings) == len(wrong), warnings
        assert all(any(name in line for line in warnings) for name in wrong) and "s3cret" not in "".join(warnings)


def test_a_wrong_address_is_named_and_nothing_is_recorded(open_tunnel, recorder):
    client = open_tunnel(recorder.target, {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"})
    assert client.curl("/").stdout == b"ok" and received(recorder, "traceparent") == []
    for process in (client.daemon.process, client.process):
        assert "no traces are exported" in process.wait_event("trace_setting")["warning"]


def test_dev_reads_the_variables(collector, recorder, tmp_path, monkeypatch):
    """Daemon and client are one process there, which is one service."""
    for name, value in collector.env(OTEL_SERVICE_NAME="all in one").items():
        monkeypatch.setenv(name, value)
    dev = Dev(tmp_path, recorder.target)
    assert dev.curl(dev.info["url"]) == b"ok"
    servers = collector.wait("all in one", "SERVER", 2)
    clients = collector.wait("all in one", "CLIENT", 2)
    assert [servers[1].parent, clients[1].parent] == [clients[0].id, servers[1].id]
    assert dev.stop() == 0
