"""Contestants that cargo installs, in a folder of their own."""

import os
from pathlib import Path

from . import Absent

FOLDER = Path(os.environ.get("COK_BENCH_TOOLS", "target/bench-tools"))


def path(program):
    """Returns the path of a program that `tests/bench/run` installs."""
    found = FOLDER / "bin" / program
    if not found.exists():
        raise Absent(f"{found} is not there; crates.io may be out of reach")
    return found
