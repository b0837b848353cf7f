"""The strict reader of requests refuses every doubtful framing."""

import pytest

from harness import strict_request

HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "data,body",
    [
        (HEAD + b"\r\n", b""),
        (HEAD + b"Content-Length: 3\r\n\r\nabc", b"abc"),
        (CHUNKED + b"3;e=1\r\nabc\r\n0\r\nT: 1\r\n\r\n", b"abc"),
    ],
)
def test_an_exact_request_is_read_to_its_end(data, body):
    _, target, _, got, end = strict_request.read(data + b"GET /next")
    assert (target, got, end) == (b"/a", body, len(data))


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length : 3\r\n\r\nabc",
        HEAD + b"Content-Length: +3\r\n\r\nabc",
        HEAD + b"Content-Length: 4\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\nabc\r\n0\r\n\r\n",
        HEAD + b"Host: y\r\n\r\n",
        b"GET  /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\nHost: x\n\n",
    ],
)
def test_a_doubtful_request_is_refused(data):
    with pytest.raises(strict_request.Refused):
        strict_request.read(data)


@pytest.mark.parametrize("whole", [HEAD + b"Content-Length: 3\r\n\r\nabc", CHUNKED + b"3\r\nabc\r\n0\r\nT: 1\r\n\r\n"])
def test_the_beginning_of_a_request_is_short(whole):
    for end in range(len(whole)):
        with pytest.raises(strict_request.Short):
            strict_request.read(whole[:end])
