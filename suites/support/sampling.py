"""Exact statistics of a draw: tests, bands, intervals, power, and the sample a check needs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

# scipy.stats holds the same distributions and costs every run another 0.6 s of import; self-tests compare the two.
from scipy.special import bdtr, bdtrc, betaincinv, gammaln, ndtri

POWER = 0.99
# Enumerating more outcomes than this takes longer than 50 ms once the power is searched for as well.
MOST_OUTCOMES = 20_000
# Two outcomes whose probabilities differ by less than this are the same in exact arithmetic (as in R's binom.test).
TIE = 1 + 1e-7

Floats = NDArray[np.float64]


class Shift(NamedTuple):
    """How far a share may move before it is noticed, in share points (0.05 is five of a hundred); None: never noticed."""

    down: float | None
    up: float | None

    @property
    def worst(self) -> float | None:
        """The larger of the two, None when one direction is never noticed."""
        return None if self.down is None or self.up is None else max(self.down, self.up)


@dataclass(frozen=True)
class Statistic:
    """What one test saw and what it could have seen; enough for a reader to judge again by hand.

    `intervals` are Clopper-Pearson intervals of confidence 1 - alpha (divided by the number of legs where each is
    tested), so that an interval leaves its declared share out exactly when that leg alone is rejected; `bands` are the
    accepted counts, both ends included. `power` is the probability of rejecting when a share has moved by
    `smallest_detectable_shift` (share points; None when some shift is never noticed, however large).
    """

    test: str
    n: int
    counts: Mapping[str, int]
    declared: Mapping[str, float]
    p_value: float
    alpha: float
    intervals: Mapping[str, tuple[float, float]]
    bands: Mapping[str, tuple[int, int]]
    power: float
    smallest_detectable_shift: float | None
    expected: str
    seen: str

    @property
    def rejected(self) -> bool:
        """Whether the declared shares are refuted."""
        return self.p_value <= self.alpha

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; `from_json` gives an equal statistic back."""
        plain = asdict(self)
        plain["intervals"] = {leg: list(ends) for leg, ends in self.intervals.items()}
        plain["bands"] = {leg: list(ends) for leg, ends in self.bands.items()}
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises KeyError or TypeError on anything else."""
        kept = dict(plain)
        kept["intervals"] = {leg: (float(low), float(high)) for leg, (low, high) in plain["intervals"].items()}
        kept["bands"] = {leg: (int(low), int(high)) for leg, (low, high) in plain["bands"].items()}
        return cls(**kept)


def binomial_p_value(hits: int, n: int, share: float) -> float:
    """Return the exact two-sided p-value of `hits` among `n` draws when each hits with probability `share`.

    It is twice the smaller tail ("central" in Fay, R Journal 2:53, 2010), not the sum of all outcomes no likelier than
    the one seen ("minlike"): only the doubled tail agrees with the Clopper-Pearson interval, has a band without holes
    and bounds the false alarm of each direction by alpha / 2. Its price is a little power on skewed shares.
    """
    _check_draw(hits, n, share)
    return float(min(1.0, 2 * min(bdtr(hits, n, share), _at_least(hits, n, share))))


def acceptance_band(n: int, share: float, alpha: float) -> range:
    """Return the counts that `binomial_p_value` does not reject at `alpha`, as a range to ask `count in band` of."""
    low, high = _band(np.asarray([n]), share, alpha)
    return range(int(low[0]), int(high[0]) + 1)


def power(n: int, declared: float, true: float, alpha: float) -> float:
    """Return the exact probability that a draw of `n` with share `true` refutes the share `declared` at `alpha`."""
    band = acceptance_band(n, declared, alpha)
    return float(_below(band.start, n, true) + _at_least(band.stop, n, true))


def smallest_detectable_shift(n: int, declared: float, alpha: float, power: float = POWER) -> Shift:
    """Return the least shift down and up that a draw of `n` notices with probability `power`.

    Each direction counts its own tail only, which inverts in closed form as a Clopper-Pearson bound does; the other
    tail can only add to the power.
    """
    band = acceptance_band(n, declared, alpha)
    low, past = band.start, band.stop
    # P(X < low | p) = power and P(X >= past | p) = power, solved for p through the beta distribution.
    down = declared - float(betaincinv(low, n - low + 1, 1 - power)) if low > 0 else None
    up = float(betaincinv(past, n - past + 1, power)) - declared if past <= n else None
    return Shift(down, up)


def sample_size(declared: float, shift: float, alpha: float, power: float = POWER) -> int:
    """Return the smallest n from which on every draw notices a shift of `shift` either way with probability `power`.

    "From which on", because the power of a discrete test is a saw-tooth in n: a smaller n may do by luck.
    A direction that would leave the interval from 0 to 1 does not exist and is not asked for.
    """
    shifted = [share for share in (declared - shift, declared + shift) if 0 <= share <= 1]
    if shift <= 0 or not shifted or not 0 < declared < 1:
        msg = f"no share {shift} away from {declared} lies between 0 and 1"
        raise ValueError(msg)
    quantiles = -float(ndtri(alpha / 2)), -float(ndtri(1 - power))
    guess = max(
        math.ceil(((quantiles[0] * math.sqrt(declared * (1 - declared)) + quantiles[1] * math.sqrt(true * (1 - true))) / shift) ** 2)
        for true in shifted
    )
    first, last = max(1, guess // 2), guess + guess // 2 + 100
    while True:
        n = np.arange(first, last + 1)
        low, high = _band(n, declared, alpha)
        enough = np.all([_below(low, n, true) + _at_least(high + 1, n, true) >= power for true in shifted], axis=0)
        if enough[-1]:
            short = np.flatnonzero(~enough)
            return int(n[short[-1]] + 1) if short.size else first
        last *= 2


def clopper_pearson(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the exact central confidence interval of a share (Clopper and Pearson, Biometrika 26:404, 1934)."""
    _check_draw(hits, n, 0.5)
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
    # Through the complement: 1 - tail loses the digits of a tail near the smallest float.
    high = 1 - float(betaincinv(n - hits, hits + 1, tail)) if hits < n else 1.0
    return low, high


def multinomial_p_value(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Return the exact multinomial p-value: the probability of all outcomes no likelier than `counts`.

    With several legs there are no two tails to double, hence the order by probability (Read and Cressie 1988, ch. 2).
    Raises ValueError when there are more than MOST_OUTCOMES outcomes to enumerate; `split` then tests leg by leg.
    """
    n = sum(counts)
    if outcomes(n, len(shares)) > MOST_OUTCOMES:
        msg = f"{outcomes(n, len(shares))} outcomes are too many to enumerate; test each leg and correct by Holm"
        raise ValueError(msg)
    if any(count and share == 0 for count, share in zip(counts, shares, strict=True)):
        return 0.0
    every = np.exp(_log_pmf(_compositions(n, len(shares)), shares))
    seen = float(np.exp(_log_pmf(np.asarray([counts]), shares))[0])
    return float(min(1.0, every[every <= seen * TIE].sum()))


def outcomes(n: int, legs: int) -> int:
    """Return how many ways there are to share `n` draws among `legs`."""
    return math.comb(n + legs - 1, legs - 1)


def holm(p_values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Return step-down adjusted p-values: rejecting those <= level keeps the family-wise false alarm <= level.

    Valid under any dependence (Holm, Scandinavian Journal of Statistics 6:65, 1979). `weights` (his section 3) give a
    test a share of the level other than an equal one; they need not sum to 1 but must be positive.
    """
    if not p_values:
        return []
    weight = np.ones(len(p_values)) if weights is None else np.asarray(weights, dtype=float)
    if weight.shape != (len(p_values),) or not np.all(weight > 0):
        msg = f"need {len(p_values)} positive weights, got {weights}"
        raise ValueError(msg)
    ratio = np.asarray(p_values, dtype=float) / weight
    order = np.argsort(ratio, kind="stable")
    # What is left of the weight when a hypothesis' turn comes: its own and all later ones.
    left = np.cumsum(weight[order][::-1])[::-1]
    stepped = np.minimum(1.0, np.maximum.accumulate(ratio[order] * left))
    adjusted = np.empty(len(p_values))
    adjusted[order] = stepped
    return [float(value) for value in adjusted]


def split(counts: Mapping[str, int], declared: Mapping[str, float], alpha: float, power: float = POWER) -> Statistic:
    """Test exactly whether a fixed draw was shared as `declared` (shares by leg, summing to 1).

    Two legs are one binomial test. More legs are one multinomial test where its outcomes can be enumerated, otherwise
    an exact binomial test per leg with the smallest p-value multiplied by the number of legs, which is Holm's first
    step and all that a single verdict needs. No Monte Carlo: a verdict must not depend on a seed.
    A leg that was not declared counts as declared 0, so one hit on it refutes the split. Raises ValueError on shares
    that are no distribution and on an empty draw: nothing can be said of nothing.
    """
    if not is_distribution(list(declared.values())):
        msg = f"declared shares must lie in 0..1 and sum to 1, got {dict(declared)}"
        raise ValueError(msg)
    shares = {**declared, **dict.fromkeys(sorted(set(counts) - set(declared)), 0.0)}
    seen = {leg: int(counts.get(leg, 0)) for leg in shares}
    n = sum(seen.values())
    if n == 0:
        msg = "an empty draw has no shares to test"
        raise ValueError(msg)
    legs = len(shares)
    stray = any(seen[leg] and shares[leg] == 0 for leg in shares)
    open_legs = [leg for leg, share in shares.items() if 0 < share < 1]
    per_leg = alpha if legs <= 2 else alpha / legs  # noqa: PLR2004  # two legs mirror each other: one test
    bands = {leg: acceptance_band(n, share, per_leg) for leg, share in shares.items()}
    shift: float | None
    if len(open_legs) <= 2:  # noqa: PLR2004
        name = "binomial, exact, two-sided (doubled tail)"
        p_value = min((binomial_p_value(seen[leg], n, shares[leg]) for leg in open_legs), default=1.0)
        shift = _worst(smallest_detectable_shift(n, shares[leg], alpha, power).worst for leg in open_legs) if open_legs else _stray_shift(n, power)
    elif outcomes(n, len(open_legs)) <= MOST_OUTCOMES:
        name = "multinomial, exact, enumerated"
        p_value = multinomial_p_value([seen[leg] for leg in open_legs], [shares[leg] for leg in open_legs]) if not stray else 0.0
        shift = _multinomial_shift(n, [shares[leg] for leg in open_legs], alpha, power)
    else:
        name = f"binomial per leg, exact, two-sided (doubled tail), Holm over {legs} legs"
        p_value = min(1.0, legs * min(binomial_p_value(seen[leg], n, shares[leg]) for leg in open_legs))
        shift = _worst(smallest_detectable_shift(n, shares[leg], per_leg, power).worst for leg in open_legs)
    return Statistic(
        test=name, n=n, counts=seen, declared=shares, p_value=0.0 if stray else p_value, alpha=alpha,
        intervals={leg: clopper_pearson(count, n, 1 - per_leg) for leg, count in seen.items()},
        bands={leg: (band.start, band.stop - 1) for leg, band in bands.items()},
        power=power, smallest_detectable_shift=shift,
        expected=", ".join(f"{leg} {bands[leg].start}..{bands[leg].stop - 1}" for leg in shares) + f" of {n}",
        seen=", ".join(f"{leg} {count}" for leg, count in seen.items()),
    )


def at_most(leg: str, hits: int, n: int, share: float, alpha: float, power: float = POWER) -> Statistic:
    """Test exactly whether a leg's share of a fixed draw is at most `share`: one tail, P(X >= hits), for shares that have only a bound.

    The interval is the lower Clopper-Pearson bound at `alpha`, up to 1; it leaves `share` out exactly when that is refuted.
    Raises ValueError on an empty draw.
    """
    _check_draw(hits, n, share)
    # A two-sided band at twice alpha has this very tail above it.
    most = acceptance_band(n, share, 2 * alpha).stop - 1
    lowest, _ = clopper_pearson(hits, n, 1 - 2 * alpha)
    return Statistic(
        test="binomial, exact, one-sided (upper tail)", n=n, counts={leg: hits}, declared={leg: share},
        p_value=float(_at_least(hits, n, share)), alpha=alpha, intervals={leg: (lowest, 1.0)}, bands={leg: (0, most)}, power=power,
        smallest_detectable_shift=smallest_detectable_shift(n, share, 2 * alpha, power).up,
        expected=f"{leg} 0..{most} of {n}", seen=f"{leg} {hits}",
    )


@dataclass(frozen=True)
class Decision:
    """What a sequential test says after the draws it was shown.

    `outcome` is "held", "rejected" or "undecided"; `drawn` counts the draws up to the decision (all of them while
    undecided); `final` tells that no further draw is wanted: decided, or the cap is reached.
    """

    outcome: str
    drawn: int
    hits: int
    p_value: float
    final: bool


@dataclass(frozen=True)
class SequentialTest:
    """Two one-sided sequential probability ratio tests of whether `declared` has moved by `shift` or more.

    Guarantees, at whatever draw one stops: a false alarm with probability <= alpha, and "held" while the share has
    really moved by `shift` or more with probability <= beta. Under the declared share each likelihood ratio is a
    martingale of mean 1, so it ever reaches 2 / alpha with probability <= alpha / 2 (Ville 1939; Wald, Annals of
    Mathematical Statistics 16:117, 1945, whose own bounds are approximate where these are not). "Held" needs both
    inverse ratios to have reached 1 / beta, and under a share moved by at least `shift` that side's inverse ratio is a
    supermartingale of mean <= 1. Reaching `cap` undecided is "undecided": that is neither a miss nor an alarm.

    The order of outcomes must not depend on the outcomes: feed them by index of the call, not by time of the answer.
    """

    declared: float
    shift: float
    alpha: float
    beta: float
    cap: int
    _up: tuple[float, float] | None = field(init=False, repr=False)
    _down: tuple[float, float] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a design without a testable alternative; precompute the two steps of each log ratio."""
        if not (0 < self.declared < 1 and self.shift > 0 and 0 < self.alpha < 1 and 0 < self.beta < 1 and self.cap > 0):
            msg = f"no sequential test of {self.declared} against a shift of {self.shift} (alpha {self.alpha}, beta {self.beta}, cap {self.cap})"
            raise ValueError(msg)
        object.__setattr__(self, "_up", self._steps(self.declared + self.shift))
        object.__setattr__(self, "_down", self._steps(self.declared - self.shift))
        if self._up is None and self._down is None:
            msg = f"no share {self.shift} away from {self.declared} lies between 0 and 1"
            raise ValueError(msg)

    def _steps(self, alternative: float) -> tuple[float, float] | None:
        if not 0 <= alternative <= 1:
            return None
        with np.errstate(divide="ignore"):
            hit = float(np.log(alternative / self.declared))
            miss = float(np.log((1 - alternative) / (1 - self.declared)))
        return hit, miss

    def decide(self, outcomes: ArrayLike) -> Decision:
        """Judge the outcomes so far (1 = hit, in order of the calls); more than `cap` of them are not looked at.

        A decision once reached does not change when more outcomes follow, so a saved draw is judged as it was.
        """
        hit = np.asarray(outcomes, dtype=bool)[: self.cap]
        sides = [steps for steps in (self._up, self._down) if steps is not None]
        ratios = [np.cumsum(np.where(hit, *steps)) for steps in sides]
        alarm_at, clear_at = math.log(len(sides) / self.alpha), math.log(self.beta)
        alarm = min((_first(ratio >= alarm_at) for ratio in ratios), default=hit.size)
        clear = max(_first(ratio <= clear_at) for ratio in ratios)
        drawn = min(alarm, clear, hit.size - 1) + 1
        reached = min(alarm, clear) < hit.size
        outcome = "undecided" if not reached else "rejected" if alarm <= clear else "held"
        highest = max((float(ratio[:drawn].max()) for ratio in ratios), default=0.0) if drawn else 0.0
        return Decision(
            outcome=outcome, drawn=drawn, hits=int(hit[:drawn].sum()),
            # The inverse of the highest ratio so far is a p-value at any stopping time, again by Ville.
            p_value=min(1.0, len(sides) * math.exp(-max(highest, 0.0))), final=reached or hit.size >= self.cap,
        )

    def statistic(self, leg: str, decision: Decision) -> Statistic:
        """Put a decision in the form that every report understands; the interval and band are those of the draws used.

        The interval disregards that the draw was stopped and is for the eye; the verdict rests on the ratios.
        """
        n, band = max(decision.drawn, 1), acceptance_band(max(decision.drawn, 1), self.declared, self.alpha)
        return Statistic(
            test="sequential probability ratio, two one-sided", n=decision.drawn, counts={leg: decision.hits},
            declared={leg: self.declared}, p_value=decision.p_value, alpha=self.alpha,
            intervals={leg: clopper_pearson(decision.hits, n, 1 - self.alpha)}, bands={leg: (band.start, band.stop - 1)},
            power=1 - self.beta, smallest_detectable_shift=self.shift,
            expected=f"{leg} within {self.shift:g} of {self.declared:g}", seen=f"{leg} {decision.hits} of {decision.drawn}: {decision.outcome}",
        )


def _check_draw(hits: int, n: int, share: float) -> None:
    if not (n > 0 and 0 <= hits <= n and 0 <= share <= 1):
        msg = f"no draw has {hits} hits among {n} at a share of {share}"
        raise ValueError(msg)


def _at_least(hits: ArrayLike, n: ArrayLike, share: float) -> Floats:
    """P(X >= hits); bdtrc is P(X > k) and wants k >= 0."""
    hits = np.asarray(hits)
    above = bdtrc(np.clip(hits - 1, 0, np.asarray(n)), n, share)
    return np.where(hits <= 0, 1.0, np.where(hits > np.asarray(n), 0.0, above))


def _below(hits: ArrayLike, n: ArrayLike, share: float) -> Floats:
    """P(X < hits)."""
    hits = np.asarray(hits)
    under = bdtr(np.clip(hits - 1, 0, np.asarray(n)), n, share)
    return np.where(hits <= 0, 0.0, np.where(hits > np.asarray(n), 1.0, under))


def _band(n: NDArray[np.int_], share: float, alpha: float) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Bisect, for every n at once, the least and the greatest count whose both tails exceed alpha / 2."""
    if not (np.all(n > 0) and 0 <= share <= 1 and 0 < alpha < 1):
        msg = f"no acceptance band for n {n.tolist()[:1]}, share {share}, alpha {alpha}"
        raise ValueError(msg)
    half = alpha / 2
    low, high = np.zeros_like(n), n.copy()
    while np.any(low < high):
        middle = (low + high) // 2
        inside = bdtr(middle, n, share) > half
        low, high = np.where(inside, low, np.minimum(middle + 1, high)), np.where(inside, middle, high)
    least = low
    low, high = np.zeros_like(n), n.copy()
    while np.any(low < high):
        middle = (low + high + 1) // 2
        inside = _at_least(middle, n, share) > half
        low, high = np.where(inside, middle, low), np.where(inside, high, np.maximum(middle - 1, low))
    return least, high


def _first(reached: NDArray[np.bool_]) -> int:
    """Return the index of the first True, or one past the end."""
    return int(np.argmax(reached)) if reached.any() else reached.size


def _worst(shifts: Iterable[float | None]) -> float | None:
    every = list(shifts)
    known = [shift for shift in every if shift is not None]
    return max(known) if known and len(known) == len(every) else None


def _stray_shift(n: int, power: float) -> float:
    """With one leg declared 1, a single stray refutes: n draws miss a share s with probability (1 - s) ** n."""
    return float(-np.expm1(np.log1p(-power) / n))


def _compositions(n: int, legs: int) -> NDArray[np.int_]:
    """Return every way to share n among legs, one per row."""
    rows = np.zeros((1, 0), dtype=int)
    left = np.asarray([n])
    for _ in range(legs - 1):
        repeats = left + 1
        index = np.repeat(np.arange(left.size), repeats)
        starts = np.repeat(np.cumsum(repeats) - repeats, repeats)
        taken = np.arange(index.size) - starts
        rows = np.column_stack([rows[index], taken])
        left = left[index] - taken
    return np.column_stack([rows, left])


def _log_pmf(rows: NDArray[np.int_], shares: Sequence[float]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(rows > 0, rows * np.log(np.asarray(shares)), 0.0)
    result: Floats = gammaln(rows.sum(axis=1) + 1) - gammaln(rows + 1).sum(axis=1) + terms.sum(axis=1)
    return result


def _multinomial_shift(n: int, shares: Sequence[float], alpha: float, power: float) -> float | None:
    """Search the least shift of any one leg, the others giving or taking in proportion, noticed with `power`."""
    rows = _compositions(n, len(shares))
    base = gammaln(n + 1) - gammaln(rows + 1).sum(axis=1)
    chance = np.exp(base + rows @ np.log(np.asarray(shares)))
    order = np.argsort(chance)
    # Ties share the p-value of the last of them; np.searchsorted finds it with the same tolerance as the test.
    tails = np.cumsum(chance[order])
    p_values = tails[np.searchsorted(chance[order], chance * TIE, side="right") - 1]
    rejected = rows[p_values <= alpha]
    weight = base[p_values <= alpha]

    def noticed(leg: int, to: float) -> bool:
        moved = np.asarray(shares) * (1 - to) / (1 - shares[leg])
        moved[leg] = to
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(rejected > 0, rejected * np.log(moved), 0.0)
        return bool(np.exp(weight + terms.sum(axis=1)).sum() >= power)

    worst = 0.0
    for leg, share in enumerate(shares):
        for end in (0.0, 1.0):
            near, far = share, end
            if not noticed(leg, far):
                return None
            for _ in range(12):
                middle = (near + far) / 2
                near, far = (near, middle) if noticed(leg, middle) else (middle, far)
            worst = max(worst, abs(far - share))
    return worst


def is_distribution(shares: Sequence[float]) -> bool:
    """Tell whether shares lie in 0..1 and sum to 1."""
    return all(0 <= share <= 1 for share in shares) and abs(math.fsum(shares) - 1) <= 1e-9  # noqa: PLR2004
