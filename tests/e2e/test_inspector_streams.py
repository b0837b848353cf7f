"""What the inspector shows of exchanges that last: their messages one by one as they pass, with bounded memory."""

import json
import os
import subprocess
import zlib

import pytest
from aiohttp import web

from harness import needs
from harness.grpc_channel import open_channel
from harness.inspector import field
from harness.process import wait_for
from harness.websocket import WebSocket
from test_grpc import service  # noqa: F401, a fixture

# A run with COK_LONG sends a whole gibibyte.
FLOOD = (1 << 30) if os.environ.get("COK_LONG") else (128 << 20)


@pytest.fixture
def app(services):
    """Returns a function that serves these routes, until the test ends. It returns a target."""
    runners = []

    def serve(*routes):
        async def go():
            app = web.Application()
            app.add_routes(routes)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return runner

        runners.append(services.call(go()))
        return f"http://127.0.0.1:{runners[-1].addresses[0][1]}"

    yield serve
    for runner in runners:
        services.call(runner.cleanup())


def open_one(inspector, kind):
    """Waits for an exchange of this kind. Returns its number."""
    return wait_for(lambda: next((line for line in inspector.list() if line["kind"] == kind), None), f"no {kind}")["id"]


def texts(inspector, number):
    return [message["text"] for message in inspector.messages(number)["messages"]]


def test_events_appear_one_by_one_while_the_stream_is_open(inspected, services):
    client, inspector = inspected(services.web)
    visitor = client.start_curl("/steps/one/3")
    for number in range(3):
        wait_for(lambda: "one" in services.confirmed, "no stream")
        stream = open_one(inspector, "event_stream")
        wait_for(lambda n=number: texts(inspector, stream) == [str(i) for i in range(n + 1)], f"no event {number}")
        assert inspector.detail(stream)["state"] == "open"
        services.confirm("one", number)
    assert visitor.wait(20) == 0
    one = inspector.ended("/steps")
    assert one["state"] == "complete" and one["messages_from_service"] == 3


@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate"])
def test_compressed_events_appear_too(inspected, app, coding):
    async def news(request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "content-encoding": coding})
        await response.prepare(request)
        text = b": hello\n\nevent: tick\nid: 7\nretry: 250\ndata: a\ndata: b\n\n"
        compressor = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
        for _ in range(2):
            piece = text if coding == "identity" else compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
            await response.write(piece)
        return response

    client, inspector = inspected(app(web.get("/news", news)))
    client.curl("/news")
    number = inspector.ended("/news")["id"]
    wait_for(lambda: inspector.messages(number)["total"] == 4, "not all messages")
    messages = inspector.messages(number)["messages"]
    assert [message["kind"] for message in messages] == ["comment", "event"] * 2
    assert messages[1]["text"] == "a\nb"
    assert messages[1]["event"] == {"name": "tick", "id": "7", "retry_ms": 250}


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_websocket_messages_appear_in_both_directions(inspected, services, compression):
    """With permessage-deflate and without; pings, fragments and the Close with its code as well."""
    client, inspector = inspected(services.ws)
    with WebSocket(client.daemon, client.name, "/chat", compression=compression) as socket:
        socket.send("héllo" * 100)
        assert socket.recv() == "héllo" * 100
        number = open_one(inspector, "websocket")
        wait_for(lambda: len(texts(inspector, number)) == 2, "no messages")
        assert inspector.detail(number)["state"] == "open" and inspector.detail(number)["status"] == 101
        socket.send(b"\x00\xff")
        socket.recv()
        socket.send("fragments")
        socket.recv()
        socket.ping()
    one = inspector.ended("/chat")
    wait_for(lambda: any(message["kind"] == "close" for message in inspector.messages(number)["messages"]), "no close")
    page = inspector.messages(number)
    messages = page["messages"]
    assert [message["text"] for message in messages[:2]] == ["héllo" * 100] * 2
    assert [message["from"] for message in messages[:2]] == ["visitor", "service"]
    if compression:
        assert messages[0]["sent"] < messages[0]["size"] == len("héllo" * 100) + 100
    binary = next(message for message in messages if message["kind"] == "binary")
    assert binary["text"] is None and binary["base64"] == "AP8="
    assert "in three parts" in [message["text"] for message in messages]
    assert {"ping", "pong"} <= {message["kind"] for message in messages}
    close = next(message for message in messages if message["kind"] == "close")
    assert close["code"] == 1000 and page["trouble"] is None and one["state"] == "complete"
    later = inspector.messages(number, after=page["total"] - 1)
    assert len(later["messages"]) == 1 and later["total"] == page["total"]


def test_grpc_messages_appear_one_by_one(inspected, daemon, service):  # noqa: F811
    """Unary and streaming, with trailers."""
    client, inspector = inspected(f"h2c://127.0.0.1:{service.port}")
    with open_channel(daemon, client.name) as channel:
        assert channel.unary_unary("/echo/Unary")(b"one", timeout=30) == b"one"
    one = inspector.ended("/echo/Unary")
    assert (one["kind"], one["protocol"]) == ("grpc", "HTTP/2")
    assert (one["messages_from_visitor"], one["messages_from_service"]) == (1, 1)
    assert [message["text"] for message in inspector.messages(one["id"])["messages"]] == ["one", "one"]
    assert field(one["response"]["trailers"], "grpc-status") == ["0"]


def test_lines_of_json_appear_one_by_one(inspected, app):
    async def lines(_request):
        return web.Response(body=b'{"n":1}\n{"n":2}\n', content_type="application/x-ndjson")

    client, inspector = inspected(app(web.get("/lines", lines)))
    client.curl("/lines")
    one = inspector.ended("/lines")
    assert one["kind"] == "json_lines"
    assert [json.loads(text)["n"] for text in texts(inspector, one["id"])] == [1, 2]


def test_ten_thousand_events_pass_with_flat_memory(inspected, app):
    """The latest thousand are kept, and all are counted. The stream is not held up, with a viewer and without."""
    count = 10_000

    async def events(request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(count):
            await response.write(f"id: {number}\ndata: {'x' * 200}\n\n".encode())
        return response

    client, inspector = inspected(app(web.get("/events", events)))
    with inspector.events() as changes:
        next(changes)
        assert len(client.curl("/events").stdout) > count * 200
        one = inspector.ended("/events")
        wait_for(lambda: inspector.messages(one["id"])["total"] == count, "not all events")
        page = inspector.messages(one["id"], limit=1000)
        assert len(page["messages"]) == 1000 and page["first_kept"] == count - 999
        assert inspector.get("state")["lost"] == 0
        before = client.process.memory()[0]
        for _ in range(3):
            client.curl("/events")
        inspector.ended("/events", 4)
    assert client.process.memory()[0] < before + (24 << 20)


def test_a_large_websocket_passes_an_open_inspector_with_flat_memory(inspected, services):
    """What the inspector can't keep up with it drops, and says so. The bytes all arrive."""
    client, inspector = inspected(services.ws)
    with WebSocket(client.daemon, client.name, "/flood") as socket:
        with inspector.events() as changes:
            next(changes)
            socket.send("flood")
            received = 0
            while received < FLOOD // 8:
                received += len(socket.recv())
            client.process.reset_peak()
            before = client.process.memory()[0]
            while received < FLOOD:
                received += len(socket.recv())
        assert client.process.memory()[1] < before + (48 << 20)
        number = open_one(inspector, "websocket")
        line = inspector.detail(number)
        assert line["response_bytes"] >= FLOOD and line["state"] == "open"
        # The inspector may be behind the bytes.
        wait_for(
            lambda: inspector.messages(number)["total"] >= FLOOD >> 20 or inspector.detail(number)["incomplete"],
            "neither all messages nor a word on the rest",
        )
        assert inspector.messages(number)["messages"][-1]["truncated"]
        socket.vanish()


def test_a_full_disk_is_said_and_costs_traffic_nothing(tunnel, inspected, services, tmp_path):
    """Long bodies are then not captured. Short ones are."""
    needs.root("only root can mount a small disk")
    state = tmp_path / "disk"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", state], check=True)
    try:
        client, inspector = inspected(services.web, state=state)
        body = tmp_path / "body"
        body.write_bytes(os.urandom(4 << 20))
        answer = json.loads(client.curl("/hash", "-T", body).stdout)
        assert answer["length"] == 4 << 20
        one = inspector.ended("/hash")
        assert one["request"]["cut"] == "disk" and one["incomplete"]
        assert "space" in inspector.get("state")["disk_failure"]
        client.curl("/echo", "--data", "short")
        assert inspector.body(inspector.ended("/echo")["id"]) == b"short"
        client.stop()
    finally:
        subprocess.run(["umount", "--lazy", state], check=True)


def test_viewers_that_read_nothing_hold_up_nothing(inspected, services):
    """Many open pages that do not read, and one that closes in the middle."""
    client, inspector = inspected(services.web)
    opened = [inspector.open("/api/v1/events?after=0") for _ in range(20)]
    for number in range(30):
        assert client.curl(f"/echo?{number}", "--data", "x" * 1000).stdout == b"x" * 1000
    for response in opened:
        response.close()
    inspector.ended("/echo", 30)
    assert inspector.get("state")["requests"] == 30


def test_a_huge_head_is_captured(inspected, services):
    client, inspector = inspected(services.web)
    fields = [part for n in range(5) for part in ("-H", f"X-Long-{n}: {str(n) * 7000}")]
    client.curl("/echo", *fields)
    one = inspector.ended("/echo")
    assert field(one["request"]["fields"], "x-long-4") == ["4" * 7000]


@pytest.mark.parametrize("transport", ["ws"])
def test_old_requests_make_room(inspected, services, tmp_path):
    """More bodies than the disk holds: the oldest go, the newest stay, and traffic does not notice."""
    client, inspector = inspected(services.web)
    body = tmp_path / "body"
    body.write_bytes(os.urandom(16 << 20))
    # 16 MiB a second are captured.
    upload = ("/swallow", "-T", body, "--limit-rate", "15M", "-w", "%{http_code}")
    for _ in range(17):
        assert client.curl(*upload).stdout == b"200"
    newest = inspector.ended("/swallow")
    assert newest["request"]["captured"] == 16 << 20 and newest["request"]["cut"] is None
    state = inspector.get("state")
    assert state["evicted"] > 0 and state["disk"] <= state["disk_limit"] and state["memory"] <= state["memory_limit"]
    assert inspector.body(newest["id"], "request") == body.read_bytes()


def test_requests_beyond_the_budget_pass_and_are_counted(inspected, nginx):
    client, inspector = inspected(nginx.target)
    count = 3000
    many = ("--parallel", "--output", "/dev/null", "--write-out", "%{http_code}\n")
    codes = client.curl(f"/?[1-{count}]", *many).stdout.split()
    assert codes == [b"200"] * count
    wait_for(lambda: inspector.get("state")["requests"] + inspector.get("state")["skipped"] == count, "not all are counted")
    assert inspector.get("state")["requests"] >= 1000 and inspector.get("state")["skipped"] > 0
