"""Runs the program of tests/bench/generator on the load's processor."""

import contextlib
import json
import subprocess

import processors
from contestants import HOST
from contestants.cok import KEY
from harness.process import Process


def visit(bench, port, seconds, *options, mode="visit", host=HOST):
    """Sends requests. Returns what the program counted."""
    command = [bench.generate, mode, f"--address=127.0.0.1:{port}", f"--host={host}", f"--seconds={seconds}", *options]
    with processors.on(processors.LOAD):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    assert done.returncode == 0, done.stderr.strip()
    counted = json.loads(done.stdout)
    assert counted["requests"] and not counted["failed"], counted
    return counted


@contextlib.contextmanager
def held(bench, mode, *options, processor=processors.LOAD, deadline=300):
    """Holds connections or sessions in this context. Returns their process."""
    with processors.on(processor):
        process = Process(bench.generate, mode, *options, stdin=subprocess.PIPE)
    try:
        processors.prefer(process.pid)
        assert process.wait_stdout(deadline) == "ready", process.output()
        yield process
        process.popen.stdin.close()
        assert process.wait_exit() == 0, process.output()
    finally:
        process.kill()


def sessions(bench, daemon, transport, count, tunnels=1, prefix="s"):
    """Holds sessions of a daemon in this context, on the contestants' processor."""
    return held(
        bench, "sessions", f"--server={daemon.url('')}", f"--connect-to={daemon.https}", f"--ca={daemon.ca}",
        f"--key={KEY}", f"--transport={transport}", f"--target={bench.origin.target}", f"--sessions={count}",
        f"--tunnels={tunnels}", f"--prefix={prefix}", processor=processors.TUNNEL,
    )


def visitors(bench, daemon, count, name, path="/128", *options):
    """Holds visitors' connections in this context."""
    return held(
        bench, "hold", f"--address={daemon.https}", f"--host={daemon.host(name)}", f"--path={path}",
        f"--connections={count}", *options,
    )
