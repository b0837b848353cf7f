"""Mutants of valid responses. Each visitor gets the whole response that the bytes contain, an error page or a transfer
that breaks off, and never bytes of another exchange. COK_LONG=1 runs twenty times as many, with a new seed."""

import pytest

from harness import mutation_run, response_oracle
from harness.mutant_origin import FIN, KEEP, RST, MutantOrigin, Script
from harness.outcomes import Http1Visitor, Http2Visitor, Http3Visitor, Outcome
from harness.response_mutants import mark, marks, mutant


@pytest.fixture
def origin():
    origin = MutantOrigin()
    yield origin
    origin.stop()


def script(random, number, method):
    """Returns the bytes with their ending, and the reading of them, if there is one."""
    data = mutant(random, number)
    ending = random.choice([KEEP, KEEP, FIN, FIN, RST])
    reading = read(data, method, ending)
    bare = data.count(b"\n") > data.count(b"\r\n")
    if ending == KEEP and (reading is None or reading.end is None or bare):
        # The service closes what it leaves open, so that nothing waits. A bare LF need not end a line.
        ending = FIN
        reading = read(data, method, ending)
    return Script(data, ending), reading


def read(data, method, ending):
    try:
        return response_oracle.read(data, method, ending == FIN)
    except response_oracle.Broken:
        return None


def judge(outcome, number, reading):
    """Returns what is wrong with an outcome, or None."""
    if outcome.wrong:
        return outcome.wrong
    if others := marks(outcome.body) - {number}:
        return f"bytes of exchanges {others}: {outcome}"
    if not outcome.whole or outcome.status in (502, 504) and not marks(outcome.body):
        return None
    if reading is None:
        return f"whole, but the response was broken: {outcome}"
    if (outcome.status, outcome.body) != (reading.status, reading.body):
        return f"{outcome}, but the response was {reading}"
    return None


@pytest.mark.parametrize("visiting", [Http1Visitor, Http2Visitor, Http3Visitor], ids=["h1", "h2", "h3"])
def test_mutated_responses_are_whole_or_visibly_broken(daemon, tunnel, transport, origin, visiting, request):
    version = request.node.callspec.id.rpartition("-")[2]
    name = f"mutated-responses-{request.node.callspec.id}"
    tunnel(origin.target, name)
    whole = []

    def worker():
        visitor = visiting(daemon, name)

        def case(random, number):
            method = random.choice([b"GET", b"GET", b"GET", b"HEAD"])
            sent, reading = script(random, number, method)
            target = b"/%d" % number
            origin.scripts[target] = sent
            outcome = visitor.fetch(method, target)
            whole.append(outcome.whole and outcome.status < 500)
            wrong = judge(outcome, number, reading)
            if not wrong:
                body = mark(number) * 2
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                origin.scripts[target + b"-after"] = Script(head + body, KEEP)
                outcome = visitor.fetch(b"GET", target + b"-after")
                if outcome != Outcome(200, body, True):
                    wrong = f"a clean request after it: {outcome}"
            return wrong and f"{wrong}\n  {version} {method.decode()}, then {sent.ending}: {sent.data!r}"

        return case

    mutation_run.run(name, mutation_run.cases(834), worker)
    # Without whole responses the run would show nothing.
    assert mutation_run.ONE or sum(whole) > len(whole) / 4


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "data,method,closed,body",
    [
        (HEAD + b"Content-Length: 2, 2\r\n\r\nabc", b"GET", False, b"ab"),
        (HEAD + b"Content-Length: 9\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", b"GET", False, b"ab"),
        (HEAD + b"\r\nab", b"GET", True, b"ab"),
        (HEAD + b"Content-Length: 9\r\n\r\n", b"HEAD", False, b""),
        (b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\nab", b"GET", False, b""),
        (HEAD + b"\r\nab", b"GET", False, None),
        (HEAD + b"Content-Length: 2, 3\r\n\r\nabc", b"GET", True, None),
        (HEAD + b"Content-Length: 3\r\n\r\nab", b"GET", True, None),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", b"GET", True, None),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n", b"GET", True, None),
    ],
)
def test_the_oracle_reads_what_is_whole(data, method, closed, body):
    reading = read(data, method, FIN if closed else KEEP)
    assert (reading and reading.body) == body


def test_the_judge_finds_planted_responses():
    reading = response_oracle.Reading(200, mark(1) * 2, 9)
    assert judge(Outcome(200, mark(1) * 2, True), 1, reading) is None
    assert judge(Outcome(502, b"Bad gateway", True), 1, reading) is None
    assert judge(Outcome(200, mark(1), False), 1, reading) is None
    assert judge(Outcome(200, mark(1), True), 1, reading)
    assert judge(Outcome(200, mark(1), True), 1, None)
    assert judge(Outcome(200, mark(2), False), 1, reading)
