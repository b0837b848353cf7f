"""What tests need of the machine: commands, and root's rights. A test whose machine lacks something is skipped with the
reason, and the run then ends with exit code 4, never 0. Where `tests/run` installs everything (COK_TEST_STRICT), such a test
fails instead."""

import os
import shutil
import sys

# The exit code of a run in which something was skipped since the machine lacks it.
LACKING = 4
_REASON = "this machine lacks "


class Lacking(Exception):
    """This machine lacks something, and no test runs: the benchmark uses the harness without pytest."""


def lacking(what):
    """Skips the running test, or fails it where nothing may be lacking."""
    if "pytest" not in sys.modules:
        raise Lacking(_REASON + what)
    import pytest

    if os.environ.get("COK_TEST_STRICT"):
        pytest.fail(_REASON + what, pytrace=False)
    pytest.skip(_REASON + what)


def command(name):
    """Skips the running test if a command is not there."""
    if not shutil.which(name):
        lacking(f"the command {os.path.basename(name)}")


def program(path):
    """The same for a program that is started, unless it is one under test or one that a test has made."""
    if "/" not in path or path.startswith(("/usr/", "/bin/", "/sbin/")):
        command(path)


def root(purpose):
    """Skips the running test unless root runs it."""
    if os.geteuid():
        lacking(f"root's rights: {purpose}")


def check(needed):
    """Checks each argument of the marker `needs`: `root`, or a command's name."""
    for name in needed:
        root("only root may do what this tests") if name == "root" else command(name)


def watch():
    """From now on, a test that starts a missing program is skipped, wherever it starts it."""
    main = os.getpid()

    def hook(event, arguments):
        # Not in forked children, which cannot skip a test.
        if event == "subprocess.Popen" and os.getpid() == main:
            path, _, _, env = arguments
            # A test may hide commands on purpose.
            if env is None or env.get("PATH") == os.environ.get("PATH"):
                program(os.fsdecode(path))

    sys.addaudithook(hook)


def skipped(reports):
    """Returns the tests that were skipped since the machine lacks something, with what it lacks."""
    found = {}
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _, lacks, what = reason.partition(_REASON)
        if lacks:
            found[report.nodeid] = what
    return found
