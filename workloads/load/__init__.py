"""Load: what is asked of a function for how long and by how many, as data. Locust's own process reads it too, so nothing else is imported here."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, Self

CONSTANT = "constant"
POISSON = "poisson"
# The stage of what is thrown away: connections are made, code is compiled, caches are filled.
WARM_UP = "warm-up"
# A call that begins later than this after it was due says more of the generator than of the function, where latency is what is judged.
LATE_MS = 50.0
# Python with requests makes a few hundred calls a second on a core: what is asked of one process beyond it begins late.
MOST_USERS = 1000


@dataclass(frozen=True)
class LoadProfile:
    """Steady load: `users` each begin `calls_per_s` calls a second, one at a time, for at most `longest_s` seconds.

    A user waits for its answer, so a slow function is asked less often: good for seeing whether any call fails during a change, not for
    latency. What begins in the first `warm_up_s` seconds is marked and never counted. A call without an answer after
    `timeout_s` seconds has failed. Raises ValueError for a load that would never begin or never end.
    """

    users: int
    calls_per_s: float
    longest_s: float
    timeout_s: float = 10.0
    warm_up_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a load that would never begin or never end."""
        if min(self.users, self.calls_per_s, self.longest_s, self.timeout_s) <= 0 or not 0 <= self.warm_up_s < self.longest_s:
            raise ValueError(f"a load needs users, calls, a longest time and a time limit above 0, and a warm-up shorter than it, got {self}")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, as Locust's process is told."""
        return asdict(self)


@dataclass(frozen=True)
class Stage:
    """A stretch of an open load: `rate_per_s` arrivals a second (0 is a gap) for `seconds`; what arrives in one that is not `counted` is no evidence."""

    name: str
    seconds: float
    rate_per_s: float
    counted: bool = True


class Arrival(NamedTuple):
    """The call of that number, which is to begin `due_s` seconds after the load, in the stage of that index."""

    number: int
    due_s: float
    stage: int


@dataclass(frozen=True)
class OpenProfile:
    """Calls that begin when they are due, whether or not earlier ones were answered: the arrivals of users who know nothing of each other.

    `arrivals` are evenly spaced ("constant") or independent of one another ("poisson", drawn from `seed`: two loads of one
    profile have the same arrivals, so they can be compared in pairs). Latency is counted from when a call was due, not from when the
    generator came round to it: otherwise the calls that a stalled function keeps from beginning would be missing from its
    latency (coordinated omission; G. Tene, "How NOT to Measure Latency", 2015; wrk2's README). At most `users` calls are
    under way at one time; an arrival that finds them all busy begins late, and the load counts as saturated, as it does when too many begin
    more than `late_ms` after they were due: a check that judges other things than latency may allow more. A call without an answer after
    `timeout_s` seconds, from when it began, has failed. Raises ValueError for a load that nobody arrives in.
    """

    stages: tuple[Stage, ...]
    arrivals: str = CONSTANT
    users: int = 50
    timeout_s: float = 10.0
    seed: int = 1
    late_ms: float = LATE_MS

    def __post_init__(self) -> None:
        """Refuse a load that would never begin or never end."""
        if self.arrivals not in (CONSTANT, POISSON) or not 0 < self.users <= MOST_USERS or self.timeout_s <= 0:
            raise ValueError(f"an open load has {CONSTANT} or {POISSON} arrivals, 1 to {MOST_USERS} users and a time limit above 0, got {self}")
        if any(stage.seconds <= 0 or stage.rate_per_s < 0 for stage in self.stages) or not any(stage.rate_per_s and stage.counted for stage in self.stages):
            raise ValueError(f"every stage takes time, none has a rate below 0, and one that counts has arrivals, got {self.stages}")
        if len({stage.name for stage in self.stages}) < len(self.stages):
            raise ValueError(f"stages are told apart by their names, got {[stage.name for stage in self.stages]}")

    @property
    def seconds(self) -> float:
        """How long calls arrive."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def longest_s(self) -> float:
        """How long the load may take: the last call arrives at the end and may take its whole time."""
        return self.seconds + self.timeout_s

    def schedule(self) -> Iterator[Arrival]:
        """Yield every arrival in order; the same profile has the same ones, in any process."""
        number, begins = 0, 0.0
        for index, stage in enumerate(self.stages):
            for after in _arrivals(stage, self.arrivals, f"{self.seed}:{index}"):
                yield Arrival(number, begins + after, index)
                number += 1
            begins += stage.seconds

    def warmed_up(self, seconds: float, rate_per_s: float) -> Self:
        """Return the same load after a warm-up that is made, marked and never counted."""
        return replace(self, stages=(Stage(WARM_UP, seconds, rate_per_s, counted=False), *self.stages))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, as Locust's process is told; `from_json` gives an equal profile back."""
        return {**asdict(self), "stages": [asdict(stage) for stage in self.stages]}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError or TypeError on anything else."""
        return cls(**{**plain, "stages": tuple(Stage(**stage) for stage in plain["stages"])})


def steady(rate_per_s: float, seconds: float, **options: Any) -> OpenProfile:  # noqa: ANN401  # the fields of a profile
    """Return a load of one rate."""
    return OpenProfile((Stage("steady", seconds, rate_per_s),), **options)


def steps(rates_per_s: Sequence[float], seconds: float, **options: Any) -> OpenProfile:  # noqa: ANN401  # the fields of a profile
    """Return a load that goes from rate to rate, each for `seconds`, all at once: what an autoscaler has to follow.

    The stages are named `step-1` and so on.
    """
    return OpenProfile(tuple(Stage(f"step-{number}", seconds, rate) for number, rate in enumerate(rates_per_s, 1)), **options)


def bursts(count: int, rate_per_s: float, seconds: float, *, gap_s: float, **options: Any) -> OpenProfile:  # noqa: ANN401  # the fields of a profile
    """Return `count` bursts with a gap before each but the first: what finds a function idle, and cold where it scales to nothing.

    The stages are named `burst-1`, `gap-1`, `burst-2` and so on.
    """
    stages = [one for number in range(1, count + 1) for one in (Stage(f"burst-{number}", seconds, rate_per_s), Stage(f"gap-{number}", gap_s, 0))]
    return OpenProfile(tuple(stages[:-1]), **options)


def _arrivals(stage: Stage, arrivals: str, seed: str) -> Iterator[float]:
    if not stage.rate_per_s:
        return
    if arrivals == CONSTANT:
        yield from (number / stage.rate_per_s for number in range(round(stage.seconds * stage.rate_per_s)))
        return
    # Not for keeping secrets: the same arrivals are wanted again.
    chance = random.Random(seed)  # noqa: S311
    after = chance.expovariate(stage.rate_per_s)
    while after < stage.seconds:
        yield after
        after += chance.expovariate(stage.rate_per_s)


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
