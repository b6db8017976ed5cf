"""Paired comparisons: two arms take turns, and what is judged is the difference within each round.

Rounds share whatever else the machine does, so a busy one widens the differences of both signs and moves none. The tests are sign
tests on the rounds' differences and assume nothing of how these are distributed but that rounds are independent: exact,
with a declared false alarm. A comparison that is too noisy for its rounds is inconclusive; no bound is ever widened for it.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from suites.support import quantiles, sampling
from suites.support.judges import damaged, records_of
from suites.support.verdicts import Claim

HALF = 0.5


def quantile(values: Sequence[float], share: float) -> float:
    """Return the least value that at least `share` of all do not exceed; raises ValueError for none, and for a share outside 0..1."""
    if not values or not 0 < share <= 1:
        raise ValueError(f"no {share:g} quantile of {len(values)} values")
    # 0.9 * 10 is a little more than 9 in binary.
    return sorted(values)[math.ceil(share * len(values) - 1e-9) - 1]


def differences(name: str, rounds: Sequence[Mapping[str, Mapping[str, object]]], arm: str, other: str, share: float) -> tuple[list[float], Claim | None]:
    """Return, for each round, how much higher a quantile of latency is in one arm than in the other, and the claim to fall back on.

    That is an inconclusive one where a call of either got no answer, or a draw is incomplete or its generator was saturated. Raises UserError for
    rounds that cannot be read.
    """
    added, broken = [], None
    for one in rounds:
        if arm not in one or other not in one:
            raise damaged(name, f"rounds with {arm} and {other}", ", ".join(one) or "none")
        of_arms = []
        for draw in (one[arm], one[other]):
            records, incomplete = records_of(name, draw)
            lost = sum(record["status"] == 0 for record in records)
            broken = broken or incomplete or (Claim(name, None, f"{lost} of {len(records)} calls of a round got no answer") if lost else None)
            of_arms.append(quantile([float(record["latency_ms"]) for record in records], share) if records else 0.0)
        added.append(of_arms[0] - of_arms[1])
    return added, broken


def at_most(name: str, what: str, added: Sequence[float], bound: float, alpha: float, *, unit: str = "ms") -> Claim:
    """Claim that the median difference is at most `bound`; refuted where so many rounds lie above it that chance does so with `alpha` at most."""
    if unable := _too_few(name, added, alpha):
        return unable
    statistic = sampling.at_most(f"rounds above {bound:g} {unit}", sum(one > bound for one in added), len(added), HALF, alpha)
    said = figure(what, added, alpha, unit)
    if statistic.rejected:
        return Claim(name, held=False, said=said, statistic=statistic, expected=f"at most {bound:g} {unit}", got=f"{quantile(added, HALF):.3g} {unit}")
    return Claim(name, held=True, said=f"{said}, at most {bound:g} are allowed", statistic=statistic)


def positive(name: str, what: str, added: Sequence[float], alpha: float, *, unit: str = "ms") -> Claim:
    """Claim that the median difference is above zero.

    It holds where chance would put so many rounds above zero with `alpha` at most, it is refuted where it would put so many below, and is
    inconclusive in between: two arms that do not differ, or rounds too noisy to tell.
    """
    if unable := _too_few(name, added, alpha):
        return unable
    against = sampling.at_most("rounds below zero", sum(one < 0 for one in added), len(added), HALF, alpha)
    above = sampling.at_most("rounds above zero", sum(one > 0 for one in added), len(added), HALF, alpha)
    said = figure(what, added, alpha, unit)
    if against.rejected:
        return Claim(name, held=False, said=said, statistic=against, expected=f"more than 0 {unit}", got=f"{quantile(added, HALF):.3g} {unit}")
    if not above.rejected:
        return Claim(name, held=None, said=f"{said}: too noisy to tell, {above.seen} of {len(added)}", statistic=against)
    return Claim(name, held=True, said=said, statistic=against)


def figure(what: str, added: Sequence[float], alpha: float, unit: str) -> str:
    """Say a median difference with its interval."""
    interval = quantiles.estimate(added, HALF, 1 - 2 * alpha)
    within = f" ({interval.low:.3g} to {interval.high:.3g}, false at most {2 * alpha:.2g} of the time)" if interval.low is not None and interval.high is not None else ""
    return f"{what}: {quantile(added, HALF):+.3g} {unit}{within}, median of {len(added)} paired rounds"


def _too_few(name: str, added: Sequence[float], alpha: float) -> Claim | None:
    if HALF ** len(added) > alpha:
        return Claim(name, None, f"{len(added)} rounds are too few: even if all of them agreed, chance would do so more often than {alpha:g}")
    return None


def bootstrap(rounds: Sequence[tuple[Sequence[float], Sequence[float]]], share: float, *, confidence: float = 0.95, resamples: int = 1000) -> tuple[float, float, float]:
    """Return how much higher a quantile of all calls of the first arm is than of the second, and the ends of its interval, for a figure.

    Whole rounds are drawn anew, since the calls of one have the machine's state in common; the percentile interval is approximate, so
    no claim rests on it. The draws are the same every time: a figure must not depend on when it was worked out. Raises ValueError for
    no rounds, and for rounds of different lengths.
    """
    if not rounds:
        raise ValueError("nothing to draw anew")
    chosen = np.random.default_rng(1).integers(0, len(rounds), (resamples, len(rounds)))
    # The rounds as they are come first.
    chosen = np.vstack([np.arange(len(rounds)), chosen])
    first, second = (np.asarray([one[arm] for one in rounds], dtype=float)[chosen].reshape(resamples + 1, -1) for arm in (0, 1))
    added = np.quantile(first, share, axis=1, method="inverted_cdf") - np.quantile(second, share, axis=1, method="inverted_cdf")
    low, high = np.quantile(added[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(added[0]), float(low), float(high)
