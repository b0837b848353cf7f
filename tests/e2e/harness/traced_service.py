"""A service that traces itself: Flask with OpenTelemetry's instrumentation. Its default sampler records requests without a
parent, and requests with a sampled parent."""

import threading

from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from werkzeug.serving import make_server

from .process import wait_for


class TracedService:
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
