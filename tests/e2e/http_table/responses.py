"""Answers of a service made of bytes, and what the visitor must get over HTTP/1.1. None as body: the transfer breaks off."""

from typing import NamedTuple


class Response(NamedTuple):
    name: str
    answer: bytes
    status: int
    body: bytes | None = b"ok"
    method: bytes = b"GET"
    missing: tuple = ()  # names that the visitor must not get


def ok(name, fields, body=b"ok", got=b"ok", status=200, **more):
    return Response(name, b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + body, status, got, **more)


def bad(name, fields, body=b"ok"):
    return ok(name, fields, body, b"", 502)


LENGTH, CHUNKED = b"Content-Length: ", b"Transfer-Encoding: chunked\r\n"
TWO, LAST = LENGTH + b"2\r\n", b"2\r\nok\r\n0\r\n\r\n"

RESPONSES = [
    ok("length", TWO), ok("chunked", CHUNKED, LAST), ok("until-close", b""), ok("length-twice", TWO + TWO),
    ok("length-in-list", LENGTH + b"2, 2\r\n"), ok("length-and-chunked", LENGTH + b"9\r\n" + CHUNKED, LAST),
    ok("space-before-colon", b"Content-Length : 2\r\nA : b\r\n"), ok("keep-alive", TWO + b"Keep-Alive: timeout=5\r\n", missing=(b"keep-alive",)),
    ok("connection-named", TWO + b"Connection: close, A\r\nA: b\r\n", missing=(b"a",)),
    ok("trailers-with-length", CHUNKED, b"2\r\nok\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n"),
    *[bad(f"length-{value.decode()}", LENGTH + value + b"\r\n") for value in (b"+2", b"-2", b"0x2", b"two", b"2, 3", b"9" * 30)],
    bad("length-differs", TWO + LENGTH + b"3\r\n"), bad("NUL-in-value", TWO + b"A: b\0c\r\n"), bad("empty-name", TWO + b": b\r\n"),
    bad("head-too-large", TWO + b"A: " + b"a" * 2**20 + b"\r\n"),
    ok("length-short", LENGTH + b"5\r\n", got=None), ok("chunked-short", CHUNKED, b"2\r\nok\r\n", None),
    ok("chunk-invalid", CHUNKED, b"2\r\nok\r\nzz\r\n", None),
    *[Response(f"status-{n}", b"HTTP/1.1 %d Odd\r\n" % n + TWO + b"\r\nok", n) for n in (200, 201, 206, 299, 400, 404, 418, 426, 451, 499, 500, 503, 599, 600, 799, 999)],
    *[Response(f"status-{n.decode()}", b"HTTP/1.1 " + n + b" Odd\r\n" + TWO + b"\r\nok", 502, b"") for n in (b"000", b"099", b"1000", b"20", b"abc", b"-20")],
    *[Response(f"bodiless-{n}", b"HTTP/1.1 %d Odd\r\n" % n + fields + b"\r\n", n, b"") for n in (204, 304) for fields in (b"", TWO)],
    *[Response(f"bodiless-{n}-with-body", b"HTTP/1.1 %d Odd\r\n\r\nok" % n, n, b"") for n in (204, 304)],
    ok("head", TWO, b"", b"", method=b"HEAD"), ok("head-with-body", TWO, got=b"", method=b"HEAD"), ok("head-chunked", CHUNKED, b"", b"", method=b"HEAD"),
    Response("interim", b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n" + TWO + b"\r\nok", 200),
    Response("interim-with-length", b"HTTP/1.1 102 P\r\n" + TWO + b"\r\nHTTP/1.1 200 OK\r\n" + TWO + b"\r\nok", 200),
    Response("unasked-101", b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nok", 502, b""),
    Response("no-reason", b"HTTP/1.1 200\r\n" + TWO + b"\r\nok", 200), Response("http-1.0", b"HTTP/1.0 200 OK\r\n\r\nok", 200),
    Response("garbage", b"garbage\r\n\r\n", 502, b""), Response("http-0.9", b"<html>ok", 502, b""), Response("silence", b"", 502, b""),
]
