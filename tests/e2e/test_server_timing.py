"""Server-Timing: where the time of a response went, if the operator wants visitors to see it."""

import re

import pytest

from harness import raw
from harness.http3 import Http3

PHASES = ["cok-edge", "cok-waiting", "cok-tunnel", "cok-service"]


@pytest.fixture
def service():
    """A service that says something itself."""
    answer = b"HTTP/1.1 200 OK\r\nserver-timing: db;dur=5\r\ncontent-length: 2\r\n\r\nhi"
    recorder = raw.Recorder(lambda head, connection: answer)
    yield recorder
    recorder.stop()


def test_the_phases_follow_what_the_service_says(own_daemon, service, transport):
    """Over all versions of HTTP. The daemon's own pages have no such field."""
    daemon = own_daemon(more="[http]\nserver_timing = true\n", transport=transport)
    client = daemon.client(service.target, "demo")
    values = []
    for version in ("--http1.1", "--http2"):
        head = client.curl("/", version, "--dump-header", "-", "--output", "/dev/null").stdout.decode()
        values.append(re.findall(r"(?im)^server-timing: (.*?)\r?$", head))
    with Http3(daemon, client.name) as visitor:
        value = visitor.request("/").response()[b"server-timing"].decode()
        values.append(["db;dur=5", value])
    for own, ours in values:
        assert own == "db;dur=5"
        metrics = dict(metric.split(";dur=") for metric in ours.split(", "))
        assert list(metrics) == PHASES and all(float(time) >= 0 for time in metrics.values()), ours
    page = daemon.curl("none", "/", "--dump-header", "-").stdout.lower()
    assert b"404" in page and b"server-timing" not in page


def test_visitors_see_no_times_by_default(own_daemon, service):
    daemon = own_daemon()
    client = daemon.client(service.target, "demo")
    head = client.curl("/", "--dump-header", "-").stdout.decode().lower()
    assert re.findall(r"server-timing: (.*?)\r?\n", head) == ["db;dur=5"]
