"""Small requests at a fixed rate that every contestant serves with ease: what matters is their time."""

from origin import FILES

from . import Workload, generate, of_contestants, wrk

RATE, CONNECTIONS = 200, 8


def measure(bench, contestant):
    before = contestant.processor_seconds()
    counted = generate.visit(
        bench, contestant.port, bench.seconds, f"--connections={CONNECTIONS}", f"--rate={RATE}", "--path=/128"
    )
    used = contestant.processor_seconds() - before
    costs = wrk.costs(contestant, used, counted["requests"], FILES["/128"])
    return {"p50": counted["p50"], "p99": counted["p99"], **costs}


WORKLOADS = [
    Workload("200 requests/s", of_contestants(measure), ("p50", "p99", "per_100k"), ("p50", "p99", "per_100k"), True),
]
