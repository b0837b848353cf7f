"""Mutants of valid requests. The service sees what was sent as a request and nothing else, and each visitor gets the
answer to its own request or an error. COK_LONG=1 runs twenty times as many, with a new seed."""

import socket
import threading
import zlib

import pytest

from harness import field_mutants, mutation_run, request_mutants, request_oracle
from harness.allowed import Allowed
from harness.mutant_visitor import Visitor, clean, judge
from harness.raw_requests import RawHttp2, RawHttp3
from harness.strict_origin import StrictOrigin, answer


def target(number, part):
    """A target that no small change turns into another one."""
    name = b"%d-%s" % (number, part)
    return b"/%s-%08x" % (name, zlib.crc32(name))


@pytest.fixture
def allowed():
    return Allowed()


@pytest.fixture
def origin(allowed):
    origin = StrictOrigin(allowed.judge)
    yield origin
    origin.stop()


def test_mutated_http1_requests_forge_nothing(daemon, tunnel, transport, allowed, origin):
    name = f"mutated-h1-{transport}"
    tunnel(origin.target, name)
    served = []

    def worker():
        visitor = Visitor(daemon, name)

        def case(random, number):
            targets = [target(number, part) for part in random.choice([[b"a"], [b"a", b"b"]])]
            data = request_mutants.mutant(random, visitor.host, targets, target(number, b"canary"))
            data += clean(visitor.host, target(number, b"end"), close=True)[0]
            requests, state = request_oracle.sent(data)
            allowed.add(requests)
            seen = len(origin.faults)
            wrong, answered = visitor.exchange(data, requests, state)
            served.append(answered)
            if not wrong:
                after, held = clean(visitor.host, target(number, b"after"), close=True)
                allowed.add(held)
                wrong, answered = visitor.exchange(after, held, "whole")
                if not wrong and not answered:
                    wrong = "a clean request after it has no answer"
            wrong = wrong or " ".join(fault for fault in origin.faults[seen:] if f"/{number}-" in fault)
            return wrong and f"{wrong}\n  sent, {state}: {data!r}"

        return case

    mutation_run.run(name, mutation_run.cases(1500), worker)
    assert not origin.faults, origin.faults[:5]
    # Without answers the run would show nothing.
    assert mutation_run.ONE or sum(served) > len(served) / 2


@pytest.mark.parametrize("visiting,count", [(RawHttp2, 600), (RawHttp3, 400)], ids=["h2", "h3"])
def test_mutated_fields_forge_nothing(daemon, tunnel, transport, allowed, origin, visiting, count, request):
    name = f"mutated-{request.node.callspec.id}"
    tunnel(origin.target, name)
    authority = f"{daemon.host(name)}:{daemon.port}".encode()
    served = []

    def worker():
        visitor = visiting(daemon, name)

        def send(made):
            """Returns what is wrong with the outcome, and the outcome."""
            sent = made.sent()
            allowed.add(sent)
            outcome = visitor.send(made)
            bodies = [b"" if one.method == b"HEAD" else one.target for one in sent]
            if outcome.wrong or outcome.whole and outcome.status < 400 and outcome.body not in bodies:
                return f"{outcome}", outcome
            return None, outcome

        def case(random, number):
            made = field_mutants.mutant(random, authority, target(number, b"a"), target(number, b"canary"))
            seen = len(origin.faults)
            wrong, outcome = send(made)
            served.append(outcome.status == 200)
            if not made.ended:
                # The daemon may take the reset of a stream that it refused for an error of the connection.
                visitor.leave()
            if not wrong:
                clean_one = field_mutants.Request(field_mutants.head(b"GET", authority, target(number, b"after")))
                wrong, outcome = send(clean_one)
                if outcome.status is None:
                    # The connection may break behind the mutant. A new one must work.
                    visitor.leave()
                    wrong, outcome = send(clean_one)
                if not wrong and outcome.status != 200:
                    wrong = f"a clean request after it: {outcome}"
            wrong = wrong or " ".join(fault for fault in origin.faults[seen:] if f"/{number}-" in fault)
            return wrong and f"{wrong}\n  sent: {made}"

        return case

    mutation_run.run(name, mutation_run.cases(count), worker)
    assert not origin.faults, origin.faults[:5]
    # Without answers the run would show nothing.
    assert mutation_run.ONE or sum(served) > len(served) / 10


ONE = b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd"


@pytest.mark.parametrize(
    "forwarded,fault",
    [
        (ONE, None),
        (ONE + b"GET /canary HTTP/1.1\r\nHost: x\r\n\r\n", "never sent"),
        (ONE.replace(b": 4", b": 2")[:-2], "not sent as its body"),
        (ONE.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost"), "more than one framing"),
    ],
)
def test_the_origin_finds_a_planted_desync(allowed, origin, forwarded, fault):
    allowed.add(request_oracle.sent(ONE)[0])
    here, there = socket.socketpair()
    serving = threading.Thread(target=origin.serve, args=(there,))
    serving.start()
    with here:
        here.sendall(forwarded)
        here.shutdown(socket.SHUT_WR)
        serving.join(10)
    assert len(origin.faults) == (fault is not None)
    assert fault is None or fault in origin.faults[0]


def test_the_visitor_finds_planted_answers():
    requests = request_oracle.sent(b"".join(clean(b"x", target)[0] for target in (b"/a", b"/b")))[0]
    one, two = (answer(request.method, request.target) for request in requests)
    assert judge(one + two, requests) == (None, 2)
    assert judge(one + b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", requests) == (None, 1)
    empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    for planted in (two + one, two, one + two + one, one + b"/a" + two, empty):
        assert judge(planted, requests)[0]
