"""The benchmark runs: a short one of one contestant has figures, and no failure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import needs
from harness.process import BIN_DIR

BENCH = Path(__file__).parents[1] / "bench" / "bench.py"
WORKLOADS = ["128 B x64", "upload", "200 requests/s", "HTTP/3"]


@pytest.mark.alone
def test_the_benchmark_has_figures(tmp_path):
    if len(os.sched_getaffinity(0)) < 2:
        needs.lacking("a second processor, for the benchmark")
    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parent), "COK_GENERATE": str(BIN_DIR / "cok-generate"),
    }
    done = subprocess.run(
        [sys.executable, BENCH, "--quick", "--seconds", "1", "--disturbed", "1000", "--only", "over ws", "--workloads",
         *WORKLOADS, "--output", tmp_path],
        env=environment, capture_output=True, text=True, check=False, timeout=60, start_new_session=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["left out"] == {}
    rows = {(each["workload"], name): rounds for each in results["results"] for name, rounds in each["rounds"].items()}
    assert len(rows) == 5 and not any(each["failed"] for each in results["results"]), done.stdout
    for row, [measured] in rows.items():
        assert measured["figures"] and all(value > 0 for value in measured["figures"].values()), row
    assert len(list(tmp_path.glob("*.svg"))) == len(WORKLOADS)
