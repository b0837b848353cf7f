"""Requests are judged on the bytes that visitors send. What is refused gets a page, and the service sees nothing of it."""

import socket

import pytest

from harness import raw
from harness.http2 import Http2
from harness.process import wait_for

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SECOND = b"GET /second HTTP/1.1\r\nHost: %(host)b\r\n\r\n"


class Witness(raw.Recorder):
    """A service that reads bodies whole and keeps them. A body that broke off is `None`."""

    def __init__(self):
        self.bodies = []
        super().__init__(self.read)

    def read(self, head, connection):
        self.bodies.append(None)
        try:
            self.bodies[-1] = raw.read_body(head, connection)
        except (EOFError, ValueError):
            return None
        return OK


@pytest.fixture(scope="module")
def witness(daemon, transport):
    witness = Witness()
    witness.client = daemon.client(witness.target, "judged", transport=transport)
    yield witness
    witness.client.stop()
    witness.stop()


@pytest.fixture(autouse=True)
def fresh(witness):
    witness.heads.clear()
    witness.bodies.clear()


def exchange(witness, data):
    """Sends bytes over HTTP/1.1, and returns all that comes back until the daemon closes."""
    host = witness.client.host.encode()
    with raw.connect(witness.client.daemon, witness.client.name) as connection:
        connection.sendall(data % {b"host": host} if b"%(" in data else data)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def lines_seen(witness):
    """The request lines that the service has seen, after one more request has passed."""
    assert witness.client.curl("/sentinel").stdout == b"ok"
    lines = [head.split(b"\r\n")[0] for head in witness.heads]
    assert lines.pop() == b"GET /sentinel HTTP/1.1"
    return lines


def get(line=b"GET / HTTP/1.1", fields=b"", host=b"Host: %(host)b\r\n"):
    return line + b"\r\n" + host + fields + b"\r\n"


def post(fields, body=b""):
    return b"POST / HTTP/1.1\r\nHost: %(host)b\r\n" + fields + b"\r\n" + body


FAULTY_HEADS = {
    "length and chunked": post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "chunked and length": post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
    "equal lengths": post(b"Content-Length: 0\r\nContent-Length: 0\r\n"),
    "different lengths": post(b"Content-Length: 0\r\nContent-Length: 30\r\n"),
    "a list of lengths": post(b"Content-Length: 0, 0\r\n"),
    "a length with a sign": post(b"Content-Length: +0\r\n"),
    "no length": post(b"Content-Length:\r\n"),
    "a length that is no number": post(b"Content-Length: 0x0\r\n"),
    "a length above all numbers": post(b"Content-Length: 99999999999999999999\r\n"),
    "two codings": post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "a coding behind chunked": post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"),
    "chunked twice": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "identity": post(b"Transfer-Encoding: identity\r\n"),
    "an odd byte before chunked": post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "chunked over HTTP/1.0": b"POST / HTTP/1.0\r\nHost: %(host)b\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: %(host)b\n\n",
    "one bare line feed": get(fields=b"X: 1\nY: 2\r\n"),
    "a bare line feed at the end": b"GET / HTTP/1.1\r\nHost: %(host)b\r\n\n",
    "a bare carriage return": get(fields=b"X: 1\rY: 2\r\n"),
    "a folded line": get(fields=b"X: 1\r\n 2\r\n"),
    "a space before a colon": get(fields=b"Content-Length : 30\r\n"),
    "a name that is none": get(fields=b"X(: 1\r\n"),
    "an empty name": get(fields=b": 1\r\n"),
    "a line without a colon": get(fields=b"X\r\n"),
    "a null byte": get(fields=b"X: \0\r\n"),
    "no Host": get(host=b""),
    "Host twice": get(fields=b"Host: %(host)b\r\n"),
    "an empty Host": get(host=b"Host:\r\n"),
    "two names in Host": get(host=b"Host: %(host)b, %(host)b\r\n"),
    "a path in Host": get(host=b"Host: %(host)b/x\r\n"),
    "a user in Host": get(host=b"Host: me@%(host)b\r\n"),
    "a port that is a word": get(host=b"Host: %(host)b:https\r\n"),
    "a port above all ports": get(host=b"Host: %(host)b:65536\r\n"),
    "a port without digits": get(host=b"Host: %(host)b:\r\n"),
    "a fragment": get(b"GET /x#y HTTP/1.1"),
    "a fragment in absolute form": get(b"GET https://%(host)b/x#y HTTP/1.1"),
    "a query without a path": get(b"GET ?q HTTP/1.1"),
    "no slash": get(b"GET x HTTP/1.1"),
    "an authority as a target": get(b"GET %(host)b:443 HTTP/1.1"),
    "an asterisk": get(b"GET * HTTP/1.1"),
    "another scheme": get(b"GET ftp://%(host)b/ HTTP/1.1"),
    "plain HTTP's scheme": get(b"GET http://%(host)b/ HTTP/1.1"),
    "a user in a target": get(b"GET https://me@%(host)b/ HTTP/1.1"),
    "two spaces": get(b"GET  / HTTP/1.1"),
    "a tab": get(b"GET\t/ HTTP/1.1"),
    "a space in a target": get(b"GET /a b HTTP/1.1"),
    "no version": b"GET /\r\n\r\n",
    "another version": get(b"GET / HTTP/1.2"),
    "the start of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", FAULTY_HEADS)
def test_a_faulty_head_gets_a_page_and_the_end(witness, name):
    answer = exchange(witness, FAULTY_HEADS[name] + SECOND)
    head, page = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 400 ") and dict(raw.fields(head + b"\r\n\r\n"))[b"connection"] == b"close"
    assert page.startswith(b"Bad request\n") and b"HTTP/1.1" not in page
    assert lines_seen(witness) == []


@pytest.mark.parametrize(("line", "status"), [(b"TRACE / HTTP/1.1", b"405"), (b"CONNECT %(host)b:443 HTTP/1.1", b"405")])
def test_methods_that_are_for_no_service(witness, line, status):
    answer = exchange(witness, get(line, fields=b"Connection: close\r\n"))
    assert answer.startswith(b"HTTP/1.1 " + status) and b"of this method.\n" in answer
    assert lines_seen(witness) == []


def test_a_foreign_authority_is_misdirected(witness):
    answer = exchange(witness, get(host=b"Host: www.example.com\r\n", fields=b"Connection: close\r\n"))
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert lines_seen(witness) == []


def test_a_head_that_is_too_long_gets_a_page(witness):
    for fields in (b"X: " + b"x" * 60_000 + b"\r\n", b"X: 1\r\n" * 101):
        answer = exchange(witness, get(fields=fields) + SECOND)
        assert answer.startswith(b"HTTP/1.1 431 ") and b"Request head too large\n" in answer
        assert answer.count(b"HTTP/1.1 ") == 1
    assert lines_seen(witness) == []


def test_the_page_of_a_faulty_head_has_the_form_that_is_accepted(witness):
    html = exchange(witness, get(fields=b"X : 1\r\nAccept: text/html\r\n"))
    assert b"<h1>Bad request</h1>" in html
    only_head = exchange(witness, get(b"HEAD / HTTP/1.1", fields=b"X : 1\r\n"))
    assert only_head.endswith(b"\r\n\r\n") and b"content-length: " in only_head


CHUNKED = b"Transfer-Encoding: chunked\r\n"
FAULTY_BODIES = {
    "a blank behind a size": b"2 \r\nhi\r\n0\r\n\r\n",
    "a blank before a size": b" 2\r\nhi\r\n0\r\n\r\n",
    "a sign": b"+2\r\nhi\r\n0\r\n\r\n",
    "a prefix": b"0x2\r\nhi\r\n0\r\n\r\n",
    "no size": b"\r\nhi\r\n0\r\n\r\n",
    "a size that is too long": b"0000000000000000002\r\nhi\r\n0\r\n\r\n",
    "a size above all numbers": b"ffffffffffffffff2\r\nhi\r\n0\r\n\r\n",
    "a bare line feed behind a size": b"2\nhi\r\n0\r\n\r\n",
    "a bare line feed in an extension": b"2;x\nhi\r\n0\r\n\r\n",
    "a bare line feed behind a chunk": b"2\r\nhi\n0\r\n\r\n",
    "a chunk that is too long": b"2\r\nhi!\r\n0\r\n\r\n",
    "a bare line feed at the end": b"2\r\nhi\r\n0\r\n\n",
    "Content-Length as a trailer": b"2\r\nhi\r\n0\r\nContent-Length: 2\r\n\r\n",
    "Transfer-Encoding as a trailer": b"2\r\nhi\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "Host as a trailer": b"2\r\nhi\r\n0\r\nHost: a\r\n\r\n",
    "a pseudo field as a trailer": b"2\r\nhi\r\n0\r\n:path: /x\r\n\r\n",
}


@pytest.mark.parametrize("name", FAULTY_BODIES)
@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "later"])
def test_a_faulty_body_is_never_whole(witness, name, at_once):
    """The visitor gets the page, and nothing behind the body is a request."""
    host = {b"host": witness.client.host.encode()}
    head, rest = post(CHUNKED) % host, FAULTY_BODIES[name] + SECOND % host
    with raw.connect(witness.client.daemon, witness.client.name) as connection:
        if at_once:
            connection.sendall(head + rest)
        else:
            connection.sendall(head + b"5\r\nhello\r\n")
            wait_for(lambda: witness.bodies, "the service sees the head")
            connection.sendall(rest)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400 ") and b"connection: close" in answer and answer.count(b"HTTP/1.1 ") == 1
    assert lines_seen(witness) in ([], [b"POST / HTTP/1.1"])
    assert witness.bodies[:-1] in ([], [None])


def test_good_bodies_pass_and_the_connection_goes_on(witness):
    host = {b"host": witness.client.host.encode()}
    requests = [
        post(b"Content-Length: 5\r\n", b"hello"),
        post(CHUNKED, b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"),
        b"\r\n" + get(b"GET /third HTTP/1.1"),
        get(b"GET /last HTTP/1.1", fields=b"Connection: close\r\n"),
    ]
    answer = exchange(witness, b"".join(request % host for request in requests))
    assert answer.count(b"HTTP/1.1 200 ") == 4
    assert witness.bodies == [b"hello", b"hello!", b"", b""]


@pytest.mark.parametrize(
    "target",
    [
        b'/api?query=up{job="x"}|y&a=<b>^`\\',
        "/grün?ß=€".encode(),
        b"/latin-\xfc?\xe4=\xff",
        b"/%2e%2e/../a//b;c=d?e?f/g",
        b"//two",
    ],
)
def test_targets_pass_byte_for_byte(witness, target):
    request = b"GET " + target + b" HTTP/1.1\r\nHost: " + witness.client.host.encode() + b"\r\nConnection: close\r\n\r\n"
    assert exchange(witness, request).startswith(b"HTTP/1.1 200 ")
    absolute = request.replace(b" /", b" https://" + witness.client.host.encode() + b"/", 1)
    assert exchange(witness, absolute).startswith(b"HTTP/1.1 200 ")
    assert lines_seen(witness) == [b"GET " + target + b" HTTP/1.1"] * 2


@pytest.mark.parametrize("target", [b'/api?query=up{job="x"}|y&a=<b>^`\\', "/grün?ß=€".encode()])
def test_targets_pass_over_other_versions(witness, multiplexed, target):
    with multiplexed(witness.client.daemon, witness.client.name) as visitor:
        assert visitor.request(target).response()[b":status"] == b"200"
    assert lines_seen(witness) == [b"GET " + target + b" HTTP/1.1"]


def unchecked(visitor):
    """Keeps the visitor's own library from refusing a request."""
    if isinstance(visitor, Http2):
        visitor.connection.config.validate_outbound_headers = False
        visitor.connection.config.normalize_outbound_headers = False


MULTIPLEXED = {
    "another Host": ({}, [("host", "other.tunnel.test")], b"400"),
    "two Hosts": ({}, [("host", "%"), ("host", "%")], b"400"),
    "another port in Host": ({}, [("host", "%:1")], b"400"),
    "a port that is none": ({"authority": "%:65536"}, [], b"400"),
    "no digits in a port": ({"authority": "%:"}, [], b"400"),
    "a user": ({"authority": "me@%"}, [], b"400"),
    "a foreign authority": ({"authority": "www.example.com"}, [], b"421"),
    "an asterisk": ({"path": "*"}, [], b"400"),
    "a query without a path": ({"path": "?q"}, [], b"400"),
    "a fragment": ({"path": "/x#y"}, [], b"400"),
    "two lengths": ({}, [("content-length", "0"), ("content-length", "0")], b"400"),
    "TRACE": ({"method": "TRACE"}, [], b"405"),
}


@pytest.mark.parametrize("name", MULTIPLEXED)
def test_faults_over_other_versions(witness, multiplexed, name):
    """What a library refuses by itself is a reset. The service sees neither."""
    changes, extra, status = MULTIPLEXED[name]
    host = witness.client.host
    changes = {"path": "/", "authority": "%", **changes}
    if "authority" in changes:
        changes["authority"] = changes["authority"].replace("%", host)
    extra = [(key, value.replace("%", host)) for key, value in extra]
    with multiplexed(witness.client.daemon, witness.client.name) as visitor:
        unchecked(visitor)
        stream = visitor.request(changes.pop("path"), extra=extra, **changes)
        try:
            assert stream.response()[b":status"] == status
        except AssertionError as error:
            assert "reset" in str(error)
    assert lines_seen(witness) == []


def test_host_may_repeat_the_authority(witness, multiplexed):
    with multiplexed(witness.client.daemon, witness.client.name) as visitor:
        host = witness.client.host
        again = host
        if isinstance(visitor, Http2):
            # The library for HTTP/3 takes nothing but the same spelling.
            unchecked(visitor)
            again = host.upper() + ":443"
        stream = visitor.request("/", authority=host, extra=[("host", again)])
        assert stream.response()[b":status"] == b"200"


@pytest.mark.parametrize("trailer", [b"content-length", b"host", b"trailer", b"expect"])
def test_trailers_that_frame_end_a_request(witness, multiplexed, trailer):
    with multiplexed(witness.client.daemon, witness.client.name) as visitor:
        unchecked(visitor)
        stream = visitor.request("/", method="POST", end=False)
        stream.send(b"hello")
        wait_for(lambda: witness.bodies, "the service sees the head")
        stream.send_trailers([(trailer, b"5")])
        try:
            assert stream.response()[b":status"] == b"400"
        except AssertionError as error:
            assert "reset" in str(error)
    assert lines_seen(witness) == [b"POST / HTTP/1.1"] and witness.bodies[0] is None


def test_plain_http_on_the_port_for_https(daemon):
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: site.tunnel.test\r\n\r\n")
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n") and b"This port speaks HTTPS\n" in answer
    assert daemon.curl("", "/health").stdout == b"ok\n"


def test_fields_keep_their_order(witness):
    names = [b"x-one", b"accept", b"connection", b"x-two", b"cookie", b"te", b"x-three", b"user-agent", b"x-four"]
    fields = b"".join(name + b": trailers\r\n" if name == b"te" else name + b": close\r\n" for name in names)
    assert exchange(witness, get(fields=fields)).startswith(b"HTTP/1.1 200 ")
    seen = [name for name, _ in raw.fields(witness.heads[0]) if name in names]
    assert seen == [name for name in names if name in seen] and len(seen) >= 7
