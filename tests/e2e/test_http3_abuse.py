"""Invalid input over HTTP/3. Each case ends the stream or the connection with the specified code. It costs no memory, and
other visitors do not notice."""

import contextlib
import os

import pytest

from harness.cok import GIVE_BACK
from harness.http3 import ErrorCode, Http3, frame, literal, section, varint
from harness.process import wait_for

MIB = 1 << 20
HELLO = b"<h1>hello</h1>\n"
DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID = 0, 1, 3, 4, 5, 7, 0x0D
RESERVED = 0x21
CONTROL, PUSH, QPACK_ENCODER, QPACK_DECODER = 0, 1, 2, 3


@pytest.fixture
def visitor(site):
    with Http3(site.daemon, site.name) as visitor:
        yield visitor


def still_works(visitor):
    assert visitor.request("/").read() == HELLO


def get(host, *more, method=b"GET", before=()):
    """Returns the fields of a request, with some before and after."""
    head = (b":method", method), (b":scheme", b"https"), (b":authority", host), (b":path", b"/")
    return [*before, *head, *more]


HOST = b"site.tunnel.test"
# Each case has a request's fields and maybe a body, or a raw encoded head.
MALFORMED = {
    "connection": (get(HOST, (b"connection", b"close")), None),
    "keep-alive": (get(HOST, (b"keep-alive", b"timeout=5")), None),
    "proxy-connection": (get(HOST, (b"proxy-connection", b"close")), None),
    "transfer-encoding": (get(HOST, (b"transfer-encoding", b"chunked"), method=b"POST"), b"0\r\n\r\n"),
    "upgrade": (get(HOST, (b"upgrade", b"websocket")), None),
    "te": (get(HOST, (b"te", b"gzip")), None),
    "two methods": (get(HOST, before=[(b":method", b"GET")]), None),
    "two methods that differ": (get(HOST, before=[(b":method", b"POST")]), None),
    "two schemes": (get(HOST, before=[(b":scheme", b"https")]), None),
    "two paths": (get(HOST, before=[(b":path", b"/")]), None),
    "two authorities": (get(HOST, before=[(b":authority", HOST)]), None),
    "a pseudo-header field behind others": (
        [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b"x", b"y"), (b":authority", HOST)], None,
    ),
    "status": (get(HOST, before=[(b":status", b"200")]), None),
    "protocol": (get(HOST, before=[(b":protocol", b"websocket")], method=b"CONNECT"), None),
    "an unknown pseudo-header field": (get(HOST, before=[(b":x", b"y")]), None),
    "no method": (get(HOST)[1:], None),
    "no scheme": ([field for field in get(HOST) if field[0] != b":scheme"], None),
    "no path": (get(HOST)[:-1], None),
    "an empty path": ([*get(HOST)[:-1], (b":path", b"")], None),
    "a path that is none": ([*get(HOST)[:-1], (b":path", b"index.html")], None),
    "a path of padding": (None, b"\0\0\xd1\xd7\x50\x10" + HOST + b"\x51\x82\xff\xff"),
    "no authority": ([field for field in get(HOST) if field[0] != b":authority"], None),
    "an authority and another host": (get(HOST, (b"host", b"nobody.tunnel.test")), None),
    "CONNECT with a path": (get(HOST, method=b"CONNECT"), None),
    "a name in upper case": (get(HOST, (b"X-Upper", b"y")), None),
    "a name that is none": (get(HOST, (b"x y", b"z")), None),
    "an empty name": (get(HOST, (b"", b"z")), None),
    "a value with a line break": (get(HOST, (b"x", b"a\r\ny: b")), None),
    "a value with a zero": (get(HOST, (b"x", b"\0")), None),
    "content-length of letters": (get(HOST, (b"content-length", b"five")), b"12345"),
    "content-length with a sign": (get(HOST, (b"content-length", b"+5")), b"12345"),
    "content-lengths in a list": (get(HOST, (b"content-length", b"5, 5")), b"12345"),
    "content-lengths that differ": (get(HOST, (b"content-length", b"5"), (b"content-length", b"6")), b"12345"),
    "more than content-length": (get(HOST, (b"content-length", b"4"), method=b"PUT"), b"12345"),
    "less than content-length": (get(HOST, (b"content-length", b"6"), method=b"PUT"), b"12345"),
    "nothing in spite of content-length": (get(HOST, (b"content-length", b"6")), None),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests(visitor, case):
    """Each is a stream error (RFC 9114, section 4.1.2), and the connection goes on."""
    fields, body = MALFORMED[case]
    if fields:
        data = frame(HEADERS, section(*fields)) + (frame(DATA, body) if body else b"")
    else:
        data = frame(HEADERS, body)
    assert visitor.raw(data, end=True).wait_reset() == ErrorCode.H3_MESSAGE_ERROR
    # The same during an unfinished request, whose rest the daemon then stops.
    if case not in ("less than content-length", "nothing in spite of content-length"):
        stream = visitor.raw(data)
        assert stream.wait_reset() == ErrorCode.H3_MESSAGE_ERROR
        assert stream.wait_stopped() == ErrorCode.H3_MESSAGE_ERROR
    still_works(visitor)


def test_a_body_that_contradicts_its_content_length(web, services):
    """The daemon also detects it during the upload, and the service does not mistake it for complete."""
    services.uploads.clear()
    with Http3(web.daemon, web.name) as visitor:
        for rest, end in ((b"678901", False), (b"6789", True)):
            services.swallowed = 0
            stream = visitor.request("/swallow", method="POST", end=False, extra=[("content-length", "10")])
            stream.send_raw(frame(DATA, b"12345"))
            wait_for(lambda: services.swallowed == 5, "the service has the first part")
            stream.send_raw(frame(DATA, rest), end)
            assert stream.wait_reset() == ErrorCode.H3_MESSAGE_ERROR
        wait_for(lambda: len(services.uploads) == 2, "the service sees both end")
        assert not any(whole for _, whole in services.uploads)
        assert visitor.request("/echo").read() == b""


@pytest.mark.parametrize(
    "trailers",
    [[(b":path", b"/")], [(b":status", b"200")], [(b"x", b"y"), (b":method", b"GET")], [(b"connection", b"close")],
     [(b"transfer-encoding", b"chunked")], [(b"X", b"y")]],
    ids=lambda fields: str(fields[0][0]),
)
def test_malformed_trailers(web, services, trailers):
    services.uploads.clear()
    services.swallowed = 0
    with Http3(web.daemon, web.name) as visitor:
        stream = visitor.request("/swallow", method="POST", end=False)
        stream.send(b"12345")
        wait_for(lambda: services.swallowed == 5, "the service has the body")
        stream.send_raw(frame(HEADERS, section(*trailers)), end=True)
        assert stream.wait_reset() == ErrorCode.H3_MESSAGE_ERROR
        assert visitor.request("/echo").read() == b""
        wait_for(lambda: services.uploads, "the service sees the upload end")
        assert not services.uploads[0][1]


HEAD = frame(HEADERS, section(*get(HOST)))
TRAILERS = frame(HEADERS, section((b"x", b"y")))
LONG = frame(HEADERS, section(*get(HOST, *((b"x-%d" % n, b"y" * 1000) for n in range(70)))))


@pytest.mark.parametrize(
    ("data", "code"),
    {
        "too long a head": (LONG, ErrorCode.H3_EXCESSIVE_LOAD),
        "too long a promise": (frame(HEADERS, length=200 * MIB), ErrorCode.H3_EXCESSIVE_LOAD),
        "too long trailers": (HEAD + frame(HEADERS, length=200 * MIB), ErrorCode.H3_EXCESSIVE_LOAD),
        "too long a reserved frame": (HEAD + frame(RESERVED, length=200 * MIB), ErrorCode.H3_EXCESSIVE_LOAD),
        "too many reserved frames": (frame(RESERVED, b"x") * 1000, ErrorCode.H3_EXCESSIVE_LOAD),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_requests_that_exceed_limits(visitor, data, code):
    """Each is a stream error before the announced bytes arrive."""
    data, code = code
    stream = visitor.raw(data)
    assert stream.wait_reset() == code and stream.wait_stopped() == code
    still_works(visitor)


def test_a_request_that_ends_before_it_begins(visitor):
    for data in (b"", frame(RESERVED, b"anything")):
        assert visitor.raw(data, end=True).wait_reset() == ErrorCode.H3_REQUEST_INCOMPLETE
    still_works(visitor)


def test_reserved_frames_are_ignored(site, visitor):
    """They may stand anywhere and arrive in any pieces."""
    reserved = frame(RESERVED, os.urandom(1000)) + frame(RESERVED + 0x1F * 1000, b"")
    put = frame(HEADERS, section(*get(HOST, method=b"PUT")[:-1], (b":path", b"/uploads/reserved")))
    data = reserved + put + reserved + frame(DATA, b"12") + reserved + frame(DATA, b"") + frame(DATA, b"345") + reserved
    stream = visitor.raw(b"")
    for at in range(0, len(data), 7):
        stream.send_raw(data[at:at + 7])
    stream.send_raw(TRAILERS + reserved, end=True)
    assert stream.response()[b":status"] in (b"201", b"204")
    assert visitor.request("/uploads/reserved").read() == b"12345"


REQUESTS = {
    "data first": (frame(DATA, b"x"), ErrorCode.H3_FRAME_UNEXPECTED),
    "data behind trailers": (HEAD + TRAILERS + frame(DATA, b"x"), ErrorCode.H3_FRAME_UNEXPECTED),
    "trailers twice": (HEAD + TRAILERS + TRAILERS, ErrorCode.H3_FRAME_UNEXPECTED),
    **{
        f"frame {kind:#x}": (HEAD + frame(kind, length=200 * MIB), ErrorCode.H3_FRAME_UNEXPECTED)
        for kind in (CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID, 2, 6, 8, 9, 0x41)
    },
    "settings first": (frame(SETTINGS, b""), ErrorCode.H3_FRAME_UNEXPECTED),
    "a dynamic table": (frame(HEADERS, b"\x02\0" + b"\x80"), ErrorCode.QPACK_DECOMPRESSION_FAILED),
    "a dynamic index": (frame(HEADERS, b"\0\0\x80"), ErrorCode.QPACK_DECOMPRESSION_FAILED),
    "a static index that is none": (frame(HEADERS, b"\0\0\xff\x24"), ErrorCode.QPACK_DECOMPRESSION_FAILED),
    "a section that is cut short": (frame(HEADERS, b"\0\0\x50\x7f"), ErrorCode.QPACK_DECOMPRESSION_FAILED),
    "an empty section": (frame(HEADERS, b""), ErrorCode.QPACK_DECOMPRESSION_FAILED),
    "no Huffman code": (frame(HEADERS, b"\0\0\xd1\xd7\xc1\x50\x81\0"), ErrorCode.QPACK_DECOMPRESSION_FAILED),
    "a head that ends early": (frame(HEADERS, b"\0\0", length=100), ErrorCode.H3_FRAME_ERROR),
    "data that ends early": (HEAD + frame(DATA, b"abc", length=100), ErrorCode.H3_FRAME_ERROR),
    "data that ends at once": (HEAD + frame(DATA, length=100), ErrorCode.H3_FRAME_ERROR),
    "a header that ends early": (HEAD + b"\x40", ErrorCode.H3_FRAME_ERROR),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_requests_that_end_the_connection(visitor, case):
    data, code = REQUESTS[case]
    visitor.raw(data, end=code == ErrorCode.H3_FRAME_ERROR)
    assert visitor.wait_closed() == code


EMPTY_SETTINGS = varint(CONTROL) + frame(SETTINGS, b"")
STREAMS = {
    "no settings": (varint(CONTROL) + frame(GOAWAY, b"\0"), ErrorCode.H3_MISSING_SETTINGS),
    "a reserved frame before settings": (varint(CONTROL) + frame(RESERVED, b""), ErrorCode.H3_MISSING_SETTINGS),
    "settings twice": (EMPTY_SETTINGS + frame(SETTINGS, b""), ErrorCode.H3_FRAME_UNEXPECTED),
    "settings of HTTP/2": (varint(CONTROL) + frame(SETTINGS, b"\x02\0"), ErrorCode.H3_SETTINGS_ERROR),
    "one setting twice": (varint(CONTROL) + frame(SETTINGS, b"\x06\x01\x06\x01"), ErrorCode.H3_SETTINGS_ERROR),
    "half a setting": (varint(CONTROL) + frame(SETTINGS, b"\x06"), ErrorCode.H3_SETTINGS_ERROR),
    "settings that are too long": (varint(CONTROL) + frame(SETTINGS, length=200 * MIB), ErrorCode.H3_EXCESSIVE_LOAD),
    "a frame that is too long": (EMPTY_SETTINGS + frame(RESERVED, length=200 * MIB), ErrorCode.H3_EXCESSIVE_LOAD),
    "too many frames": (EMPTY_SETTINGS + frame(RESERVED, b"") * 2000, ErrorCode.H3_EXCESSIVE_LOAD),
    "data": (EMPTY_SETTINGS + frame(DATA, b"x"), ErrorCode.H3_FRAME_UNEXPECTED),
    "a head": (EMPTY_SETTINGS + HEAD, ErrorCode.H3_FRAME_UNEXPECTED),
    "a push promise": (EMPTY_SETTINGS + frame(PUSH_PROMISE, b"\0"), ErrorCode.H3_FRAME_UNEXPECTED),
    "a ping of HTTP/2": (EMPTY_SETTINGS + frame(6, b"\0" * 8), ErrorCode.H3_FRAME_UNEXPECTED),
    "a GOAWAY that rises": (EMPTY_SETTINGS + frame(GOAWAY, b"\x04") + frame(GOAWAY, b"\x08"), ErrorCode.H3_ID_ERROR),
    "a push id that falls": (EMPTY_SETTINGS + frame(MAX_PUSH_ID, b"\x08") + frame(MAX_PUSH_ID, b"\x04"), ErrorCode.H3_ID_ERROR),
    "an unknown push": (EMPTY_SETTINGS + frame(CANCEL_PUSH, b"\0"), ErrorCode.H3_ID_ERROR),
    "a GOAWAY of nothing": (EMPTY_SETTINGS + frame(GOAWAY, b""), ErrorCode.H3_FRAME_ERROR),
    "a GOAWAY of more": (EMPTY_SETTINGS + frame(GOAWAY, b"\0\0"), ErrorCode.H3_FRAME_ERROR),
    "a push": (varint(PUSH) + varint(0), ErrorCode.H3_STREAM_CREATION_ERROR),
    "an insertion": (varint(QPACK_ENCODER) + b"\x3f\xe1\x1f", ErrorCode.QPACK_ENCODER_STREAM_ERROR),
    "an acknowledgement": (varint(QPACK_DECODER) + b"\x80", ErrorCode.QPACK_DECODER_STREAM_ERROR),
}


@pytest.mark.parametrize("case", STREAMS)
def test_unidirectional_streams_that_end_the_connection(site, case):
    data, code = STREAMS[case]
    with Http3(site.daemon, site.name, settle=False) as visitor:
        visitor.raw_unidirectional(data)
        assert visitor.wait_closed() == code


@pytest.mark.parametrize("kind", [CONTROL, QPACK_ENCODER, QPACK_DECODER])
def test_critical_streams(site, kind):
    """Each kind of stream exists once and lasts as long as the connection (RFC 9114, section 6.2.1; RFC 9204, section 4.2)."""
    with Http3(site.daemon, site.name) as visitor:
        visitor.raw_unidirectional(EMPTY_SETTINGS if kind == CONTROL else varint(kind))
        assert visitor.wait_closed() == ErrorCode.H3_STREAM_CREATION_ERROR
    for end in (lambda quic, stream: quic.send_stream_data(stream, b"", True), lambda quic, stream: quic.reset_stream(stream, 0)):
        with Http3(site.daemon, site.name) as visitor:
            still_works(visitor)
            own = {
                CONTROL: visitor.h3._local_control_stream_id,
                QPACK_ENCODER: visitor.h3._local_encoder_stream_id,
                QPACK_DECODER: visitor.h3._local_decoder_stream_id,
            }
            visitor.do(lambda: end(visitor.quic, own[kind]))
            assert visitor.wait_closed() == ErrorCode.H3_CLOSED_CRITICAL_STREAM


def test_unidirectional_streams_that_are_ignored(visitor):
    """The daemon stops reserved streams and ignores streams that end before their type. There is always room for another."""
    for _ in range(20):
        stream = visitor.raw_unidirectional(varint(RESERVED) + b"anything")
        assert stream.wait_stopped() == ErrorCode.H3_STREAM_CREATION_ERROR
        stream.break_off()
        visitor.raw_unidirectional(b"\xc0", end=True)
        visitor.raw_unidirectional(b"", end=True)
    still_works(visitor)


def test_priorities_are_accepted(visitor):
    """Browsers send priorities with each request, and updates later (RFC 9218)."""
    control = visitor.h3._local_control_stream_id
    for number in range(3000):
        visitor.do(lambda: visitor.quic.send_stream_data(control, frame(0xF0700, varint(4 * (number % 60)) + b"u=3")))
    still_works(visitor)


@pytest.fixture
def guarded(own_daemon, nginx):
    """A tunnel at its own daemon, and a function that returns the daemon's growth."""
    daemon = own_daemon(env=GIVE_BACK)
    client = daemon.client(nginx.target, "site")
    nginx.add_sparse("http3-huge.bin", 1 << 30)
    with Http3(daemon, "site") as visitor:
        still_works(visitor)
    daemon.process.reset_peak()
    before = daemon.process.memory()[0]
    client.growth = lambda: daemon.process.memory()[1] - before
    yield client
    client.stop()


def test_huge_promises_cost_nothing(guarded):
    """Frames announce 200 MB and send a part, on one stream, on a hundred, and on a control stream. The daemon ends each as
    soon as it knows the length."""
    filling = b"x" * 40_000
    with Http3(guarded.daemon, "site") as visitor:
        for kind in (HEADERS, RESERVED):
            stream = visitor.raw(frame(kind, length=200 * MIB) + bytes(64 * MIB))
            assert stream.wait_reset() == stream.wait_stopped() == ErrorCode.H3_EXCESSIVE_LOAD
        for head in (frame(HEADERS, length=200 * MIB), HEAD + frame(HEADERS, length=200 * MIB)):
            for stream in [visitor.raw(head + filling) for _ in range(100)]:
                assert stream.wait_reset() == ErrorCode.H3_EXCESSIVE_LOAD
                stream.break_off()
        still_works(visitor)
    for kind in (SETTINGS, GOAWAY):
        with Http3(guarded.daemon, "site", settle=False) as visitor:
            start = varint(CONTROL) if kind == SETTINGS else EMPTY_SETTINGS
            visitor.raw_unidirectional(start + frame(kind, length=200 * MIB) + filling * 20)
            assert visitor.wait_closed() == ErrorCode.H3_EXCESSIVE_LOAD
    assert guarded.growth() < 16 * MIB


def test_slow_heads_stay_within_their_bounds(guarded):
    """Ten visitors open all their streams and send most of the longest head on each. The daemon holds only what they sent."""
    part = frame(HEADERS, b"\0\0" + literal(b"x", b"y" * 16_000), length=60_000)
    sent = 10 * 100 * len(part)
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            visitor = stack.enter_context(Http3(guarded.daemon, "site"))
            streams = [visitor.raw(part) for _ in range(100)]
            wait_for(lambda: all(taken(visitor, stream) == len(part) for stream in streams), "it has been taken")
        assert guarded.growth() < 2 * sent + 16 * MIB
        with Http3(guarded.daemon, "site") as another:
            still_works(another)


def taken(visitor, stream):
    return visitor.quic._streams[stream.id].sender._buffer_start


def test_streams_that_are_never_read(guarded):
    """One visitor opens all its streams, each for 1 GiB, and grants each 64 KiB. The daemon's memory stays within the
    windows, and it serves others meanwhile."""
    with Http3(guarded.daemon, "site", greedy=False, window=64 * 1024) as visitor:
        streams = [visitor.request("/http3-huge.bin") for _ in range(100)]
        # The connection's window fills before all the streams' windows do.
        wait_for(lambda: sum(len(stream.data) for stream in streams) > 900 * 1024, "the window is used up")
        with Http3(guarded.daemon, "site") as another:
            for _ in range(20):
                still_works(another)
        # 100 exchanges with 256 KiB each, the process-wide budget for their growth, and the buffers of HTTP/3.
        assert guarded.growth() < 100 * 256 * 1024 + 16 * MIB + 100 * 128 * 1024
        assert not any(stream.ended for stream in streams)
    assert guarded.curl("/").stdout == HELLO
