"""An HTTPS proxy between the daemon and pebble. It adds renewal information and profiles, which pebble lacks. It records
requests and injects the faults of servers and networks."""

import asyncio
import datetime
import json
import ssl
import threading

import aiohttp
from aiohttp import web

from .acme_account import decode
from .loop import Loop

# The steps of an order in sequence, and pebble's path of each.
STEPS = {
    "directory": "/dir",
    "nonce": "/nonce-plz",
    "account": "/sign-me-up",
    "order": "/order-plz",
    "authorization": "/authZ/",
    "challenge": "/chalZ/",
    "finalize": "/finalize-order/",
    "poll": "/my-order/",
    "certificate": "/certZ/",
}
PROBLEM = "urn:ietf:params:acme:error:"
WINDOW_PATH = "/renewal-info"


def step_of(path):
    if path.startswith(WINDOW_PATH):
        return "window"
    return next((step for step, prefix in STEPS.items() if path.startswith(prefix)), None)


def cut(request):
    """Closes the connection without a response."""
    request.transport.abort()
    return web.Response()


def answer(status, problem=None, retry_after=None, text=None, **more):
    """Returns a fault that answers in pebble's place: a problem document (RFC 7807) with `more` members, or `text`."""
    headers = {"retry-after": str(retry_after)} if retry_after is not None else {}

    def respond(_request):
        if problem is None:
            return web.Response(status=status, text=text or "", headers=headers, content_type="text/html")
        body = {"type": PROBLEM + problem, "detail": f"{problem}, says the test", "status": status, **more}
        return web.Response(
            status=status, body=json.dumps(body), headers=headers, content_type="application/problem+json"
        )

    return respond


def malformed(_request):
    """Answers with truncated JSON."""
    return web.Response(text='{"status": "pend', content_type="application/json")


class AcmeProxy(Loop):
    """Stands in front of `pebble`. `seen` records every request as (step, payload). `faults` maps a step to a function
    that answers in pebble's place; if it returns None, pebble answers. `headers` maps a step to fields that are added to
    its responses. `window` maps a certificate's identifier to two times in seconds since 1970. If it is set, the
    directory offers renewal information (RFC 9773). `windows` lists the certificates whose window was requested. If
    `profiles` is set, the directory offers them. Orders show the certificate that they replace unless `shows_replaces`
    is false."""

    def __init__(self, pebble):
        self.pebble = pebble
        self.ca_file = pebble.ca_file
        self.seen, self.faults, self.windows, self.headers = [], {}, [], {}
        self.window, self.profiles, self.window_again = None, {}, 6 * 3600
        self.shows_replaces = True
        self.held = threading.Event()
        self._hold = None
        super().__init__()
        self.call(self._start())

    def stop(self):
        self.release()
        self.call(self._stop())
        self.end()

    def hold(self, step):
        """Makes the next request of this step wait until `release`. Sets `held` once it arrives."""
        self.held.clear()
        self._hold = (step, asyncio.Event())

    def release(self):
        if self._hold:
            self.loop.call_soon_threadsafe(self._hold[1].set)

    def payloads(self, step):
        """Returns the payloads of a step's requests."""
        return [payload for seen, payload in list(self.seen) if seen == step]

    def orders(self):
        """Returns the number of orders that reached pebble or a fault."""
        return len(self.payloads("order"))

    async def _start(self):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.pebble.authority.files("127.0.0.1", stem="proxy"))
        upstream = ssl.create_default_context(cafile=str(self.ca_file))
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=upstream, force_close=True))
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=context).start()
        self.port = self.runner.addresses[0][1]
        self.url = f"https://127.0.0.1:{self.port}"
        self.directory = f"{self.url}/dir"

    async def _stop(self):
        await self.runner.cleanup()
        await self.session.close()

    async def _answer(self, request):
        step, body = step_of(request.path), await request.read()
        payload = _payload(body)
        self.seen.append((step, payload))
        if self._hold and self._hold[0] == step:
            self.held.set()
            await self._hold[1].wait()
            self._hold = None
        fault = self.faults.get(step)
        if fault:
            done = fault(request) if not isinstance(fault, Refuse) else fault.answer(request, payload)
            if done is not None:
                return done
        if step == "window":
            return self._renewal_info(request.path.rpartition("/")[2])
        # pebble builds its URLs from the Host field.
        headers = {name: request.headers[name] for name in ("host", "content-type", "user-agent") if name in request.headers}
        url = self.pebble.directory.removesuffix("/dir") + request.path_qs
        try:
            async with self.session.request(request.method, url, data=body, headers=headers) as answered:
                content = await answered.read()
        except aiohttp.ClientError as error:
            print(f"the proxy before {url}: {error!r}")
            return web.Response(status=502, text="pebble is away")
        if step == "directory":
            content = self._directory(content)
        if step == "order" and answered.status == 201 and "replaces" in payload and self.shows_replaces:
            # RFC 9773, section 5: the order repeats `replaces`.
            content = json.dumps({**json.loads(content), "replaces": payload["replaces"]}).encode()
        skip = {"content-length", "transfer-encoding", "connection", "date", "content-encoding"}
        headers = [(name, value) for name, value in answered.headers.items() if name.lower() not in skip]
        headers += self.headers.get(step, {}).items()
        return web.Response(status=answered.status, body=content, headers=headers)

    def _directory(self, content):
        directory = json.loads(content)
        if self.window:
            directory["renewalInfo"] = self.url + WINDOW_PATH
        if self.profiles:
            directory.setdefault("meta", {})["profiles"] = self.profiles
        return json.dumps(directory).encode()

    def _renewal_info(self, name):
        def moment(seconds):
            return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

        self.windows.append(name)
        start, end = map(moment, self.window(name))
        return web.json_response(
            {"suggestedWindow": {"start": start, "end": end}}, headers={"retry-after": str(self.window_again)}
        )


class Refuse:
    """Refuses only orders that name a certificate to replace."""

    def __init__(self, status, problem):
        self._answer = answer(status, problem)

    def answer(self, request, payload):
        return self._answer(request) if payload and "replaces" in payload else None


def _payload(body):
    """Returns the payload of a signed request (RFC 7515, flattened JSON), or None if it is empty."""
    try:
        encoded = json.loads(body)["payload"]
        return json.loads(decode(encoded)) if encoded else None
    except (ValueError, KeyError, TypeError):
        return None
