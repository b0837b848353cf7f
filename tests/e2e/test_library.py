"""The examples of the library: an axum application without a port, and a forwarder that prints requests."""

import hashlib
import os
import signal

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from harness.cok import DOMAIN, KEY
from harness.grpc_channel import open_channel
from harness.process import BIN_DIR, Process
from harness.websocket import WebSocket

NAME = "axum"


def start(example, *arguments, daemon, state, **env):
    env |= {
        "COK_SERVER": daemon.url(""),
        "COK_API_KEY": KEY,
        "COK_CA_FILE": str(daemon.ca),
        "COK_CONNECT_TO": daemon.https,
        "XDG_STATE_HOME": str(state),
    }
    return Process(BIN_DIR / "examples" / example, *arguments, env=env)


def interrupt(process):
    process.popen.send_signal(signal.SIGINT)
    assert process.wait_exit() == 0


@pytest.fixture(scope="module")
def app(daemon, transport, tmp_path_factory):
    state = tmp_path_factory.mktemp("axum")
    app = start("axum", daemon=daemon, state=state, COK_SUBDOMAIN=NAME, COK_TRANSPORT=transport)
    assert app.wait_stdout() == daemon.url(NAME, "")
    yield app
    interrupt(app)


def test_a_browser_shows_its_page_and_uses_its_websocket(app, daemon, browse):
    driver = browse(str(daemon.ca), "--disable-quic", f"--host-resolver-rules=MAP *.{DOMAIN} 127.0.0.1")
    driver.get(daemon.url(NAME))
    assert driver.find_element("tag name", "h1").text == "Hello, 127.0.0.1"
    said = lambda page: page.execute_script("return document.getElementById('said').textContent")
    WebDriverWait(driver, 20).until(lambda page: said(page) == "from the page")


def test_bodies_pass_in_both_directions(app, daemon, tmp_path, http):
    body = tmp_path / "body"
    body.write_bytes(os.urandom(20 << 20))
    answer = daemon.curl(NAME, "/echo", http, "--data-binary", f"@{body}").stdout
    assert hashlib.sha256(answer).digest() == hashlib.sha256(body.read_bytes()).digest()


def test_messages_of_a_websocket_come_back(app, daemon):
    socket = WebSocket(daemon, NAME, "/socket")
    for message in ("hello", b"\0" * 100_000):
        socket.send(message)
        assert socket.recv() == message
    socket.close()


def test_a_grpc_call_ends_with_its_trailers(app, daemon):
    with open_channel(daemon, NAME) as channel:
        for size in (0, 10, 1 << 20):
            assert channel.unary_unary("/echo/Unary")(bytes(size), timeout=30) == bytes(size)


def test_a_panic_is_one_failed_request(app, daemon):
    code = daemon.curl(NAME, "/panic", "--output", "/dev/null", "--write-out", "%{http_code}").stdout
    assert code == b"502"
    assert b"Hello" in daemon.curl(NAME).stdout


def test_a_forwarder_of_two_servers_prints_their_requests(daemon, nginx, services, tmp_path):
    forward = start("forward", f"one={nginx.target}", f"two={services.web}", daemon=daemon, state=tmp_path)
    for name, target in (("one", nginx.target), ("two", services.web)):
        assert forward.wait_stdout() == f"{daemon.url(name, '')} -> {target}"
    page = daemon.curl("one").stdout
    assert forward.wait_stdout().startswith(f"GET /: 200, {len(page)} bytes in ")
    daemon.curl("two", "/cookies?a=1")
    assert forward.wait_stdout().startswith("GET /cookies: 200, 2 bytes in ")
    interrupt(forward)
