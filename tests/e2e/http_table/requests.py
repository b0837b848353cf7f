"""Requests over HTTP/1.1. HOST stands for the tunnel's authority; the driver adds a field that names the row.

A refused row gets an error page, and the service does not see it. The connection closes where the framing is in doubt,
so that the service does not see the request behind it either."""

from typing import NamedTuple


class Request(NamedTuple):
    name: str
    line: bytes
    fields: bytes
    body: bytes
    status: tuple  # What the visitor may get.
    target: bytes | None = None  # What a passed request line holds.
    kept: tuple = ()  # Lines that the service must have seen, in this order.
    dropped: tuple = ()  # Names or values that it must not have seen.
    doubt: bool = True  # Whether a refusal has to end the connection.
    accept: bytes = b""  # The page's form.


HOST = b"Host: HOST\r\n"
REFUSED = (400, 405, 421)


def framed(name, fields, body=b""):
    return Request(name, b"POST /p HTTP/1.1", HOST + fields, body, (400,))


def headed(name, line, fields=HOST, status=REFUSED):
    return Request(name, line, fields, b"", status)


def passed(name, target):
    return Request(name, b"GET " + target + b" HTTP/1.1", HOST, b"", (200,), target)


def dropped(name):
    field = name.encode() + b": forged-value\r\n"
    return Request(f"visitor-names-itself-{name}", b"GET /p HTTP/1.1", HOST + field, b"", (200,), b"/p", (), (b"forged-value",))


def kept(name, *lines):
    fields = b"".join(line + b"\r\n" for line in lines)
    return Request(name, b"GET /p HTTP/1.1", HOST + fields, b"", (200,), b"/p", lines)


TE, CHUNKED = b"Transfer-Encoding: ", b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: "

FRAMING = [
    framed("length-and-chunked", LENGTH + b"5\r\n" + CHUNKED, b"0\r\n\r\n"),
    framed("chunked-and-length", CHUNKED + LENGTH + b"5\r\n", b"0\r\n\r\n"),
    *[
        framed(f"coding-{value.decode()}", TE + value + b"\r\n", b"0\r\n\r\n")
        for value in (b"gzip", b"identity", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"xchunked",
                      b"chunked;a=b", b"chunked, identity", b"\x0bchunked", b'"chunked"', b"")
    ],
    framed("coding-twice", CHUNKED + CHUNKED, b"0\r\n\r\n"),
    framed("coding-gzip-then-chunked", TE + b"gzip\r\n" + CHUNKED, b"0\r\n\r\n"),
    Request("coding-over-1.0", b"POST /p HTTP/1.0", HOST + CHUNKED, b"0\r\n\r\n", (400,)),
    framed("coding-before-colon", b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    *[
        framed(f"length-{value.decode()}", LENGTH + value + b"\r\n")
        for value in (b"+5", b"-5", b"0x5", b"5a", b"5 5", b"5.0", b"1e1", b"5, 6", b"", b"99999999999999999999999", b"five")
    ],
    framed("length-differs", LENGTH + b"0\r\n" + LENGTH + b"5\r\n"),
    *[
        framed(f"chunk-{name}", CHUNKED, body)
        for name, body in {
            "blank-before": b" 1\r\na\r\n0\r\n\r\n", "blank-behind": b"1 \r\na\r\n0\r\n\r\n", "tab": b"1\t\r\na\r\n0\r\n\r\n",
            "plus": b"+1\r\na\r\n0\r\n\r\n", "minus": b"-1\r\na\r\n0\r\n\r\n", "0x": b"0x1\r\na\r\n0\r\n\r\n",
            "no-digit": b"\r\na\r\n0\r\n\r\n", "letter": b"g\r\na\r\n0\r\n\r\n", "overflow": b"10000000000000001\r\na\r\n0\r\n\r\n",
            "bare-LF": b"1\na\r\n0\r\n\r\n", "LF-behind-data": b"1\r\na\n0\r\n\r\n", "CR-alone": b"1\ra\r\n0\r\n\r\n",
            "data-too-long": b"1\r\nab\r\n0\r\n\r\n", "extension-bare-LF": b"1;a\nb\r\na\r\n0\r\n\r\n",
        }.items()
    ],
]

FORMS = {"html": b"text/html,*/*;q=0.8", "json": b"application/json", "any": b"*/*"}

HEADS = [
    headed("line-trace", b"TRACE /p HTTP/1.1", status=(405,))._replace(doubt=False),
    *[
        headed(f"{name}-as-{form}", line, HOST + b"Accept: " + accept + b"\r\n")._replace(doubt=name != "trace", accept=accept)
        for name, line in {"trace": b"TRACE /p HTTP/1.1", "connect": b"CONNECT HOST HTTP/1.1", "fragment": b"GET /p#f HTTP/1.1"}.items()
        for form, accept in FORMS.items()
    ],
    *[
        framed(name, field + b"\r\n")
        for name, field in {
            "fold": b"A: b\r\n c", "tab-fold": b"A: b\r\n\tc", "space-before-colon": b"A : b", "empty-name": b": b",
            "no-colon": b"A", "NUL-in-value": b"A: b\0c", "NUL-in-name": b"A\0: b", "CR-in-value": b"A: b\rc",
            "control-in-value": b"A: b\x01c", "DEL-in-value": b"A: b\x7fc", "bare-LF": b"A: b\nC: d",
            "high-name": b"\xe9: b", "space-in-name": b"A b: c", "leading-space": b" A: b", "host-twice": HOST[:-2],
        }.items()
    ],
    headed("host-missing", b"GET /p HTTP/1.1", b"", (400,)),
    *[
        headed(f"host-{name}", b"GET /p HTTP/1.1", b"Host: " + value + b"\r\n")
        for name, value in {
            "empty": b"", "list": b"HOST, HOST", "path": b"HOST/a", "userinfo": b"a@HOST", "scheme": b"https://HOST",
            "port-letters": b"HOST:a", "port-too-big": b"a.invalid:99999", "blank": b"HOST a", "query": b"HOST?a",
        }.items()
    ],
    *[
        headed(f"line-{name}", line)
        for name, line in {
            "connect": b"CONNECT HOST HTTP/1.1", "connect-path": b"CONNECT /p HTTP/1.1",
            "get-asterisk": b"GET * HTTP/1.1", "query-alone": b"GET ?q HTTP/1.1", "fragment": b"GET /p#f HTTP/1.1",
            "no-slash": b"GET p HTTP/1.1", "foreign-scheme": b"GET ftp://HOST/p HTTP/1.1", "userinfo": b"GET https://a@HOST/p HTTP/1.1",
            "absolute-fragment": b"GET https://HOST/p#f HTTP/1.1", "no-version": b"GET /p", "two-blanks": b"GET  /p HTTP/1.1",
            "lower-version": b"GET /p http/1.1", "blank-in-target": b"GET /a b HTTP/1.1", "tab": b"GET\t/p HTTP/1.1",
            "NUL": b"GET /\0 HTTP/1.1", "method-with-colon": b"G:T /p HTTP/1.1", "version-1.11": b"GET /p HTTP/1.11",
        }.items()
    ],
]

TARGETS = [
    passed(f"target-{name}", target)
    for name, target in {
        "quote": b'/a"b', "less": b"/a<b", "greater": b"/a>b", "backtick": b"/a`b", "bar": b"/a|b", "caret": b"/a^b",
        "braces": b"/a{b}", "backslash": b"/a\\b", "query-quote": b'/a?q="b"', "query-braces": b"/a?q={b=~`c|d`}",
        "latin-1": b"/caf\xe9", "utf-8": b"/caf\xc3\xa9", "query-utf-8": b"/a?q=\xe2\x82\xac", "query-latin-1": b"/a?q=\xe9",
        "percent-alone": b"/a%", "percent-odd": b"/a%zz", "percent-NUL": b"/a%00", "percent-slash": b"/a%2fb",
        "slashes": b"//a//b", "dots": b"/a/../b", "dot": b"/./a", "semicolon": b"/a;b=c", "empty-query": b"/a?",
        "two-queries": b"/a?b?c", "brackets": b"/a?b[]=c", "long": b"/" + b"a" * 8000, "colon": b"/a:b", "at": b"/@a",
    }.items()
]

FAMILY = [
    dropped(spelled)
    for name in """X-Real-IP True-Client-IP CF-Connecting-IP X-Client-IP X-Cluster-Client-IP Fastly-Client-IP Forwarded
        X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Port X-Forwarded-Prefix X-Forwarded-Scheme
        X-Forwarded-Server X-Original-URL X-Rewrite-URL X-Original-Host X-Host Proxy Proxy-Authorization
        Proxy-Connection X-Scheme X-Forwarded-Ssl Front-End-Https""".split()
    for spelled in dict.fromkeys((name, name.lower(), name.replace("-", "_"), name.swapcase()))
]

FIELDS = [
    kept("many", *(b"A%d: b" % number for number in range(90))), kept("harmless", b"A: b"), kept("underscore", b"my_field: b"), kept("empty-value", b"A:"), kept("high-bytes", b"A: \xe9\xff"),
    kept("repeated", b"A: b", b"A: c"), kept("order", b"Z: 1", b"A: 2", b"M: 3"), kept("order-among-repeated", b"A: 1", b"B: 2", b"A: 3"),
    kept("cookies", b"Cookie: a=b; c=d"), kept("tab-in-value", b"A: b\tc"), kept("odd-name", b"!#$%&'*+.^_`|~: b"),
]

REQUESTS = FRAMING + HEADS + TARGETS + FAMILY + FIELDS
