"""The site of `cokd dev` shows what the tunnel does, with JavaScript and without. `cokd dev DIR` serves files."""

import hashlib
import json
import socket
import ssl
import subprocess

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from websockets.sync.client import connect

from harness.cok import Dev
from harness.process import BIN_DIR


@pytest.fixture(params=["quic", "ws"])
def dev(tmp_path, request):
    process = Dev(tmp_path / "dev", "--transport", request.param)
    process.transport = request.param
    yield process
    process.stop()


def test_the_page_says_how_the_request_came(dev):
    shown = {"quic": "QUIC, over UDP", "ws": "a WebSocket, over TCP"}[dev.transport]
    for option, version in (("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")):
        page = dev.curl(dev.info["url"], option, "-H", "X-Odd: <script>alert(1)</script>").decode()
        assert f'<dd id="transport">{shown}</dd>' in page and f'<dd id="version">{version}</dd>' in page
        assert "<td>x-odd</td><td>&lt;script&gt;alert(1)&lt;/script&gt;</td>" in page
        assert f"<dd>{dev.info['url']}</dd>" in page


def test_it_works_without_javascript(dev):
    """Plain forms echo a text and count an upload. A page shows ten events."""
    url = dev.info["url"]
    assert dev.curl(f"{url}/echo", "-H", "Content-Type: text/plain", "--data", "said=hello") == b"said=hello"
    page = dev.curl(f"{url}/upload", "--form", "file=a <b>bold</b>;filename=<i>.txt;type=text/plain").decode()
    assert "The upload arrived" in page and "&lt;b&gt;bold&lt;/b&gt;" in page and "<i>" not in page
    page = dev.curl(f"{url}/ticks").decode()
    assert "<p>event 1 of 10</p>" in page and page.endswith("</html>\n")


def test_an_upload_is_counted_as_it_arrives(dev, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 40_000)
    answer = dev.curl(f"{dev.info['url']}/upload", "--upload-file", file, "-H", "Accept: application/json")
    arrived = json.loads(answer)
    assert arrived["bytes"] == file.stat().st_size
    assert arrived["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_nothing_from_outside_and_no_other_methods(dev):
    """Each page forbids what stands in it, and all but its own files."""
    url = dev.info["url"]
    for path, kind in [
        ("/", "text/html"), ("/style.css", "text/css"), ("/script.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"), ("/favicon.ico", "image/svg+xml"), ("/none", "text/html"),
    ]:
        text = dev.curl(url + path, "--include").decode()
        head, body = text.lower().split("\r\n\r\n", 1)
        assert f"content-type: {kind}" in head and "content-security-policy: default-src 'none'; " in head
        assert "x-content-type-options: nosniff" in head and "unsafe-inline" not in head
        assert "http://" not in body.replace("http://www.w3.org", "") and "style=" not in body
    text = dev.curl(url, "--include", "--request", "DELETE").decode().lower()
    assert " 405" in text.splitlines()[0] and "\r\nallow: get, head\r\n" in text


def test_a_program_uses_the_websocket(dev):
    context = ssl.create_default_context(cafile=dev.info["ca_file"])
    url = f"wss://demo.cok.localhost:{dev.port}/socket"
    plain = socket.create_connection(("127.0.0.1", dev.port), timeout=20)
    with connect(url, ssl=context, sock=plain) as visitor:
        for message in ("hello", b"\0\1", "é" * 1000):
            visitor.send(message)
            assert visitor.recv(timeout=10) == message
    assert b"426" in dev.curl(f"{dev.info['url']}/socket", "--write-out", "%{http_code}")


def test_a_browser_shows_all_of_it(dev, browse, tmp_path):
    """Events, the echo and the upload work under the site's own policy."""
    file = tmp_path / "upload.txt"
    file.write_text("what is uploaded")
    driver = browse(dev.info["ca_file"])
    driver.get(dev.info["url"])
    wait = WebDriverWait(driver, 20)

    def at(name):
        return driver.find_element(By.ID, name)

    assert at("version").text == "HTTP/2"
    wait.until(lambda _: at("tick").text.isdigit())
    at("echo").find_element(By.TAG_NAME, "button").click()
    wait.until(lambda _: at("echoes").text.startswith("hello (back after "))
    at("upload").find_element(By.NAME, "file").send_keys(str(file))
    at("upload").find_element(By.TAG_NAME, "button").click()
    wait.until(lambda _: "16 bytes arrived in " in at("uploaded").text)
    severe = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


def test_dev_serves_a_folder(tmp_path):
    """A path, or a word that can be nothing else, names a folder."""
    site = tmp_path / "dist"
    site.mkdir()
    (site / "index.html").write_text("built")
    process = Dev(tmp_path / "dev", site)
    try:
        assert process.curl(process.info["url"]) == b"built"
    finally:
        process.stop()
    result = subprocess.run(
        [BIN_DIR / "cokd", "dev", "./none", "--state-dir", tmp_path / "dev"],
        capture_output=True, text=True, check=False, timeout=30, cwd=tmp_path,
    )
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and line.startswith("cokd: cannot serve the folder ./none: ")
