"""The smallest client with one session, on a loop of its own."""

from . import smallest
from .cok import DOMAIN, KEY
from .loop import Loop


class SmallClient:
    """One session. `target` is the host and port of a service, or a coroutine function that answers exchanges itself."""

    def __init__(self, daemon, transport, target, **members):
        self.daemon, self.loop = daemon, Loop()
        address = ("127.0.0.1", daemon.port)
        self.session = self.loop.call(smallest.open_session(transport, address, DOMAIN, daemon.ca))
        self.ack = self.loop.call(self.session.connect(KEY, f"smallest-{transport}", target, **members))

    def bind(self, target, **members):
        """Returns the new tunnel's id and name."""
        number, bound = self.loop.call(self.session.bind(target, **members))
        assert bound["url"] == self.daemon.url(bound["subdomain"])[:-1]
        return number, bound["subdomain"]

    def unbind(self, number):
        self.loop.loop.call_soon_threadsafe(self.session.unbind, number)

    def next_unbind(self):
        return self.loop.call(self.session.unbound.get())

    def stop(self):
        self.loop.call(self.session.close())
        self.loop.end()
