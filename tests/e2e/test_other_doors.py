"""The daemon's other doors, the port for plain HTTP and the admin address, are bounded like those for visitors."""

import contextlib
import select
import socket
import time

import pytest

from harness.process import wait_for

LONG = b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 40_000 + b"\r\n\r\n"
# What the admin address serves at once.
ADMIN_PLACES = 64


@pytest.fixture
def daemon(own_daemon):
    return own_daemon(limits='header_timeout = "1s"')


def connect(daemon, door):
    address, _, port = getattr(daemon, door).rpartition(":")
    return socket.create_connection((address, int(port)), timeout=5)


def is_closed(connection):
    """Returns whether the daemon has closed it."""
    if not select.select([connection], [], [], 0)[0]:
        return False
    try:
        return connection.recv(1 << 16) == b""
    except OSError:
        return True


def is_answered(daemon):
    """Returns whether the admin address answers."""
    with contextlib.suppress(OSError), connect(daemon, "admin") as connection:
        connection.sendall(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
        return connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("door", ["http", "admin"])
def test_a_long_head_is_refused(daemon, door):
    with connect(daemon, door) as connection:
        connection.sendall(LONG)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 431 ")
        wait_for(lambda: is_closed(connection), "the connection is closed")


def test_one_request_a_connection_is_redirected(daemon):
    with connect(daemon, "http") as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: tunnel.test\r\n\r\n" * 2)
        answers = b""
        while data := connection.recv(1 << 16):
            answers += data
        assert answers.count(b"HTTP/1.1 308 ") == 1


def test_a_head_in_drips_ends_on_the_port_for_plain_http(daemon):
    with connect(daemon, "http") as connection:
        began = time.monotonic()
        while not is_closed(connection) and time.monotonic() < began + 5:
            connection.send(b"G")
            time.sleep(0.1)
        assert time.monotonic() < began + 3


def test_the_admin_address_has_few_places(daemon):
    """Further connections are closed at once."""
    crowd = [connect(daemon, "admin") for _ in range(ADMIN_PLACES + 20)]
    wait_for(lambda: sum(is_closed(connection) for connection in crowd) == 20, "the rest is closed", deadline=5)
    for connection in crowd:
        connection.close()
    wait_for(lambda: is_answered(daemon), "it answers again")
