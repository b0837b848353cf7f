"""Ordinary requests to real programs. Through the tunnel each is answered as directly.

ETAG and MODIFIED stand for the validators that the program gives directly for the path."""

from typing import NamedTuple

LARGE = bytes(range(256)) * 800


class Row(NamedTuple):
    origin: str
    name: str
    path: str
    status: int = 200
    method: str = "GET"
    fields: tuple = ()
    body: bytes = b""
    chunked: bool = False


def rows(origin, *parts):
    return [part._replace(origin=origin) if isinstance(part, Row) else Row(origin, *part) for part in parts]


def with_fields(name, path, status, *fields, method="GET"):
    return Row("", name, path, status, method, tuple((key.encode(), value.encode()) for key, value in fields))


def uploads(path, *methods):
    """Each method with bodies of several lengths, whose length is named or not."""
    bodies = {"nothing": b"", "byte": b"x", "words": b"some words", "large": LARGE}
    return [
        Row("", f"{method.lower()}-{name}{'-chunked' * chunked}", path, 200, method, ((b"content-type", b"text/x-words"),), body, chunked)
        for method in methods
        for name, body in bodies.items()
        for chunked in ((False, True) if body else (False,))
    ]


RANGES = [
    with_fields(f"range-{name}", "/words.txt", status, ("range", value))
    for name, (value, status) in {
        "first": ("bytes=0-4", 206), "middle": ("bytes=10-19", 206), "open": ("bytes=100-", 206), "last": ("bytes=-7", 206), "several": ("bytes=0-1,5-6", 206),
        "beyond": ("bytes=99999999-", 416), "unit": ("lines=1-2", 200),
    }.items()
    if name != "several"  # The boundary differs from answer to answer.
]

NGINX = rows(
    "nginx", ("page", "/"), ("file", "/words.txt"), ("large", "/large.bin"), ("missing", "/none", 404), ("own-page", "/missing-on-purpose", 404), ("empty", "/empty", 204),
    ("head", "/words.txt", 200, "HEAD"), ("head-large", "/large.bin", 200, "HEAD"), ("head-missing", "/none", 404, "HEAD"), ("no-method", "/words.txt", 405, "POST"),
    ("directory", "/folder", 301), ("escaped", "/a%20b.txt"), ("query", "/words.txt?a=b&c"), ("zero", "/zero.bin"), ("options", "/words.txt", 405, "OPTIONS"),
    ("put", "/uploads/one/NEW", 201, "PUT", (), b"put words"), ("put-chunked", "/uploads/two/NEW", 201, "PUT", (), LARGE, True), ("delete-missing", "/uploads/none", 404, "DELETE"),
    *RANGES,
    with_fields("none-match", "/words.txt", 304, ("if-none-match", "ETAG")), with_fields("none-match-other", "/words.txt", 200, ("if-none-match", '"other"')),
    with_fields("modified-since", "/words.txt", 304, ("if-modified-since", "MODIFIED")), with_fields("match", "/words.txt", 412, ("if-match", '"other"')),
    with_fields("if-range", "/words.txt", 206, ("range", "bytes=0-1"), ("if-range", "ETAG")), with_fields("if-range-other", "/words.txt", 200, ("range", "bytes=0-1"), ("if-range", '"x"')),
    with_fields("head-none-match", "/words.txt", 304, ("if-none-match", "ETAG"), method="HEAD"),
    with_fields("range-of-head", "/words.txt", 206, ("range", "bytes=0-4"), method="HEAD"),
)

NODE = rows(
    "node", ("text", "/text"), ("pieces", "/pieces"), ("trailers", "/trailers"), ("cookies", "/cookies"), ("moved", "/moved", 302), ("elsewhere", "/elsewhere", 308),
    ("empty", "/empty", 204), ("reset-content", "/reset", 205), ("hints", "/hints"), ("teapot", "/teapot", 418), ("many-fields", "/many"), ("asterisk", "*", 200, "OPTIONS"),
    ("query", "/mirror?a=b&c=%20+&=d?e"), ("odd-path", "/mirror//a/../b;c=d/@e:f"), ("options", "/mirror", 200, "OPTIONS"),
    ("head", "/text", 200, "HEAD"), ("head-pieces", "/pieces", 200, "HEAD"), ("head-empty", "/empty", 204, "HEAD"),
    with_fields("gzip", "/text", 200, ("accept-encoding", "gzip")), with_fields("head-gzip", "/text", 200, ("accept-encoding", "gzip"), method="HEAD"),
    with_fields("none-match", "/text", 304, ("if-none-match", "ETAG")), with_fields("head-none-match", "/text", 304, ("if-none-match", "ETAG"), method="HEAD"),
    with_fields("cookie", "/mirror", 200, ("cookie", "a=b; c=d")), with_fields("authorization", "/mirror", 200, ("authorization", "Bearer x.y.z")),
    with_fields("accept", "/mirror", 200, ("accept", "text/html, */*;q=0.1")), with_fields("range", "/mirror", 200, ("range", "bytes=0-1")),
    with_fields("propfind", "/mirror", 200, method="PROPFIND"),
    *uploads("/mirror", "POST", "PUT", "PATCH", "DELETE"),
    *(row._replace(name=f"expect-{row.name}", fields=((b"expect", b"100-continue"),)) for row in uploads("/mirror", "POST") if row.body),
)

FILES = rows(
    "python", ("listing", "/folder/"), ("file", "/words.txt"), ("large", "/large.bin"), ("missing", "/none", 404), ("directory", "/folder", 301), ("zero", "/zero.bin"),
    ("head", "/words.txt", 200, "HEAD"), ("head-missing", "/none", 404, "HEAD"), ("no-method", "/words.txt", 501, "DELETE"), ("escaped", "/a%20b.txt"),
    ("post", "/words.txt", 501, "POST", (), b"some words"),
    with_fields("modified-since", "/words.txt", 304, ("if-modified-since", "MODIFIED")),
)

AIOHTTP = rows(
    "aiohttp", ("cookies", "/cookies"), ("missing", "/none", 404), ("no-method", "/cookies", 405, "POST"), ("head", "/cookies", 200, "HEAD"),
    ("echo", "/echo", 200, "POST", (), LARGE), ("echo-chunked", "/echo", 200, "PUT", (), LARGE, True), ("echo-nothing", "/echo", 200, "POST"), ("echo-get", "/echo"),
    *uploads("/hash", "POST", "PUT", "PATCH", "DELETE"),
)

ROWS = NGINX + NODE + FILES + AIOHTTP
