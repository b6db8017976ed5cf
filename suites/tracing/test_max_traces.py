"""The bound on traces in memory: the oldest make room for the newest."""

import time
import uuid
from collections.abc import Sequence

from clusters.components.jaeger.client import JaegerClient, zipkin_span
from clusters.components.jaeger.component import await_answering
from clusters.timeouts import Timeouts
from clusters.versions import versions
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.fixtures import World

NAME = "small-jaeger"
BOUND = 20
SENT = 50


def judge(evidence: Evidence) -> Verdict:
    """All are there as long as they are no more than the bound; then the newest are, exactly as many as that, and no older one."""
    sent, at_bound, after = evidence["sent"], evidence["at_bound"], evidence["after"]
    return Verdict.of(
        exactly("as-many-as-declared-are-kept", at_bound, sent[:BOUND], of=sent[:BOUND]),
        exactly("the-newest-are-there", after, sent[-BOUND:], of=sent[-BOUND:]),
        exactly("the-oldest-are-gone", after, [], of=sent[:-BOUND]),
    )


def exactly(name: str, found: Sequence[str], wanted: Sequence[str], *, of: Sequence[str]) -> Claim:
    """Claim that of some traces exactly the wanted ones were found."""
    seen = [one for one in of if one in set(found)]
    said = f"{len(seen)} of the {len(of)} traces are there"
    return Claim(name, seen == list(wanted), said, expected=f"{len(wanted)} of them", got=str(len(seen)))


@requirement("tracing.max-traces", level="MUST", judge=judge)
def test_the_oldest_make_room(world: World, timeouts: Timeouts, manifests: Manifests, decide: Decide) -> None:
    """A Jaeger that keeps 20 traces in memory keeps the newest 20 of 50, and none of the others."""
    manifests.apply("max_traces.yaml", image=world.image(str(versions().images["jaeger"].upstream)))
    world.kube.wait_deployment(world.namespace, NAME, timeouts.deployment_available)
    small = JaegerClient(world.kube, world.namespace, f"app={NAME}")
    await_answering(small, timeouts)
    sent = [uuid.uuid4().hex for _ in range(SENT)]

    def send(trace_ids: Sequence[str]) -> list[str]:
        for one in trace_ids:
            small.send([zipkin_span(one, service="sender", name="one-of-many", started_us=int(time.time() * 1e6))])
        return list(small.traces_by_id(sent))

    decide(sent=sent, at_bound=send(sent[:BOUND]), after=send(sent[BOUND:]))
