"""The daemon holds no more bytes of bodies than its account allows when visitors stand still, and gives them back."""

import contextlib
import threading

import pytest

from harness import stalled
from harness.cok import GIVE_BACK
from harness.http3 import Http3
from harness.load import Site
from harness.process import HERE, wait_for

MIB = 1 << 20
BUFFERED = 64 * MIB
CONNECTIONS = 40
STREAMS = 100
# TLS, HTTP and the task of a connection, and the state of its streams.
CONNECTION = 256 * 1024
# The allocator keeps some memory after a burst, which differs between runs.
ALLOCATOR = 24 * MIB
# What may stay with the process after a burst.
KEPT = 16 * MIB


@pytest.fixture
def counted(own_daemon, nginx, transport):
    """A tunnel to files, and one to a service that ignores uploads, in a daemon that may hold little."""
    daemon = own_daemon(limits=f'max_buffered = "{BUFFERED // MIB}MiB"', env=GIVE_BACK, transport=transport)
    nginx.add_sparse("ten.bin", 10 * MIB)
    site = Site(HERE)
    clients = [daemon.client(nginx.target, "files"), daemon.client(site.target, "uploads")]
    yield daemon
    for program in (*clients, site):
        program.stop()


@contextlib.contextmanager
def bounded(daemon, connections=CONNECTIONS, honest=("files", "/")):
    """Watches memory and an honest visitor of the attacked tunnel."""
    with stalled.Honest(daemon, *honest) as visitor:
        wait_for(lambda: len(visitor.times) > 5, "the honest visitor is served")
        quiet = daemon.process.memory()[0]
        daemon.process.reset_peak()
        yield
        served = len(visitor.times)
        wait_for(lambda: len(visitor.times) > served + 10, "the honest visitor is served")
        peak = daemon.process.memory()[1]
        print(f"quiet {quiet >> 20} MiB, peak {peak >> 20} MiB, slowest {max(visitor.times):.2f} s")
    assert not visitor.failures
    assert peak - quiet < BUFFERED + connections * CONNECTION + ALLOCATOR, (quiet, peak)


def gives_back(daemon, quiet):
    most = quiet * 1.1 + KEPT
    held = []

    def is_back():
        held.append(daemon.process.memory()[0])
        return held[-1] < most

    try:
        wait_for(is_back, "memory is given back", deadline=15)
    except AssertionError:
        raise AssertionError(f"{held[-1] / MIB:.0f} MiB are held, of at most {most / MIB:.0f} MiB") from None


def together(count, act):
    threads = [threading.Thread(target=act, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_stalled_readers_over_http2(counted):
    """40 connections of 100 streams ask for 10 MiB each and read nothing."""
    visitors = []

    def attack(_):
        visitor = stalled.WideHttp2(counted, "files")
        visitors.append(visitor)
        with contextlib.suppress(OSError):
            for _ in range(STREAMS):
                visitor.request("/ten.bin")

    quiet = counted.process.memory()[0]
    with bounded(counted):
        together(CONNECTIONS, attack)
    for visitor in visitors:
        visitor.socket.close()
    gives_back(counted, quiet)


def test_stalled_readers_over_http1(counted):
    """500 connections ask for 10 MiB each and read nothing."""
    with contextlib.ExitStack() as stack:
        quiet = counted.process.memory()[0]
        with bounded(counted, connections=500):
            for _ in range(500):
                stack.enter_context(stalled.ask(counted, "files", "/ten.bin", buffer=8192))
    gives_back(counted, quiet)


def test_stalled_readers_over_http3(counted):
    """Ten connections of 100 streams ask for 10 MiB each and grant nothing after the first window."""
    with contextlib.ExitStack() as stack:
        quiet = counted.process.memory()[0]
        with bounded(counted):
            for _ in range(10):
                visitor = stack.enter_context(Http3(counted, "files", greedy=False))
                for _ in range(STREAMS):
                    visitor.request("/ten.bin")
    gives_back(counted, quiet)


def test_uploads_to_a_service_that_does_not_read(counted):
    """40 connections of 20 streams each upload as much as they may."""
    visitors = []

    def attack(_):
        visitor = stalled.WideHttp2(counted, "uploads")
        visitors.append(visitor)
        visitor.socket.settimeout(2)
        # The service never reads; the windows end it.
        with contextlib.suppress(OSError, EOFError):
            uploads = [visitor.request("/ignored", method="POST", end=False) for _ in range(20)]
            for upload in uploads:
                upload.send(bytes(MIB))

    quiet = counted.process.memory()[0]
    with bounded(counted, honest=("uploads", "/")):
        together(CONNECTIONS, attack)
    for visitor in visitors:
        visitor.socket.close()
    gives_back(counted, quiet)
