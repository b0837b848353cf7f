"""One upload by curl. The service reads all of it before it answers."""

import subprocess
import time

import processors

from . import Workload, of_contestants

SIZE, QUICK = 1 << 30, 128 << 20


def measure(bench, contestant):
    size = QUICK if bench.quick else SIZE
    file = bench.folder / f"upload-{size}"
    if not file.exists():
        with file.open("wb") as made:
            made.truncate(size)
    command = contestant.curl("/sink", "-T", file, "-H", "Expect:", "--max-time", "120")
    before, began = contestant.processor_seconds(), time.monotonic()
    with processors.on(processors.LOAD):
        done = subprocess.run(command, capture_output=True, check=False)
    took, used = time.monotonic() - began, contestant.processor_seconds() - before
    assert done.stdout == str(size).encode(), f"curl ends with {done.returncode}: {done.stdout[:200]} {done.stderr[:200]}"
    return {"mb": size / took / 1e6, "per_gb": used / (size / 1e9), "memory": contestant.memory()}


WORKLOADS = [
    Workload("upload of 1 GiB", of_contestants(measure), ("mb", "per_gb", "memory"), ("mb", "per_gb"), True),
]
