"""Time limits of OpenFaaS's functions: who ends a call that takes too long, when, and how its caller is told."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from clusters.components.openfaas.client import OpenFaasClient, function_url
from suites.support import faas as claims
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World

NAMES = ("hurried", "patient", "meshed", "quick")
CALLS = 2
# What each party allows: the watchdog and the mesh by this check's manifest, the gateway by its own (`upstream_timeout`).
WATCHDOG_S, MESH_S, GATEWAY_S = 2.0, 4.0, 10.0
# What a busy machine adds; never as much as would bring one to the next.
SLACK_S = 2.5


# Finding: three parties, three answers. The watchdog kills its process and answers 408, "Killed process."; the mesh answers 504; the gateway's own
# limit is told as 502, without a word. A watchdog whose `write_timeout` is shorter than its process takes closes the connection without any
# answer, which the mesh tells as 503: its default is 5 s, and `exec_timeout` is none.
def judge(evidence: Evidence) -> Verdict:
    """Each call is ended by the party that allows least, at its time and with its own status; the quick one is answered."""
    calls = evidence["calls"]
    return Verdict.of(
        claims.bounded("ended-by-the-watchdog", calls["hurried"], 408, after_s=WATCHDOG_S, within_s=WATCHDOG_S + SLACK_S),
        claims.bounded("ended-by-the-mesh", calls["meshed"], 504, after_s=MESH_S - 0.1, within_s=MESH_S + SLACK_S),
        claims.bounded("ended-by-the-gateway", calls["patient"], 502, after_s=GATEWAY_S, within_s=GATEWAY_S + SLACK_S),
        claims.bounded("quick-ones-are-answered", calls["quick"], 200, within_s=SLACK_S),
    )


@pytest.mark.slow
@requirement("functions.openfaas-timeouts", level="MUST", judge=judge)
def test_a_call_that_takes_too_long_is_ended(
    world: World, faas: OpenFaasClient, served: Callable[..., None], at_gateway: Callable[[str], None], caller: Caller, manifests: Manifests, processor_image: str,
    decide: Decide,
) -> None:
    """A call that takes too long is ended by the watchdog with 408, by the mesh with 504, or by the gateway with 502, whoever allows least, and at that time.

    All of them are under way at the same time.
    """
    route = f"meshed-{uuid.uuid4().hex[:8]}"
    manifests.apply("openfaas_timeouts.yaml", image=processor_image, route=route)
    for name in NAMES:
        faas.await_ready(world.namespace, name)
    served("quick")
    at_gateway(route)

    def draw(name: str) -> object:
        return caller.draw(function_url(name, world.namespace), count=CALLS, concurrency=CALLS, timeout_s=30)

    with ThreadPoolExecutor(len(NAMES)) as pool:
        drawn = {name: pool.submit(draw, name) for name in NAMES}
        decide(calls={name: one.result() for name, one in drawn.items()})
