"""A clock for self-tests: time passes only by sleeping."""

from dataclasses import dataclass


@dataclass
class FakeClock:
    """What `clusters.waiting.Clock` asks for, without the waiting."""

    now: float = 0.0

    def monotonic(self) -> float:
        """Return the seconds slept so far."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self.now += seconds
