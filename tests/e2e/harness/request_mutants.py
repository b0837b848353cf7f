"""Valid HTTP/1.1 requests, and mutants of them that may bring two readers out of step."""

from . import mutants

LENGTHS = [
    b"0", b"1", b"+4", b"-1", b"4, 4", b"4,5", b"0x4", b"4 4", b"", b"04", b"4;", b"18446744073709551620", b"\x0b4",
    b"4\x0b",
]
CODINGS = [
    b"chunked", b"Chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"chunked, chunked", b"xchunked",
    b"chunked;q=1", b"\x0bchunked", b"chunked\x0b", b"", b",chunked", b"chunked,", b"\"chunked\"",
    b"chunked, identity",
]
SIZES = [b"0x", b"+", b" ", b"-", b"0", b"00000000000000000", b"\t", b"f", b"g", b"1\r\n", b""]
NAMES = [
    b"Content-Length", b"Transfer-Encoding", b"Host", b"Content_Length", b"Transfer_Encoding", b"Content-Length ",
    b"Transfer-Encoding ", b" Transfer-Encoding", b"Transfer-Encoding\t", b"\tContent-Length", b"transfer-encoding\0",
    b"Connection", b"TE", b"Trailer", b"Keep-Alive", b"Expect-Nothing", b"X", b"", b"content-length",
    b"\xffContent-Length",
]
VERSIONS = [
    b"HTTP/1.0", b"HTTP/1.1", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1 ", b"HTTP/1",
    b"HTTP/1.10", b"",
]
METHODS = [
    b"GET", b"POST", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"get", b"PRI", b"G@T", b"DELETE", b"G\0T", b"",
    b" GET",
]

TARGETS = [b"  /", b" ", b"\t/", b" //", b" http://x/", b" *", b" \0/", b" /#/", b" ?/"]
HOSTS = [b"Host: x\r\nHost: ", b"Host:", b"X: ", b"Host: a, ", b"Host: \0", b"Host : ", b"Host: @"]


def _body(random, canary):
    """A body, often with a request in it."""
    if random.random() < 0.6:
        return b"GET " + canary + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    return random.choice([b"", b"a", b"0\r\n\r\n", b"abcd", b"x" * 300])


def _chunked(random, body):
    parts, at = [], 0
    while at < len(body):
        size = random.choice([1, 5, 16, 300])
        part, at = body[at : at + size], at + size
        extension = random.choice([b"", b"", b";a=b", b";a", b';a="b;c"'])
        parts.append(b"%x%s\r\n%s\r\n" % (len(part), extension, part))
    return b"".join(parts) + b"0\r\n" + random.choice([b"", b"", b"T: 1\r\n"]) + b"\r\n"


def request(random, host, target, canary):
    """A valid request."""
    shape = random.randrange(3)
    if shape == 0:
        method = random.choice([b"GET", b"GET", b"HEAD", b"OPTIONS", b"DELETE"])
        return b"%s %s HTTP/1.1\r\nHost: %s\r\nX-A: b\r\n\r\n" % (method, target, host)
    head = b"POST %s HTTP/1.1\r\nHost: %s\r\n" % (target, host)
    body = _body(random, canary)
    if shape == 1:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + _chunked(random, body)


def _field(random, data, host):
    """Adds a field that may frame the request."""
    name = random.choice(NAMES)
    value = random.choice([*LENGTHS, *CODINGS, host, b"close", b"x"])
    colon = random.choice([b": ", b":", b" : ", b":\t", b"", b": \r\n "])
    return mutants.replace(random, data, b"\r\nHost:", b"\r\n" + name + colon + value + b"\r\nHost:")


def _values(random, data, host):
    if random.random() < 0.5:
        # The old value stays behind the new one, or becomes another field's.
        value = random.choice(LENGTHS) + random.choice([b"", b"\r\nX: "])
        return mutants.replace(random, data, b"Content-Length: ", b"Content-Length: " + value)
    return mutants.replace(random, data, b" chunked", b" " + random.choice(CODINGS))


def _sizes(random, data, host):
    start = random.choice([b"\r\n1", b"\r\n0", b"\r\n5", b"\r\n2"])
    return mutants.replace(random, data, start, b"\r\n" + random.choice(SIZES) + start[2:])


def _line(random, data, host):
    """Changes the request line."""
    which = random.randrange(4)
    if which == 0:
        return mutants.replace(random, data, b"HTTP/1.1", random.choice(VERSIONS))
    if which == 1:
        old = random.choice([b"GET", b"POST", b"HEAD", b"OPTIONS"])
        return mutants.replace(random, data, old, random.choice(METHODS))
    if which == 2:
        return mutants.replace(random, data, b" /", random.choice([*TARGETS, b" https://" + host + b"/"]))
    return mutants.replace(random, data, b"Host: ", random.choice(HOSTS))


def _cut(random, data, host):
    return data[: random.randrange(len(data))]


def _splice(random, data, host):
    a, b = (random.randrange(len(data)) for _ in range(2))
    return data[:a] + data[b:]


SHAPES = [_field, _field, _values, _values, _sizes, _line, _cut, _splice]


def mutant(random, host, targets, canary):
    """A mutant of one request, or of a pipeline with one for each of the targets."""
    data = b"".join(request(random, host, target, canary) for target in targets)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        if data:
            data = random.choice(SHAPES)(random, data, host) if random.random() < 0.6 else mutants.change(random, data)
    return data
