"""Shared fixtures. The shared daemon, nginx and Python services start on first use and stop at the end of the run. Each
parallel worker has its own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from harness import needs, netns, workers
from harness.activation import Activated
from harness.certified import Issuance
from harness.cok import GIVE_BACK, TRANSPORTS, Daemon
from harness.http2 import Http2
from harness.http3 import Http3
from harness.inspector import ON, Inspector
from harness.netns import Network
from harness.nginx import Nginx
from harness.process import HERE, Process, children, end
from harness.services import Services
from harness.terminal import Terminal


@pytest.fixture(autouse=True)
def leftovers():
    """Ends all children of a test after it, even if the test failed before it could stop them."""
    before = len(children)
    yield
    for child in children[before:]:
        end(child)


@pytest.fixture(scope="session", params=TRANSPORTS)
def transport(request):
    """The transport of a test's tunnels. All tests over one transport run before those over the next."""
    return request.param


@pytest.fixture(scope="session")
def daemon(tmp_path_factory):
    daemon = Daemon(tmp_path_factory.mktemp("cokd"), limits='reconnect_grace = "3s"', env=GIVE_BACK)
    yield daemon
    daemon.stop()


@pytest.fixture(scope="session")
def nginx(tmp_path_factory):
    nginx = Nginx(tmp_path_factory.mktemp("nginx"))
    nginx.add("index.html", b"<h1>hello</h1>\n")
    nginx.add("random.bin", os.urandom(1 << 20))
    yield nginx
    nginx.stop()


@pytest.fixture(scope="session")
def site(daemon, nginx, transport):
    """A tunnel to nginx."""
    client = daemon.client(nginx.target, "site", transport=transport)
    yield client
    client.stop()


@pytest.fixture(scope="session")
def services():
    """The Python services, in one event loop on their own thread."""
    services = Services()
    yield services
    services.stop()


@pytest.fixture(scope="session")
def web(daemon, services, transport):
    """A tunnel to the aiohttp service."""
    client = daemon.client(services.web, "web", transport=transport)
    yield client
    client.stop()


@pytest.fixture
def tunnel(daemon, transport):
    """Returns a function that opens tunnels, which end with the test."""
    clients = []

    def make(target, *args, **more):
        client = daemon.client(target, *args, transport=transport, **more)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.stop()


@pytest.fixture
def inspected(tunnel):
    """Returns a function that opens a tunnel whose client has an inspector. It returns both."""

    def make(target, *options, **more):
        client = tunnel(target, options=(*ON, *options), **more)
        return client, Inspector(client)

    return make


@pytest.fixture
def own_daemon(tmp_path):
    """Returns a function that starts daemons, which end with the test."""
    daemons = []

    def make(**more):
        daemon = Daemon(tmp_path / f"cokd{len(daemons)}", **more)
        daemons.append(daemon)
        return daemon

    yield make
    for daemon in daemons:
        daemon.stop()


@pytest.fixture(params=[HERE, Activated()], ids=["own-sockets", "handed-over"])
def either_sockets(request):
    """Runs a test with the daemon's own sockets and with those of a service manager, since it stops differently."""
    return request.param


@pytest.fixture
def short(own_daemon, transport, either_sockets):
    """A daemon with a drain time of one second."""
    return own_daemon(limits='drain_timeout = "1s"', transport=transport, inside=either_sockets)


@pytest.fixture
def issuance(tmp_path):
    """Returns a function that starts an ACME server with a daemon, which end with the test."""
    made = []

    def make(**more):
        made.append(Issuance(tmp_path / f"acme{len(made)}", **more))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def browse(tmp_path):
    """Returns a function that starts Chromium with a new certificate store, which trusts one authority."""
    drivers = []
    for program in ("chromium", "chromedriver", "certutil"):
        needs.command(program)

    def start(ca_file, *flags):
        home = tmp_path / "home"
        store = home / ".pki" / "nssdb"
        store.mkdir(parents=True)
        for command in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "cok", "-i", ca_file]):
            subprocess.run(["certutil", "-d", f"sql:{store}", *command], check=True, capture_output=True)
        options = Options()
        options.binary_location = shutil.which("chromium")
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
            f"--user-data-dir={home}/profile", *(flags or ["--disable-quic"]),
        ):
            options.add_argument(flag)
        service = Service(shutil.which("chromedriver"), env={**os.environ, "HOME": str(home)})
        driver = webdriver.Chrome(options=options, service=service)
        drivers.append(driver)
        return driver

    yield start
    for driver in drivers:
        driver.quit()


@pytest.fixture
def terminal():
    """Returns a function that opens terminals, which close with the test."""
    opened = []

    def make(**more):
        opened.append(Terminal(**more))
        return opened[-1]

    yield make
    for one in opened:
        one.stop()


@pytest.fixture
def network():
    """A home and an internet in their own namespaces, without a path between them yet."""
    network = Network()
    yield network
    network.delete()


@pytest.fixture(params=["--http1.1", "--http2"], ids=["h1", "h2"])
def http(request):
    """curl's option for the visitor's HTTP version."""
    return request.param


@pytest.fixture(params=[Http2, Http3], ids=["h2", "h3"])
def multiplexed(request):
    """A visitor over HTTP/2 or HTTP/3."""
    return request.param


def pytest_xdist_auto_num_workers():
    """Answers what `-n auto` means."""
    return workers.number()


def pytest_configure():
    needs.watch()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session, exitstatus):
    # After Ctrl-C, pytest-xdist kills workers that do not end in time.
    workers.adopt()
    if exitstatus == pytest.ExitCode.OK and _lacking(session.config):
        session.exitstatus = needs.LACKING


def _lacking(config):
    """Returns the tests that were skipped since the machine lacks something. Workers leave it to the first process."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return needs.skipped(reporter.stats.get("skipped", [])) if reporter else {}


def pytest_terminal_summary(terminalreporter, config):
    """Lists what was skipped, and adds it to the file that `tests/run` prints at its end."""
    found = _lacking(config)
    if not found:
        return
    terminalreporter.section("skipped, since this machine lacks something")
    for test, what in found.items():
        terminalreporter.line(f"{what}: {test}")
    if file := os.environ.get("COK_TEST_LACKS"):
        with Path(file).open("a") as lacks:
            lacks.writelines(f"{what}\t{test}\n" for test, what in found.items())


def pytest_unconfigure(config):
    """Ends what an interrupted run has left."""
    if not hasattr(config, "workerinput"):
        workers.end_children()
        netns.delete_orphans()


LINES_BEFORE = pytest.StashKey[dict[Process, int]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    for marker in item.iter_markers("needs"):
        needs.check(marker.args)
    item.stash[LINES_BEFORE] = {process: len(process.lines) for process in Process.started}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Adds the output of the programs to the report of a failure."""
    report = (yield).get_result()
    if not report.failed:
        return
    for process in Process.started:
        if said := process.output(item.stash[LINES_BEFORE].get(process, 0)):
            report.sections.append((" ".join(process.command[:4]), said))
