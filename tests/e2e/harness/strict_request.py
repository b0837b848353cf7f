"""Reads HTTP/1.1 requests strictly: what is not exact is refused."""

import re

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
LINE = re.compile(rb"(" + TOKEN + rb") ([^\x00-\x20\x7f]+) HTTP/1\.1\Z")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\Z")
SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[^\x00-\x08\x0a-\x1f\x7f]*)?\Z")


class Refused(ValueError):
    """The bytes are no exact request, or end inside one."""


def _line(data, at):
    end = data.find(b"\r\n", at)
    if end < 0:
        raise Refused(f"no end of line after byte {at}")
    return data[at:end], end + 2


def _fields(data, at):
    fields = []
    while True:
        line, at = _line(data, at)
        if not line:
            return fields, at
        found = FIELD.match(line)
        if not found:
            raise Refused(f"no field: {line!r}")
        fields.append((found[1].lower(), found[2].rstrip(b" \t")))


def _chunks(data, at):
    body = b""
    while True:
        line, at = _line(data, at)
        found = SIZE.match(line)
        if not found:
            raise Refused(f"no size of a chunk: {line!r}")
        size = int(found[1], 16)
        if size == 0:
            return body, _fields(data, at)[1]
        if data[at + size : at + size + 2] != b"\r\n":
            raise Refused("a chunk does not end where its size says")
        body, at = body + data[at : at + size], at + size + 2


def read(data, at=0):
    """Returns method, target, fields, body and the place behind the request."""
    line, at = _line(data, at)
    found = LINE.match(line)
    if not found:
        raise Refused(f"no request line: {line!r}")
    fields, at = _fields(data, at)
    values = lambda name: [value for known, value in fields if known == name]
    if len(values(b"host")) != 1:
        raise Refused("not exactly one Host")
    lengths, codings = values(b"content-length"), values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Refused("more than one framing")
    body = b""
    if codings:
        if codings[0].lower() != b"chunked":
            raise Refused(f"unknown coding: {codings[0]!r}")
        body, at = _chunks(data, at)
    elif lengths:
        if not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
            raise Refused(f"no length: {lengths[0]!r}")
        end = at + int(lengths[0])
        if end > len(data):
            raise Refused("the body is cut off")
        body, at = data[at:end], end
    return found[1], found[2], fields, body, at
