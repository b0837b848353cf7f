"""Sends bytes as a visitor over HTTP/1.1 and holds the responses against the requests in them."""

import ssl

from . import request_oracle, strict_response
from .strict_request import Refused, Short

# A daemon that waits for more bytes says nothing. This is how long the visitor waits to see it.
SILENCE = 0.5


class Visitor:
    def __init__(self, daemon, name):
        self.daemon, self.name = daemon, name
        self.host = f"{daemon.host(name)}:{daemon.port}".encode()
        self._tls = daemon.tls("http/1.1")

    def connect(self):
        return self._tls.wrap_socket(self.daemon.connect(), server_hostname=self.daemon.host(self.name))

    def exchange(self, data, requests, state):
        """Returns what is wrong with the responses to `data`, which holds `requests`, or None. Also returns how many
        of the requests were answered by the service."""
        answers = b""
        with self.connect() as connection:
            try:
                connection.sendall(data)
                connection.settimeout(SILENCE if state == "refused" else 10)
                while not answered(answers, requests, state):
                    more = connection.recv(65536)
                    if not more:
                        break
                    answers += more
            except TimeoutError:
                if state != "refused":
                    return f"no end of the responses: {answers!r}", 0
            except (ssl.SSLError, OSError):
                pass  # the rest of the responses is lost
        return judge(answers, requests)


def answered(answers, requests, state):
    """Returns whether no more responses come, although the connection is open."""
    if state == "refused":
        return False
    found = read_all(answers, requests, False)[0]
    return len(found) >= len(requests) and not (found and found[-1].value(b"connection") == b"close")


def read_all(answers, requests, closed):
    """Returns the whole responses and what is wrong with the bytes after them."""
    found, at = [], 0
    while at < len(answers):
        # A doubtful HEAD is answered with a page.
        certain = len(found) < len(requests) and requests[len(found)].body is not None
        method = requests[len(found)].method if certain else b"GET"
        try:
            response = strict_response.read(answers, at, method, closed)
        except Short:
            break
        except Refused as why:
            return found, str(why)
        found.append(response)
        at = response.end
    return found, None


def judge(answers, requests):
    """Returns what is wrong, or None, and the number of answers of the service."""
    found, wrong = read_all(answers, requests, True)
    if wrong:
        return f"{wrong}: {answers!r}", 0
    served = 0
    for number, response in enumerate(found):
        target = response.value(b"x-target")
        if target is None:
            if response.status < 400:
                return f"an answer of nobody: {answers!r}", 0
            continue
        if number >= len(requests) or requests[number].target != target:
            return f"the answer to {target!r} at place {number}: {answers!r}", 0
        if response.body != (b"" if requests[number].method == b"HEAD" else target):
            return f"not the body of {target!r}: {answers!r}", 0
        served += 1
    return None, served


def clean(host, target, close=False):
    """Returns the bytes of a request that nothing is wrong with, and what they hold."""
    ending = b"Connection: close\r\n" if close else b""
    data = b"GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (target, host, ending)
    return data, request_oracle.sent(data)[0]
