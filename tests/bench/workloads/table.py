"""All workloads in the order of the report."""

from . import h2load, wrk

WORKLOADS = [*wrk.WORKLOADS, *h2load.WORKLOADS]


def choose(parts):
    """Returns the workloads whose names contain one of `parts`, or all."""
    return [each for each in WORKLOADS if not parts or any(part in each.name for part in parts)]
