"""Cold starts: what a function of zero pods costs its first caller, phase by phase, in three languages and without a sidecar."""

from functools import partial

import pytest

from clusters.components.knative.client import KnativeClient
from suites.support import coldstarts
from suites.support.coldstarts import ColdStarts
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.fixtures import World
from workloads.greeter import IMAGE as GO
from workloads.greeter_node import IMAGE as NODE
from workloads.greeter_python import IMAGE as PYTHON

FUNCTIONS = ("go", "python", "node", "go-bare")
ROUNDS = 2


def judge(evidence: Evidence) -> Verdict:
    """Nothing was there, everything was answered, the phases add up, and a sidecar is a phase of its own where there is one."""
    starts = evidence["starts"]
    of = partial(coldstarts.of_functions, starts)
    return Verdict.of(
        coldstarts.zero_before("zero-before-every-start", starts),
        coldstarts.all_answered("every-start-is-answered", starts, least=ROUNDS * len(FUNCTIONS)),
        coldstarts.images_present("no-image-is-pulled", starts),
        coldstarts.phases_add_up("phases-add-up", starts),
        coldstarts.has_proxy_phase("a-sidecar-is-ready-before-its-function-starts", of(lambda name: name != "go-bare"), wanted=True),
        coldstarts.has_proxy_phase("the-bare-arm-has-no-sidecar", of(lambda name: name == "go-bare"), wanted=False),
    )


# Finding: Kubernetes 1.33 and later get the sidecar as an init container from Istio 1.29 by default, and holdApplicationUntilProxyStarts is then
# without effect: the function waits for the sidecar's start-up probe, once a second, whatever it says.
# Finding: the pod's readiness is asked for every 10 s with a time-out of 1 s, unless the function's own probe says otherwise. Where the first
# answer is late, a function without sidecar waits for the second: 9 of 80 such starts took 11 s on a machine that did little else (`suites/bench/test_cold_starts.py`).
# Four functions that are asked one after another, twice: each waits for its stable window, the shortest that Knative takes is 6 s.
@pytest.mark.slow
@requirement("functions.knative-cold-start", level="MUST", judge=judge)
def test_a_cold_start_is_answered_and_each_of_its_phases_is_seen(
    world: World, knative: KnativeClient, cold_starts: ColdStarts, manifests: Manifests, decide: Decide,
) -> None:
    """A function without a pod answers its first caller, in Go, Python and JavaScript, and the time it takes is accounted for phase by phase.

    The interleaved measurement with twenty of each kind, and what wins its seconds back, is `suites/bench/test_cold_starts.py`.
    """
    manifests.apply("cold_start.yaml", go=world.image(GO), python=world.image(PYTHON), node=world.image(NODE))
    ready = [knative.await_ready(world.namespace, name) for name in FUNCTIONS]

    # Round after round, so that whatever the machine does meanwhile meets every function alike.
    decide(starts=[cold_starts.draw(function.name) for _ in range(ROUNDS) for function in ready])
