"""Chromium, which trusts the authority of `cokd dev`, shows a page with images and uses a WebSocket."""

import struct
import subprocess
import urllib.parse
import zlib

import pytest
from aiohttp import web
from selenium.webdriver.support.ui import WebDriverWait

from harness.cok import Dev
from harness.page import websocket_page

PICTURES = "<img id=a src=/a.png><img id=b src=/b.png>"


def png(width, height):
    """A grey picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture
def service(services):
    """A page, two pictures and a WebSocket on one port."""
    async def picture(request):
        side = 40 if request.path == "/a.png" else 70
        return web.Response(body=png(side, side), content_type="image/png")

    with websocket_page(services, "site", PICTURES, [web.get("/{name}.png", picture)]) as port:
        yield port


@pytest.fixture
def dev(tmp_path):
    """Starts `cokd dev`."""
    running = []

    def start(*arguments):
        running.append(Dev(tmp_path / "dev", *arguments))
        return running[-1].info

    yield start
    for process in running:
        process.stop()


def test_a_page_with_images_and_a_websocket(dev, service, browse):
    info = dev(str(service))
    driver = browse(info["ca_file"])
    driver.get(info["url"])
    wait = WebDriverWait(driver, 20)
    assert driver.title == "site"
    wait.until(lambda d: d.execute_script("return [a.naturalWidth, b.naturalWidth]") == [40, 70])
    wait.until(lambda d: d.execute_script("return answers") == ["echo from the page"])
    protocols = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.nextHopProtocol)")
    assert set(protocols) == {"h2"}


def protocols(driver):
    """Returns the HTTP versions of the page and of its pictures."""
    return driver.execute_script("""
        const of = kind => performance.getEntriesByType(kind);
        const pictures = of('resource').filter(entry => entry.name.endsWith('.png'));
        return [...of('navigation'), ...pictures].map(entry => entry.nextHopProtocol);
    """)


def test_a_page_over_http3(dev, service, browse):
    """A flag forces QUIC for the host, so that even the first request goes over it. Only with this flag does Chromium trust
    an added authority over QUIC."""
    info = dev(str(service))
    site = urllib.parse.urlsplit(info["url"])
    driver = browse(
        info["ca_file"], "--enable-quic", f"--origin-to-force-quic-on={site.netloc}",
        # By default Chromium tries only ::1, where the daemon does not listen.
        f"--host-resolver-rules=MAP {site.hostname} 127.0.0.1",
    )
    driver.get(info["url"])
    wait = WebDriverWait(driver, 20)
    assert driver.title == "site"
    wait.until(lambda d: d.execute_script("return [a.naturalWidth, b.naturalWidth]") == [40, 70])
    assert protocols(driver) == ["h3"] * 3
    # The WebSocket goes over TCP.
    wait.until(lambda d: d.execute_script("return answers") == ["echo from the page"])


def test_the_sample_site(dev, browse):
    """Without a target, dev serves a page with a picture and a stream of events."""
    info = dev()
    driver = browse(info["ca_file"])
    driver.get(info["url"])
    wait = WebDriverWait(driver, 20)
    wait.until(lambda d: d.execute_script("return document.images[0].naturalWidth") > 0)
    wait.until(lambda d: d.execute_script("return document.getElementById('tick').textContent") in ("1", "2", "3"))


def test_the_certificate_is_really_checked(dev, browse, tmp_path):
    """The other tests prove little if this browser accepts any certificate."""
    info = dev()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=another", "-days", "1",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "another.pem"],
        check=True, capture_output=True,
    )
    driver = browse(str(tmp_path / "another.pem"))
    driver.get(info["url"])
    assert driver.title == "Privacy error" and "ERR_CERT_AUTHORITY_INVALID" in driver.page_source
