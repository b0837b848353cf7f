"""A collector of traces: OTLP over HTTP, with the messages of OpenTelemetry's own package."""

import gzip
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from .process import wait_for


@dataclass
class Span:
    """A span as the collector got it. Ids are hexadecimal; a root has an empty `parent`. Times are in seconds."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    began: float
    ended: float
    failed: bool
    attributes: dict = field(default_factory=dict)

    def __getitem__(self, key):
        return self.attributes.get(key)

    @property
    def took(self):
        return self.ended - self.began


def _value(value):
    return getattr(value, value.WhichOneof("value"))


def _spans(request):
    for resource in request.resource_spans:
        about = {pair.key: _value(pair.value) for pair in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    service=about["service.name"],
                    name=span.name,
                    kind=Message.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    state=span.trace_state,
                    began=span.start_time_unix_nano / 1e9,
                    ended=span.end_time_unix_nano / 1e9,
                    failed=span.status.code == Status.STATUS_CODE_ERROR,
                    attributes={pair.key: _value(pair.value) for pair in span.attributes},
                )


class Collector:
    """Takes spans, or does what `answer(handler)` does in place of that. `requests` are the fields of all requests. `pem` is a
    certificate and its key, for HTTPS."""

    def __init__(self, answer=None, pem=None):
        self.spans, self.requests, self.stopped = [], [], threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests.append((self.path, self.headers))
                if answer:
                    return answer(self)
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                assert self.headers["content-type"] == "application/x-protobuf"
                collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
                self.reply(200, ExportTraceServiceResponse().SerializeToString())

            def reply(self, status, body, **more):
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **more}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass  # the exporter has ended

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if pem:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*pem)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if pem else 'http'}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def env(self, **more):
        """The variables of a program whose spans come here soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50", **more}

    def of(self, service, **attributes):
        """Returns the spans of a service with these attributes. An underscore stands for a dot."""
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}
        return [
            span
            for span in list(self.spans)
            if span.service == service and all(span[key] == value for key, value in wanted.items())
        ]

    def wait(self, service, kind, count=1, **attributes):
        """Waits for spans of a service and a kind. Returns them in the order of their beginnings."""

        def found():
            spans = [span for span in self.of(service, **attributes) if span.kind == kind]
            return spans if len(spans) >= count else None

        spans = wait_for(found, f"{count} spans of {service} ({kind}) among {self.spans}")
        assert len(spans) == count, spans
        return sorted(spans, key=lambda span: span.began)

    def stop(self):
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
