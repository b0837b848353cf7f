"""`tests/run` on a machine that lacks something: it runs the rest, lists what it skipped with the reason, and ends with 4."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import needs
from harness.process import BIN_DIR

RUN = Path(__file__).parents[1] / "run"
# Needs nothing, needs root, needs a program of Debian.
FREE, ROOTS, PEBBLES = (
    "test_cli.py::test_unknown_flags", "test_check.py::test_records", "test_check.py::test_health_without_a_certificate",
)


@pytest.fixture
def poor(tmp_path):
    """Returns a function that runs `tests/run` for some tests, as a user without rights and without pebble."""
    needs.command("unshare")
    if subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode:
        needs.lacking("user namespaces")
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(folder).iterdir() if os.path.isdir(folder) else ():
            if not program.name.startswith("pebble"):
                link = programs / program.name
                link.unlink(missing_ok=True)
                link.symlink_to(program)

    def run(*tests, strict=False):
        env = {
            **os.environ, "PATH": str(programs), "COK_BIN_DIR": str(BIN_DIR.resolve()), "PYTHONDONTWRITEBYTECODE": "1",
            # The virtual environment of this run.
            "CARGO_TARGET_DIR": str(Path(sys.prefix).parent), "TMPDIR": str(tmp_path),
        }
        env.pop("COK_TEST_STRICT", None)
        env.pop("COK_TEST_LACKS", None)
        env |= {"COK_TEST_STRICT": "1"} if strict else {}
        # In a user namespace without a mapping there is no root.
        command = [shutil.which("unshare"), "--user", "bash", RUN, *(f"tests/e2e/{test}" for test in tests)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)

    if not os.access(Path(sys.prefix).parent / "test-venv" / "bin" / "python", os.X_OK):
        pytest.fail("this suite runs with the virtual environment of tests/run")
    return run


def test_what_is_lacking_is_skipped_and_listed(poor):
    result = poor(FREE, ROOTS, PEBBLES)
    assert result.returncode == needs.LACKING, result.stdout + result.stderr
    assert "1 passed, 2 skipped" in result.stdout
    # It may lack more.
    (lacks,) = (line for line in result.stderr.splitlines() if line.startswith("This machine lacks: "))
    assert {"pebble", "pebble-challtestsrv"} <= set(lacks.partition(". ")[0].split()), lacks
    _, _, listed = result.stdout.partition("Skipped, since this machine lacks:\n")
    lines = [line.strip() for line in listed.splitlines()]
    assert lines[lines.index("the command pebble") + 1].endswith(PEBBLES), listed
    (roots,) = (number for number, line in enumerate(lines) if line.startswith("root's rights: "))
    assert lines[roots + 1].endswith(ROOTS), listed


def test_nothing_is_lacking(poor):
    result = poor(FREE)
    assert result.returncode == 0 and "Skipped" not in result.stdout, result.stdout + result.stderr


def test_where_nothing_may_be_lacking_it_is_a_failure(poor):
    """As on Debian as root, and so in CI."""
    result = poor(FREE, PEBBLES, strict=True)
    assert result.returncode == 1 and "1 failed, 1 passed" in result.stdout, result.stdout + result.stderr


def test_a_failure_beats_what_is_lacking(poor, tmp_path):
    failing = tmp_path / "test_failing.py"
    failing.write_text("from harness import needs\ndef test_fails():\n    assert False\ndef test_lacks():\n    needs.command('pebble')\n")
    result = poor(f"../../{os.path.relpath(failing, RUN.parents[1])}", PEBBLES)
    assert result.returncode == 1 and "the command pebble" in result.stdout, result.stdout + result.stderr
