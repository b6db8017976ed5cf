"""A VirtualService for a Knative function's host: callers inside the mesh are sorted before they reach Knative's gateway."""

from clusters.components.knative.client import local_host
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World

CALLS = 20
USER_TYPE = "user-type"
# Values that are not the one that is matched, exactly.
OTHERS = ("", "standard", "premium-plus", "PREMIUM")


# Finding: the rewritten authority decides which function answers, as Knative's gateway knows functions by host only; and it must be the whole
# name: Knative's routes know `name.namespace` and what is longer, not the bare name that Kubernetes resolves as well.
def judge(evidence: Evidence) -> Verdict:
    """Premium callers reach the other function, with the header that the route adds; all others reach the one they asked for."""
    premium, others = evidence["premium"], judges.joined(evidence["others"])
    return Verdict.of(
        judges.only_version("premium-gets-its-own", premium, "direct", least=CALLS),
        judges.header_seen("header-arrives", premium, "x-sorted", "yes", least=CALLS),
        judges.header_seen("function-sees-the-new-host", premium, "host", evidence["host"], least=CALLS),
        judges.only_version("others-get-the-other", others, "relayed", least=CALLS * len(OTHERS)),
        judges.header_absent("others-without-the-header", others, "x-sorted", least=CALLS * len(OTHERS)),
        judges.only_version("outside-the-mesh-not-sorted", evidence["outside"], "relayed", least=CALLS),
        judges.every_status("bare-name-unknown", evidence["bare"], 404, least=CALLS),
    )


@requirement("functions.knative-mesh-route", level="MUST", judge=judge)
def test_callers_are_sorted_before_they_reach_knative(
    world: World, standing: dict[str, str], caller: Caller, intruder: Caller, manifests: Manifests, decide: Decide,
) -> None:
    """A VirtualService that matches a header on a Knative function's host sends these callers of the mesh to another Knative function, whose host it writes in place of the first.

    Who calls from beside the mesh has no proxy to sort it.
    """
    del standing  # deployed before they are called
    manifests.apply("knative_mesh_route.yaml")
    url = f"http://{local_host('relayed', world.namespace)}/"

    decide(
        host=local_host("direct", world.namespace),
        premium=caller.draw(url, count=CALLS, headers=[(USER_TYPE, "premium")]),
        others={value: caller.draw(url, count=CALLS, headers=[(USER_TYPE, value)] if value else []) for value in OTHERS},
        outside=intruder.draw(url, count=CALLS, headers=[(USER_TYPE, "premium")]),
        bare=caller.draw("http://direct/", count=CALLS),
    )
