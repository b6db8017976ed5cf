"""Load: what is asked of a function for how long and by how many, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoadProfile:
    """Steady load: `users` each begin `calls_per_s` calls a second, one at a time, for at most `longest_s` seconds.

    A call without an answer after `timeout_s` seconds has failed. Raises ValueError for anything that is not positive.
    """

    users: int
    calls_per_s: float
    longest_s: float
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse a load that would never begin or never end."""
        if min(self.users, self.calls_per_s, self.longest_s, self.timeout_s) <= 0:
            raise ValueError(f"a load needs users, calls, a longest time and a time limit above 0, got {self}")


@dataclass(frozen=True)
class Persona:
    """A kind of user: the headers that tell it from others. Users take the personas of a load in turn."""

    name: str
    headers: Mapping[str, str] = field(default_factory=dict)


# The header by which the evidence tells whose call it was.
PERSONA_HEADER = "x-persona"
ANYBODY = Persona("anybody")
# Enough to see a gap of a tenth of a second, little enough that the load generator is not what is measured on two cores.
STEADY = LoadProfile(users=10, calls_per_s=10, longest_s=120)
