"""A service that traces itself behind a tunnel: Flask with OpenTelemetry's instrumentation. Its default sampler records
requests without a parent, and requests with a sampled parent."""

import threading

import pytest
from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from werkzeug.serving import make_server

from harness.process import wait_for

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Traced:
    """The service. `spans` are its recorded spans."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        app = Flask("traced")
        app.add_url_rule("/", view_func=lambda: "hello")
        FlaskInstrumentor().instrument_app(app, tracer_provider=provider)
        self.server = make_server("127.0.0.1", 0, app, threaded=True)
        self.target = f"http://127.0.0.1:{self.server.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    def wait_spans(self, count):
        """Waits for `count` spans, since a span ends after its response."""
        wait_for(lambda: len(self.spans) >= count, f"{count} spans are recorded")
        return self.spans

    def stop(self):
        self.server.shutdown()


@pytest.fixture
def traced():
    service = Traced()
    yield service
    service.stop()


def test_every_request_is_recorded(tunnel, traced):
    client = tunnel(traced.target)
    for _ in range(5):
        assert client.curl("/").stdout == b"hello"
    spans = traced.wait_spans(5)
    assert [span.parent for span in spans] == [None] * 5


def test_the_visitors_span_is_the_parent(tunnel, traced):
    client = tunnel(traced.target)
    client.curl("/", "--header", f"traceparent: 00-{TRACE}-{SPAN}-01")
    [span] = traced.wait_spans(1)
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
