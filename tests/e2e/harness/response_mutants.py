"""Valid HTTP/1.1 responses with a unique body, and mutants of them with every kind of ending."""

import re
import zlib

from . import mutants
from .request_mutants import CODINGS, LENGTHS, NAMES, SIZES

STATUSES = [b"200"] * 6 + [b"404", b"500", b"204", b"304", b"206", b"304"]
LINES = [
    b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 101 Up", b"HTTP/1.1 099 No", b"HTTP/1.1 600 No",
    b"HTTP/1.1 999 No", b"HTTP/1.1 1000 No", b"HTTP/1.1 20 OK", b"HTTP/2 200 OK", b"HTTP/1.1 -200 OK",
    b"HTTP/1.1  200 OK", b"http/1.1 200 OK", b"ICY 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 205 Reset", b"HTTP/1.1 103 Early", b"HTTP/1.1 100 Continue", b"HTTP/1.1 200 \xff\xfe",
    b"HTTP/1.1 2\x000 OK", b"HTTP/1.1\t200\tOK",
]
INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\nContent-Length: 3\r\n\r\n",
]
TRAILERS = [
    b"Content-Length: 3", b"Transfer-Encoding: chunked", b":status: 200", b"X: \0", b"X", b" X: 1", b"Host: x",
    b"X : 1",
]
MARK = re.compile(rb"\[([0-9]+)-([0-9a-f]{8})\]")


def mark(number):
    """Returns the mark of a case, which no small change turns into another one."""
    return b"[%d-%08x]" % (number, zlib.crc32(b"%d" % number))


def marks(data):
    """Returns the numbers of the cases whose marks are in `data`."""
    return {int(number) for number, check in MARK.findall(data) if check == b"%08x" % zlib.crc32(number)}


def _message(random, number):
    status = random.choice(STATUSES)
    body = mark(number) * random.choice([0, 1, 1, 3, 60])
    if status in (b"204", b"304"):
        body = random.choice([b"", b"", body])
    head = b"HTTP/1.1 %s OK\r\nX-A: b\r\n" % status
    shape = random.randrange(3)
    if shape == 0:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if shape == 1:
        return head + b"\r\n" + body
    parts, at = [], 0
    while at < len(body):
        part = body[at : at + random.choice([3, 16, 1000])]
        at += len(part)
        parts.append(b"%x%s\r\n%s\r\n" % (len(part), random.choice([b"", b"", b";a=b", b';a="b;c"']), part))
    trailers = random.choice([b"", b"", b"X-Sum: 1\r\n"])
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n" + trailers + b"\r\n"


def _field(random, data):
    """Adds a field that may frame the response."""
    value = random.choice([*LENGTHS, *CODINGS, b"close", b"keep-alive", b"x"])
    colon = random.choice([b": ", b":", b" : ", b":\t", b"", b": \r\n "])
    return mutants.replace(random, data, b"\r\nX-A:", b"\r\n" + random.choice(NAMES) + colon + value + b"\r\nX-A:")


def _value(random, data):
    if random.random() < 0.5:
        # The old value stays behind the new one, or becomes another field's.
        value = random.choice(LENGTHS) + random.choice([b"", b"\r\nX: "])
        return mutants.replace(random, data, b"Content-Length: ", b"Content-Length: " + value)
    return mutants.replace(random, data, b" chunked", b" " + random.choice(CODINGS))


def _size(random, data):
    start = random.choice([b"\r\n1", b"\r\n0", b"\r\n3", b"\r\n2"])
    return mutants.replace(random, data, start, b"\r\n" + random.choice(SIZES) + start[2:])


def _line(random, data):
    end = data.find(b"\r\n")
    return random.choice(LINES) + data[max(end, 0) :]


def _behind(random, data):
    """Adds bytes behind the end, as if they answered the next request."""
    ghost = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nghost"
    return data + random.choice([ghost, ghost, b"\r\n", b"x", b"\0", b"0\r\n\r\n", ghost[:20]])


def _trailer(random, data):
    return mutants.replace(random, data, b"\r\n0\r\n", b"\r\n0\r\n" + random.choice(TRAILERS) + b"\r\n")


def _cut(random, data):
    return data[: random.randrange(len(data))]


SHAPES = [_field, _field, _value, _value, _size, _line, _behind, _trailer, _cut]


def mutant(random, number):
    """Returns a mutant of one response."""
    data = _message(random, number)
    for _ in range(random.choice([0, 1, 1, 1, 2, 3])):
        if data:
            data = random.choice(SHAPES)(random, data) if random.random() < 0.7 else mutants.change(random, data)
    return b"".join(random.choices(INTERIM, k=random.choice([0, 0, 0, 1, 2]))) + data
