"""A service that reads requests strictly. It answers each with its own target, and keeps what no client may send."""

from . import strict_request
from .accepting import Accepting


class StrictOrigin(Accepting):
    """`judge(method, target, body)` returns what is wrong with a request, or None."""

    def __init__(self, judge):
        self.faults = []
        self.seen = 0
        self._judge = judge
        super().__init__()

    def serve(self, connection):
        data = b""
        with connection:
            while True:
                try:
                    method, target, _, body, end = strict_request.read(data)
                except strict_request.Short:
                    try:
                        more = connection.recv(65536)
                    except OSError:
                        return
                    if not more:
                        return
                    data += more
                    continue
                except strict_request.Refused as why:
                    self.faults.append(f"{why}: {data!r}")
                    return
                self.seen += 1
                if wrong := self._judge(method, target, body):
                    self.faults.append(f"{wrong}: {data!r}")
                data = data[end:]
                try:
                    connection.sendall(answer(method, target))
                except OSError:
                    return


def answer(method, target):
    body = b"" if method == b"HEAD" else target
    return b"HTTP/1.1 200 OK\r\nX-Target: %s\r\nContent-Length: %d\r\n\r\n%s" % (target, len(target), body)
