"""Reads HTTP/1.1 requests strictly: what is not exact is refused."""

import re

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
LINE = re.compile(rb"(" + TOKEN + rb") ([^\x00-\x20\x7f]+) HTTP/1\.1\Z")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\Z")
SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[^\x00-\x08\x0a-\x1f\x7f]*)?\Z")


class Refused(ValueError):
    """The bytes are no exact request, or end inside one."""


class Short(Refused):
    """The bytes end inside a request. More of them may complete it."""


def read_line(data, at):
    end = data.find(b"\r\n", at)
    if end < 0:
        rest = data[at:].removesuffix(b"\r")
        kind = Refused if b"\r" in rest or b"\n" in rest else Short
        raise kind(f"no end of line after byte {at}")
    return data[at:end], end + 2


def read_fields(data, at):
    fields = []
    while True:
        line, at = read_line(data, at)
        if not line:
            return fields, at
        found = FIELD.match(line)
        if not found:
            raise Refused(f"no field: {line!r}")
        fields.append((found[1].lower(), found[2].rstrip(b" \t")))


def read_chunks(data, at):
    body = b""
    while True:
        line, at = read_line(data, at)
        found = SIZE.match(line)
        if not found:
            raise Refused(f"no size of a chunk: {line!r}")
        size = int(found[1], 16)
        if size == 0:
            return body, read_fields(data, at)[1]
        after = data[at + size : at + size + 2]
        if after != b"\r\n":
            kind = Short if b"\r\n".startswith(after) else Refused
            raise kind("a chunk does not end where its size says")
        body, at = body + data[at : at + size], at + size + 2


def read_head(data, at=0, host=True):
    """Returns method, target, fields and the place behind the head. `host` demands exactly one Host."""
    line, at = read_line(data, at)
    found = LINE.match(line)
    if not found:
        raise Refused(f"no request line: {line!r}")
    fields, at = read_fields(data, at)
    if host and len(values(fields, b"host")) != 1:
        raise Refused("not exactly one Host")
    lengths, codings = values(fields, b"content-length"), values(fields, b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Refused("more than one framing")
    if codings and codings[0].lower() != b"chunked":
        raise Refused(f"unknown coding: {codings[0]!r}")
    if lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
        raise Refused(f"no length: {lengths[0]!r}")
    return found[1], found[2], fields, at


def values(fields, name):
    return [value for known, value in fields if known == name]


def read(data, at=0, host=True):
    """Returns method, target, fields, body and the place behind the request."""
    method, target, fields, at = read_head(data, at, host)
    body = b""
    if values(fields, b"transfer-encoding"):
        body, at = read_chunks(data, at)
    elif lengths := values(fields, b"content-length"):
        end = at + int(lengths[0])
        if end > len(data):
            raise Short("the body is cut off")
        body, at = data[at:end], end
    return method, target, fields, body, at
