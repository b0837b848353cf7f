"""What is measured: a workload has subjects that take turns in each round."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import processors


@dataclass
class Bench:
    """What workloads may use: a folder, the service, and the running contestants in order."""

    folder: Path
    origin: object
    contestants: list
    seconds: float
    quick: bool
    # The program of tests/bench/generator.
    generate: Path


@dataclass
class Subject:
    """A row of a workload's table. `measure` returns figures by name. Ratios refer to the first subject of a `group`."""

    name: str
    measure: Callable[[], dict]
    group: str = ""


@dataclass
class Workload:
    """`subjects` is a context manager that returns the subjects of a Bench. `figures` are the columns, and `plots` those
    that are drawn. `compared` is true if the subjects are the contestants."""

    name: str
    subjects: Callable
    figures: tuple
    plots: tuple
    compared: bool = False
    # A sentence for the report.
    note: str = ""
    # None: as often as the command says.
    rounds: int | None = None
    # False if other work on the machine does not matter.
    judged: bool = True
    # Those whose other work disturbs.
    processors: tuple = (processors.LOAD, processors.TUNNEL)


def of_contestants(measure):
    """Returns the `subjects` of a workload that measures each contestant by `measure(bench, contestant)`."""

    @contextlib.contextmanager
    def subjects(bench):
        yield [Subject(each.name, lambda each=each: measure(bench, each)) for each in bench.contestants]

    return subjects


@contextlib.contextmanager
def stopping(programs):
    """Stops these programs at the end, the last one first. More can be added meanwhile."""
    try:
        yield programs
    finally:
        for program in reversed(programs):
            program.stop()
