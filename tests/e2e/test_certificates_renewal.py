"""The time of renewal: in the server's window (RFC 9773), else by the certificate's lifetime, and never in a storm."""

import time

import pytest
from cryptography.x509.oid import ExtensionOID

from harness.acme_account import encode
from harness.acme_proxy import Refuse, answer, cut
from harness.certified import moment, serial_of
from harness.clock import Clock
from harness.process import wait_for

DAY = 24 * 3600


def identifier(certificate):
    """Returns a certificate's identifier in renewal information (RFC 9773, section 4.1)."""

    authority = certificate.extensions.get_extension_for_oid(ExtensionOID.AUTHORITY_KEY_IDENTIFIER).value.key_identifier
    number = certificate.serial_number
    return f"{encode(authority)}.{encode(number.to_bytes(number.bit_length() // 8 + 1, 'big'))}"


def test_the_window_that_the_server_suggests(issuance, tmp_path):
    """After its window the daemon renews the certificate. The order names the replaced certificate and the configured
    profile. The next renewal waits for its own window."""
    clock = Clock(tmp_path)
    acme = issuance(proxy=True, validity=6 * DAY)
    acme.proxy.profiles = {"shortlived": "six days"}
    daemon = acme.start(acme='profile = "shortlived"', env=clock.env)
    acme.issued()
    first = identifier(daemon.leaf())
    later = time.time() + 3 * DAY
    acme.proxy.window = lambda name: (time.time() - DAY, time.time() - 3600) if name == first else (later, later + 3600)
    # A day later the daemon asks again.
    clock.set(DAY + 7200)
    acme.issued(start=len(daemon.process.lines))
    orders = acme.proxy.payloads("order")
    assert [order.get("replaces") for order in orders] == [None, first]
    assert [order.get("profile") for order in orders] == ["shortlived"] * 2
    second = identifier(daemon.leaf())
    wait_for(lambda: acme.proxy.windows[-1:] == [second], "the new certificate's window is requested")
    wait_for(lambda: later <= moment(daemon.status()["next_renewal"]) <= later + 3600, "the window counts")
    assert not daemon.failures()


@pytest.mark.parametrize(
    "refusal",
    [(409, "alreadyReplaced"), (400, "malformed"), (403, "unauthorized")],
    ids=["replaced already", "malformed", "another account's"],
)
def test_an_order_that_may_not_replace(issuance, refusal):
    """The daemon places it again without `replaces`."""
    acme = issuance(proxy=True)
    acme.proxy.window = lambda _: (time.time() + DAY, time.time() + 2 * DAY)
    daemon = acme.start()
    acme.issued()
    first = identifier(daemon.leaf())
    acme.proxy.faults["order"] = Refuse(*refusal)
    acme.renewed()
    assert [order.get("replaces") for order in acme.proxy.payloads("order")] == [None, first, None]
    assert acme.pebble.orders() == 2 and not daemon.failures()
    assert len(acme.proxy.payloads("account")) == 1, "the account is not what was refused"


def test_an_order_that_does_not_show_what_it_replaces(issuance):
    """The order counts as placed, and the daemon places no other."""
    acme = issuance(proxy=True)
    acme.proxy.window = lambda _: (time.time() + DAY, time.time() + 2 * DAY)
    daemon = acme.start()
    acme.issued()
    acme.proxy.shows_replaces = False
    acme.renewed()
    assert acme.pebble.orders() == acme.proxy.orders() == 2 and not daemon.failures()


def test_an_order_whose_answer_is_lost(issuance):
    """The order may have been placed, so the daemon places no other before the next attempt."""
    acme = issuance(proxy=True)
    acme.proxy.window = lambda _: (time.time() + DAY, time.time() + 2 * DAY)
    daemon = acme.start()
    acme.issued()
    acme.proxy.faults["order"] = cut
    start = len(daemon.process.lines)
    daemon.renew()
    daemon.process.wait_event("not_issued", start=start)
    assert acme.proxy.orders() == 2


def test_a_window_that_ends_before_it_begins(issuance):
    """The window counts as no response (RFC 9773, section 4.2), and not as a past window."""
    acme = issuance(proxy=True)
    acme.proxy.window = lambda _: (time.time() - 3600, time.time() - DAY)
    daemon = acme.start()
    acme.issued()
    daemon.process.wait_line(lambda line: "the window ends before it begins" in line, "word of it")
    assert moment(daemon.status()["next_renewal"]) > time.time() + DAY and acme.pebble.orders() == 1


def test_a_window_that_is_always_in_the_past(issuance):
    """A faulty server must not make the daemon order repeatedly."""
    acme = issuance(proxy=True)
    acme.proxy.window = lambda _: (time.time() - DAY, time.time() - 3600)
    daemon = acme.start()
    acme.issued()
    assert acme.orders_within() <= 1
    assert daemon.ready()


def test_a_clock_that_is_set(issuance, tmp_path):
    """The clock jumps a day forward and back. The daemon serves on and places no order."""
    clock = Clock(tmp_path)
    acme = issuance(validity=6 * DAY)
    daemon = acme.start(env=clock.env)
    acme.issued()
    serial = serial_of(daemon.leaf())
    for ahead in (DAY, 0, -DAY, 0):
        clock.set(ahead)
        assert acme.orders_within(2) == 0
        assert serial_of(daemon.leaf()) == serial
        assert daemon.curl("", "/health/live").stdout == b"ok\n"
    assert daemon.ready() and acme.pebble.orders() == 1
    # A restart with a wrong clock changes nothing either.
    for ahead in (DAY, -DAY):
        clock.set(ahead)
        daemon.restart()
        assert serial_of(daemon.leaf()) == serial and acme.orders_within(1.5) == 0
    # Failures with a date from a fast clock do not delay renewal once the clock is right.
    clock.set(0)
    acme.renewed()
    assert acme.pebble.orders() == 2 and not daemon.failures()


def test_renewal_in_time(issuance, tmp_path):
    """Without renewal information, renewal begins when a third of the lifetime is left, or a little earlier."""
    clock = Clock(tmp_path)
    acme = issuance(validity=6 * DAY)
    daemon = acme.start(env=clock.env)
    acme.issued()
    serial = serial_of(daemon.leaf())
    clock.set(int(3.7 * DAY))
    assert acme.orders_within(2) == 0
    clock.set(int(4.05 * DAY))
    wait_for(lambda: serial_of(daemon.leaf()) != serial, "it is renewed")
    assert acme.pebble.orders() == 2 and not daemon.failures()


def test_near_expiry(issuance, tmp_path):
    """In the last tenth of the lifetime no wait exceeds ten minutes, even if the server asks for a longer one. After expiry
    the daemon still serves the certificate, but reports that it is not ready."""
    clock = Clock(tmp_path)
    acme = issuance(proxy=True, validity=6 * DAY)
    daemon = acme.start(env=clock.env)
    acme.issued()
    serial = serial_of(daemon.leaf())
    acme.proxy.faults["order"] = answer(500, "serverInternal")
    now = int(5.5 * DAY)
    for number in range(1, 5):
        clock.set(now)
        wait_for(lambda: len(daemon.failures()) == number, f"failure {number}")
        now += 630
    acme.proxy.faults["order"] = answer(429, "rateLimited", 2 * 3600)
    for number in range(5, 7):
        clock.set(now)
        wait_for(lambda: len(daemon.failures()) == number, f"failure {number}")
        now += 630
    assert daemon.ready()
    clock.set(7 * DAY)
    wait_for(lambda: not daemon.ready(), "it is no longer ready")
    assert serial_of(daemon.leaf()) == serial
    del acme.proxy.faults["order"]
    clock.set(now)
    wait_for(lambda: serial_of(daemon.leaf()) != serial, "it is renewed")


def test_a_clock_beyond_every_certificate(issuance, tmp_path):
    """With a clock that is a month ahead, each new certificate has expired already. The daemon does not order repeatedly,
    and is ready once the clock is right."""
    clock = Clock(tmp_path)
    acme = issuance(validity=6 * DAY)
    clock.set(30 * DAY)
    daemon = acme.start(env=clock.env)
    daemon.process.wait_line(lambda line: '"issued"' in line or '"not_issued"' in line, "outcome")
    assert acme.orders_within() <= 1
    clock.set(0)
    if not daemon.ready():
        acme.issued()
    assert acme.pebble.orders() <= 3
