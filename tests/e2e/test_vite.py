"""Vite's development server behind a tunnel, with Chromium as its visitor. Its page gets news of edits over a WebSocket and
replaces modules without a reload."""

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from harness.node import node

PAGE = """<!doctype html><title>vite</title><p id=text></p><script type=module src=/main.js></script>"""
MAIN = """import { text } from "./text.js";
const show = value => { document.getElementById("text").textContent = value; };
show(text);
import.meta.hot.accept("./text.js", replaced => show(replaced.text));
import.meta.hot.on("vite:ws:connect", () => { window.connected = true; });
window.loads = (window.loads ?? 0) + 1;
"""


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "index.html").write_text(PAGE)
    (folder / "main.js").write_text(MAIN)
    (folder / "text.js").write_text('export const text = "before";\n')
    return folder


@pytest.fixture
def vite(site):
    process = node("vite_server.mjs", site)
    yield f"http://127.0.0.1:{process.wait_stdout()}"
    process.stop()


def test_an_edit_shows_without_a_reload(tunnel, vite, site, browse):
    client = tunnel(vite)
    daemon = client.daemon
    driver = browse(
        str(daemon.ca), "--disable-quic", f"--host-resolver-rules=MAP {client.host} {daemon.address}",
        # Chromium would send names of this domain to a proxy of the environment.
        "--no-proxy-server",
    )
    driver.get(daemon.url(client.name))
    wait = WebDriverWait(driver, 20, poll_frequency=0.05)
    wait.until(lambda d: d.execute_script("return document.getElementById('text').textContent") == "before")
    wait.until(lambda d: d.execute_script("return window.connected === true"))
    driver.execute_script("window.mark = 'the same page'")
    (site / "text.js").write_text('export const text = "after";\n')
    wait.until(lambda d: d.execute_script("return document.getElementById('text').textContent") == "after")
    assert driver.execute_script("return [window.mark, window.loads]") == ["the same page", 1]


def test_a_blocked_host_has_a_hint(tunnel, site):
    """Vite refuses hosts that it does not know. The client says once what to do, which then helps."""
    process = node("vite_server.mjs", site, "--strict")
    target = f"http://127.0.0.1:{process.wait_stdout()}"
    client = tunnel(target)
    for _ in range(2):
        assert b"Blocked request" in client.curl("/").stdout
    entry = client.process.wait_event("blocked_host")
    assert entry["message"].startswith(f"Vite refuses requests for the host {client.host}")
    assert "--host-header rewrite" in entry["message"]
    client.stop()
    assert "\n".join(client.process.lines).count('"blocked_host"') == 1
    rewriting = tunnel(target, options=("--host-header", "rewrite"))
    assert b"main.js" in rewriting.curl("/").stdout
    assert "blocked_host" not in rewriting.process.output()
    process.stop()
