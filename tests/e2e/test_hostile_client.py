"""A client that breaks rules of HTTP: its visitors get 502 or a transfer that breaks off, never a response that looks whole."""

import pytest

from harness.outcome import VERSIONS, ask
from harness.small_client import SmallClient
from harness.smallest.exchange import Abandoned


def head(status, *fields, end=False):
    return lambda exchange: exchange.send_head(status, b"", [(n.encode(), v.encode()) for n, v in fields], end)


def data(text, end=False):
    async def send(exchange):
        await exchange.send_body(text)
        if end:
            exchange.end()

    return send


def trailers(*fields):
    return lambda exchange: exchange.send_trailers([(n.encode(), v.encode()) for n, v in fields])


def sized(*lengths, status=200, end=False):
    return head(status, *(("content-length", length) for length in lengths), end=end)


HELLO = data(b"hello", end=True)

# What the client sends, and what its visitor gets: a status for a whole response, or None for one that breaks off.
CASES = {
    "equal-lengths": ([sized("5", "5"), HELLO], 200),
    "a-list-of-lengths": ([sized("5, 5"), HELLO], 200),
    "lengths-that-differ": ([sized("5", "6"), HELLO], 502),
    "a-list-that-differs": ([sized("5, 6"), HELLO], 502),
    "a-length-with-a-sign": ([sized("+5"), HELLO], 502),
    "an-empty-length": ([sized(""), HELLO], 502),
    "a-transfer-coding": ([head(200, ("transfer-encoding", "chunked")), HELLO], 502),
    "a-compressed-transfer": ([head(200, ("transfer-encoding", "gzip, chunked")), HELLO], 502),
    "more-than-the-length": ([sized("3"), HELLO], None),
    "more-behind-the-length": ([sized("5"), data(b"hello"), data(b"x", end=True)], None),
    "less-than-the-length": ([sized("50"), HELLO], None),
    "no-body-at-all": ([sized("5", end=True)], 502),
    "a-body-of-no-bytes": ([sized("5"), data(b"", end=True)], None),
    "trailers-too-early": ([sized("50"), data(b"hello"), trailers(("x-sum", "1"))], None),
    "a-body-behind-length-zero": ([sized("0"), HELLO], 502),
    "a-body-of-204": ([head(204), HELLO], 502),
    "a-body-of-304": ([head(304), HELLO], 502),
    "an-end-behind-204": ([head(204), data(b"", end=True)], 204),
    "a-length-of-204": ([sized("5", status=204, end=True)], 204),
    "a-length-of-304": ([sized("5", status=304, end=True)], 304),
    "an-interim-head-with-a-length": ([sized("7", status=103), sized("5"), HELLO], 200),
    "status-600": ([head(600), HELLO], 600),
    "status-999": ([head(999), HELLO], 999),
    "framing-in-trailers": (
        [head(200, ("trailer", "x-sum")), data(b"hello"),
         trailers(("x-sum", "1"), ("content-length", "9"), ("transfer-encoding", "chunked"), ("host", "x"))],
        200,
    ),
}


@pytest.fixture(scope="module")
def hostile(daemon, transport):
    """A session that answers each request as its path says: the name of a case."""
    saw = {}

    async def answer(exchange):
        steps = CASES[exchange.request.target.decode().strip("/")][0]
        saw[exchange.request.target] = exchange
        try:
            for step in steps:
                if waiting := step(exchange):
                    await waiting
        except Abandoned:
            pass

    client = SmallClient(daemon, transport, answer, subdomain=f"hostile-{transport}")
    yield client
    client.stop()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_a_violation_never_looks_whole(daemon, hostile, case, version):
    steps, expected = CASES[case]
    te = [(b"te", b"trailers")]
    got = ask(daemon, hostile.ack["subdomain"], version, f"/{case}", fields=te, bodiless=expected == 304)
    if expected is None:
        assert not got.whole and len(got.body) <= 5, got
        return
    assert (got.status, got.whole) == (expected, True), got
    if expected == 502:
        assert got.body.startswith(b"Service broke off\n")
    elif expected in (204, 304):
        assert got.body == b"" and got.values(b"content-length") == [b"5"] * (expected == 304)
    else:
        assert got.body == b"hello" and len(got.values(b"content-length")) <= 1
        assert got.trailers == [(b"x-sum", b"1")] * (case == "framing-in-trailers")
    # The session goes on.
    assert not hostile.session.ended.done()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_body_of_head_is_a_violation(daemon, hostile, version):
    name = hostile.ack["subdomain"]
    assert ask(daemon, name, version, "/equal-lengths", method="HEAD").status == 502
    got = ask(daemon, name, version, "/no-body-at-all", method="HEAD")
    assert (got.status, got.whole, got.values(b"content-length")) == (200, True, [b"5"])


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unasked_101_reaches_no_visitor(daemon, transport, version):
    """It breaks the tunnel's protocol as well, so its session ends."""

    async def answer(exchange):
        exchange.send_head(101, b"", [(b"upgrade", b"h2c")])

    client = SmallClient(daemon, transport, answer, subdomain=f"hostile-101-{transport}-{version}")
    assert ask(daemon, client.ack["subdomain"], version, fields=[(b"accept", b"application/json")]).status >= 500
    client.stop()


@pytest.mark.parametrize("version", VERSIONS)
def test_reasons_and_upgrades_are_kept_over_http1(daemon, transport, version):
    """An unusual reason phrase, the order of the fields, and the Upgrade field of a 426 (RFC 9110, section 15.5.22)."""
    answers = {
        b"/reason": (404, b"Nichts da", [(b"x-b", b"1"), (b"alt-svc", b"clear"), (b"x-a", b"2"), (b"x-b", b"3"), (b"x-c", b"4")]),
        b"/nameless": (799, b"", []),
        b"/upgrade": (426, b"", [(b"x-a", b"1"), (b"upgrade", b"TLS/1.2"), (b"x-b", b"1")]),
        b"/offer": (200, b"OK", [(b"upgrade", b"h2c")]),
    }

    async def answer(exchange):
        exchange.send_head(*answers[exchange.request.target], True)

    client = SmallClient(daemon, transport, answer, subdomain=f"kept-{transport}-{version}")
    got = {path: ask(daemon, client.ack["subdomain"], version, path.decode()) for path in answers}
    first = version == "h1"
    assert got[b"/reason"].reason == (b"Nichts da" if first else b"")
    own = [(name, value) for name, value in got[b"/reason"].fields if name.startswith(b"x-")]
    assert [name for name, _ in own] == ([b"x-b", b"x-b", b"x-a", b"x-c"] if first else [b"x-b", b"x-a", b"x-c"])
    assert (got[b"/nameless"].status, got[b"/nameless"].reason) == (799, b"")
    assert got[b"/upgrade"].values(b"upgrade") == [b"TLS/1.2"] * first
    assert (b"upgrade" in b",".join(got[b"/upgrade"].values(b"connection"))) == first
    assert not got[b"/offer"].values(b"upgrade")
    client.stop()
