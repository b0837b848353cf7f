"""An event loop on its own thread."""

import asyncio
import threading

from .process import HERE


class Loop:
    """`call` runs a coroutine in the loop; `end` stops the loop. `inside` is the place of its sockets."""

    def __init__(self, inside=HERE):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=inside.enter, args=[self.loop.run_forever], daemon=True)
        self.thread.start()

    def call(self, coroutine, deadline=20):
        """Runs a coroutine in the loop and returns its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(deadline)

    def end(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
