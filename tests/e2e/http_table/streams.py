"""Requests over HTTP/2 and HTTP/3, as field lines and bodies. HOST stands for the tunnel's authority.

What the libraries refuse by themselves ends the stream or the connection, without a page. So does a fault behind the head.
An `either` row is refused, or reaches the service with the target and fields that the visitor sent."""

from typing import NamedTuple

# A broken row's head may have reached the service when the fault comes, but its body never does whole.
PASSED, REFUSED, EITHER, BROKEN = "passed", "refused", "either", "broken"
BOTH = ("h2", "h3")


class Row(NamedTuple):
    name: str
    fields: tuple
    ends: str = PASSED
    body: tuple = ()  # One DATA frame for each.
    trailers: tuple | None = None
    line: bytes = b"GET /p"  # What the service sees.
    kept: tuple = ()  # Fields that it must have seen.
    dropped: tuple = ()  # Names or values that it must not have seen.
    got: bytes | tuple = b""  # The body that it must have seen, with trailers if there are any.
    status: tuple = (400,)  # What a refused visitor may get.


def head(method=b"GET", path=b"/p", scheme=b"https", authority=b"HOST"):
    pseudo = ((b":method", method), (b":scheme", scheme), (b":path", path), (b":authority", authority))
    return tuple(pair for pair in pseudo if pair[1] is not None)


def get(name, *fields, **more):
    return Row(name, (*head(), *fields), **more)


def post(name, *fields, body=(b"hello",), **more):
    return Row(name, (*head(b"POST"), *fields), body=body, line=b"POST /p", **more)


def refused(name, *fields, status=(400,), **pseudo):
    return Row(name, (*head(**pseudo), *fields), REFUSED, status=status)


def sent(name, *pairs):
    return get(name, *pairs, kept=pairs)


NAMES = """x-real-ip true-client-ip cf-connecting-ip x-client-ip forwarded x-forwarded-for x-forwarded-host x-forwarded-proto
    x-forwarded-port x-forwarded-prefix x-original-url x-rewrite-url proxy proxy-authorization front-end-https""".split()

FAMILY = [
    get(f"family-{spelled}", (spelled.encode(), b"forged-value"), dropped=(b"forged-value",))
    for name in NAMES
    for spelled in dict.fromkeys((name, name.replace("-", "_"), name.replace("-", "_", 1), name.replace("-", ".", 1)))
] + [
    get("address-is-set", (b"x-forwarded-for", b"1.2.3.4"), (b"x-real-ip", b"1.2.3.4"), kept=((b"x-forwarded-for", b"127.0.0.1"),)),
    get("scheme-is-set", (b"x-forwarded-proto", b"http"), kept=((b"x-forwarded-proto", b"https"),)),
]

AUTHORITIES = [
    get("host-too", (b"host", b"HOST"), kept=((b"host", b"HOST"),)),
    Row("host-alone", (*head(authority=None), (b"host", b"HOST")), kept=((b"host", b"HOST"),)),
    refused("no-authority", authority=None),
    refused("host-differs", (b"host", b"other.invalid"), status=(400, 421)),
    refused("host-with-another-port", (b"host", b"HOST1"), status=(400, 421)),
    refused("host-twice", (b"host", b"HOST"), (b"host", b"HOST")),
    refused("host-empty", (b"host", b"")),
    refused("host-path", (b"host", b"HOST/a")),
    *[
        refused(f"authority-{name}", authority=value, status=(400, 421))
        for name, value in {
            "empty": b"", "userinfo": b"a@HOST", "path": b"HOST/a", "query": b"HOST?a", "list": b"HOST, HOST", "blank": b"HOST a",
            "port-letters": b"HOST:a", "port-too-big": b"a.invalid:99999", "scheme": b"https://HOST", "foreign": b"other.invalid",
            "NUL": b"HOST\0", "high": b"\xe9.invalid",
        }.items()
    ],
]

PSEUDO = [
    refused("no-method", method=None), refused("no-scheme", scheme=None), refused("no-path", path=None),
    refused("method-empty", method=b""), refused("path-empty", path=b""), refused("method-blank", method=b"GE T"),
    refused("method-CRLF", method=b"GET / HTTP/1.1\r\nA: b\r\n\r\nGET"), refused("method-colon", method=b"G:T"),
    *[
        Row(f"second-{name[1:].decode()}", (*head(), (name, value)), REFUSED)
        for name, value in ((b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/p"), (b":authority", b"HOST"), (b":path", b"/q"))
    ],
    Row("pseudo-behind-field", (head()[0], (b"a", b"b"), *head()[1:]), REFUSED),
    Row("path-behind-field", (*head(path=None), (b"a", b"b"), (b":path", b"/p")), REFUSED),
    Row("pseudo-unknown", ((b":x", b"y"), *head()), REFUSED), Row("pseudo-status", ((b":status", b"200"), *head()), REFUSED),
    Row("pseudo-empty", ((b":", b"y"), *head()), REFUSED), Row("pseudo-uppercase", (*head(path=None), (b":Path", b"/p")), REFUSED),
    Row("protocol-without-connect", ((b":protocol", b"websocket"), *head()), REFUSED),
    *[refused(f"scheme-{name}", scheme=name.encode()) for name in ("http", "ftp", "file", "httpsx", "ht_tp")],
    refused("scheme-path", scheme=b"https://x/"), refused("scheme-empty", scheme=b""),
    Row("scheme-uppercase", head(scheme=b"HTTPS"), EITHER),
    *[
        refused(f"path-{name}", path=value)
        for name, value in {
            "no-slash": b"p", "absolute": b"https://HOST/p", "asterisk": b"*", "query-alone": b"?q", "fragment": b"/p#f",
            "blank": b"/a b", "NUL": b"/a\0", "CRLF": b"/a HTTP/1.1\r\nA: b\r\n\r\n", "LF": b"/a\nb", "tab": b"/a\tb", "DEL": b"/a\x7f",
        }.items()
    ],
    Row("options-asterisk", head(b"OPTIONS", b"*"), line=b"OPTIONS *"),
]

METHODS = [
    refused("trace", method=b"TRACE", status=(405,)), refused("trace-with-field", (b"max-forwards", b"0"), method=b"TRACE", status=(405,)),
    refused("connect", method=b"CONNECT", scheme=None, path=None, status=(400, 405)),
    refused("connect-with-path", method=b"CONNECT", status=(400, 405)),
    Row("connect-other-protocol", ((b":method", b"CONNECT"), (b":protocol", b"x"), *head()[1:]), REFUSED, status=(400, 405, 501)),
    *[Row(f"method-{name}", head(name.encode()), line=name.encode() + b" /p") for name in ("get", "PROPFIND", "M-SEARCH", "PRI", "DELETE")],
    Row("method-head", head(b"HEAD"), line=b"HEAD /p"),
]

LINES = [
    *[
        get(f"field-{name}", pair)._replace(ends=REFUSED)
        for name, pair in {
            "uppercase": (b"Aa", b"b"), "empty-name": (b"", b"b"), "blank-name": (b"a b", b"c"), "colon-name": (b"a:b", b"c"),
            "NUL-name": (b"a\0", b"b"), "CR-name": (b"a\rb", b"c"), "LF-name": (b"a\nb", b"c"), "high-name": (b"\xe9", b"b"),
            "NUL": (b"a", b"b\0c"), "CR": (b"a", b"b\rc"), "LF": (b"a", b"b\nc"), "CRLF": (b"a", b"b\r\nc: d"), "DEL": (b"a", b"b\x7f"),
            "connection": (b"connection", b"close"), "connection-named": (b"connection", b"a"), "keep-alive": (b"keep-alive", b"1"),
            "proxy-connection": (b"proxy-connection", b"close"), "upgrade": (b"upgrade", b"h2c"), "te-gzip": (b"te", b"gzip"),
            "te-list": (b"te", b"trailers, gzip"), "coding": (b"transfer-encoding", b"chunked"), "coding-identity": (b"transfer-encoding", b"identity"),
        }.items()
    ],
    get("te-trailers", (b"te", b"trailers")),
    *[get(f"value-{name}", (b"a", value))._replace(ends=EITHER) for name, value in {"leading-blank": b" b", "trailing-blank": b"b ", "leading-tab": b"\tb"}.items()],
    sent("many", *((b"a%d" % number, b"b") for number in range(90))), sent("harmless", (b"a", b"b")), sent("underscore", (b"my_field", b"b")), sent("empty-value", (b"a", b"")), sent("high-bytes", (b"a", b"\xe9\xff")),
    sent("repeated", (b"a", b"b"), (b"a", b"c")), sent("tab", (b"a", b"b\tc")), sent("odd-name", (b"!#$%&'*+.^_`|~", b"b")), sent("large", (b"a", b"b" * 20000)),
    get("cookies", (b"cookie", b"a=b"), (b"cookie", b"c=d"), kept=((b"cookie", b"a=b; c=d"),)),
    sent("range", (b"range", b"bytes=0-1")), sent("authorization", (b"authorization", b"Basic YTpi")),
]

LENGTH = b"content-length"
BODIES = [
    post("length", (LENGTH, b"5"), got=b"hello", kept=((LENGTH, b"5"),)),
    post("length-over-frames", (LENGTH, b"5"), body=(b"he", b"", b"llo"), got=b"hello"),
    post("no-length", got=b"hello"), post("frames", body=(b"he", b"", b"l", b"lo"), got=b"hello"),
    post("empty-data", body=(b"",)), post("length-0", (LENGTH, b"0"), body=()), post("no-data", body=()),
    post("chunk-like", body=(b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",), got=b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"),
    post("length-too-long", (LENGTH, b"9"), ends=BROKEN), post("length-too-short", (LENGTH, b"3"), ends=BROKEN),
    post("length-0-with-data", (LENGTH, b"0"), ends=BROKEN), post("length-without-data", (LENGTH, b"5"), body=(), ends=BROKEN),
    get("get-length-without-data", (LENGTH, b"5"), ends=BROKEN),
    *[
        post(f"length-{name}", *((LENGTH, value) for value in values), ends=REFUSED)
        for name, values in {
            "plus": (b"+5",), "minus": (b"-5",), "hex": (b"0x5",), "letters": (b"five",), "list": (b"5, 5",), "list-differs": (b"5, 6",),
            "empty": (b"",), "twice": (b"5", b"5"), "differs": (b"5", b"6"), "point": (b"5.0",), "huge": (b"9" * 30,), "inner-blank": (b"5 5",),
        }.items()
    ],
    post("expect", (b"expect", b"100-continue"), (LENGTH, b"5"), got=b"hello"),
    post("trailers", (b"trailer", b"sum"), trailers=((b"sum", b"1"),), got=(b"hello", b"sum: 1\r\n")),
    post("trailers-empty", trailers=(), got=b"hello"), post("trailers-with-length", (LENGTH, b"5"), trailers=((b"sum", b"1"),), got=b"hello"),
    *[
        post(f"trailers-{name.decode().lstrip(':')}", trailers=((b"sum", b"1"), (name, value)), ends=BROKEN)
        for name, value in (
            (b":path", b"/q"), (b":method", b"GET"), (b":status", b"200"), (LENGTH, b"5"), (b"transfer-encoding", b"chunked"), (b"host", b"HOST"),
            (b"connection", b"close"), (b"te", b"gzip"), (b"upgrade", b"x"), (b"Upper", b"x"), (b"a", b"b\r\nc: d"), (b"a\0", b"b"),
        )
    ],
]

TARGETS = [
    Row(f"target-{name}", head(path=target), line=b"GET " + target)
    for name, target in {
        "quote": b'/a"b', "less": b"/a<b", "greater": b"/a>b", "backtick": b"/a`b", "bar": b"/a|b", "caret": b"/a^b", "braces": b"/a{b}",
        "backslash": b"/a\\b", "query-quote": b'/a?q="b"', "query-braces": b"/a?q={b=~`c|d`}", "utf-8": b"/caf\xc3\xa9", "query-utf-8": b"/a?q=\xe2\x82\xac", "percent-alone": b"/a%", "percent-odd": b"/a%zz",
        "percent-NUL": b"/a%00", "percent-slash": b"/a%2fb", "slashes": b"//a//b", "dots": b"/a/../b", "dot": b"/./a",
        "semicolon": b"/a;b=c", "empty-query": b"/a?", "two-queries": b"/a?b?c", "brackets": b"/a?b[]=c", "long": b"/" + b"a" * 8000, "at": b"/@a",
    }.items()
] + [
    # The libraries take UTF-8 only.
    Row(f"target-{name}", head(path=target), EITHER, line=b"GET " + target)
    for name, target in {"latin-1": b"/caf\xe9", "query-latin-1": b"/a?q=\xe9", "bytes": b"/\xff\xfe"}.items()
]

ROWS = FAMILY + AUTHORITIES + PSEUDO + METHODS + LINES + BODIES + TARGETS
