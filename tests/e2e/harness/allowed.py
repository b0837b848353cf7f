"""What the origin may see: the requests that visitors have sent. Everything else has been forged on the way."""


class Allowed:
    def __init__(self):
        self._bodies = {}

    def add(self, requests):
        """Adds requests before they are sent."""
        for request in requests:
            self._bodies.setdefault(request.target, []).append(request.body)

    def judge(self, method, target, body):
        """Returns what is wrong with a request that the origin sees, or None."""
        bodies = self._bodies.get(target)
        if bodies is None:
            return "a request that was never sent"
        if None not in bodies and body not in bodies:
            return f"whole with {len(body)} bytes that were not sent as its body"
        return None
