"""Held load: exactly so many calls under way at one time, however fast or busy the machine is."""

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from clusters.waiting import eventually
from workloads.caller.client import Caller
from workloads.greeter.client import Greeter

# A thousand connections to one proxy, beside other work; nothing is claimed about how long it takes.
TAKEN_WITHIN_S = 30.0
# The calls wait for the release, so theirs is the bound of a whole load.
CALL_TIMEOUT_S = 50.0

# Gauges, which start at nothing, and a counter, which does not.
TAKEN = ("upstream_rq_active", "upstream_rq_pending_active", "upstream_rq_completed")

Upstream = Callable[[], dict[str, int]]


def held_load(caller: Caller, function: Greeter, url: str, waves: Sequence[int], *, upstream: Upstream) -> dict[str, Any]:
    """Offer `waves` of calls to `url`, each held by `function` until all waves were taken, and return what was seen as JSON types.

    A wave starts when the caller's proxy has taken every call of the wave before (as active, as pending, or answered by itself, say
    the counters `upstream` of its cluster) and the function has every active one. So which calls find a limit used up does
    not depend on time. The result has the draws of the `waves`, the counters `before`, while all was held (`held`) and at
    the end (`after`), and the function's counts. Raises TimedOut when the proxy has not taken a wave.
    """
    gate = f"load-{uuid.uuid4().hex[:12]}"
    function.reset_counts()
    before = upstream()
    offered = 0

    def taken() -> dict[str, int]:
        now = upstream()
        seen = sum(now.get(name, 0) for name in TAKEN) - before.get(TAKEN[-1], 0)
        assert seen >= offered, f"{seen} of {offered} calls taken"
        active, pending, connections = (now.get(name, 0) for name in (*TAKEN[:2], "upstream_cx_active"))
        # A call also counts as pending while its connection is being made; only with every connection busy does it wait for its turn.
        assert not pending or active >= connections, f"{pending} calls wait, {connections - active} of {connections} connections are not busy yet"
        arrived = function.counts().total
        assert arrived >= active, f"{arrived} of {active} active calls are at the function"
        return now

    with ThreadPoolExecutor(len(waves)) as callers:
        drawn = []
        try:
            for wave in waves:
                drawn.append(callers.submit(
                    caller.draw, url, count=wave, concurrency=wave, headers=[("x-greeter-hold", gate)], timeout_s=CALL_TIMEOUT_S, keep_headers=(), keep_seen=(),
                ))
                offered += wave
                held = eventually(taken, within=TAKEN_WITHIN_S, every=0.1, subject=f"a load of {'+'.join(map(str, waves))} calls to {url} not at the proxy")
        finally:
            function.release(gate)
        draws = [one.result().to_json() for one in drawn]
    return {"waves": draws, "before": before, "held": held, "after": upstream(), "function": function.counts().without_ids()}
