"""All workloads in the order of the report."""

from . import h2load, http3, idle, lossy, neighbours, observing, scaling, steady, upload, wrk

MODULES = (wrk, h2load, upload, steady, http3, idle, scaling, neighbours, lossy, observing)
WORKLOADS = [each for module in MODULES for each in module.WORKLOADS]


def choose(parts):
    """Returns the workloads whose names contain one of `parts`, or all."""
    return [each for each in WORKLOADS if not parts or any(part in each.name for part in parts)]
