"""Autoscaling as OpenFaaS does it: its own Prometheus sees many calls, Alertmanager tells the gateway, and the gateway scales between the bounds."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from clusters.components.openfaas.client import OpenFaasClient
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.fixtures import Steady, World
from workloads.load import LoadProfile

NAME, HOST = "loaded", "openfaas.serverless.example.com"
LEAST, MOST = 1, 20
# Its rule fires above five calls a second to a function over ten seconds; each starts a process.
USERS, CALLS_PER_S = 8, 2.0
# The rule looks every 15 s and waits for 5 s, Alertmanager gathers for 5 s; the way down is longer, for it also gathers what is resolved.
UP_WITHIN_S, DOWN_WITHIN_S = 75.0, 75.0
PROFILE = LoadProfile(USERS, CALLS_PER_S, longest_s=UP_WITHIN_S + 30, timeout_s=15)
MOST_LOST = 0.01


# Finding: what scales is the rate of calls, not what is in hand, and in steps of a fifth of the maximum each time that Alertmanager repeats itself: 1, 5,
# 9 pods and so on for as long as it lasts, however few pods would do; and back to the minimum in one step. New pods cost calls here
# and there (see `await_answered`).
def judge(evidence: Evidence) -> Verdict:
    """More pods under load, never more than the maximum nor fewer than the minimum, the minimum again at the end, and hardly a call lost."""
    looks = evidence["looks"]
    return Verdict.of(
        Claim("one-pod-to-begin-with", held=bool(looks) and looks[0]["wanted"] == LEAST, said=f"{looks[0]['wanted'] if looks else 'nothing'} wanted", expected=str(LEAST), got=str(looks[:1])),
        more("more-pods-under-load", looks),
        within("never-beyond-its-bounds", looks),
        at_last("its-minimum-at-the-end", looks),
        hardly_lost("hardly-a-call-is-lost", evidence["load"]),
    )


def more(name: str, looks: Sequence[dict[str, Any]]) -> Claim:
    """Claim that more pods than the minimum were wanted while the load lasted."""
    under = [look for look in looks if look["loaded"]]
    if not under:
        return Claim(name, held=None, said="nobody looked while the load lasted")
    most = max(look["wanted"] for look in under)
    first = next((look["at"] for look in under if look["wanted"] > LEAST), None)
    said = f"at most {most} in {under[-1]['at']:.0f} s of load" + (f", more than {LEAST} after {first:.0f} s" if first is not None else "")
    return Claim(name, held=most > LEAST, said=said, expected=f"more than {LEAST}", got=str(most))


def within(name: str, looks: Sequence[dict[str, Any]]) -> Claim:
    """Claim that at every look as many pods were wanted as the function's bounds allow."""
    wanted = sorted({look["wanted"] for look in looks})
    return Claim(name, held=bool(wanted) and wanted[0] >= LEAST and wanted[-1] <= MOST, said=f"wanted: {wanted}", expected=f"{LEAST} to {MOST}", got=str(wanted))


def at_last(name: str, looks: Sequence[dict[str, Any]]) -> Claim:
    """Claim that the minimum was wanted again once the load was over; where more never were it settles nothing."""
    if not looks or max(look["wanted"] for look in looks) <= LEAST:
        return Claim(name, held=None, said="more were never wanted")
    last = looks[-1]
    return Claim(name, held=last["wanted"] == LEAST, said=f"{last['wanted']} wanted {last['at']:.0f} s after the load began", expected=str(LEAST), got=str(last["wanted"]))


def hardly_lost(name: str, draw: judges.Draw) -> Claim:
    """Claim that nearly every call of the load was answered 200."""
    records, incomplete = judges.records_of(name, draw)
    lost = [record for record in records if record["status"] != 200]
    said = f"{len(lost)} of {len(records)} calls were lost: {judges.shapes(lost) or 'none'}"
    if records and len(lost) > MOST_LOST * len(records):
        return Claim(name, held=False, said=said, expected=f"at most {MOST_LOST:.0%}", got=said)
    return incomplete or Claim(name, held=True, said=said)


# The alert's way up and its way down, each half a minute and more.
@pytest.mark.slow
@requirement("functions.openfaas-autoscaling", level="MUST", judge=judge)
def test_alerts_scale_a_function_under_load(
    world: World, faas: OpenFaasClient, served: Callable[..., None], manifests: Manifests, processor_image: str, steady_load: Steady, decide: Decide,
) -> None:
    """Under load that its own Prometheus sees, OpenFaaS scales a function up between its bounds, and back to its minimum once the load is over, and hardly a call is lost meanwhile."""
    manifests.apply("openfaas_autoscaling.yaml", image=processor_image)
    served(NAME)
    looks: list[dict[str, Any]] = []
    began = time.monotonic()

    def look(*, loaded: bool) -> int:
        wanted = faas.wanted(world.namespace, NAME)
        looks.append({"at": time.monotonic() - began, "wanted": wanted, "loaded": loaded})
        return wanted

    def up() -> None:
        wanted = look(loaded=True)
        assert wanted > LEAST, f"{wanted} pods are wanted"

    def down() -> None:
        wanted = look(loaded=False)
        assert wanted <= LEAST, f"{wanted} pods are wanted"

    with steady_load(HOST, f"/function/{NAME}.{world.namespace}", profile=PROFILE) as load, suppress(TimedOut):
        eventually(up, within=UP_WITHIN_S, every=0.5)
    with suppress(TimedOut):
        eventually(down, within=DOWN_WITHIN_S, every=0.5)

    decide(looks=looks, load=load.draw())
