"""The cases of the Autobahn test suite, as kosoku runs them. A service gets the same verdicts through the tunnel as it gets
directly."""

import asyncio

import pytest
from kosoku import FailureError, run_fuzzingclient

from harness.proxy import Door

# Left out: large messages and most of compression, which are about one end's library and take minutes.
EXCLUDED = ["9.*", "12.*", "13.*"]


def results(url, **choice):
    async def go():
        try:
            return await run_fuzzingclient(url, **choice)
        except FailureError as failure:
            return failure.results

    return {result.case_id: result for result in asyncio.run(go())}


def timed_out(result):
    return result.was_open_handshake_timeout or result.was_close_handshake_timeout or result.was_server_connection_drop_timeout


def verdicts(url):
    """Runs the cases. Returns the verdicts on messages and close, the close code, and what was unclean, by case. `NON-STRICT`
    counts as `OK`: in both the service conforms, and in some cases only the timing of its bytes tells which it is."""
    found = results(url, exclude_cases=EXCLUDED, concurrency=8)
    # The suite waits a second for a close, which a busy machine may take. What is never closed is late in each round.
    for _ in range(3):
        if late := [case for case, result in found.items() if timed_out(result)]:
            found |= results(url, cases=late)
    return {
        case: (
            result.behavior.value.replace("NON-STRICT", "OK"), result.behavior_close.value, result.remote_close_code,
            result.was_not_clean_reason,
        )
        for case, result in found.items()
    }


@pytest.fixture
def door(tunnel, services):
    entrance = Door(tunnel(services.ws))
    yield entrance
    entrance.stop()


def test_the_verdicts_are_the_same(door, services):
    direct = verdicts(services.ws.replace("http", "ws", 1))
    passed = [verdict for verdict in direct.values() if verdict[0] in ("OK", "INFORMATIONAL")]
    # The service's library fails one case by itself, 7.1.5.
    assert (len(passed), len(direct)) == (246, 247), direct
    through = verdicts(f"ws://127.0.0.1:{door.port}")
    assert through.keys() == direct.keys()
    assert not {case: (verdict, direct[case]) for case, verdict in through.items() if verdict != direct[case]}
