"""An event loop on a thread of its own."""

import asyncio
import threading


class Loop:
    """`call` has a coroutine run there; `end` ends it."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def call(self, coroutine, deadline=20):
        """What the coroutine returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(deadline)

    def end(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
