"""What visitors and services send stays inert on the inspector's page. Chromium runs none of it and fetches none of it."""

import json
import socket
import threading
from contextlib import contextmanager

import pytest
from aiohttp import web
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from harness.inspector import ON, Inspector
from harness.process import wait_for
from harness.websocket import WebSocket

# Runs before the page: it notes scripts that run, and whatever the page's policy had to stop.
WATCH = """
window.ran = [];
window.stopped = [];
window.pwned = place => window.ran.push(place);
window.alert = window.confirm = window.prompt = place => window.ran.push(place);
document.addEventListener('securitypolicyviolation', event => window.stopped.push(event.violatedDirective + ' ' + event.sample));
"""
# Finds elements and attributes that the page's own markup does not have.
FOREIGN = """
const names = ['script:not(:last-of-type)', 'svg', 'iframe', 'object', 'embed', 'a', 'link', 'base', 'math', 'video', 'audio',
  'template', 'style:not(:first-of-type)', 'meta[http-equiv]', 'img:not([src^="blob:"])'];
const foreign = names.flatMap(name => [...document.querySelectorAll(name)]);
const events = [...document.querySelectorAll('*')].filter(one => [...one.attributes].some(it => it.name.startsWith('on')));
return [...foreign, ...events].map(one => one.outerHTML.slice(0, 200));
"""


@contextmanager
def listener():
    """Accepts connections. Yields its port and the list of what came."""
    heads = []

    def accept(server):
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                heads.append(connection.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, args=(server,))
        thread.start()
        try:
            yield server.getsockname()[1], heads
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def hostile_service(services, payload):
    """A service whose answers hold scripts wherever HTTP has a place for text. Yields its address."""
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' onload='pwned(1)'><script>pwned(1)</script><text>{payload('svg')}</text></svg>"

    def answer(body, content_type="text/plain", **fields):
        fields = {name.replace("_", "-"): text for name, text in fields.items()}

        async def handle(request):
            await request.read()
            text = body.encode() if isinstance(body, str) else body
            return web.Response(body=text, headers={"content-type": content_type, **fields}, reason=payload("reason"))

        return handle

    async def events(request):
        await request.read()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        text = f": {payload('comment')}\n\nevent: {payload('event')}\nid: {payload('id')}\ndata: {payload('data')}\n\n"
        await response.write(text.encode())
        return response

    async def chat(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(payload("answer") + message.data)
            await socket.close(code=4000, message=f"<script>pwned('close')</script>{'x' * 60}".encode())
        return socket

    name = payload("part").replace('"', '\\"')
    form = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="<script>pwned(1)</script>.svg"\r\n' \
           f'Content-Type: image/svg+xml\r\nX-Field: {payload("part-field")}\r\n\r\n{svg}\r\n--b--'
    routes = {
        "/html": answer(f"<!doctype html><title>x</title>{payload('html')}", "text/html"),
        "/svg": answer(svg, "image/svg+xml"),
        "/svg-as-png": answer(svg, "image/png"),
        "/json": answer(json.dumps({payload("name"): payload("value")}), "application/json"),
        "/form": answer(f"{payload('form')}=a&b={payload('form-value')}", "application/x-www-form-urlencoded"),
        "/parts": answer(form, "multipart/form-data; boundary=b"),
        "/binary": answer(b"\0\1" + payload("binary").encode(), "application/octet-stream"),
        "/field": answer("x", **{"x-field": payload("field"), "location": f"javascript:pwned(1)//{payload('location')}"}),
        "/type": answer("x", f"text/html;charset=\"{payload('charset')}\""),
        "/coding": answer("x", content_encoding=payload("coding").replace(",", "")),
        "/events": events,
        "/chat": chat,
    }

    async def start():
        app = web.Application()
        for path, handle in routes.items():
            app.router.add_route("*", path, handle)
        runner = web.AppRunner(app, access_log=None, max_field_size=65536, max_line_size=65536)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    runner, port = services.call(start())
    try:
        yield f"http://127.0.0.1:{port}", list(routes)
    finally:
        services.call(runner.cleanup())


def watched(browse, client):
    """Starts a browser that notes what runs in its pages."""
    driver = browse(client.daemon.ca)
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    return driver


def test_nothing_that_was_captured_runs(tunnel, services, browse):
    """Scripts stand in paths, fields, bodies, forms, events, messages and reasons. Each is shown as text and does nothing."""
    with listener() as (canary, fetched):

        def payload(place):
            return (
                f"\"'><img src=http://127.0.0.1:{canary}/{place} onerror=pwned(1)><script>pwned('{place}')</script>"
                f"<svg onload=pwned(1)></svg><iframe src=\"javascript:parent.pwned(1)\"></iframe>[{place}]"
            )

        with hostile_service(services, payload) as (target, paths):
            client = tunnel(target, options=ON)
            inspector = Inspector(client)
            for path in paths:
                if path == "/chat":
                    continue
                client.curl(
                    f"{path}?q=<script>pwned('query')</script>", "--globoff", "-H", f"X-Hostile: {payload('request-field')}",
                    "-H", f"Cookie: <script>={payload('cookie')}", "-H", f"Referer: javascript:{payload('referer')}",
                    "--data-binary", payload("request-body"), check=False,
                )
            with WebSocket(client.daemon, client.name, "/chat") as chat:
                chat.send(payload("message"))
                chat.recv()
            for path in paths:
                inspector.ended(path)
            driver = watched(browse, client)
            driver.get(inspector.secret_url)
            wait = WebDriverWait(driver, 30)
            wait.until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "#rows tr")) == len(paths))
            # Names of form fields and parameters that no one calls secret are shown whole.
            expected = {
                "/html": ["html"], "/svg": ["svg"], "/json": ["name", "value"], "/form": ["form", "form-value"],
                "/parts": ["part", "svg"], "/field": ["field", "location"], "/type": ["charset"],
                "/coding": ["coding"], "/events": ["comment", "event", "id", "data"], "/chat": ["message", "answer"],
                "/svg-as-png": ["svg"], "/binary": [],
            }
            driver.find_element(By.ID, "reveal").click()
            wait.until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "#rows tr")) == len(paths))
            for path in paths:
                number = inspector.ended(path)["id"]
                driver.execute_script("document.querySelector(`#row-${arguments[0]} button`).click()", number)
                places = expected[path] + ([] if path == "/chat" else ["request-field", "request-body", "cookie", "referer"])
                text = lambda d: d.execute_script("return document.getElementById('detail').textContent")  # noqa: E731
                missing = lambda d: [place for place in places if f"[{place}]" not in text(d)]  # noqa: E731
                try:
                    wait.until(lambda d: path in d.find_element(By.ID, "title").text and not missing(d))
                except TimeoutException:
                    pytest.fail(f"{path} lacks {missing(driver)}")
                assert path == "/chat" or "pwned('query')" in driver.find_element(By.ID, "title").text
                assert driver.execute_script(FOREIGN) == []
            # The editor holds the same texts as values.
            number = inspector.ended("/html")["id"]
            driver.execute_script("document.querySelector(`#row-${arguments[0]} button`).click()", number)
            wait.until(lambda d: "/html" in d.find_element(By.ID, "title").text)
            next(it for it in driver.find_elements(By.CSS_SELECTOR, "#chosen button") if it.text == "Edit and repeat").click()
            wait.until(lambda d: d.execute_script("return document.getElementById('editor').open"))
            assert payload("request-field") in driver.execute_script("return document.querySelector('[name=fields]').value")
            # A filter that finds nothing, and an error message with a script.
            driver.execute_script("document.getElementById('editor').close()")
            box = driver.find_element(By.CSS_SELECTOR, "#filter [name=status]")
            box.send_keys("<script>pwned(1)</script>")
            wait.until(lambda d: "pwned(1)" in d.find_element(By.ID, "alert").text)
            assert driver.execute_script("return [ran, stopped]") == [[], []]
            assert driver.execute_script(FOREIGN) == []
            assert fetched == []
            # The watch itself works.
            driver.execute_script("pwned('watch'); document.body.append(document.createElement('iframe'))")
            assert driver.execute_script("return ran") == ["watch"] and len(driver.execute_script(FOREIGN)) == 1


def test_captured_bytes_are_no_page_of_their_own(tunnel, services):
    """A browser that opens a captured body neither shows nor runs it."""
    with hostile_service(services, lambda place: f"<script>pwned('{place}')</script>") as (target, _):
        client = tunnel(target, options=ON)
        inspector = Inspector(client)
        client.curl("/html")
        number = inspector.ended("/html")["id"]
        for part in ("response/body", "response/body?decoded", "response/shown", "messages", "har", "curl", ""):
            with inspector.open(f"/api/v1/requests/{number}/{part}".rstrip("/")) as answer:
                assert answer.status == 200, part
                fields = answer.headers
            assert fields["content-type"].split(";")[0] in ("application/octet-stream", "application/json", "text/plain"), part
            assert fields["x-content-type-options"] == "nosniff" and fields["cache-control"] == "no-store"
            assert "sandbox" in fields["content-security-policy"] and "default-src 'none'" in fields["content-security-policy"]
            assert fields["access-control-allow-origin"] is None


def test_other_pages_of_this_machine_get_nothing(tunnel, services, browse):
    """A page of another port knows the token, and still gets no answer and sends no replay. Nor does a frame show anything."""

    async def page(_request):
        return web.Response(text="<!doctype html><title>other</title>", content_type="text/html")

    async def start():
        app = web.Application()
        app.router.add_get("/", page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    client = tunnel(services.web, options=ON)
    inspector = Inspector(client)
    client.curl("/echo")
    number = inspector.ended("/echo")["id"]
    runner, port = services.call(start())
    try:
        driver = browse(client.daemon.ca)
        driver.get(f"http://127.0.0.1:{port}/")
        asked = driver.execute_async_script("""
            const [url, token, number, done] = arguments;
            const tries = [
              ['/api/v1/requests', {headers: {Authorization: 'Bearer ' + token}}],
              ['/api/v1/requests', {}],
              [`/api/v1/requests/${number}/replay`, {method: 'POST', mode: 'no-cors', body: '{}'}],
              [`/api/v1/requests/${number}/replay`, {method: 'POST', headers: {Authorization: 'Bearer ' + token}}],
            ];
            Promise.all(tries.map(([path, options]) => fetch(url + path, options).then(it => it.type + ' ' + it.status, () => 'failed')))
              .then(done);
        """, inspector.url, inspector.token, number)
        assert asked == ["failed", "failed", "opaque 0", "failed"] or asked == ["failed"] * 4, asked
        assert len(inspector.list()) == 1, "nothing was repeated"
        framed = driver.execute_async_script("""
            const [url, done] = arguments;
            const frame = document.createElement('iframe');
            frame.onload = () => { try { done(frame.contentDocument ? 'open' : 'closed'); } catch { done('closed'); } };
            frame.src = url;
            document.body.append(frame);
        """, inspector.secret_url)
        assert framed == "closed"
    finally:
        services.call(runner.cleanup())


def test_a_name_that_resolves_here_is_refused(tunnel, services, browse):
    """DNS rebinding: a site's name leads to this machine. Chromium gets an error in place of the page and the interface."""
    client = tunnel(services.web, options=ON)
    inspector = Inspector(client)
    driver = browse(client.daemon.ca, "--host-resolver-rules=MAP rebound.test 127.0.0.1")
    driver.get(f"http://rebound.test:{inspector.port}/")
    assert "answers only under a loopback name" in driver.page_source
    answer = driver.execute_async_script("""
        const [token, done] = arguments;
        fetch('/api/v1/requests', {headers: {Authorization: 'Bearer ' + token}}).then(it => done(it.status), error => done(String(error)));
    """, inspector.token)
    # Even the refusal has a policy that keeps its scripts from asking.
    assert answer == "TypeError: Failed to fetch"


@pytest.mark.parametrize("size", [40_000])
def test_large_heads_are_shown_and_pass(tunnel, services, size):
    """A field and a target that nearly fill the limit pass, and are captured whole."""
    client = tunnel(services.web, options=ON)
    inspector = Inspector(client)
    assert client.curl("/echo", "-H", f"X-Large: {'x' * size}", "--data", "body").stdout == b"body"
    one = inspector.ended("/echo")
    large = next(field for field in one["request"]["fields"] if field["name"] == "x-large")
    assert large["value"] == "x" * size
    assert client.curl(f"/echo?{'y' * 5000}", "--data", "body").stdout == b"body"
    wait_for(lambda: any(line["target"].endswith("y" * 5000) for line in inspector.list()), "the long target is listed")
