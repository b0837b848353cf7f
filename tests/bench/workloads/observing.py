"""What it costs to be seen: a small request with access log, traces, scrapes and inspector, against one without."""

import contextlib
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import processors
from contestants import cok

from . import Subject, Workload, stopping
from .scaling import COLUMNS, CONNECTIONS, PLOTS, measure

# A usual share of recorded requests. Encoding a span costs more than carrying a small request.
RECORDED = "0.05"
SCRAPE_SECONDS = 1


class Sink:
    """A collector that takes all spans and forgets them."""

    def __init__(self):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):  # noqa: N802
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def settings(self, share):
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": share,
        }

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Scraper:
    """Reads the metrics of a daemon again and again while it is entered."""

    def __init__(self, daemon):
        self.url, self.over = f"http://{daemon.admin}/metrics", threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.over.is_set():
            urllib.request.urlopen(self.url, timeout=20).read()
            self.over.wait(SCRAPE_SECONDS)

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


@contextlib.contextmanager
def subjects(bench):
    with stopping([]) as programs:
        sink = Sink()
        programs.append(sink)
        log = f'[access_log]\nto = "{bench.folder}/access.log"\n'
        found = []
        for transport in ("ws", "quic"):
            for what, more, env, options, scraped in (
                ("all off", "", {}, (), False),
                ("access log", log, {}, (), False),
                (f"traces of {RECORDED}", "", sink.settings(RECORDED), (), False),
                ("all traces", "", sink.settings("1"), (), False),
                ("scrapes", "", {}, (), True),
                ("inspector", "", {}, ("--inspect", "0"), False),
                ("all on", log, sink.settings(RECORDED), ("--inspect", "0"), True),
            ):
                found.append(subject(bench, programs, transport, what, more, env, options, scraped))
        yield found


def subject(bench, programs, transport, what, more, env, options, scraped):
    with processors.on(processors.TUNNEL):
        daemon = cok.daemon(bench.folder / f"seen-{len(programs)}", transport, more=more, env=env)
        programs.append(daemon)
        client = cok.tunnel(daemon, bench.origin, options=options)
        programs.append(client)
    for each in (daemon, client):
        processors.prefer(each.process.pid)

    def measured():
        with Scraper(daemon) if scraped else contextlib.nullcontext():
            return measure(bench, daemon, client.process.pid, CONNECTIONS)

    return Subject(f"{transport}, {what}", measured, transport)


WORKLOADS = [
    Workload(
        "cost of observing", subjects, COLUMNS, PLOTS,
        note=f"128 B over {CONNECTIONS} connections. A scrape every {SCRAPE_SECONDS} s. `all on` records a share of "
        f"{RECORDED} of the traces.",
    ),
]
