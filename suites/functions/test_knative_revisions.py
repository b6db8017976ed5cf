"""Revisions of a Knative Service: shares of the traffic, addresses of their own, the newest, and the way back."""

import pytest

from clusters.components.knative.client import KnativeClient, local_host
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.ingress import Ingress

NAME = "revised"
DECLARED = {"blue": 0.80, "green": 0.20}
# An exact test at 1e-6 needs 455 calls to notice a shift of fifteen points with a power of 99 %.
CALLS = 460
ALPHA = 1e-6
SHIFT = 0.15
# Five percent that were left behind escape this many calls with a probability of 2e-7; one connection or another makes no difference.
CALLS_AFTER = 300
CALLS_TO_A_TAG = 20


def judge(evidence: Evidence) -> Verdict:
    """The revisions share as declared, each tag leads to its own, and after the rollback the old one answers everything."""
    tags = evidence["tags"]
    return Verdict.of(
        judges.no_failures("every-call-answered", evidence["both"], excused=judges.UPSTREAM_GONE),
        judges.split("shares", evidence["both"], declared=DECLARED, alpha=ALPHA, shift=SHIFT),
        judges.only_version("tag-current", tags["current"], "blue", least=CALLS_TO_A_TAG),
        judges.only_version("tag-candidate", tags["candidate"], "green", least=CALLS_TO_A_TAG),
        judges.only_version("tag-newest", tags["newest"], "green", least=CALLS_TO_A_TAG),
        judges.only_version("tag-inside", evidence["inside"], "green", least=CALLS_TO_A_TAG),
        judges.all_refused("other-tags-refused", evidence["other-tags"], control=tags["current"], status=404),
        judges.only_version("rolled-back", evidence["after"], "blue", least=CALLS_AFTER),
        judges.only_version("tag-outlives-its-share", evidence["tag-after"], "green", least=CALLS_TO_A_TAG),
    )


# Finding: a function is ready as soon as the ingress gateway serves its newest traffic. Through net-istio callers of the mesh are led by their own
# proxies, which nobody asks: they are told in the same push.
# Revisions start one after the other.
@pytest.mark.slow
@requirement("functions.knative-revisions", level="MUST", judge=judge, alpha=ALPHA, detects=SHIFT)
def test_revisions_share_and_have_addresses(
    world: World, caller: Caller, ingress: Ingress, knative: KnativeClient, manifests: Manifests, greeter_image: str, decide: Decide,
) -> None:
    """Two revisions of a Knative Service share its requests as its traffic says, each tag is an address of its revision alone, and a rollback takes every request back at once.

    As soon as the Service reports itself ready its gateways serve the new shares: nothing else is waited for.
    """
    manifests.apply("knative_revisions.before.yaml", image=greeter_image)
    knative.await_ready(world.namespace, NAME)
    manifests.apply("knative_revisions.yaml", image=greeter_image, blue=80, green=20)
    function = knative.await_ready(world.namespace, NAME)
    url = f"http://{local_host(NAME, world.namespace)}/"

    both = caller.draw(url, count=CALLS, concurrency=8, keep_headers=[], keep_seen=[])
    tags = {tag: ingress.draw(function.tagged(tag), "/", count=CALLS_TO_A_TAG) for tag in ("current", "candidate", "newest")}
    inside = caller.draw(f"http://{local_host(NAME, world.namespace, tag='candidate')}/", count=CALLS_TO_A_TAG)
    strangers = (f"nobody-{function.host}", function.host.replace(NAME, f"{NAME}-green", 1))
    others = {name: ingress.draw(name, "/", count=CALLS_TO_A_TAG) for name in strangers}
    manifests.apply("knative_revisions.yaml", image=greeter_image, blue=100, green=0)
    knative.await_ready(world.namespace, NAME)

    decide(
        both=both, tags=tags, inside=inside, after=caller.draw(url, count=CALLS_AFTER, concurrency=8, keep_headers=[], keep_seen=[]),
        **{"other-tags": others, "tag-after": ingress.draw(function.tagged("candidate"), "/", count=CALLS_TO_A_TAG)},
    )
