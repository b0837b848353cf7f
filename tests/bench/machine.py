"""The machine and the versions of all programs, for the report."""

import os
import platform
import re
import subprocess
import time
from pathlib import Path

from contestants import tools
from harness.process import BIN_DIR

import processors


def _said(*command):
    """Returns the first line that a program says, or None if it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return ((done.stdout + done.stderr).strip().splitlines() or [None])[0]


def _commit():
    """Returns the commit of this tree, and whether files differ from it."""
    commit = _said("git", "rev-parse", "--short=12", "HEAD")
    changed = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, check=False).stdout
    return f"{commit}{' with changes' if changed else ''}"


def describe(against=None):
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    versions = {
        "cok": f"{_said(BIN_DIR / 'cokd', '--version')}, commit {_commit()}",
        "nginx": _said("nginx", "-v"),
        "haproxy": _said("haproxy", "-v"),
        "rathole": _said(tools.FOLDER / "bin" / "rathole", "--version"),
        "bore": _said(tools.FOLDER / "bin" / "bore", "--version"),
        "wrk": _said("wrk", "-v"),
        "h2load": _said("h2load", "--version"),
        "curl": _said("curl", "--version"),
    }
    if against:
        versions[f"cok of {against.name}"] = _said(against / "cokd", "--version")
    return {
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processors": os.cpu_count(),
        "model": model[1] if model else platform.machine(),
        "kernel": platform.release(),
        "memory GiB": round(int(memory[1]) / (1 << 20), 1),
        "load runs on": processors.LOAD,
        "contestants run on": processors.TUNNEL,
        "congestion control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "versions": {name: version for name, version in versions.items() if version},
    }
