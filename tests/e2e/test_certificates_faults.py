"""Faults of servers, networks, disks and clocks during issuance by ACME. The daemon serves on, and gets its certificate
once the fault is over."""

import email.utils
import random
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web

from harness import needs
from harness.acme_proxy import PROBLEM, STEPS, answer, cut, malformed
from harness.certified import Issuance, cokd, moment, serial_of
from harness.clock import Clock
from harness.cok import DOMAIN
from harness.process import wait_for

# The first wait after a failure, plus at most a tenth of it at random.
FIRST_WAIT = (10, 11)


class Once:
    """A fault that hits only the first request, and records when."""

    def __init__(self, fault):
        self.fault = fault
        self.hit = None

    def __call__(self, request):
        if self.hit:
            return None
        self.hit = time.monotonic()
        return self.fault(request)


BUSY = answer(503, text="<h1>back soon</h1>")
FAULTS = {
    **{f"cut at {step}": (step, cut) for step in STEPS},
    "503 at directory": ("directory", BUSY),
    "503 at poll": ("poll", BUSY),
    "malformed directory": ("directory", malformed),
    "malformed order": ("order", malformed),
    "malformed certificate": ("certificate", malformed),
    "server error at finalize": ("finalize", answer(500, "serverInternal")),
}


def test_every_step_may_fail(tmp_path):
    """At each step of an order the connection breaks or the response is invalid. The daemon serves on and logs the error. It
    gets its certificate after a backoff, with a second order at most."""

    def one(item):
        name, (step, fault) = item
        acme = Issuance(tmp_path / name.replace(" ", "-"), proxy=True)
        try:
            fault = acme.proxy.faults[step] = Once(fault)
            daemon = acme.start()
            wait_for(lambda: fault.hit, f"{name}: the fault is hit")
            assert daemon.curl("", "/health/live").stdout == b"ok\n", name
            acme.issued()
            assert daemon.curl("", "/health/ready").stdout == b"ready\n", name
            failures = daemon.failures()
            assert len(failures) <= 1 and acme.proxy.orders() <= 2, (name, failures)
            for failure in failures:
                assert failure["error"], name
                assert FIRST_WAIT[0] <= failure["next_try_in_seconds"] + 2 and failure["next_try_in_seconds"] <= FIRST_WAIT[1]
            assert daemon.metric("cok_certificate_failures_total") == len(failures)
            wait_for(lambda: daemon.status()["last_error"] is None, "the status is good again")
            return name, [failure["error"] for failure in failures]
        finally:
            acme.stop()

    with ThreadPoolExecutor(len(FAULTS)) as lanes:
        for name, errors in lanes.map(one, FAULTS.items()):
            print(f"{name}: {errors or 'tried again at once'}")


def test_answers_that_no_library_expects(issuance):
    """An invalid URL makes an attempt fail, and the daemon tries again. It ignores a Retry-After that overflows its clock."""

    def without_addresses(_request):
        keys = ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange")
        return web.json_response({key: "no address" for key in keys})

    acme = issuance(proxy=True)
    acme.proxy.faults["directory"] = Once(without_addresses)
    acme.proxy.headers["poll"] = {"retry-after": str(2**64 - 1)}
    daemon = acme.start()
    daemon.process.wait_event("not_issued")
    assert daemon.metric("cok_certificate_failures_total") == 1
    acme.issued()
    assert len(daemon.failures()) == 1 and daemon.ready()


@pytest.mark.parametrize(
    "make", [lambda: answer(429, "rateLimited", 7200),
             lambda: answer(503, text="busy", retry_after=email.utils.formatdate(time.time() + 7200, usegmt=True))],
    ids=["429 with seconds", "503 with a date"],
)
def test_a_server_that_sends_retry_after(issuance, make):
    """The daemon respects Retry-After, even over a restart, and serves the current certificate meanwhile."""
    acme = issuance(proxy=True)
    daemon = acme.start()
    acme.issued()
    serial = serial_of(daemon.leaf())
    acme.proxy.faults["order"] = make()
    start = len(daemon.process.lines)
    daemon.renew()
    failure = daemon.process.wait_event("not_issued", start=start)
    assert 7190 <= failure["next_try_in_seconds"] <= 7200
    orders = acme.proxy.orders()
    wait_for(lambda: daemon.status()["last_error"] == failure["error"], "the status says it")
    status = daemon.status()
    assert abs(moment(status["next_try"]) - time.time() - 7200) < 20
    assert daemon.metric("cok_certificate_failures_total") == 1
    daemon.restart()
    assert daemon.ready() and serial_of(daemon.leaf()) == serial
    assert abs(moment(daemon.status()["next_try"]) - time.time() - 7200) < 20
    assert acme.proxy.orders() == orders
    # An operator may request one at once.
    del acme.proxy.faults["order"]
    acme.renewed()
    assert serial_of(daemon.leaf()) != serial
    wait_for(lambda: daemon.status()["last_error"] is None, "the status is good again")


def test_names_that_the_server_rejects(issuance):
    """The server names the error of each name (RFC 8555, section 6.7.1). Log and status repeat it, as text and as JSON."""
    acme = issuance(proxy=True)
    wrong = {f"{DOMAIN}": "this name is on our list", f"*.{DOMAIN}": "no wildcards today"}
    acme.proxy.faults["order"] = answer(403, "rejectedIdentifier", subproblems=[
        {"type": PROBLEM + "rejectedIdentifier", "detail": detail, "identifier": {"type": "dns", "value": name}}
        for name, detail in wrong.items()
    ])
    daemon = acme.start()
    error = daemon.process.wait_event("not_issued")["error"]
    wait_for(lambda: daemon.status()["last_error"] == error, "the status says it")
    _, shown, _ = cokd("cert", "status", "--config", daemon.config)
    for name, detail in wrong.items():
        assert f'"{name}": {detail}' in error and detail in shown, (error, shown)


class SmallDisk:
    """A file system of 512 KiB that can be filled to the last byte."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        needs.root("only root can mount a small disk")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", folder], check=True)

    def fill(self):
        with (self.folder / "filler").open("ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(1024))
            except OSError:
                pass

    def free(self):
        (self.folder / "filler").unlink()

    def delete(self):
        # The daemon has ended, but the kernel may close its files a moment later.
        subprocess.run(["umount", "--lazy", self.folder], check=True)


@pytest.fixture
def disk(tmp_path):
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    disk.delete()


def generations(daemon):
    return sorted(path.name for path in (daemon.store() / "generations").iterdir())


def test_a_disk_that_is_full_at_the_moment_of_saving(disk, issuance, tmp_path):
    """The daemon serves the certificate from memory, and saves it once there is space."""
    clock = Clock(tmp_path)
    acme = issuance(proxy=True)
    acme.proxy.hold("finalize")
    daemon = acme.start(state=disk.folder / "state", env=clock.env)
    assert acme.proxy.held.wait(20)
    disk.fill()
    acme.proxy.release()
    acme.issued()
    daemon.process.wait_event("not_saved")
    assert daemon.curl("", "/health/ready").stdout == b"ready\n"
    assert generations(daemon) == []
    # It tries again each minute: the first retry fails, the second succeeds.
    start = len(daemon.process.lines)
    clock.set(65)
    daemon.process.wait_event("not_saved", start=start)
    disk.free()
    clock.set(130)
    wait_for(lambda: generations(daemon) == ["0001"], "the certificate is saved")
    serial = serial_of(daemon.leaf())
    daemon.restart()
    assert serial_of(daemon.leaf()) == serial and daemon.ready()
    assert acme.proxy.orders() == 1


def test_a_disk_that_is_full_before_an_order(disk, issuance, tmp_path):
    """The daemon places no order and serves the current certificate."""
    clock = Clock(tmp_path)
    acme = issuance()
    daemon = acme.start(state=disk.folder / "state", env=clock.env)
    acme.issued()
    serial = serial_of(daemon.leaf())
    acme.renewed()
    before = serial_of(daemon.leaf())
    assert before != serial
    # The file of `cokd cert renew`, which does not fit on the full disk.
    start = len(daemon.process.lines)
    disk.fill()
    (daemon.store() / "renew").touch()
    failure = daemon.process.wait_event("not_issued", start=start)
    assert "no order is placed" in failure["error"] and str(daemon.store()) in failure["error"]
    assert acme.pebble.orders() == 2 and serial_of(daemon.leaf()) == before
    assert daemon.ready() and generations(daemon) == ["0001", "0002"]
    disk.free()
    acme.renewed()
    assert acme.pebble.orders() == 3 and generations(daemon) == ["0002", "0003"]


LANES, KILLS = 5, 10


class Lane:
    """A daemon that is killed repeatedly, and its ACME server, which reuses no proof."""

    def __init__(self, folder, seed):
        folder.mkdir()
        self.folder, self.moments = folder, random.Random(seed)
        self.clock, self.ahead = Clock(folder), 0
        self.acme = Issuance(folder, authorization_reuse=0)

    def run(self):
        """Returns for each kill the orders before and after, and whether the daemon had no certificate yet."""
        try:
            daemon = self.acme.start(state=self.folder / "state", env=self.clock.env)
            began = time.monotonic()
            self.acme.issued()
            self.length = time.monotonic() - began
            daemon.process.kill()
            return [self.kill(number) for number in range(KILLS)]
        finally:
            self.acme.stop()

    def kill(self, number):
        """Kills and restarts the daemon, in its first issuance if the number is even, else in a renewal."""
        pebble, daemon = self.acme.pebble, self.acme.daemon
        orders = pebble.orders()
        if number % 2 == 0:
            daemon = self.acme.start(state=self.folder / f"state{number}", env=self.clock.env)
        else:
            (daemon.store() / "renew").touch()
            daemon.start()
        moment = self.moments.uniform(0, self.length)
        threading.Event().wait(moment)
        daemon.process.kill()
        daemon.process.wait_exit()
        in_time = not any('"issued"' in line for line in daemon.process.lines)
        if not in_time:
            # The first issuance, which all lanes began at once, took longer than later ones.
            self.length = moment
        pebble.settle()
        before = pebble.orders() - orders
        # An interrupted attempt counts as a failure, so the daemon waits.
        self.ahead += 15
        self.clock.set(self.ahead)
        daemon.start()
        if number % 2:
            assert self.served(), "the previous certificate is served at once"
        wait_for(self.served, "a certificate is served", 30)
        self.acme.trust()
        assert daemon.curl("", "/health/ready").stdout == b"ready\n"
        # The daemon checks for requests every second, so an order would come within one.
        after = pebble.orders() - orders - before + self.acme.orders_within(1.2)
        assert before <= 1 and after <= 1, (before, after)
        assert not daemon.failures(), daemon.failures()
        daemon.process.kill()
        return before, after, in_time

    def served(self):
        return "Pebble" in self.acme.daemon.leaf().issuer.rfc4514_string()


def test_killed_at_any_moment(tmp_path):
    """The daemon gets SIGKILL 50 times during an issuance, half of them its first one. After each, the next start serves a
    valid chain, at once if it had one. It places one new order at most."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with ThreadPoolExecutor(LANES) as threads:
        lanes = threads.map(lambda number: Lane(tmp_path / f"lane{number}", seed + number).run(), range(LANES))
        outcomes = [outcome for lane in lanes for outcome in lane]
    assert len(outcomes) == LANES * KILLS
    cut_short = sum(in_time for _, _, in_time in outcomes)
    print(f"{cut_short} before the certificate had come; orders before and after each kill:", Counter(o[:2] for o in outcomes))
    assert cut_short > len(outcomes) / 2
