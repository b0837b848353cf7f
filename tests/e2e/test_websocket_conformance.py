"""The cases of the Autobahn test suite, as kosoku runs them. A service gets the same verdicts through the tunnel as it gets
directly."""

import asyncio

import pytest
from kosoku import FailureError, run_fuzzingclient

from harness.proxy import Door

# Left out: large messages and most of compression, which are about one end's library and take minutes.
EXCLUDED = ["9.*", "12.*", "13.*"]


def verdicts(url):
    """Runs the cases. Returns the verdicts on messages and close, and the close code, by case. `NON-STRICT` counts as
    `OK`: in both the service conforms, and in some cases only the timing of its bytes tells which it is."""

    async def go():
        try:
            return await run_fuzzingclient(url, exclude_cases=EXCLUDED, concurrency=8)
        except FailureError as failure:
            return failure.results

    return {
        result.case_id: (result.behavior.value.replace("NON-STRICT", "OK"), result.behavior_close.value, result.remote_close_code)
        for result in asyncio.run(go())
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
    assert verdicts(f"ws://127.0.0.1:{door.port}") == direct
