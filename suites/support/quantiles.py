"""Quantiles of a sample with exact intervals: no distribution is assumed, and a quantile that the sample is too small for has none."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.special import bdtr, bdtrc


@dataclass(frozen=True)
class Estimate:
    """A quantile of a sample in the sample's unit.

    `low` and `high` are order statistics of the sample between which the true quantile lies with probability `confidence` or more, None
    where the sample is too small for such an end.
    """

    quantile: float
    n: int
    value: float
    low: float | None
    high: float | None
    confidence: float

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)

    def text(self, unit: str = "ms") -> str:
        """Return `1234 (1200 to 1300) ms`, a missing end as a question mark."""
        ends = ["?" if end is None else f"{end:.0f}" for end in (self.low, self.high)]
        return f"{self.value:.0f} ({ends[0]} to {ends[1]}) {unit}"


def estimate(sample: Sequence[float], quantile: float = 0.5, confidence: float = 0.95) -> Estimate:
    """Return a quantile with its distribution-free interval (David and Nagaraja, Order Statistics, section 7.1).

    The number of values below the true quantile is binomial, so each end is the innermost order statistic beyond which it lies with
    probability at most (1 - confidence) / 2. The value is the sample's own quantile, its median the mean of the two middle values.
    Raises ValueError for an empty sample, and for shares outside 0..1.
    """
    if not sample or not 0 < quantile < 1 or not 0 < confidence < 1:
        raise ValueError(f"no quantile {quantile} of {len(sample)} values with confidence {confidence}")
    ordered, n, tail = sorted(sample), len(sample), (1 - confidence) / 2
    # The true quantile is below the k-th value (from 1) when fewer than k values are below it.
    below = [k for k in range(1, n + 1) if bdtr(k - 1, n, quantile) <= tail]
    above = [k for k in range(1, n + 1) if _at_least(k, n, quantile) <= tail]
    place = quantile * (n - 1)
    lower, upper = ordered[math.floor(place)], ordered[math.ceil(place)]
    return Estimate(
        quantile, n, lower + (upper - lower) * (place - math.floor(place)),
        ordered[below[-1] - 1] if below else None, ordered[above[0] - 1] if above else None, confidence,
    )


def sign_p_value(differences: Sequence[float]) -> float:
    """Return the exact one-sided p-value against "the median difference is zero or less" (sign test; ties are left out)."""
    informative = [difference for difference in differences if difference]
    if not informative:
        return 1.0
    return float(_at_least(sum(difference > 0 for difference in informative), len(informative), 0.5))


def _at_least(hits: int, n: int, share: float) -> float:
    return 1.0 if hits <= 0 else float(bdtrc(hits - 1, n, share))
