"""Wrong keys: their refusals wait, right keys do not."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import smallest
from harness.cok import DOMAIN, KEY
from harness.loop import Loop

# A right key waits less than PACE, which is shorter than the delays of a busy machine.
pytestmark = pytest.mark.alone

# The pace of refusals for one address, in seconds.
PACE = 0.32


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.end()


async def ask(daemon, transport, key):
    """Asks for a session, and ends it. Returns the seconds until the answer, and its error's code."""
    session = await smallest.open_session(transport, ("127.0.0.1", daemon.port), DOMAIN, daemon.ca)
    began = time.monotonic()
    try:
        await session.connect(key, "instance")
        code = None
    except smallest.Refused as refused:
        code = refused.code
    took = time.monotonic() - began
    await session.close()
    return took, code


def test_ten_wrong_keys_take_three_seconds(own_daemon, transport, loop):
    """A right key of the same address is let in at once, before and after."""
    daemon = own_daemon()
    began = time.monotonic()
    for number in range(10):
        assert loop.call(ask(daemon, transport, f"cok_wrong{number}"))[1] == "unauthorized"
    assert time.monotonic() - began > 9 * PACE * 0.9
    took, code = loop.call(ask(daemon, transport, KEY))
    assert code is None and took < PACE
    assert daemon.metric('cok_refused_total{rate="keys"}') == 10


def test_wrong_keys_at_once_wait_in_line(own_daemon, transport, loop):
    """A right key passes them."""
    daemon = own_daemon()
    with ThreadPoolExecutor(12) as pool:
        wrong = [pool.submit(loop.call, ask(daemon, transport, f"cok_wrong{number}")) for number in range(12)]
        while daemon.metric('cok_refused_total{rate="keys"}') < 12:
            pass
        took, code = loop.call(ask(daemon, transport, KEY))
        assert code is None and took < PACE
        assert not all(future.done() for future in wrong)
        times, codes = zip(*(future.result() for future in wrong))
    assert set(codes) == {"unauthorized"}
    assert max(times) > 9 * PACE * 0.9


def test_refusals_hold_no_places_of_sessions(own_daemon, transport, loop):
    daemon = own_daemon(limits="max_sessions = 2")
    with ThreadPoolExecutor(6) as pool:
        wrong = [pool.submit(loop.call, ask(daemon, transport, f"cok_wrong{number}")) for number in range(6)]
        while daemon.metric('cok_refused_total{rate="keys"}') < 2:
            pass
        assert any(loop.call(ask(daemon, transport, KEY))[1] is None for _ in range(3))
        for future in wrong:
            future.exception()
