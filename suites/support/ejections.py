"""Waiting for outlier detection: until errors that were made have had every consequence that they can have."""

from collections.abc import Callable, Mapping
from contextlib import suppress

from clusters.waiting import TimedOut, consistently, eventually

# The worker thread that sees an error tells the main thread, which ejects and counts: milliseconds. Nothing that is right waits this long.
COUNTED_WITHIN_S = 5.0
# Finding: the worker threads hear of an ejection at once only if the cluster's last change of health is a second old; otherwise up to a
# second later, together with what else changes until then (Envoy, CommonLbConfig.update_merge_window, 1 s by default).
HEARD_WITHIN_S = 1.5


def await_ejections(counted: Callable[[], Mapping[str, int]], counter: str, *, least: int) -> None:
    """Return when `counter` has reached `least` and the proxy's worker threads have heard of it.

    A count that is not reached in time ends the wait too: whether it was is for the judge, and a mutant's is not.
    """

    def reached() -> None:
        seen = counted().get(counter, 0)
        assert seen >= least, f"{counter} is {seen}, not yet {least}"

    with suppress(TimedOut):
        eventually(reached, within=COUNTED_WITHIN_S, every=0.2)
    consistently(counted, during=HEARD_WITHIN_S)
