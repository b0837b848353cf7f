"""A page that talks over a WebSocket, and the service behind it, for tests with a browser."""

from contextlib import contextmanager

from aiohttp import web

SCRIPT = """<script>
  window.query = location.search;
  window.answers = [];
  const socket = new WebSocket(location.origin.replace("https", "wss") + "/socket");
  socket.onopen = () => socket.send("from the page");
  socket.onmessage = event => window.answers.push(event.data);
</script>"""


async def _socket(request):
    answer = web.WebSocketResponse()
    await answer.prepare(request)
    async for message in answer:
        await answer.send_str(f"echo {message.data}")
    return answer


@contextmanager
def websocket_page(services, title, body="", routes=()):
    """Serves the page and these routes. Yields the port. The page's `answers` are what came over its WebSocket."""

    async def page(_request):
        text = f"<!doctype html><title>{title}</title>\n{body}\n{SCRIPT}"
        return web.Response(text=text, content_type="text/html")

    async def go():
        app = web.Application()
        app.add_routes([web.get("/", page), web.get("/socket", _socket), *routes])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    runner, port = services.call(go())
    try:
        yield port
    finally:
        services.call(runner.cleanup())
