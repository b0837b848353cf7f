"""Says which whole response bytes may be taken for, by RFC 9112, section 6. It reads as widely as that section permits.
What it refuses is never whole. What it takes may still be answered with an error page. A status above 599 is one of the
class 500 (RFC 9110, section 15)."""

import re
from dataclasses import dataclass

FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*:[ \t]*(.*?)[ \t]*\Z", re.DOTALL)
LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: .*)?\Z", re.DOTALL)
SIZE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;.*)?\Z", re.DOTALL)


class Broken(ValueError):
    """No whole response."""


@dataclass
class Reading:
    status: int
    body: bytes
    # The place behind the response, or None if only the end of the connection ends it.
    end: int | None


def _line(data, at):
    end = data.find(b"\n", at)
    if end < 0:
        raise Broken("no end of a line")
    return data[at:end].removesuffix(b"\r"), end + 1


def _fields(data, at):
    fields = []
    while True:
        line, at = _line(data, at)
        if not line:
            return fields, at
        if line[:1] in b" \t" and fields:
            fields[-1] = (fields[-1][0], (fields[-1][1] + b" " + line.strip()).strip())
            continue
        found = FIELD.match(line)
        if not found:
            raise Broken(f"no field: {line!r}")
        fields.append((found[1].lower(), found[2]))


def _chunks(data, at):
    body = b""
    while True:
        line, at = _line(data, at)
        found = SIZE.match(line)
        if not found:
            raise Broken(f"no size: {line!r}")
        size = int(found[1], 16)
        if not size:
            return body, at
        if len(data) < at + size:
            raise Broken("a chunk is cut off")
        body, at = body + data[at : at + size], at + size
        line, at = _line(data, at)
        if line:
            raise Broken("a chunk does not end where its size says")


def _trailers(data, at):
    """Returns the place behind the trailers. A trailer that is no field makes none of the body doubtful."""
    while True:
        line, at = _line(data, at)
        if not line:
            return at


def read(data, method, closed):
    """Returns the response. `closed` says whether the connection ends in order behind the bytes."""
    at = 0
    while True:
        while data[at : at + 1] in (b"\r", b"\n"):
            at += 1
        line, at = _line(data, at)
        found = LINE.match(line)
        if not found or int(found[1]) < 100 or found[1] == b"101":
            raise Broken(f"no status line: {line!r}")
        fields, at = _fields(data, at)
        status = int(found[1])
        if status >= 200:
            break
    list_of = lambda name: [part.strip() for known, value in fields if known == name for part in value.split(b",")]
    codings = [coding.lower() for coding in list_of(b"transfer-encoding") if coding]
    lengths = list_of(b"content-length")
    if method == b"HEAD" or status in (204, 304):
        return Reading(status, b"", at)
    if codings == [b"chunked"]:
        body, at = _chunks(data, at)
        return Reading(status, body, _trailers(data, at))
    if codings not in ([], [b"identity"]):
        raise Broken(f"codings {codings}")
    if lengths and not codings:
        if not all(map(bytes.isdigit, lengths)) or len(set(map(int, lengths))) != 1:
            raise Broken(f"lengths {lengths}")
        end = at + int(lengths[0])
        if end > len(data):
            raise Broken("the body is cut off")
        return Reading(status, data[at:end], end)
    if not closed:
        raise Broken("the connection does not end in order")
    return Reading(status, data[at:], None)
