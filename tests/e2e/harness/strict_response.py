"""Reads HTTP/1.1 responses strictly (RFC 9112, section 6): what is not exact is refused."""

import re
from dataclasses import dataclass

from .strict_request import Refused, Short, read_chunks, read_fields, read_line, values

LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) [^\x00-\x08\x0a-\x1f\x7f]*\Z")


@dataclass
class Response:
    status: int
    fields: list
    body: bytes
    # The place behind the response.
    end: int
    # Whether it lasts until the connection ends.
    open_ended: bool = False

    def value(self, name):
        return next(iter(values(self.fields, name)), None)


def read(data, at=0, method=b"GET", closed=False):
    """Reads one final response. `closed` says that no more bytes come and that the connection ended in order."""
    while True:
        line, at = read_line(data, at)
        found = LINE.match(line)
        if not found:
            raise Refused(f"no status line: {line!r}")
        fields, at = read_fields(data, at)
        status = int(found[1])
        if status == 101 or status < 100:
            raise Refused(f"status {status}")
        if status >= 200:
            break
    lengths, codings = values(fields, b"content-length"), values(fields, b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Refused("more than one framing")
    if codings and codings[0].lower() != b"chunked":
        raise Refused(f"unknown coding: {codings[0]!r}")
    if lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
        raise Refused(f"no length: {lengths[0]!r}")
    if method == b"HEAD" or status in (204, 304):
        return Response(status, fields, b"", at)
    if codings:
        body, at = read_chunks(data, at)
        return Response(status, fields, body, at)
    if not lengths:
        if not closed:
            raise Short("the connection is open")
        return Response(status, fields, data[at:], len(data), open_ended=True)
    end = at + int(lengths[0])
    if end > len(data):
        raise Short("the body is cut off")
    return Response(status, fields, data[at:end], end)
