"""Error pages in a browser: they fit light and dark, and load again by themselves when they may."""

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from harness.process import end

COLOURS = """
    const style = getComputedStyle(document.body);
    return [style.color, style.backgroundColor].map(text => {
        const parts = text.match(/[0-9.]+/g).slice(0, 3).map(Number);
        return parts.reduce((sum, part) => sum + part) / 3;
    });
"""


@pytest.fixture
def visitor(browse):
    """Returns a browser that finds the names of a daemon."""

    def start(daemon):
        return browse(
            str(daemon.ca), "--disable-quic", f"--host-resolver-rules=MAP *.test {daemon.address}", "--no-proxy-server"
        )

    return start


def test_a_page_fits_light_and_dark(daemon, visitor):
    driver = visitor(daemon)
    driver.get(daemon.url("nobody-here"))
    assert driver.find_element("tag name", "h1").text == "No such tunnel"
    assert driver.find_element("tag name", "code").text == daemon.host("nobody-here")
    for scheme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        ink, paper = driver.execute_script(COLOURS)
        # The style is the page's own, so its policy lets it apply.
        assert (ink < 60 and paper > 200) if scheme == "light" else (ink > 200 and paper < 60), (scheme, ink, paper)


def test_a_page_loads_again_by_itself(own_daemon, nginx, visitor):
    """Once others leave room, the browser has the service without its user's help."""
    daemon = own_daemon(more='[rates]\nrequests_per_tunnel = "1/s burst 1"')
    client = daemon.client(nginx.target, "limited")
    driver = visitor(daemon)
    wait = WebDriverWait(driver, 60, poll_frequency=0.05)

    def is_refused(driver):
        driver.get(daemon.url("limited"))
        return driver.title == "Too many requests"

    others = daemon.start_curl("limited", "/?[1-1000000]", "--output", "/dev/null")
    try:
        wait.until(is_refused)
    finally:
        end(others)
    wait.until(lambda driver: "hello" in driver.page_source)
    client.stop()
