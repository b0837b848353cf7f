"""The figures that cok is to reach, and what a run measured for each of them."""

from dataclasses import dataclass

import table

WS, QUIC = "cok over ws", "cok over quic"
NGINX, HAPROXY, RATHOLE = "nginx two hops", "haproxy two hops", "nginx + rathole"


@dataclass(frozen=True)
class Goal:
    """A ratio of one subject's figure to another's, or the figure itself without `to`. `least` says that it must be at
    least `must`, and not at most."""

    work: str
    workload: str
    figure: str
    subject: str
    to: str | None
    must: float
    aim: float
    least: bool = False

    def value(self, medians):
        """Returns the measured value, or None. `medians` has figures by workload and subject."""
        of = medians.get(self.workload, {})
        found = _starting(of, self.subject).get(self.figure)
        if found is None or self.to is None:
            return found
        base = _starting(of, self.to).get(self.figure)
        return found / base if base else None

    def reached(self, value, wanted):
        return value >= wanted if self.least else value <= wanted


def _starting(of, subject):
    """Returns the figures of the subject with this name, or of the first one whose name ends with it."""
    return of.get(subject) or next((figures for name, figures in of.items() if name.endswith(subject)), {})


def _rates(work, workload, must, aim, subject=WS, to=NGINX):
    return Goal(f"{work}: requests/s to {to}", workload, "rate", subject, to, must, aim, least=True)


GOALS = [
    _rates("128 B x64", "128 B x64", 1.5, 2.0),
    _rates("128 B x64", "128 B x64", 1.0, 1.3, to=HAPROXY),
    Goal(f"128 B x64: processor per request to {NGINX}", "128 B x64", "per_100k", WS, NGINX, 0.65, 0.5),
    Goal(f"128 B x64: processor per request to {RATHOLE}", "128 B x64", "per_100k", WS, RATHOLE, 0.6, 0.4),
    _rates("128 B x256", "128 B x256", 1.0, 1.3, to=HAPROXY),
    Goal(f"128 B x256: p99 to {NGINX}", "128 B x256", "p99", WS, NGINX, 0.4, 0.15),
    Goal(f"one connection: p50 to {NGINX}", "128 B x1", "p50", WS, NGINX, 1.1, 0.9),
    _rates("HTTP/2 8x32", "HTTP/2 8x32", 1.8, 2.5),
    _rates("HTTP/2 8x32", "HTTP/2 8x32", 0.8, 1.1, to=HAPROXY),
    _rates("64 KiB x64", "64 KiB x64", 1.3, 1.7),
    _rates("64 KiB x64", "64 KiB x64", 2.5, 4.0, to=RATHOLE),
    Goal(f"10 MiB x8: processor per GB to {NGINX}", "10 MiB x8", "per_gb", WS, NGINX, 0.85, 0.6),
    Goal(f"10 MiB x8: processor per GB to {RATHOLE}", "10 MiB x8", "per_gb", WS, RATHOLE, 0.4, 0.3),
    _rates("128 B x64 over QUIC", "128 B x64", 0.9, 1.0, QUIC, WS),
    _rates("64 KiB x64 over QUIC", "64 KiB x64", 0.7, 0.9, QUIC, WS),
    _rates("10 MiB x8 over QUIC", "10 MiB x8", 0.7, 0.9, QUIC, WS),
    _rates("new connection per request", "new connections x16", 1.1, 1.35),
    Goal("HTTP/3: processor per request to HTTP/2", "HTTP/3 against HTTP/2, 8x32", "daemon_100k", "HTTP/3", "HTTP/2",
         1.6, 1.3),
    Goal("idle session over ws with its tunnel: KiB", "idle cost", "each", "sessions over ws", None, 32, 20),
    Goal("idle session over quic with its tunnel: KiB", "idle cost", "each", "sessions over quic", None, 64, 40),
    Goal("idle visitor connection: KiB", "idle cost", "each", "visitors' connections", None, 24, 12),
    Goal("line with 2 % of loss, BBR: p99 during bulk, QUIC to ws", "lossy line", "p99", "2 %, bbr, quic", "2 %, bbr, ws",
         1.0, 0.7),
    Goal("line with 1 % of loss, BBR: p99 during bulk, QUIC to ws", "lossy line", "p99", "1 %, bbr, quic", "1 %, bbr, ws",
         1.0, 0.7),
    Goal("line without loss, BBR: bulk rate, QUIC to ws", "lossy line", "mb", "0 %, bbr, quic", "0 %, bbr, ws", 0.95, 1.0,
         least=True),
    *(
        Goal(f"{transport}: small p99 next to bulk of {what} tunnel to none", "small requests next to bulk", "p99",
             f"{transport}, 4 bulk, {what} tunnel", f"{transport}, alone", 3.0, 1.7)
        for transport in ("ws", "quic") for what in ("same", "another")
    ),
    *(
        Goal(f"{transport}: others' rate next to a stalled visitor", "next to a stalled visitor", "rate",
             f"{transport}, next to a stalled visitor", f"{transport}, alone", 0.95, 0.98, least=True)
        for transport in ("ws", "quic")
    ),
    Goal("cost per request at 5,000 sessions to 1, one busy", "cost by sessions", "daemon_100k", "5,000 sessions, one busy",
         "1 session, one busy", 1.15, 1.05),
    Goal("cost per request, 64 busy of 5,000 to 64 of 100", "cost by sessions", "daemon_100k", "5,000 sessions, 64 busy",
         "100 sessions, 64 busy", 1.15, 1.05),
    Goal("cost per request at 8 workers to 1", "cost by workers", "daemon_100k", "8 workers", "1 worker", 1.3, 1.1),
]


def markdown(medians):
    """Returns the goals as a table."""
    lines = [["work", "must reach", "aim", "measured", "reached"]]
    for goal in GOALS:
        sign, value = "≥" if goal.least else "≤", goal.value(medians)
        reached = "not measured" if value is None else (
            "aim" if goal.reached(value, goal.aim) else "yes" if goal.reached(value, goal.must) else "no"
        )
        lines.append([
            goal.work, f"{sign} {goal.must:g}", f"{sign} {goal.aim:g}", "–" if value is None else f"{value:.2f}", reached
        ])
    return table.markdown(lines)
