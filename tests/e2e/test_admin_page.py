"""The admin page in Chromium: it shows tunnels live, acts only with the token, and is usable by everyone."""

import json
import subprocess

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from harness.admin import TOKEN, Admin, token_file
from harness.keys import Keys as ApiKeys
from harness.node import PACKAGES
from harness.process import wait_for
from harness.small_client import SmallClient

HOSTILE = "<img src=x onerror=window.pwned=1>"


@pytest.fixture
def operated(own_daemon, tmp_path):
    """A daemon whose admin address has a token."""
    return own_daemon(more=token_file(tmp_path))


class Page:
    """The page in a browser."""

    def __init__(self, driver, daemon):
        self.driver, self.daemon = driver, daemon
        driver.get(f"http://{daemon.admin}/")
        self.until(lambda: self.text("link") == "live", "the page listens")

    def until(self, condition, what):
        return wait_for(condition, what)

    def find(self, id):
        return self.driver.find_element(By.ID, id)

    def text(self, id):
        return self.driver.execute_script("return document.getElementById(arguments[0]).textContent", id)

    def rows(self):
        """Returns the texts of the cells of all tunnels."""
        return self.driver.execute_script(
            "return [...document.querySelectorAll('#rows tr')].map(row => [...row.cells].map(cell => cell.textContent))"
        )

    def names(self):
        return [row[0] for row in self.rows() if len(row) > 1]

    def row(self, name):
        return next((row for row in self.rows() if row[0] == name), None)

    def click(self, id):
        self.find(id).click()

    def unlock(self, token=TOKEN):
        self.find("token").send_keys(token, Keys.ENTER)

    def details(self, name):
        self.driver.find_element(By.CSS_SELECTOR, f'button[aria-label="Details of {name}"]').click()

    def complaints(self):
        """Returns what the browser's console has, such as violations of the policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def media(self, scheme, width=1280, height=1500):
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def axe(self):
        """Returns what axe finds, each with the elements that it is about."""
        self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": (PACKAGES / "axe-core/axe.min.js").read_text()})
        found = self.driver.execute_async_script("""
            const done = arguments[arguments.length - 1];
            axe.run(document, { resultTypes: ['violations'] }).then(
                result => done(result.violations.map(({ id, help, nodes }) => [id, help, nodes.map(node => node.html)])),
                error => done([String(error)]));
        """)
        return found


@pytest.fixture
def page(operated, browse):
    """The page of a daemon with a token."""
    return Page(browse(operated.ca), operated)


def test_tunnels_show_live(page, operated, services):
    """They come, count and go without a reload, and without the whole list being fetched again."""
    assert "No tunnels yet" in page.rows()[0][0]
    client = operated.client(services.web, "demo")
    page.until(lambda: page.row("demo"), "the tunnel shows")
    assert page.row("demo")[1:5] == ["online", "test", page.row("demo")[3], "ws"]
    assert page.row("demo")[3].startswith("127.0.0.1 · ")
    assert page.find("now-tunnels").text == "1"
    fetched = "return performance.getEntriesByType('resource').filter(e => e.name.endsWith('/tunnels')).length"
    before = page.driver.execute_script(fetched)
    for _ in range(3):
        client.curl("/echo", "--data-binary", "x" * 2000)
    page.until(lambda: page.row("demo")[7] == "3" and page.row("demo")[9] == "6 kB", "the requests show")
    assert page.row("demo")[6] != "0" and page.text("now-rate") != "0"
    client.stop()
    page.until(lambda: page.row("demo")[1] == "away", "the end shows")
    assert page.driver.execute_script(fetched) == before
    assert page.text("news") == "demo is away"
    assert page.complaints() == []


def test_the_table_sorts_and_filters(page, operated, nginx):
    """A click on a heading sorts by it, and the filter leaves what matches."""
    clients = [operated.client(nginx.target, name) for name in ("beta", "alpha", "gamma")]
    for _ in range(3):
        clients[2].curl("/")
    page.until(lambda: len(page.names()) == 3, "all show")
    assert page.names() == ["alpha", "beta", "gamma"]
    head = page.driver.find_elements(By.CSS_SELECTOR, "#columns button")
    head[0].click()
    assert page.names() == ["gamma", "beta", "alpha"]
    assert head[0].find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    head[7].click()
    page.until(lambda: page.names()[0] == "gamma", "the busiest is first")
    assert head[0].find_element(By.XPATH, "..").get_attribute("aria-sort") is None
    page.find("filter").send_keys("ALPH")
    page.until(lambda: page.names() == ["alpha"], "the filter has an effect")
    assert page.text("shown") == "1 of 3"
    page.find("filter").send_keys("x")
    page.until(lambda: "No tunnel matches" in page.rows()[0][0], "nothing matches")
    for client in clients:
        client.stop()


def test_actions_need_the_token(page, operated, nginx):
    """Nothing ends without it. It stays in the tab alone, and a wrong one is refused."""
    client = operated.client(nginx.target, "demo")
    admin = Admin(operated, TOKEN)
    before = admin.tunnel("demo")["session"]
    page.until(lambda: page.row("demo"), "the tunnel shows")

    def end_session():
        page.details("demo")
        page.click("details-end")
        page.until(lambda: page.find("confirm").get_attribute("open"), "it asks")
        page.click("confirm-yes")

    end_session()
    page.until(lambda: page.text("token-says") == "Actions need the admin token.", "it says what is missing")
    assert page.driver.switch_to.active_element.get_attribute("id") == "token"
    page.unlock("not-the-token-of-the-suite")
    page.until(lambda: page.text("token-says") == "That is not the token.", "the token is refused")
    assert not page.find("keys-scroll").is_displayed() and admin.tunnel("demo")["session"] == before
    page.unlock()
    page.until(lambda: page.find("keys-scroll").is_displayed(), "the keys show")
    # A reload of the tab keeps it. Nothing else does.
    page.driver.refresh()
    page.until(lambda: page.find("keys-scroll").is_displayed() and page.row("demo"), "the keys show again")
    kept = page.driver.execute_script("return [sessionStorage.length, localStorage.length, document.cookie, location.href]")
    assert kept == [1, 0, "", f"http://{operated.admin}/"]
    page.details("demo")
    page.click("details-end")
    page.click("confirm-no")
    assert admin.tunnel("demo")["session"] == before
    page.click("details-close")
    end_session()
    page.until(lambda: admin.tunnel("demo")["session"] not in (None, before), "the client has a new session")
    page.until(lambda: page.text("news") == "The session of demo was ended.", "it says so")
    page.click("token-button")
    assert not page.find("keys-scroll").is_displayed()
    assert page.driver.execute_script("return sessionStorage.length") == 0
    # The refusal of the wrong token is in the console.
    assert all("401" in complaint for complaint in page.complaints())
    client.stop()


def test_keys_are_revoked_and_the_daemon_stops(page, operated, nginx):
    """A revoked key's tunnels end, and the last button stops the daemon, each after a yes."""
    keys = ApiKeys(operated)
    secret = keys.create("laptop")
    client = operated.client(nginx.target, "demo", key=secret)
    page.until(lambda: page.row("demo"), "the tunnel shows")
    page.unlock()
    page.until(lambda: page.find("keys-scroll").is_displayed(), "the keys show")
    # Keys of the configuration are changed there.
    assert page.driver.find_elements(By.CSS_SELECTOR, '[aria-label="Revoke test"]') == []
    page.driver.find_element(By.CSS_SELECTOR, '[aria-label="Revoke laptop"]').click()
    assert page.find("confirm-title").text == "Revoke the key laptop?"
    page.click("confirm-yes")
    page.until(lambda: keys.show("laptop")["state"] == "revoked", "the key is revoked")
    page.until(lambda: page.row("demo")[1] == "closed", "its tunnel has ended")
    client.process.wait_exit()
    assert not page.find("renew").is_displayed(), "only ACME renews"
    page.click("drain")
    page.click("confirm-yes")
    operated.process.wait_exit()
    page.until(lambda: page.text("link") == "reconnecting", "the page notices")


def test_a_restart_of_the_daemon_is_survived(page, operated, nginx):
    """The page listens again by itself, and fetches what it missed."""
    operated.config.write_text(operated.config.read_text().replace('admin = "127.0.0.1:0"', f'admin = "{operated.admin}"'))
    operated.stop()
    page.until(lambda: page.text("link") == "reconnecting", "the page notices")
    operated.start()
    client = operated.client(nginx.target, "after")
    page.until(lambda: page.text("link") == "live" and page.row("after"), "the page is back")
    client.stop()


def test_what_others_say_is_text(own_daemon, browse, services, tmp_path):
    """Names of keys and versions of clients that are markup show as text, in the table, in dialogs and messages."""
    keys = f"""
[[keys]]
name = {json.dumps(HOSTILE)}
secret_sha256 = "{"a" * 64}"
"""
    daemon = own_daemon(keys=keys, more=token_file(tmp_path))
    ApiKeys(daemon).create(HOSTILE + "2")
    host, _, port = services.web.rpartition(":")
    client = SmallClient(daemon, "ws", (host, int(port)), subdomain="demo", version=HOSTILE + "\u202e\n\x1b")
    page = Page(browse(daemon.ca), daemon)
    page.unlock()
    page.until(lambda: HOSTILE in page.text("keys") and page.row("demo"), "both show")
    assert HOSTILE in page.row("demo")[3]
    page.details("demo")
    assert HOSTILE in page.text("details-facts")
    page.click("details-close")
    page.driver.find_element(By.XPATH, f'//*[@id="keys"]//tr[contains(., "{HOSTILE}2")]//button').click()
    assert page.text("confirm-title") == f"Revoke the key {HOSTILE}2?"
    page.click("confirm-yes")
    page.until(lambda: HOSTILE in page.text("news"), "the message shows")
    assert page.driver.execute_script("return [window.pwned ?? null, document.querySelectorAll('main img, dialog img').length]") == [None, 0]
    assert page.complaints() == []
    client.stop()


def test_the_policy_is_strict(operated, browse):
    """No script of a text runs, nothing loads from elsewhere, and no other page may frame it."""
    head = subprocess.run(
        ["curl", "-sS", "--include", f"http://{operated.admin}/"], capture_output=True, text=True, check=True, timeout=30
    ).stdout.lower()
    policy = next(line for line in head.splitlines() if line.startswith("content-security-policy:"))
    for part in ("default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy
    assert "unsafe" not in policy and "x-content-type-options: nosniff" in head and "referrer-policy: no-referrer" in head
    page = Page(browse(operated.ca), operated)
    tried = page.driver.execute_async_script("""
        const done = arguments[arguments.length - 1];
        const script = document.createElement('script');
        let refused = 0;
        try { document.body.innerHTML = '<b>x</b>'; } catch { refused += 1; }
        try { script.text = 'window.pwned = 1'; document.body.append(script); } catch { refused += 1; }
        fetch('http://127.0.0.1:1/').catch(() => done([refused, window.pwned ?? null]));
    """)
    assert tried == [2, None]
    assert any("violates" in complaint for complaint in page.complaints())


def loaded(operated, services):
    """Opens tunnels with some traffic."""
    clients = [operated.client(services.web, name, transport=transport) for name, transport in
               [("storefront", "quic"), ("webhooks", "ws"), ("a-preview-of-a-branch-with-a-long-name", "quic")]]
    for count, client in enumerate(clients):
        for _ in range(4 * count + 2):
            client.curl("/echo", "--data-binary", "x" * 20_000)
    clients[-1].stop()
    return clients


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_use_it(page, operated, services, scheme, tmp_path):
    """axe finds nothing in either colour scheme, wide and narrow, with dialogs and without; nothing is wider than a phone."""
    loaded(operated, services)
    page.media(scheme)
    page.unlock()
    page.until(lambda: page.find("keys-scroll").is_displayed(), "the keys show")
    page.until(lambda: len(page.names()) == 3, "the tunnels show")
    page.until(lambda: "latest" in page.driver.find_element(By.CSS_SELECTOR, ".plot .at").text, "the first point is there")
    page.driver.execute_script("document.querySelector('details').open = true")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for width in (1280, 360):
        page.media(scheme, width)
        time_of_layout = "return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
        page.driver.execute_script(time_of_layout)
        assert page.axe() == [], (scheme, width)
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
        page.driver.save_screenshot(str(pictures / f"{scheme}-{width}.png"))
        page.details("storefront")
        assert page.axe() == [], (scheme, width, "details")
        page.driver.save_screenshot(str(pictures / f"{scheme}-{width}-details.png"))
        page.click("details-end")
        page.until(lambda: page.find("confirm").get_attribute("open"), "it asks")
        assert page.axe() == [], (scheme, width, "confirm")
        page.driver.save_screenshot(str(pictures / f"{scheme}-{width}-confirm.png"))
        page.click("confirm-no")
        page.click("details-close")
    assert len(list(pictures.iterdir())) == 6


def test_the_keyboard_is_enough(page, operated, nginx):
    """Tab, Enter and Escape reach and undo everything, and focus returns to where it was."""
    client = operated.client(nginx.target, "demo")
    page.until(lambda: page.row("demo"), "the tunnel shows")
    body = page.driver.find_element(By.TAG_NAME, "body")
    active = lambda: page.driver.switch_to.active_element

    def tab_to(matches, most=40):
        for _ in range(most):
            active().send_keys(Keys.TAB)
            if matches(active()):
                return active()
        raise AssertionError("not reached by Tab")

    body.send_keys(Keys.TAB)
    assert active().text == "Skip to the tunnels" and active().rect["y"] >= 0
    active().send_keys(Keys.ENTER)
    tab_to(lambda element: element.get_attribute("id") == "filter", 1)
    tab_to(lambda element: element.text == "Name").send_keys(Keys.ENTER)
    assert active().find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    button = tab_to(lambda element: element.get_attribute("aria-label") == "Details of demo")
    outline = page.driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", button)
    assert outline == "solid"
    button.send_keys(Keys.ENTER)
    page.until(lambda: page.find("details").get_attribute("open"), "the details show")
    active().send_keys(Keys.ESCAPE)
    page.until(lambda: not page.find("details").get_attribute("open"), "the details are closed")
    assert active().get_attribute("aria-label") == "Details of demo"
    # A redrawing keeps the focus.
    client.curl("/")
    page.until(lambda: page.row("demo")[7] == "1", "the request shows")
    assert active().get_attribute("aria-label") == "Details of demo"
    client.stop()
