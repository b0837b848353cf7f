"""Local services over other ways than plain HTTP/1.1."""

import asyncio
import ssl
import subprocess

import pytest
from aiohttp import web

from harness.cok import DOMAIN


async def hello(request):
    return web.Response(text=f"{request.path_qs} for {request.host}")


@pytest.fixture
def serve(services):
    """Returns a function that starts an aiohttp service on the site of `make(runner)`."""
    runners = []

    def start(make):
        async def go():
            app = web.Application()
            app.router.add_get("/{path:.*}", hello)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            runners.append(runner)
            await make(runner).start()
            return runner

        return services.call(go())

    yield start
    for runner in runners:
        services.call(runner.cleanup())


def test_unix_socket(serve, tunnel, tmp_path):
    serve(lambda runner: web.UnixSite(runner, str(tmp_path / "socket")))
    client = tunnel(f"unix:{tmp_path}/socket")
    assert client.curl("/a?b").stdout.decode() == f"/a?b for {client.name}.{DOMAIN}:{client.daemon.port}"


def test_https_with_any_certificate_on_loopback(serve, tunnel, tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=whatever", "-days", "1",
         "-keyout", tmp_path / "key", "-out", tmp_path / "cert"],
        check=True, capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    runner = serve(lambda runner: web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context))
    client = tunnel(f"https://127.0.0.1:{runner.addresses[0][1]}")
    for _ in range(2):
        assert client.curl("/tls").stdout.decode().startswith("/tls for ")


def test_a_missing_unix_socket(tunnel, tmp_path):
    client = tunnel(f"unix:{tmp_path}/none")
    assert client.curl("/", "--write-out", "%{http_code}").stdout.endswith(b"502")


def test_kept_alive_connections_are_used_again(tunnel, services):
    """The service gets few connections for many requests. A closed idle connection causes no failure."""
    connections = set()

    async def answer(request):
        connections.add(request.transport.get_extra_info("peername"))
        response = web.Response(text="ok")
        if request.path == "/close":
            # Closes the connection after the response, like a service's idle time-out.
            asyncio.get_running_loop().call_later(0.05, request.transport.close)
        return response

    async def go():
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, runner.addresses[0][1]

    runner, port = services.call(go())
    client = tunnel(f"http://127.0.0.1:{port}")
    for _ in range(20):
        assert client.curl("/").stdout == b"ok"
    assert len(connections) == 1
    for _ in range(20):
        assert client.curl("/close").stdout == b"ok"
    services.call(runner.cleanup())
