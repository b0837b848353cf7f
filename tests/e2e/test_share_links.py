"""Share links: signed addresses that let visitors in, as programs and a browser use them."""

import re
import subprocess
import time
import urllib.parse

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from harness import raw
from harness.page import websocket_page
from harness.process import BIN_DIR, wait_for
from harness.websocket import WebSocket

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HTML = ("--header", "accept: text/html")


@pytest.fixture
def service():
    recorder = raw.Recorder(lambda head, connection: OK)
    yield recorder
    recorder.stop()


def share(client, *options):
    """Runs `cok-client share`. Returns the path and the query of the link."""
    done = subprocess.run(
        [BIN_DIR / "cok-client", "share", client.name, "--server", client.daemon.url(""), "--state-dir", client.state, *options],
        capture_output=True, text=True, check=True, timeout=20,
    )
    assert "by the server's clock" in done.stderr and done.stdout.count("\n") == 1
    client.link_id = re.search(r"share --revoke ([0-9a-f]{16})", done.stderr)[1]
    link = urllib.parse.urlsplit(done.stdout.strip())
    assert (link.scheme, link.netloc) == ("https", f"{client.host}:{client.daemon.port}")
    return f"{link.path}?{link.query}"


def status(client, path, *options):
    return int(client.curl(path, *options, "--output", "/dev/null", "--write-out", "%{http_code}").stdout)


def cookie_of(head):
    return re.search(rb"(?i)set-cookie: (__Host-cok_share=[^;]*)(.*)\r\n", head).groups()


def test_a_link_becomes_a_cookie(tunnel, service, http):
    client = tunnel(service.target, options=("--share-links",))
    assert status(client, "/", http) == 403
    link = share(client, "--expires", "2h", "--path", "/docs")
    head = client.curl(f"{link}&a=1", http, *HTML, "--include").stdout
    assert b" 303" in head.splitlines()[0], head
    assert f"location: {client.url}/docs?a=1\r\n".encode() in head.lower()
    cookie, attributes = cookie_of(head)
    assert re.fullmatch(rb"; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=(7200|719\d)", attributes), attributes
    assert b"no-store" in head and service.heads == []
    fields = ("--header", f"cookie: a=1; {cookie.decode()}; b=2", "--header", "authorization: Bearer abc")
    assert status(client, "/docs/x?b=2", http, *HTML, *fields) == 200
    assert service.heads[-1].startswith(b"GET /docs/x?b=2 HTTP")
    seen = dict(raw.fields(service.heads[-1]))
    assert seen[b"cookie"] == b"a=1; b=2" and seen[b"authorization"] == b"Bearer abc"
    assert status(client, "/", http, *fields) == status(client, "/docs/../x", http, *fields) == 403


def test_programs_send_the_link_each_time(tunnel, service, http):
    client = tunnel(service.target, options=("--share-links",))
    link = share(client)
    assert status(client, f"{link}&a=1", http) == 200
    assert service.heads[-1].startswith(b"GET /?a=1 HTTP")
    assert status(client, link, http, *HTML, "--data", "") == 200
    assert service.heads[-1].startswith(b"POST / HTTP")
    assert status(client, re.sub(r"(share=1\.\w+\.)", r"\g<1>9", link), http) == 403


def test_a_link_over_multiplexed_versions(tunnel, service, multiplexed):
    client = tunnel(service.target, options=("--share-links",))
    link = share(client)
    with multiplexed(client.daemon, client.name) as visitor:
        def code(path, *fields):
            return dict(visitor.request(path, extra=fields).response())

        assert code("/")[b":status"] == b"403"
        head = code(link, ("accept", "text/html"))
        assert head[b":status"] == b"303"
        cookie = head[b"set-cookie"].partition(b";")[0].decode()
        assert code("/x", ("cookie", "a=1"), ("cookie", cookie))[b":status"] == b"200"
    assert dict(raw.fields(service.heads[-1]))[b"cookie"] == b"a=1"


def test_a_link_to_a_host_like_path_stays_here(tunnel, service):
    client = tunnel(service.target, options=("--share-links",))
    link = share(client)
    head = client.curl(f"//evil.test/{link[1:]}", *HTML, "--include").stdout.lower()
    assert f"location: {client.url}//evil.test/\r\n".encode() in head


def test_links_end(tunnel, service):
    client = tunnel(service.target, options=("--share-links",))
    link = share(client, "--expires", "2s")
    assert status(client, link) == 200
    limit = time.monotonic() + 20
    while status(client, link) == 200:
        assert time.monotonic() < limit
    assert "has expired" in client.curl(link).stdout.decode()


def test_one_link_is_revoked(daemon, service):
    """Its cookie ends as well, and other links stay. A client that starts later knows of it."""
    client = daemon.client(service.target, options=("--share-links",))
    kept, link = share(client), share(client)
    cookie = cookie_of(client.curl(link, *HTML, "--include").stdout)[0].decode()
    command = [BIN_DIR / "cok-client", "share", "--state-dir", client.state, "--revoke"]
    assert "16 hexadecimal digits" in subprocess.run([*command, "x"], capture_output=True, text=True, timeout=20).stderr
    done = subprocess.run([*command, client.link_id], capture_output=True, text=True, check=True, timeout=20)
    assert (done.stdout, done.stderr) == ("", f"the link {client.link_id} is revoked\n")
    wait_for(lambda: status(client, link) == 403, "the running client applies it")
    assert status(client, "/", "--header", f"cookie: {cookie}") == 403 and status(client, kept) == 200
    client.stop()
    later = daemon.client(service.target, client.name, options=("--share-links",), state=client.state)
    assert status(later, link) == 403 and status(later, kept) == 200


def test_a_link_is_for_one_tunnel_and_one_installation(tunnel, service):
    one, other = (tunnel(service.target, options=("--share-links",)) for _ in range(2))
    assert status(other, share(one)) == 403
    with_password = tunnel(service.target, options=("--share-links", "--basic-auth", "me:secret"))
    assert status(with_password, share(with_password)) == status(with_password, "/", "--user", "me:secret") == 200
    assert status(with_password, "/") == 401


def test_a_websocket_with_a_link(tunnel, services):
    client = tunnel(services.ws, options=("--share-links",))
    with WebSocket(client.daemon, client.name, share(client)) as socket:
        socket.send("inside")
        assert socket.recv() == "inside"


def test_a_browser_follows_a_link(own_daemon, services, browse, transport):
    daemon = own_daemon(transport=transport)
    with websocket_page(services, "inside") as port:
        client = daemon.client(f"http://127.0.0.1:{port}", "shared", options=("--share-links",))
        driver = browse(daemon.ca, "--disable-quic", f"--host-resolver-rules=MAP *.tunnel.test {daemon.address}")
        driver.get(client.url)
        assert driver.title == "Link needed"
        assert driver.execute_script("return getComputedStyle(document.body).maxWidth") != "none", "the policy allows the style"
        driver.get(daemon.url("shared", share(client)))
        assert driver.title == "inside" and driver.current_url == f"{client.url}/"
        WebDriverWait(driver, 20).until(lambda d: d.execute_script("return answers") == ["echo from the page"])
        assert driver.execute_script("return query") == ""
        client.stop()
