"""What an attack cost its attacker, and when the daemon ended it."""

from dataclasses import asdict, dataclass


@dataclass
class Outcome:
    """`sent` counts bytes above TLS, `connections` and `exchanges` what the attack opened. `ended` is the time in seconds
    from the attack's last step until the daemon has ended all of it, None if it has not."""

    sent: int
    connections: int = 0
    exchanges: int = 0
    ended: float | None = None
    said: str = ""

    def fields(self):
        return asdict(self)
