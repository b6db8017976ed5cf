"""The retry budget: how many retries may be under way at once, which by default is any number."""

from collections.abc import Mapping
from typing import Any

from clusters.components.istio.client import IstioClient
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.greeter.client import Greeter

HOST = ("Host", "failing-function.serverless.example.com")
# All calls fail at about the same time and then retry at once: many more than the budget of 2, and than the 3 of Envoy's default.
CALLS = 40
ATTEMPTS = 3
# A retry is under way until it is answered. This long it stays so, and the calls beside it find the budget used up.
FAILING = (("x-greeter-status", "503"), ("x-greeter-delay", "100ms"))
COUNTERS = ("upstream_rq_retry", "upstream_rq_retry_overflow")


def judge(evidence: Evidence) -> Verdict:
    """Without a budget every call gets all its attempts; with one, every retry that was sent and every one refused is accounted for."""
    free, bounded = evidence["unbounded"], evidence["bounded"]
    return Verdict.of(
        judges.flagged("unbounded-is-told", free["draw"], 503, "URX"),
        judges.reached("unbounded-sent-four-times", free["draw"], free["counts"], 1 + ATTEMPTS),
        overflows("unbounded-never-overflows", free, none=True),
        overflows("bounded-overflows", bounded, none=False),
        accounted("bounded-every-try-accounted-for", bounded),
    )


def overflows(name: str, told: Mapping[str, Any], *, none: bool) -> Claim:
    """Claim that no retry was refused for want of budget (`none`), or else that some were and each ended its call.

    The proxy counts a refused retry and logs the flag UO (upstream overflow) for the call that ends with it, so the two agree.
    """
    records = told["draw"]["records"]
    refused, flagged = told["counters"]["upstream_rq_retry_overflow"], sum("UO" in record["flags"].split(",") for record in records)
    seen = f"{refused} retries refused, {flagged} of {len(records)} calls flagged UO"
    if open_ := judges.incomplete(name, told["draw"]):
        return open_
    if not all(record["flags"] for record in records):
        return Claim(name, held=None, said=f"some calls have no entry in the proxy's log; {seen}")
    if refused != flagged or none != (refused == 0):
        return Claim(name, held=False, said=seen, expected="none" if none else "some retries refused, as many calls flagged UO", got=seen)
    return Claim(name, held=True, said=seen)


def accounted(name: str, told: Mapping[str, Any]) -> Claim:
    """Claim that the function got each call once and each retry that the proxy counted, and nothing else."""
    calls, retries, total = len(told["draw"]["records"]), told["counters"]["upstream_rq_retry"], told["counts"]["total"]
    said = f"{total} requests at the function for {calls} calls and {retries} retries"
    if open_ := judges.incomplete(name, told["draw"]):
        return open_
    if any(record["status"] == 0 for record in told["draw"]["records"]):
        return Claim(name, held=None, said=f"some calls were lost: {said}")
    if total != calls + retries:
        return Claim(name, held=False, said=said, expected=f"{calls + retries} requests", got=f"{total} requests")
    return Claim(name, held=True, said=said)


@requirement("routing.retry-budget", level="MUST", judge=judge)
def test_retries_are_bounded_only_where_it_is_said(
    functions: str, standard: Greeter, backup: Greeter, caller: Caller, istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """However many calls fail at once, each gets all its attempts; with `maxRetries: 2` the retries beyond two at a time are refused and counted.

    Finding: Istio sets 2^32 - 1 on every cluster whose DestinationRule says nothing (pilot, cluster_traffic_policy.go); Envoy's
    own default would be 3.
    """
    manifests.apply("retry_budget.yaml")

    def counted(path: str, function: Greeter, name: str) -> dict[str, object]:
        def counters() -> dict[str, int]:
            told = istio.stats(caller.namespace, caller.pod, rf"{name}.*upstream_rq_retry(_overflow)?$")
            return {counter: sum(value for key, value in told.items() if key.endswith(counter)) for counter in COUNTERS}

        function.reset_counts()
        before = counters()
        drawn = caller.draw(functions, path=path, count=CALLS, concurrency=CALLS, headers=[HOST, *FAILING])
        after = counters()
        return {"draw": drawn, "counts": function.counts(), "counters": {counter: after[counter] - before[counter] for counter in COUNTERS}}

    decide(
        unbounded=counted("/unbounded", standard, "standard-user-function"),
        bounded=counted("/bounded", backup, "backup-user-function"),
    )
