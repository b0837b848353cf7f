"""An event loop on a thread of its own."""

import asyncio
import threading

from .process import HERE


class Loop:
    """`call` has a coroutine run there; `end` ends it. `inside` is where its sockets are made."""

    def __init__(self, inside=HERE):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=inside.enter, args=[self.loop.run_forever], daemon=True)
        self.thread.start()

    def call(self, coroutine, deadline=20):
        """What the coroutine returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(deadline)

    def end(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
