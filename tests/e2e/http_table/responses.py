"""Answers of a service made of bytes, and what the visitor must get. None as body: the transfer breaks off.

The service keeps its connection unless the row ends it, so that stray bytes would meet the next request."""

import gzip
from typing import NamedTuple


class Response(NamedTuple):
    name: str
    answer: bytes
    status: int
    body: bytes | None = b"ok"
    method: bytes = b"GET"
    missing: tuple = ()  # Names that the visitor must not get.
    ends: bool = False  # Whether the service closes behind the answer.
    late: bytes = b""  # What the service sends a moment later.
    trailers: tuple = ()
    kept: tuple = ()  # Fields that the visitor must get, in this order.
    title: str | tuple = "Invalid response"  # The page's.


# Codings that the client cannot read. The page may say that the service broke off.
ANY = ("Invalid response", "Service broke off")


def ok(name, fields, body=b"ok", got=b"ok", status=200, **more):
    return Response(name, b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + body, status, got, **more)


def bad(name, fields, body=b"ok"):
    return ok(name, fields, body, b"", 502)


LENGTH, CHUNKED = b"Content-Length: ", b"Transfer-Encoding: chunked\r\n"
TWO, LAST = LENGTH + b"2\r\n", b"2\r\nok\r\n0\r\n\r\n"

PACKED = gzip.compress(b"ok", mtime=0)
OTHER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"

RESPONSES = [
    ok("length", TWO), ok("chunked", CHUNKED, LAST), ok("until-close", b"", ends=True), ok("length-twice", TWO + TWO),
    ok("length-in-list", LENGTH + b"2, 2\r\n"), ok("length-and-chunked", LENGTH + b"9\r\n" + CHUNKED, LAST),
    ok("space-before-colon", b"Content-Length : 2\r\nA : b\r\n"), ok("keep-alive", TWO + b"Keep-Alive: timeout=5\r\n", missing=(b"keep-alive",)),
    ok("connection-named", TWO + b"Connection: close, A\r\nA: b\r\n", missing=(b"a",)),
    ok("trailers-with-length", CHUNKED, b"2\r\nok\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\nHost: x\r\n\r\n"),
    ok("trailers", CHUNKED + b"Trailer: Sum\r\n", b"2\r\nok\r\n0\r\nSum: 1\r\n\r\n", trailers=((b"sum", b"1"),)),
    ok("chunk-extension", CHUNKED, b"2;a=b\r\nok\r\n0;c\r\n\r\n"), ok("chunks-of-one", CHUNKED, b"1\r\no\r\n01\r\nk\r\n000\r\n\r\n"),
    ok("empty", LENGTH + b"0\r\n", b"", b""), ok("empty-chunked", CHUNKED, b"0\r\n\r\n", b""),
    ok("large", LENGTH + b"300000\r\n", b"ok" * 150000, b"ok" * 150000), ok("connection-fields", TWO + b"Upgrade: x\r\nProxy-Connection: x\r\n", missing=(b"upgrade", b"proxy-connection")),
    *[bad(f"length-{value.decode()}", LENGTH + value + b"\r\n") for value in (b"+2", b"-2", b"0x2", b"two", b"2, 3", b"9" * 30)],
    bad("gzip-and-chunked", b"Transfer-Encoding: gzip, chunked\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(PACKED), PACKED))._replace(title=ANY),
    ok("content-gzip", b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(PACKED), PACKED, PACKED, kept=((b"content-encoding", b"gzip"),)),
    ok("order", b"Z: 1\r\nA: 2\r\nM: 3\r\n" + TWO, kept=((b"z", b"1"), (b"a", b"2"), (b"m", b"3"))), ok("cookies", b"Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n" + TWO, kept=((b"set-cookie", b"a=b"), (b"set-cookie", b"c=d"))),
    ok("high-bytes", b"A: \xe9\xff\r\n" + TWO, kept=((b"a", b"\xe9\xff"),)), ok("empty-value", b"A:\r\n" + TWO, kept=((b"a", b""),)), ok("odd-name", b"!#$%&'*+.^_`|~: b\r\n" + TWO, kept=((b"!#$%&'*+.^_`|~", b"b"),)),
    ok("server", b"Server: x/1\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n" + TWO, kept=((b"server", b"x/1"), (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"))),
    ok("head-keeps-length", TWO, b"", b"", method=b"HEAD", kept=((b"content-length", b"2"),)),
    ok("many-fields", b"".join(b"A%d: b\r\n" % number for number in range(90)) + TWO, kept=tuple((b"a%d" % number, b"b") for number in range(90))),
    ok("large-fields", b"A: " + b"a" * 30000 + b"\r\n" + TWO, kept=((b"a", b"a" * 30000),)),
    *[bad(f"coding-{name}", fields, LAST)._replace(title=ANY) for name, fields in {"unknown": b"Transfer-Encoding: x\r\n", "twice": CHUNKED + CHUNKED, "behind-chunked": b"Transfer-Encoding: chunked, gzip\r\n"}.items()],
    bad("fold", b"A: b\r\n c\r\n" + TWO), bad("CR-in-value", b"A: b\rc\r\n" + TWO), bad("blank-in-name", b"A b: c\r\n" + TWO), bad("no-colon", b"A\r\n" + TWO), bad("length-empty-value", LENGTH + b"\r\n"),
    bad("length-differs", TWO + LENGTH + b"3\r\n"), bad("NUL-in-value", TWO + b"A: b\0c\r\n"), bad("empty-name", TWO + b": b\r\n"),
    bad("head-too-large", TWO + b"A: " + b"a" * 2**20 + b"\r\n")._replace(title="Response head too large"),
    ok("length-short", LENGTH + b"5\r\n", got=None, ends=True), ok("chunked-short", CHUNKED, b"2\r\nok\r\n", None, ends=True),
    ok("chunked-short-in-chunk", CHUNKED, b"9\r\nok", None, ends=True), ok("length-empty", LENGTH + b"5\r\n", b"", None, ends=True),
    ok("chunk-invalid", CHUNKED, b"2\r\nok\r\nzz\r\n", None, ends=True),
    *[Response(f"status-{n}", b"HTTP/1.1 %d Odd\r\n" % n + TWO + b"\r\nok", n) for n in (200, 201, 206, 299, 400, 404, 418, 426, 451, 499, 500, 503, 599, 600, 799, 999)],
    *[Response(f"status-{n.decode()}", b"HTTP/1.1 " + n + b" Odd\r\n" + TWO + b"\r\nok", 502, b"") for n in (b"000", b"099", b"1000", b"20", b"abc", b"-20")],
    *[Response(f"bodiless-{n}", b"HTTP/1.1 %d Odd\r\n" % n + fields + b"\r\n", n, b"") for n in (204, 304) for fields in (b"", TWO)],
    *[Response(f"bodiless-{n}-with-body", b"HTTP/1.1 %d Odd\r\n\r\nok" % n, n, b"") for n in (204, 304)],
    *[Response(f"bodiless-{n}-with-late-body", b"HTTP/1.1 %d Odd\r\n\r\n" % n, n, b"", late=OTHER) for n in (204, 304)],
    ok("head-with-late-body", TWO, b"", b"", method=b"HEAD", late=OTHER), ok("late-bytes", TWO, late=OTHER), ok("surplus", TWO, b"ok" + OTHER),
    ok("head", TWO, b"", b"", method=b"HEAD"), ok("head-with-body", TWO, got=b"", method=b"HEAD"), ok("head-chunked", CHUNKED, b"", b"", method=b"HEAD"),
    Response("interim", b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n" + TWO + b"\r\nok", 200),
    Response("interim-with-length", b"HTTP/1.1 102 P\r\n" + TWO + b"\r\nHTTP/1.1 200 OK\r\n" + TWO + b"\r\nok", 200),
    Response("interim-100", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + TWO + b"\r\nok", 200),
    Response("interims", b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n" * 5 + b"HTTP/1.1 200 OK\r\n" + TWO + b"\r\nok", 200), Response("interim-199", b"HTTP/1.1 199 I\r\n\r\nHTTP/1.1 200 OK\r\n" + TWO + b"\r\nok", 200),
    Response("interim-alone", b"HTTP/1.1 103 Early\r\n\r\n", 502, b"", ends=True, title="Service broke off"),
    Response("unasked-101", b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nok", 502, b"", title="Service broke off"),
    Response("no-reason", b"HTTP/1.1 200\r\n" + TWO + b"\r\nok", 200), Response("http-1.0", b"HTTP/1.0 200 OK\r\n\r\nok", 200, ends=True),
    *[Response(name, answer, 502, b"", ends=True) for name, answer in {"garbage": b"garbage\r\n\r\n", "http-0.9": b"<html>ok"}.items()],
    *[Response(name, answer, 502, b"", ends=True, title="Service broke off") for name, answer in {"silence": b"", "head-short": b"HTTP/1.1 200 OK\r\nA: b\r\n"}.items()],
]
