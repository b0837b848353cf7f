"""Metrics as Prometheus and its tools read them, the dashboard, the alerts, and health."""

import http.client
import json
import re
import shutil
import signal
import subprocess
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from harness import needs
from harness.certified import cokd
from harness.http3 import Http3
from harness.process import wait_for
from harness.prometheus import Prometheus, promtool

FILES = Path(__file__).resolve().parents[2] / "daemon" / "observability"
RULES = FILES / "alerts.yml"
# For conditions that wait for Prometheus. A loaded machine needs it.
LIMIT = 60


def visit(daemon, *clients):
    """Asks over each version of HTTP, also for what does not exist."""
    for client in clients:
        for version in ("--http1.1", "--http2"):
            assert client.curl("/", version).stdout == b"<h1>hello</h1>\n"
        # The service reads all of it before it answers. One that answers early may leave some of it uncounted.
        client.curl("/uploads/one", "--request", "PUT", "--data", "x" * 1000)
        with Http3(daemon, client.name) as visitor:
            assert visitor.request("/").read() == b"<h1>hello</h1>\n"
    daemon.curl("unknown", "/")


@pytest.fixture
def busy(own_daemon, nginx):
    """A daemon with tunnels over both transports, one of which has no service behind it, and some traffic."""
    daemon = own_daemon(more="[metrics]\ntunnel_labels = 2")
    clients = [daemon.client(nginx.target, f"over-{name}", transport=name) for name in ("ws", "quic")]
    # Nothing listens on this port.
    empty = daemon.client("127.0.0.1:1", "empty", transport="quic")
    visit(daemon, *clients)
    assert empty.curl("/", "--write-out", "%{http_code}").stdout.endswith(b"502")
    # What an exchange took is counted at its end, which a visitor may be ahead of.
    wait_for(lambda: daemon.metric("cok_exchanges_open") == 0, "all exchanges have ended")
    yield daemon, clients, empty
    for client in (*clients, empty):
        client.stop()


def scrape(daemon, accept=None):
    """Returns the content type and the text of the metrics."""
    headers = {"accept": accept} if accept else {}
    with urllib.request.urlopen(urllib.request.Request(f"http://{daemon.admin}/metrics", headers=headers)) as answer:
        return answer.headers["content-type"], answer.read().decode()


# ---- metrics ----


def test_the_tool_finds_no_fault_in_the_metrics(busy):
    """`promtool check metrics` prints nothing."""
    daemon, _, _ = busy
    kind, text = scrape(daemon)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert promtool("check", "metrics", text=text) == (0, "")
    assert promtool("check", "metrics", text=text.replace("# HELP cok_sessions ", "# HELP other ", 1))[0] != 0


def test_openmetrics_is_there_for_those_who_ask(busy):
    """The same samples come in both forms."""
    daemon, _, _ = busy

    def names(text):
        return {line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")}

    kind, text = scrape(daemon, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text; version=1.0.0") and text.endswith("# EOF\n")
    assert names(text) == names(scrape(daemon)[1])


def test_what_a_request_took_where(busy):
    """Each version and transport has its phases, and the phases have a time each."""
    daemon, _, _ = busy
    metrics = daemon.metrics()
    for version in ("1.1", "2", "3"):
        for transport in ("ws", "quic"):
            for phase in ("edge", "waiting", "tunnel", "service"):
                labels = f'phase="{phase}",version="{version}",transport="{transport}"'
                assert metrics[f"cok_request_phase_seconds_count{{{labels}}}"] >= 1, labels
    assert metrics['cok_body_bytes_total{direction="request",version="2",transport="ws"}'] == 1000
    assert metrics['cok_body_bytes_total{direction="response",version="3",transport="quic"}'] == len("<h1>hello</h1>\n")
    assert metrics['cok_exchange_resets_total{reason="service_refused"}'] == 1
    assert metrics['cok_requests_total{status="502"}'] == 1
    assert metrics['cok_handshakes_total{protocol="tls",outcome="ok"}'] >= 1
    # One visitor's connection for each client over HTTP/3, and the sessions over QUIC.
    assert metrics['cok_handshakes_total{protocol="quic",outcome="ok"}'] >= 4


def test_sessions_are_counted_as_they_come_and_go(busy):
    """A session counts by its transport while it lives, then by the reason of its end. Its successor is a return."""
    daemon, (over_ws, over_quic), _ = busy
    metrics = daemon.metrics()
    assert (metrics['cok_sessions{transport="ws"}'], metrics['cok_sessions{transport="quic"}']) == (1, 2)
    assert metrics['cok_session_handshakes_total{transport="ws",outcome="accepted"}'] == 1
    over_ws.process.kill()
    lost = [f'cok_session_ends_total{{transport="ws",reason="{reason}"}}' for reason in ("lost", "closed")]
    wait_for(lambda: sum(daemon.metrics()[name] for name in lost) == 1, "the end is counted")
    over_ws.start()
    over_ws.wait_online()
    assert daemon.metric('cok_reconnects_total{transport="ws",how="reclaimed"}') == 1
    assert over_quic.stop() == 0
    wait_for(lambda: daemon.metric('cok_sessions{transport="quic"}') == 1, "the session has gone")


def test_a_fallback_names_its_reason(own_daemon, nginx):
    """A client that wants QUIC and comes by WebSocket says why."""
    from test_forbidden import Forbidding

    daemon = own_daemon()
    client = daemon.client(nginx.target, "fallback", transport="auto", inside=Forbidding("udp"))
    assert client.process.wait_event("connected")["transport"] == "ws"
    assert daemon.metric('cok_fallbacks_total{reason="no_udp"}') == 1
    client.stop()


def test_tunnels_have_series_of_their_own_only_up_to_the_bound(busy, nginx):
    """The third tunnel counts among the others. A tunnel that ends takes its series along."""
    daemon, (over_ws, over_quic), _ = busy
    metrics = daemon.metrics()
    for client in (over_ws, over_quic):
        assert metrics[f'cok_tunnel_requests_total{{tunnel="{client.name}"}}'] == 4
    assert metrics['cok_tunnel_requests_total{tunnel="_other"}'] == 1
    assert 'cok_tunnel_requests_total{tunnel="empty"}' not in metrics
    over_ws.stop()
    gone = f'cok_tunnel_requests_total{{tunnel="{over_ws.name}"}}'
    wait_for(lambda: gone not in daemon.metrics(), "the series has gone")


def test_no_label_has_a_visitors_text(busy):
    """Neither a method, a path nor a name of a visitor's appears in the metrics."""
    daemon, (client, _), _ = busy
    client.curl("/secret-path?secret-query", "--request", "SECRETMETHOD", "--header", "secret-field: 1")
    daemon.curl("secret-name", "/")
    assert "secret" not in scrape(daemon)[1].lower()


def test_the_process_shows_what_it_uses(busy):
    """Memory, descriptors, threads and processor time are those of the process."""
    daemon, _, _ = busy
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    resident = int(re.search(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[1]) * 1024
    metrics = daemon.metrics()
    assert abs(metrics["process_resident_memory_bytes"] - resident) < resident / 2
    assert metrics["process_open_fds"] == pytest.approx(len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir())), abs=5)
    assert metrics["process_open_fds"] < metrics["process_max_fds"]
    assert metrics["process_cpu_seconds_total"] > 0 and metrics["process_threads"] > 1
    wait_for(lambda: daemon.metric("cok_event_loop_lag_seconds_count") > 3, "the lag is measured")
    assert metrics["cok_tokio_tasks"] > 3 and metrics["cok_tokio_workers"] >= 1


# ---- alerts and dashboard ----


def test_each_alert_fires_on_what_it_is_for(tmp_path):
    """The rules are valid and pass their own tests, which notice if an alert cannot fire."""
    code, said = promtool("check", "rules", RULES)
    assert code == 0 and "SUCCESS" in said, said
    code, said = promtool("test", "rules", FILES / "alerts_test.yml")
    assert code == 0 and "SUCCESS" in said, said
    shutil.copy(FILES / "alerts_test.yml", tmp_path)
    rules = RULES.read_text()
    names = re.findall(r"- alert: (\w+)", rules)
    assert len(names) == len(set(names)) >= 16
    (tmp_path / "alerts.yml").write_text(re.sub(r"- alert: \w+", "- alert: Another", rules))
    code, said = promtool("test", "rules", tmp_path / "alerts_test.yml")
    assert code != 0
    for name in names:
        assert f'alertname="{name}"' in said, f"no test of {name}"


def test_each_alert_says_what_to_do():
    """Each has a severity, one line of summary, and a description."""
    for alert in RULES.read_text().split("- alert: ")[1:]:
        for part in ("severity: ", "summary: ", "description: "):
            assert alert.count(part) == 1, alert


def without_comparison(expression):
    """Returns the two sides of `and`, each without its comparison at the end."""
    sides = re.split(r"\sand\s", expression)
    return [re.sub(r"\s*(==|!=|<=|>=|<|>)\s*[\d.e+]+\s*$", "", side) for side in sides]


def test_every_query_returns_data(busy, tmp_path):
    """Prometheus scrapes a real run. Each query of the dashboard and of the alerts has a result then."""
    daemon, clients, empty = busy
    prometheus = Prometheus(tmp_path / "prometheus", daemon, RULES)
    try:
        prometheus.wait_scrapes(2)
        visit(daemon, *clients)
        empty.curl("/")
        prometheus.wait_scrapes(6)
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        assert len(rules) == RULES.read_text().count("- alert: ")
        assert all(rule["health"] == "ok" for rule in rules), rules
        queries = [side for rule in rules for side in without_comparison(rule["query"])]
        dashboard = json.loads((FILES / "grafana-dashboard.json").read_text())
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        for panel in panels:
            assert panel["title"] and panel["description"], panel
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
                assert "$" not in query, query
                queries.append(query)
        assert len(queries) > 60

        def empty_ones():
            return [query for query in queries if not prometheus.query(query)]

        with suppress(AssertionError):
            wait_for(lambda: not empty_ones(), "all queries have a result", LIMIT, 1)
        assert empty_ones() == []
        # The figures are those of the run.
        assert prometheus.value("sum(cok_sessions)") == 3
        assert prometheus.value('sum(cok_requests_total{status="502"})') == 2
        assert prometheus.value("cok_ready") == 1 and prometheus.value('up{job="cokd"}') == 1
        assert prometheus.value("cok_active_tunnels") == 3
        # The state of an own authority's certificate is good for 90 days.
        assert 80 * 86400 < prometheus.value("cok_certificate_valid_seconds") < 91 * 86400
        firing = [alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"]
        assert firing == []
    finally:
        prometheus.stop()


# ---- health ----


def component(daemon, name):
    """Returns a component of the health as the admin address shows it."""
    report = json.loads(daemon.admin_get("/health")[1])
    (found,) = [one for one in report["components"] if one["name"] == name]
    return found


def fails(daemon, name):
    """Waits until a component fails, also in metrics and for the operator's command. The daemon stays alive."""
    found = wait_for(lambda: (found := component(daemon, name))["state"] == "failing" and found, f"{name} fails", LIMIT, 0.2)
    assert found["why"] and found["since"] > 1_700_000_000
    assert daemon.metric(f'cok_component_healthy{{component="{name}"}}') == 0
    assert daemon.admin_get("/health/live") == (200, "ok\n")
    assert daemon.admin_get("/health")[0] == 200
    # The public sees none of it.
    for path in ("/health", "/health/live"):
        assert daemon.curl("", path, "--insecure").stdout == b"ok\n"
    return found["why"]


def works(daemon, name):
    """Waits until a component works again."""
    found = wait_for(lambda: (found := component(daemon, name))["state"] == "ok" and found, f"{name} works", LIMIT, 0.2)
    assert found["why"] is None and daemon.metric(f'cok_component_healthy{{component="{name}"}}') == 1


def test_a_healthy_daemon(own_daemon):
    """All components work. The command prints the same in JSON."""
    daemon = own_daemon()
    wait_for(lambda: daemon.metrics().get("cok_disk_free_bytes"), "the disk was looked at")
    report = json.loads(daemon.admin_get("/health")[1])
    assert (report["status"], report["ready"], report["why"]) == ("ok", True, None)
    assert [one["name"] for one in report["components"]] == ["certificate", "acme", "dns", "store", "disk"]
    code, out, err = cokd("health", "--config", daemon.config, "--json")
    assert (code, json.loads(out), err) == (0, report, "")
    assert daemon.metric("cok_ready") == 1


def test_a_failing_acme_server_is_named(issuance):
    """It fails for as long as no certificate comes of it. DNS has no part in it."""
    acme = issuance(proxy=True)
    acme.proxy.faults["directory"] = lambda _request: web.Response(status=500, text="out of order")
    daemon = acme.start()
    daemon.process.wait_event("not_issued")
    assert "out of order" in fails(daemon, "acme") or "500" in fails(daemon, "acme")
    assert component(daemon, "dns")["state"] == "ok" and component(daemon, "certificate")["state"] == "failing"
    code, out, err = cokd("health", "--config", daemon.config)
    assert (code, out) == (1, "") and err.startswith("cokd: not ready: there is no certificate yet"), err
    # The next process knows it as well.
    daemon.restart()
    fails(daemon, "acme")
    del acme.proxy.faults["directory"]
    acme.issued()
    works(daemon, "acme")
    works(daemon, "certificate")
    assert cokd("health", "--config", daemon.config) == (0, "ready\n", "")


def test_failing_dns_is_named(issuance):
    """Another program has the port for DNS."""
    import socket

    acme = issuance()
    address, _, port = acme.dns.rpartition(":")
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind((address, int(port)))
        daemon = acme.start()
        assert acme.dns in fails(daemon, "dns")
    acme.issued()
    works(daemon, "dns")


def test_a_failing_store_is_named(own_daemon, nginx):
    """Visitors can use the daemon, and the command still says what fails."""
    daemon = own_daemon()
    daemon.stop()
    for file in daemon.state.glob("store.db*"):
        file.unlink()
    (daemon.state / "store.db").mkdir()
    daemon.start()
    assert "store" in fails(daemon, "store")
    code, out, err = cokd("health", "--config", daemon.config)
    assert code == 0 and err == "" and re.fullmatch(r"ready\nstore fails since 20\S+Z: .*store.*\n", out), out
    client = daemon.client(nginx.target, "storeless")
    assert client.curl("/").stdout == b"<h1>hello</h1>\n"
    assert json.loads(daemon.admin_get("/health")[1])["status"] == "degraded"
    client.stop()


@pytest.mark.needs("root")
def test_a_full_disk_is_named(own_daemon, tmp_path):
    """Too little space for the state directory shows before the disk is full."""
    needs.command("mount")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", folder], check=True)
    try:
        daemon = own_daemon(state=folder)
        assert "MiB" in fails(daemon, "disk")
        assert daemon.metric("cok_disk_free_bytes") < 64 << 20
        subprocess.run(["mount", "-o", "remount,size=256m", folder], check=True)
        works(daemon, "disk")
        daemon.stop()
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_readiness_ends_at_once_when_the_daemon_drains(own_daemon, services, transport, either_sockets):
    """A daemon that begins to stop is not ready, though requests go on. It lives until its end."""
    daemon = own_daemon(limits='drain_timeout = "30s"', transport=transport, inside=either_sockets)
    client = daemon.client(services.web, "draining")
    # A connection that is open stays, also where the address is given up.
    admin = http.client.HTTPConnection(daemon.admin, timeout=20)

    def ask(path):
        admin.request("GET", path)
        answer = admin.getresponse()
        return answer.status, answer.read().decode()

    assert ask("/health/ready") == (200, "ready\n")
    stream = f"drain-{transport}-{id(daemon)}"
    slow = client.start_curl(f"/steps/{stream}/1?type=text/plain", "--fail")
    wait_for(lambda: stream in services.confirmed, "the request is on its way")
    wait_for(lambda: daemon.metric("cok_exchanges_open") == 1, "it is counted")
    daemon.process.popen.send_signal(signal.SIGTERM)
    daemon.process.wait_event("draining")
    assert ask("/health/ready") == (503, "not ready: the daemon is starting or stopping\n")
    assert ask("/health/live") == (200, "ok\n")
    report = json.loads(ask("/health")[1])
    assert (report["status"], report["ready"]) == ("unready", False)
    services.confirm(stream, 0)
    assert slow.wait(20) == 0
    admin.close()
    client.stop()
    daemon.process.wait_exit()
