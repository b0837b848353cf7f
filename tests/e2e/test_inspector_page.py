"""The inspector's page in a browser."""

import json
import os
from pathlib import Path

import pytest
from aiohttp import web
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from harness.inspector import field
from harness.websocket import WebSocket

PACKAGES = Path(os.environ.get("COK_NODE_MODULES", "target/test-node/node_modules"))
DEADLINE = 20
# The smallest image that every browser shows.
PIXEL = bytes.fromhex("474946383961010001008000000000000000ff21f90400000000002c00000000010001000002024401003b")


class Page:
    """The page of an inspector, opened by the address that a terminal shows."""

    def __init__(self, driver, inspector):
        self.driver, self.inspector = driver, inspector
        driver.get(inspector.secret_url)

    def until(self, condition, what):
        # The page may draw an element again meanwhile.
        wait = WebDriverWait(self.driver, DEADLINE, 0.05, [StaleElementReferenceException])
        return wait.until(lambda _: condition(), what)

    def find(self, identity):
        return self.driver.find_element(By.ID, identity)

    def rows(self):
        """The requests of the list, as a user reads them."""
        return self.driver.execute_script("return [...document.querySelectorAll('#rows button')].map(it => it.textContent)")

    def choose(self, text):
        """Chooses the newest request with this text, and waits for its details."""
        # In one step: a request that comes meanwhile moves the others down.
        find_and_click = """
            const row = [...document.querySelectorAll('#rows button')].find(it => it.textContent.includes(arguments[0]));
            row?.click();
            return row !== undefined;
        """
        self.until(lambda: self.driver.execute_script(find_and_click, text), f"{text} is in the list")
        self.until(lambda: text in self.find("title").text and self.find("chosen").is_displayed(), "its details show")

    def detail(self):
        return self.find("chosen").text

    def press(self, name):
        buttons = lambda: self.driver.find_elements(By.CSS_SELECTOR, "#chosen button")
        self.until(lambda: next((each for each in buttons() if each.text == name), None), f"the button {name} shows").click()

    def media(self, scheme, width=1280):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def axe(self):
        """Returns what axe finds, each with the elements that it is about."""
        self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": (PACKAGES / "axe-core/axe.min.js").read_text()})
        return self.driver.execute_async_script("""
            const done = arguments[arguments.length - 1];
            axe.run(document, { resultTypes: ['violations'] }).then(
                result => done(result.violations.map(({ id, help, nodes }) => [id, help, nodes.map(node => node.html)])),
                error => done([String(error)]));
        """)

    def complaints(self):
        """What the browser has logged, such as breaches of the page's policy."""
        return [entry["message"] for entry in self.driver.get_log("browser") if "favicon" not in entry["message"]]


@pytest.fixture
def page(browse, daemon):
    """Returns a function that opens the page of an inspector."""
    driver = browse(daemon.ca)
    return lambda inspector: Page(driver, inspector)


def test_requests_show_live_and_in_detail(inspected, services, page):
    """New ones come first without a reload. The token leaves the address bar at once."""
    client, inspector = inspected(services.web)
    shown = page(inspector)
    shown.until(lambda: "0 requests kept" in shown.find("state").text, "the list loads")
    assert inspector.token not in shown.driver.current_url
    client.curl("/echo?n=1", "--data", json.dumps({"a": 1}), "-H", "content-type: application/json", "-H", "Cookie: s=hidden")
    client.curl("/nothing")
    shown.until(lambda: shown.rows() == ["GET /nothing", "POST /echo?n=1"], "both show, the newest first")
    shown.choose("/echo")
    text = shown.detail()
    assert "Status\n200" in text and '"a": 1' in text and "HTTP/1.1" in text
    assert "hidden" not in text.replace("(hidden)", "") and "•••" in text
    shown.find("reveal").click()
    shown.until(lambda: "s=hidden" in shown.detail(), "secrets show on request")
    assert shown.complaints() == []


def test_filters_narrow_the_list(inspected, services, page):
    client, inspector = inspected(services.web)
    shown = page(inspector)
    for path in ("/echo", "/nothing", "/hash"):
        client.curl(path)
    shown.until(lambda: len(shown.rows()) == 3, "all show")
    status = shown.driver.find_element(By.NAME, "status")
    status.send_keys("4xx")
    shown.until(lambda: shown.rows() == ["GET /nothing"], "one is left")
    client.curl("/nothing?again")
    client.curl("/echo?again")
    shown.until(lambda: shown.rows() == ["GET /nothing?again", "GET /nothing"], "new ones are filtered as well")
    status.clear()
    status.send_keys("x")
    shown.until(lambda: "no status" in shown.find("alert").text, "a mistake is named")


def test_messages_appear_as_they_pass(inspected, services, page):
    client, inspector = inspected(services.ws)
    shown = page(inspector)
    with WebSocket(client.daemon, client.name, "/chat") as socket:
        socket.send("first message")
        socket.recv()
        shown.choose("/chat")
        shown.until(lambda: shown.detail().count("first message") == 2, "both directions show")
        socket.send("second message")
        socket.recv()
        shown.until(lambda: shown.detail().count("second message") == 2, "later ones come by themselves")
        assert "→ from the visitor" in shown.detail() and "websocket, open" in shown.find("rows").text
    shown.until(lambda: "code 1000" in shown.detail(), "the close shows")


def test_a_request_is_repeated_and_edited(inspected, services, page):
    client, inspector = inspected(services.web)
    shown = page(inspector)
    client.curl("/echo?token=s3cret", "--data", "the body", "-H", "Authorization: Bearer t0ken")
    shown.choose("/echo")
    shown.press("Repeat")
    shown.until(lambda: "Replay of" in shown.detail(), "the replay shows")
    inspector.ended("/echo", 2)
    shown.press("Edit and repeat")
    shown.until(lambda: shown.find("editor").get_attribute("open"), "the form shows")
    assert "t0ken" not in shown.driver.find_element(By.NAME, "fields").get_attribute("value")
    body = shown.find("edit").find_element(By.NAME, "body")
    assert body.get_attribute("value") == "the body"
    body.clear()
    body.send_keys("another body")
    shown.find("edit").find_element(By.NAME, "target").send_keys("&more=1")
    shown.find("edit").find_element(By.CSS_SELECTOR, "button[type=submit]").click()
    shown.until(lambda: "more=1" in shown.find("title").text and "another body" in shown.detail(), "the edited one shows")
    one = inspector.ended("/echo", 3)
    detail = inspector.detail(one["id"], reveal=True)
    assert detail["target"] == "/echo?token=s3cret&more=1"
    assert field(detail["request"]["fields"], "authorization") == ["Bearer t0ken"]
    assert field(detail["request"]["fields"], "content-length") == ["12"]
    assert inspector.body(one["id"]) == b"another body"


def test_images_show_and_scripts_stay_text(inspected, services, page, daemon):
    """An image of a raster type is shown from memory. An SVG with script is text, whatever its type says."""
    async def image(_request):
        return web.Response(body=PIXEL, content_type="image/gif")

    async def drawing(_request):
        return web.Response(body=b"<svg xmlns='http://www.w3.org/2000/svg' onload='window.ran=1'><script>window.ran=1</script></svg>",
                            content_type="image/svg+xml")

    async def start():
        app = web.Application()
        app.add_routes([web.get("/image", image), web.get("/drawing", drawing)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = services.call(start())
    try:
        client, inspector = inspected(f"http://127.0.0.1:{runner.addresses[0][1]}")
        shown = page(inspector)
        client.curl("/image")
        client.curl("/drawing")
        shown.choose("/image")
        picture = shown.until(lambda: shown.find("chosen").find_elements(By.TAG_NAME, "img"), "the image shows")[0]
        shown.until(lambda: picture.get_property("naturalWidth") == 1, "the image loads")
        shown.choose("/drawing")
        shown.until(lambda: "window.ran=1" in shown.detail(), "the drawing is text")
        assert not shown.find("chosen").find_elements(By.CSS_SELECTOR, "img, svg, script")
        assert shown.driver.execute_script("return window.ran") is None
        assert shown.complaints() == []
    finally:
        services.call(runner.cleanup())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_use_it(inspected, services, page, scheme, tmp_path):
    """axe finds nothing in either colour scheme, wide and narrow, in the list, in details and in the form."""
    client, inspector = inspected(services.web)
    client.curl("/echo?a=b", "--data", "user=ada&password=x")
    client.curl("/nothing")
    client.curl("/steps/never/0")
    shown = page(inspector)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for width in (1280, 360):
        shown.media(scheme, width)
        shown.until(lambda: len(shown.rows()) == 3, "the list shows")
        assert shown.axe() == [], (scheme, width, "list")
        shown.choose("/echo")
        assert shown.axe() == [], (scheme, width, "details")
        shown.driver.save_screenshot(str(pictures / f"{scheme}-{width}.png"))
        shown.press("Edit and repeat")
        shown.until(lambda: shown.find("editor").get_attribute("open"), "the form shows")
        assert shown.axe() == [], (scheme, width, "form")
        shown.driver.save_screenshot(str(pictures / f"{scheme}-{width}-form.png"))
        shown.find("cancel").click()
        assert shown.driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert len(list(pictures.iterdir())) == 4


def test_the_keyboard_is_enough(inspected, services, page):
    """The arrows move through the list, a slash goes to the filters, and letters act on the chosen request."""
    client, inspector = inspected(services.web)
    for number in range(3):
        client.curl(f"/echo?n={number}")
    shown = page(inspector)
    shown.until(lambda: len(shown.rows()) == 3, "the list shows")

    def press(*keys):
        shown.driver.switch_to.active_element.send_keys(*keys)

    press(Keys.ARROW_DOWN)
    shown.until(lambda: "n=2" in shown.find("title").text, "the first is chosen")
    press(Keys.ARROW_DOWN)
    shown.until(lambda: "n=1" in shown.find("title").text, "the second is chosen")
    press("r")
    shown.until(lambda: len(shown.rows()) == 4, "it is repeated")
    press("/")
    assert shown.driver.switch_to.active_element.get_attribute("name") == "path"
    press("n0thing", Keys.ESCAPE)
    shown.until(lambda: shown.rows() == [], "the filter counts")


def test_without_the_token_the_page_shows_nothing(inspected, services, page):
    """It asks for it. A wrong one does not help; the right one does, also pasted as the whole address."""
    client, inspector = inspected(services.web)
    client.curl("/echo")
    shown = page(inspector)
    shown.until(lambda: len(shown.rows()) == 1, "the list shows")
    shown.driver.execute_script("sessionStorage.clear()")
    shown.driver.get(inspector.url)
    shown.until(lambda: shown.find("locked").get_attribute("open"), "it asks for the token")
    assert shown.rows() == []
    for token in ("wrong", inspector.secret_url):
        box = shown.driver.find_element(By.NAME, "token")
        box.clear()
        box.send_keys(token, Keys.ENTER)
        if token == "wrong":
            shown.until(lambda: shown.find("locked").get_attribute("open"), "it asks again")
    shown.until(lambda: len(shown.rows()) == 1, "the list shows again")


def test_what_was_not_captured_is_said(inspected, services, page, tmp_path):
    client, inspector = inspected(services.web)
    body = tmp_path / "body"
    body.write_bytes(os.urandom(17 << 20))
    client.curl("/swallow", "-T", body)
    shown = page(inspector)
    shown.choose("/swallow")
    shown.until(lambda: "longer than what is captured" in shown.detail(), "the cut is said")
    assert "not captured whole" in shown.find("rows").text
