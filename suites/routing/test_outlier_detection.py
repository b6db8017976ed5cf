"""Outlier detection: an endpoint that fails again and again is ejected from the load balancing, and comes back after a while."""

from contextlib import suppress
from datetime import datetime
from functools import partial

import pytest

from clusters.components.istio.client import IstioClient
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.ejections import await_ejections
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.records import Draw

HOST = "pair-function"
URL = f"http://{HOST}/"
EJECTIONS = "outlier_detection.ejections_enforced_total"
BY_5XX = "outlier_detection.ejections_enforced_consecutive_5xx"
# Asked of the failing version only; the healthy one does not listen. Envoy's proxies retry no 500, so each error is one call's.
FAIL = (("x-greeter-status", "500"), ("x-greeter-only", "failing"))
ERRORS = 7
AFTERWARDS = 40

EJECTION_S = 30.0
INTERVAL_S = 30.0
# Envoy looks every interval whether an ejection is over (outlier detection, "ejection algorithm"), so a pod is back between one ejection
# time and one interval more. The rest is for a busy machine, whose looks are late as ours are.
SLACK_S = 15.0
BACK_WITHIN_S = EJECTION_S + INTERVAL_S + SLACK_S


def judge_ejection(evidence: Evidence) -> Verdict:
    """Six errors in a row do nothing, twice; the seventh ejects the pod that made it and no other."""
    before, after_six, after = evidence["before"], evidence["after-six"], evidence["after"]
    return Verdict.of(
        judges.answers("six-errors", evidence["six"], each(ERRORS - 1, 500)),
        judges.answers("a-success", evidence["success"], each(1, 200)),
        judges.answers("six-more-errors", evidence["six-more"], each(ERRORS - 1, 500)),
        judges.counter_rise("not-ejected-after-six", before, after_six, EJECTIONS, 0),
        judges.answers("seventh-error", evidence["seventh"], each(1, 500)),
        judges.counter_rise("ejected-after-seven", after_six, evidence["after-seven"], BY_5XX, 1),
        ejected("failing-is-ejected", evidence, "failing", expected=True),
        judges.only_version("ejected-gets-nothing", evidence["afterwards"], "healthy", least=AFTERWARDS),
        ejected("healthy-is-not-ejected", evidence, "healthy", expected=False),
        judges.counter_rise("one-ejection-in-all", before, after, EJECTIONS, 1),
        judges.answers("control-failing-stays", evidence["control"], each(AFTERWARDS // 2, 500)),
    )


def judge_readmission(evidence: Evidence) -> Verdict:
    """The ejected pod gets nothing for thirty seconds and is back within the next interval; its twin answers throughout."""
    errors, looks = evidence["errors"], evidence["looks"]
    looked = {"records": [record for look in looks for record in look["records"]]}
    return Verdict.of(
        judges.answers("seven-errors", errors, each(ERRORS, 500)),
        judges.counter_rise("ejected-once", evidence["before"], evidence["after"], EJECTIONS, 1),
        back("not-back-too-early", errors, looks, least_s=EJECTION_S, most_s=None),
        back("back-in-time", errors, looks, least_s=0, most_s=BACK_WITHIN_S),
        judges.every_status("every-look-is-answered", looked, 200),
        judges.answers("takes-its-share-again", evidence["afterwards"], each(AFTERWARDS // 2, 200)),
        ejected("failing-is-in-again", evidence, "failing", expected=False),
        ejected("healthy-is-not-ejected", evidence, "healthy", expected=False),
    )


def each(calls: int, status: int) -> dict[tuple[str, int], int]:
    """Return what round robin over the pair makes of twice `calls`: each takes every second one; the failing one answers `status`."""
    return {("failing", status): calls, ("healthy", 200): calls}


def ejected(name: str, evidence: Evidence, version: str, *, expected: bool) -> Claim:
    """Claim that the proxy's list of endpoints has the pod of a version, ejected or not as expected."""
    flags = {evidence["pods"].get(address): flag for address, flag in evidence["ejected"].items()}
    if version not in flags:
        return Claim(name, held=None, said=f"the proxy knows {len(flags)} endpoints of the pair, and the {version} pod is not among them")
    said = f"the {version} pod is {'ejected' if flags[version] else 'not ejected'}"
    return Claim(name, held=flags[version] is expected, said=said, expected="ejected" if expected else "not ejected", got=said)


def back(name: str, errors: Evidence, looks: list[Evidence], *, least_s: float, most_s: float | None) -> Claim:
    """Claim that the failing pod's first answer after its last error was received so many seconds after that error was asked for.

    Without such an answer the claim is refuted if the looks went on for `most_s`, and inconclusive otherwise.
    """
    last = max((asked(errors, record) for record in errors["records"] if record["version"] == "failing"), default=None)
    received = [(answered(look, record), record["version"]) for look in looks for record in look["records"]]
    if last is None or not received:
        return Claim(name, held=None, said=f"of {len(errors['records'])} calls and {len(looks)} looks there is no time to tell")
    expected = f"{least_s:g} s or more" if most_s is None else f"at most {most_s:g} s"
    first = min((at for at, version in received if version == "failing"), default=None)
    if first is None:
        waited = max(at for at, _ in received) - last
        refuted = most_s is not None and waited >= most_s
        return Claim(name, held=False if refuted else None, said=f"the failing pod did not answer for {waited:.1f} s", expected=expected, got=f"{waited:.1f} s without an answer")
    after = first - last
    held = after >= least_s - judges.TICK_MS / 1000 and (most_s is None or after <= most_s)
    return Claim(name, held=held, said=f"the failing pod answered again {after:.1f} s after its last error", expected=expected, got=f"{after:.1f} s")


def asked(draw: Evidence, record: Evidence) -> float:
    """Return when a call was made, in seconds of the caller's clock."""
    return datetime.fromisoformat(draw["began"]).timestamp() + float(record["started_ms"]) / 1000


def answered(draw: Evidence, record: Evidence) -> float:
    """Return when a call ended, in seconds of the caller's clock."""
    return asked(draw, record) + float(record["latency_ms"]) / 1000


@requirement("routing.outlier-detection", level="MUST", judge=judge_ejection)
def test_the_seventh_error_in_a_row_ejects(pair: dict[str, str], errand: Caller, istio: IstioClient, manifests: Manifests, decide: Decide) -> None:
    """A pod that answers seven calls in a row with 5xx is ejected and gets no further call; six do nothing, and its healthy twin stays.

    The calls are made one after another, so that an error is counted before the next call is made.
    """

    def draw(calls: int, headers: tuple[tuple[str, str], ...] = FAIL) -> Draw:
        return errand.draw(URL, count=calls, headers=headers, keep_headers=(), keep_seen=())

    manifests.apply("outlier_detection.control.yaml")
    control = draw(AFTERWARDS)
    manifests.apply("outlier_detection.yaml")
    counted = partial(istio.upstream, errand.namespace, errand.pod, HOST)
    before = counted()
    errors = {"six": draw(2 * (ERRORS - 1)), "success": draw(2, ()), "six-more": draw(2 * (ERRORS - 1))}
    after_six = counted()
    seventh = draw(2)
    await_ejections(counted, EJECTIONS, least=before.get(EJECTIONS, 0) + 1)
    after_seven, flags = counted(), istio.ejected(errand.namespace, errand.pod, HOST)

    decide(
        pods=pair, control=control, before=before, **errors, seventh=seventh, afterwards=draw(AFTERWARDS),
        after=counted(), ejected=flags, **{"after-six": after_six, "after-seven": after_seven},
    )


@pytest.mark.slow  # the reference world's own thirty seconds, and up to thirty more until Envoy looks
@requirement("routing.outlier-readmission", level="MUST", judge=judge_readmission)
def test_an_ejected_pod_comes_back(pair: dict[str, str], errand: Caller, istio: IstioClient, manifests: Manifests, decide: Decide) -> None:
    """An ejected pod gets no call for the ejection time of 30 s, and takes its share again within one interval of 30 s more."""
    manifests.apply("outlier_detection.control.yaml")
    manifests.apply("outlier_detection.yaml")
    counted = partial(istio.upstream, errand.namespace, errand.pod, HOST)
    before = counted()
    errors = errand.draw(URL, count=2 * ERRORS, headers=FAIL, keep_headers=(), keep_seen=())
    await_ejections(counted, EJECTIONS, least=before.get(EJECTIONS, 0) + 1)
    looks: list[Draw] = []

    def look() -> None:
        looks.append(errand.draw(URL, count=2, keep_headers=(), keep_seen=()))
        assert "failing" in looks[-1].versions(), "only the healthy pod answers"

    # Whether it came back, and when, is for the judge: a mutant's wait ends without it.
    with suppress(TimedOut):
        eventually(look, within=BACK_WITHIN_S, every=0.5)

    decide(
        pods=pair, before=before, errors=errors, looks=looks, afterwards=errand.draw(URL, count=AFTERWARDS, keep_headers=(), keep_seen=()),
        after=counted(), ejected=istio.ejected(errand.namespace, errand.pod, HOST),
    )
