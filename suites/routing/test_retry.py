"""Retries: how often a VirtualService has a failing request sent again, for which failures, and for how long."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from clusters.components.istio.client import IstioClient
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.greeter.client import Greeter
from workloads.records import Draw

HOST = ("Host", "retried-function.serverless.example.com")
DEAD = ("Host", "dead-function.serverless.example.com")
# Whether a failure is sent again follows from the request and its answer; ten calls show every attempt of a policy.
CALLS = 10
ATTEMPTS = 3
# A try that waits half a second, three times; the function would take longer than all of them together.
TRY_MS = 500
TRIES = 3
FOREVER = ("x-greeter-delay", "5s")


@pytest.fixture
def draw(functions: str, caller: Caller, standard: Greeter) -> partial[Draw]:
    """Draws of the retried host, beginning with nothing counted at the function."""
    standard.reset_counts()
    return partial(caller.draw, functions, count=CALLS, concurrency=CALLS)


def status(code: int) -> tuple[str, str]:
    """Ask the function for this status."""
    return ("x-greeter-status", str(code))


def judge_attempts(evidence: Evidence) -> Verdict:
    """A request is sent once and as often again as it fails, up to the attempts; without retries it is sent once."""
    counts, recovering = evidence["counts"], evidence["recovering"]
    return Verdict.of(
        judges.flagged("failing-is-told", evidence["failing"], 503, "URX"),
        judges.reached("failing-sent-four-times", evidence["failing"], counts, 1 + ATTEMPTS),
        *(judges.every_status(f"recovers-after-{failures}", recovering[str(failures)], 200) for failures in range(1, ATTEMPTS + 1)),
        *(
            judges.reached(f"after-{failures}-sent-once-more", recovering[str(failures)], counts, failures + 1)
            for failures in range(1, ATTEMPTS + 1)
        ),
        judges.every_status("one-failure-too-many", evidence["too-long"], 503),
        judges.reached("one-failure-too-many-sent-four-times", evidence["too-long"], counts, 1 + ATTEMPTS),
        judges.reached("healthy-sent-once", evidence["healthy"], counts, 1),
        judges.every_status("control-fails", evidence["off"], 503),
        judges.reached("control-sent-once", evidence["off"], counts, 1),
    )


@requirement("routing.retry", level="MUST", judge=judge_attempts)
def test_a_failing_request_is_sent_again(draw: partial[Draw], standard: Greeter, manifests: Manifests, decide: Decide) -> None:
    """With `attempts: 3` a request that fails is sent up to three times more, and not once more than it needs; with `attempts: 0` it is not."""
    manifests.apply("retry.yaml")

    def first(failures: int) -> tuple[str, str]:
        return ("x-greeter-fail-first", str(failures))

    decide(
        failing=draw(path="/three", headers=[HOST, status(503)]),
        recovering={str(failures): draw(path="/three", headers=[HOST, first(failures)]) for failures in range(1, ATTEMPTS + 1)},
        **{"too-long": draw(path="/three", headers=[HOST, first(ATTEMPTS + 1)])},
        healthy=draw(path="/three", headers=[HOST]),
        off=draw(path="/off", headers=[HOST, status(503)]),
        counts=standard.counts(),
    )


# What each condition takes for a failure (Envoy documentation, router filter, x-envoy-retry-on); Istio makes a number in
# retryOn a retriable status code.
RETRIED = {"/gateway-error": (502, 503, 504), "/teapot": (418,)}
LEFT_ALONE = {"/gateway-error": (500, 429), "/teapot": (500, 503)}


def judge_conditions(evidence: Evidence) -> Verdict:
    """A status that `retryOn` names is retried, any other is not."""
    return Verdict.of(*(
        judges.reached(f"{path.removeprefix('/')}-{verb}-{code}", evidence[verb][f"{path} {code}"], evidence["counts"], times)
        for verb, cases, times in (("retries", RETRIED, 1 + ATTEMPTS), ("leaves", LEFT_ALONE, 1))
        for path, codes in cases.items()
        for code in codes
    ))


@requirement("routing.retry-on", level="MUST", judge=judge_conditions)
def test_only_the_named_failures_are_retried(draw: partial[Draw], standard: Greeter, manifests: Manifests, decide: Decide) -> None:
    """A request is sent again for a failure that `retryOn` names, by condition or by status, and for no other."""
    manifests.apply("retry.yaml")

    def each(cases: Mapping[str, tuple[int, ...]]) -> dict[str, Draw]:
        return {f"{path} {code}": draw(path=path, headers=[HOST, status(code)]) for path, codes in cases.items() for code in codes}

    decide(retries=each(RETRIED), leaves=each(LEFT_ALONE), counts=standard.counts())


def judge_tries(evidence: Evidence) -> Verdict:
    """Every try gets its time and the last one ends the call; a quick function needs one try, and without the limit it is waited for."""
    slow, counts = evidence["slow"], evidence["counts"]
    return Verdict.of(
        judges.flagged("ended-by-the-last-try", slow, 504, "UT"),
        judges.reached("every-try-sent", slow, counts, TRIES),
        judges.not_before("every-try-gets-its-time", slow, TRIES * TRY_MS),
        judges.every_status("quick-is-answered", evidence["quick"], 200),
        judges.reached("quick-sent-once", evidence["quick"], counts, 1),
        judges.every_status("control-waits", evidence["control"], 200),
        judges.reached("control-sent-once", evidence["control"], counts, 1),
    )


@requirement("routing.retry-per-try-timeout", level="MUST", judge=judge_tries)
def test_every_try_has_its_own_time(draw: partial[Draw], standard: Greeter, manifests: Manifests, decide: Decide) -> None:
    """A try that takes longer than `perTryTimeout` is given up and sent again, and the call ends with 504 after the last of them."""
    manifests.apply("retry.yaml")

    decide(
        slow=draw(path="/half-a-second", headers=[HOST, FOREVER]),
        quick=draw(path="/half-a-second", headers=[HOST, ("x-greeter-delay", "100ms")]),
        control=draw(path="/off", headers=[HOST, ("x-greeter-delay", f"{2 * TRY_MS}ms")]),
        counts=standard.counts(),
    )


# Finding: Istio retries what nobody asked it to. A route without `retries`, and a service without a VirtualService, get two
# retries for connect-failure, refused-stream, unavailable, cancelled and retriable-status-codes, the last without any code
# (pilot, route/retry, DefaultPolicy). Older releases had the code 503 among them; here a function's own 503 is sent once.
DEFAULT_RETRIES = 2


def judge_default(evidence: Evidence) -> Verdict:
    """A refused connection is tried three times by default and once with `attempts: 0`; a function's 503 is not retried."""
    counts, dead, off = evidence["counts"], evidence["dead"], evidence["dead-off"]
    return Verdict.of(
        judges.reached("own-503-sent-once", evidence["own"], counts, 1),
        judges.reached("own-503-without-a-virtual-service-sent-once", evidence["bare"], counts, 1),
        judges.flagged("refused-connection-is-told", dead["draw"], 503, "UF"),
        tries("refused-connection-tried-three-times", dead, 1 + DEFAULT_RETRIES),
        judges.flagged("control-is-told", off["draw"], 503, "UF"),
        tries("control-tried-once", off, 1),
    )


def tries(name: str, told: Mapping[str, Any], times: int) -> Claim:
    """Claim that the proxy tried to connect `times` times for each call, by its own counters of the calls' cluster."""
    calls = len(told["draw"]["records"])
    retried, failed = (told["counters"].get(counter, 0) for counter in ("upstream_rq_retry", "upstream_cx_connect_fail"))
    seen, wanted = f"{failed} connections failed, {retried} retries", f"{times * calls} connections failed, {(times - 1) * calls} retries"
    if open_ := judges.incomplete(name, told["draw"]):
        return open_
    if seen != wanted:
        return Claim(name, held=False, said=f"{calls} calls: {seen}", expected=wanted, got=seen)
    return Claim(name, held=True, said=f"{calls} calls: {seen}")


# SHOULD: the owner of a mesh may choose another default for all of it (meshConfig.defaultHttpRetryPolicy).
@requirement("routing.retry-default", level="SHOULD", judge=judge_default)
def test_only_what_never_arrived_is_retried_by_default(
    draw: partial[Draw], standard: Greeter, caller: Caller, istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """Without a word on retries a connection that is refused is tried three times in all, and a 503 of the function's own is sent once."""
    manifests.apply("retry.yaml")

    def counted(path: str) -> dict[str, object]:
        def counters() -> dict[str, int]:
            return istio.stats(caller.namespace, caller.pod, r"dead-function.*upstream_(rq_retry|cx_connect_fail)$")

        before = counters()
        # One at a time: a connection that fails takes all requests along that wait for one (Envoy, connection pooling).
        drawn = draw(path=path, headers=[DEAD], concurrency=1)
        return {"draw": drawn, "counters": {name.rpartition(".")[2]: value - before.get(name, 0) for name, value in counters().items()}}

    decide(
        own=draw(path="/unsaid", headers=[HOST, status(503)]),
        bare=draw(headers=[status(503)]),
        dead=counted("/unsaid"),
        **{"dead-off": counted("/off")},
        counts=standard.counts(),
    )
