"""What a small request costs against the number of sessions, of exchanges in flight, and of workers."""

import contextlib

import processors
from contestants import HOST, cok

from . import Subject, Workload, generate, stopping, wrk

IN_FLIGHT = (1, 4, 16, 64, 256)
SESSIONS, QUICK_SESSIONS = (1, 100, 1000, 5000), (1, 100)
WORKERS = (1, 2, 4, 8)
CONNECTIONS = 64


def measure(bench, daemon, clients, connections, host=HOST, hosts=1):
    """Returns the daemon's and the clients' processor time for a request over some connections."""
    before = [processors.processor_seconds([each]) for each in (daemon.process.pid, clients)]
    counted = generate.visit(
        bench, daemon.port, bench.seconds, f"--connections={connections}", "--path=/128", f"--hosts={hosts}", host=host
    )
    after = [processors.processor_seconds([each]) for each in (daemon.process.pid, clients)]
    costs = [(then - now) / counted["requests"] * 100_000 for now, then in zip(before, after)]
    return {
        "rate": counted["requests"] / bench.seconds, "p99": counted["p99"], "daemon_100k": costs[0],
        "client_100k": costs[1],
    }


@contextlib.contextmanager
def in_flight(bench):
    with stopping([]) as programs:
        found = []
        for transport in ("ws", "quic"):
            daemon, [client] = cok.pair(bench, f"flight-{transport}", transport, programs)
            found += [
                Subject(
                    f"{transport}, {count} in flight",
                    lambda count=count, daemon=daemon, client=client: measure(bench, daemon, client.process.pid, count),
                    transport,
                )
                for count in IN_FLIGHT
            ]
        yield found


@contextlib.contextmanager
def sessions(bench):
    """All sessions are there at once, in a daemon for each number. One of them is busy, or 64 of them are."""
    with contextlib.ExitStack() as stack:
        programs, found = stack.enter_context(stopping([])), []
        for count in QUICK_SESSIONS if bench.quick else SESSIONS:
            daemon, _ = cok.pair(bench, f"sessions-{count}", "ws", programs, tunnels=())
            clients = stack.enter_context(generate.sessions(bench, daemon, "ws", count))
            for what, hosts in (("one busy", 1), (f"{CONNECTIONS} busy", min(count, CONNECTIONS))):
                if what == "one busy" or count > 1:
                    found.append(Subject(
                        f"{count:,} {'session' if count == 1 else 'sessions'}, {what}",
                        lambda daemon=daemon, pid=clients.pid, hosts=hosts: measure(
                            bench, daemon, pid, CONNECTIONS, daemon.host("s{}"), hosts
                        ),
                        what,
                    ))
        yield found


@contextlib.contextmanager
def workers(bench):
    with stopping([]) as programs:
        found = []
        for count in [each for each in WORKERS if each <= len(processors.ALL)]:
            # The load's processor comes last, since the load slows what shares it.
            used = (processors.TUNNEL, *(each for each in processors.ALL if each != processors.TUNNEL))[:count]
            daemon, [client] = cok.pair(bench, f"workers-{count}", "ws", programs, used=used)
            found.append(Subject(
                f"{count} workers" if count > 1 else "1 worker",
                lambda daemon=daemon, client=client: measure(bench, daemon, client.process.pid, CONNECTIONS),
            ))
        yield found


COLUMNS, PLOTS = ("rate", "p99", "daemon_100k", "client_100k"), ("rate", "daemon_100k")

WORKLOADS = [
    Workload("cost by exchanges in flight", in_flight, COLUMNS, PLOTS),
    Workload(
        "cost by sessions", sessions, COLUMNS, PLOTS,
        note=f"{CONNECTIONS} connections of visitors. They ask for one session's tunnel, or each for another one's.",
    ),
    Workload(
        "cost by workers", workers, COLUMNS, PLOTS,
        note="Workers are the daemon's threads, each on a processor. On a machine with few of them the load shares one.",
    ),
]
