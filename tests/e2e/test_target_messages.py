"""Each reason why a service cannot be used has its own words: in the client's log, and without details on the page."""

import socket
import threading

import pytest

from harness.ports import free_port
from harness.process import wait_for

BAD_FIELD = b"HTTP/1.1 200 OK\r\nX Bad: 1\r\ncontent-length: 0\r\n\r\n"
PLAIN = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
LARGE = b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 8000) for n in range(20)) + b"\r\n"
TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"

# The target's scheme, what the service says, the page's title, and a part of the log line.
CAUSES = {
    "TLS service": ("http", TLS_ALERT, "Service speaks another protocol", "say https://"),
    "plain service": ("https", PLAIN, "Service speaks another protocol", "say http://"),
    "closing in the handshake": ("https", b"", "Service speaks another protocol", "when TLS begins"),
    "HTTP/1.1 service": ("h2c", PLAIN, "Service speaks another protocol", "opens no HTTP/2 connection"),
    "invalid field": ("http", BAD_FIELD, "Invalid response", "X Bad"),
    "large head": ("http", LARGE, "Response head too large", "too large"),
}


@pytest.fixture
def saying():
    """Returns a function that starts a service which answers with these bytes and closes. Returns its port."""
    listeners = []

    def start(words):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(65536)
                        connection.sendall(words)
                    except OSError:
                        pass

        threading.Thread(target=serve, daemon=True).start()
        return listener.getsockname()[1]

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def check(client, title, logged):
    page = client.curl("/", "--write-out", "%{http_code}").stdout.decode()
    assert page.startswith(title + "\n") and page.endswith("502")
    assert "127.0.0.1" not in page and ".invalid" not in page
    wait_for(lambda: logged in client.process.output(), f"the client's log says: {logged}")


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_has_its_own_words(tunnel, saying, cause):
    scheme, words, title, logged = CAUSES[cause]
    check(tunnel(f"{scheme}://127.0.0.1:{saying(words)}"), title, logged)


def test_a_name_without_an_address(tunnel):
    check(tunnel("http://no-such-host.invalid:3000"), "Service not found", "no-such-host.invalid")


def test_a_service_that_does_not_run(tunnel):
    check(tunnel(f"http://127.0.0.1:{free_port()}"), "Service not running", "connection refused")
