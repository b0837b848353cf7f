"""The service: section 13. Requests go to it over HTTP/1.1, each over a connection of its own."""

import asyncio

from .exchange import Abandoned
from .wire import LOCAL_BROKEN, LOCAL_REFUSED

HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"te", b"upgrade"}


async def forward(exchange, host, port):
    """Forwards a request to the service, over a connection of its own."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return exchange.reset(LOCAL_REFUSED)
    upload = asyncio.create_task(send_request(exchange, writer))
    try:
        await send_response(exchange, reader)
        exchange.stop_upload()
    except Abandoned:
        pass
    except (OSError, ValueError, EOFError):
        exchange.break_off(LOCAL_BROKEN)
    finally:
        upload.cancel()
        writer.close()


async def send_request(exchange, writer):
    request = exchange.request
    # An upgrade is declined: the service does not see that it was asked for.
    fields = [(name, value) for name, value in request.fields if name not in HOP_BY_HOP]
    names = {name for name, _ in fields}
    chunked = not exchange.request_ended and b"content-length" not in names
    fields += [(b"host", request.authority), (b"connection", b"close")] + [(b"transfer-encoding", b"chunked")] * chunked
    lines = [request.method + b" " + request.target + b" HTTP/1.1"] + [name + b": " + value for name, value in fields]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
    try:
        while (part := await exchange.read()) is not None:
            writer.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
            await writer.drain()
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
    except OSError:
        pass  # The service may answer without the rest.
    except Abandoned:
        exchange.abandon()  # The visitor's upload broke off, and the service got it up to there.


async def read_fields(reader):
    fields = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip()))
    return fields


async def send_response(exchange, reader):
    while True:
        version, status, reason = ((await reader.readuntil(b"\r\n")).strip() + b"  ").split(b" ", 2)
        if not version.startswith(b"HTTP/1."):
            raise ValueError(version)
        status, fields = int(status), await read_fields(reader)
        kept = [(name, value) for name, value in fields if name not in HOP_BY_HOP]
        if status >= 200:
            break
        exchange.send_head(status, b"", kept)
    fields = dict(fields)
    bodiless = exchange.request.method == b"HEAD" or status in (204, 304)
    exchange.send_head(status, reason.strip(), kept, bodiless)
    if bodiless:
        return
    if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
        while length := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await exchange.send_body(await reader.readexactly(length))
            await reader.readexactly(2)
        if trailers := await read_fields(reader):
            return exchange.send_trailers(trailers)
    else:
        left = int(fields[b"content-length"]) if b"content-length" in fields else None
        while left != 0:
            part = await reader.read(65536 if left is None else min(left, 65536))
            if not part and left:
                raise EOFError
            if not part:
                break
            left = left if left is None else left - len(part)
            await exchange.send_body(part)
    exchange.end()
