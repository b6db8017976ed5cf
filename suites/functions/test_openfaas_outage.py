"""OpenFaaS's queue and its worker killed under asynchronous calls: what is lost, what is run twice, and that it ends."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from clusters.apiserver import NotFound
from clusters.bringup import Testbed
from clusters.components.openfaas.client import OpenFaasClient, function_url
from clusters.components.openfaas.manifests import NAMESPACE, QUEUE, WORKER
from clusters.waiting import NeverReached, TimedOut, eventually
from suites.support import faas as claims
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.image_processor.client import forks, log_of, printed

QUEUED, UNHURRIED = "queued", "unhurried"
# Half of them before the worker is killed, half while there is none.
MESSAGES, CALLERS = 1000, 8
# Some tens of milliseconds each, one after the other; then what the queue had given to the worker that is gone, once it has noticed.
WORKED_OFF_WITHIN_S = 120.0
BEGINS_WITHIN_S = 20.0
# What a container has written is in its log a moment later.
SAYS_SO_WITHIN_S = 10.0
FEW = 5
# The gateway notices at once that the queue's connections are closed; it tries anew at growing intervals, up to some ten seconds apart here.
REFUSED_WITHIN_S, BACK_WITHIN_S = 5.0, 60.0


# Finding: the queue delivers at least once, and the worker takes a message for done when its call has ended, however it ended:
# - What a worker had in hand when it was killed is run again by the next one, once the queue has noticed (its heartbeats, or `ack_wait`), so it is
#   run twice. What waits meanwhile is neither lost nor run twice, but for one message that is kept back for as long: the queue had given it to
#   the worker that was gone already.
# - A call that could not be made at all (no gateway, no function) is not tried again: the message is gone, and only the log says so.
# - A thousand queued calls are many calls to OpenFaaS's alert as well: it scaled the function to nine pods, where the function did not say
#   that one is the most.
# - The queue keeps messages in memory, as upstream installs it: what waits when the queue itself is killed is lost.
def judge_worker(evidence: Evidence) -> Verdict:
    """None of a thousand messages is lost and none run twice although the worker is killed in between; the one that it had in hand is run again."""
    calls = evidence["calls"]
    return Verdict.of(
        judges.every_status("every-one-is-accepted", judges.joined(calls), 202, least=MESSAGES),
        claims.each_once("each-of-a-thousand-once", [one for draw in calls.values() for one in claims.ids_of(draw)], evidence["runs"]),
        replaced("another-worker-in-its-place", evidence["workers"]),
        again("what-was-in-hand-is-run-again", evidence["in_hand"]),
    )


def replaced(name: str, workers: Mapping[str, list[str]]) -> Claim:
    """Claim that the worker's pods that were killed are no more, and that others are there instead."""
    said = f"{', '.join(workers['before']) or 'nothing'} before, {', '.join(workers['after']) or 'nothing'} after"
    if not workers["before"] or not workers["after"]:
        return Claim(name, held=None, said=said)
    kept = sorted(set(workers["before"]) & set(workers["after"]))
    return Claim(name, held=not kept, said=said, expected="others", got=", ".join(kept))


def again(name: str, in_hand: Mapping[str, Any]) -> Claim:
    """Claim that the message whose worker was killed while it was being run was run a second time, and not a third."""
    said = f"begun {in_hand['begun']} times when the worker was killed, {in_hand['after']} times at the end"
    if not in_hand["begun"]:
        return Claim(name, held=None, said=said)
    return Claim(name, held=(in_hand["begun"], in_hand["after"]) == (1, 2), said=said, expected="1, then 2", got=said)


@pytest.fixture
def faas_of_ours(testbed: Testbed, faas: OpenFaasClient) -> OpenFaasClient:
    """OpenFaaS on a cluster of ours: on somebody else's its pods are not ours to kill."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("OpenFaaS's pods on an existing cluster are not ours to kill")
    return faas


def queued(caller: Caller, namespace: str, name: str, count: int) -> Any:
    """Call a function asynchronously."""
    url = function_url(name, namespace, asynchronous=True)
    return caller.draw(url, method="POST", count=count, concurrency=min(CALLERS, count), keep_headers=(), keep_seen=())


def said_of(faas: OpenFaasClient, namespace: str, name: str) -> str:
    """Return what a function's pods wrote."""
    return log_of(faas.kube, namespace, name, [str(pod["metadata"]["name"]) for pod in faas.pods(namespace, name)])


def killed(faas: OpenFaasClient) -> list[str]:
    """Kill the queue's worker and return its pods that are no more."""
    pods = faas.own_pods(WORKER)
    for pod in pods:
        faas.kube.delete_one("Pod", pod, NAMESPACE, grace_s=0)
    return pods


# A thousand messages one after the other, and the time in which the queue notices that a worker is gone.
@pytest.mark.slow
@requirement("functions.openfaas-queue", level="MUST", judge=judge_worker, alone=True)
def test_the_queue_s_worker_is_killed(
    world: World, faas_of_ours: OpenFaasClient, served: Callable[..., None], caller: Caller, manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """Of a thousand queued calls none is lost and none run twice although the worker is killed between them, and the one that the worker has in hand when it is killed is run again by the next.

    The first half is worked off before the worker is killed, so that it has one of another function in hand; the second is queued while there is none.
    """
    faas = faas_of_ours
    manifests.apply("openfaas_outage.yaml", image=processor_image)
    served(QUEUED)
    faas.await_ready(world.namespace, UNHURRIED)
    before = {name: said_of(faas, world.namespace, name) for name in (QUEUED, UNHURRIED)}

    def ran() -> list[str]:
        return printed(said_of(faas, world.namespace, QUEUED))[len(printed(before[QUEUED])):]

    def all_said() -> None:
        assert len(ran()) >= MESSAGES, f"{len(ran())} of {MESSAGES} runs are written down"

    def begun() -> int:
        return forks(said_of(faas, world.namespace, UNHURRIED)) - forks(before[UNHURRIED])

    def in_hand() -> int:
        assert begun() == 1, f"begun {begun()} times"
        return begun()

    calls = {"before": queued(caller, world.namespace, QUEUED, MESSAGES // 2)}
    with suppress(TimedOut):
        faas.await_worked_off(within=WORKED_OFF_WITHIN_S)
    queued(caller, world.namespace, UNHURRIED, 1)
    caught = 0
    with suppress(TimedOut):
        caught = eventually(in_hand, within=BEGINS_WITHIN_S, every=0.2)
    workers = {"before": killed(faas)}
    calls["without-a-worker"] = queued(caller, world.namespace, QUEUED, MESSAGES // 2)
    faas.await_own(WORKER)
    with suppress(TimedOut):
        faas.await_worked_off(within=WORKED_OFF_WITHIN_S)
    with suppress(TimedOut):
        eventually(all_said, within=SAYS_SO_WITHIN_S)
    workers["after"] = faas.own_pods(WORKER)

    decide(calls=calls, runs=ran(), workers=workers, in_hand={"begun": caught, "after": begun()})


def judge_queue(evidence: Evidence) -> Verdict:
    """Without the queue an asynchronous call is refused at once and a synchronous one served; with the next one both are as before."""
    accepted = judges.joined({when: evidence["asynchronous"][when] for when in ("before", "after")})
    return Verdict.of(
        judges.every_status("accepted-before-and-afterwards", accepted, 202, least=2 * FEW),
        claims.bounded("refused-without-the-queue", evidence["asynchronous"]["without"], 500, within_s=REFUSED_WITHIN_S),
        judges.every_status("synchronous-calls-lose-nothing", judges.joined(evidence["synchronous"]), 200, least=3 * FEW),
        claims.each_once("run-once-afterwards", claims.ids_of(evidence["asynchronous"]["after"]), evidence["runs"]),
    )


# The queue is taken away and comes back, and gateway and worker notice that it did.
@pytest.mark.slow
@requirement("functions.openfaas-queue-outage", level="MUST", judge=judge_queue, alone=True)
def test_the_queue_is_taken_away(
    world: World, faas_of_ours: OpenFaasClient, served: Callable[..., None], caller: Caller, manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """While the queue is away asynchronous calls are refused with 500 at once and synchronous ones are served; once it is back, asynchronous calls are accepted and run once again, without anybody's doing."""
    faas = faas_of_ours
    manifests.apply("openfaas_outage.yaml", image=processor_image)
    # A function that is not there is for the verdict to tell.
    with suppress(TimedOut, NeverReached, NotFound):
        served(QUEUED)
    url = function_url(QUEUED, world.namespace)

    def both() -> tuple[Any, Any]:
        return queued(caller, world.namespace, QUEUED, FEW), caller.draw(url, count=FEW)

    asynchronous, synchronous = {}, {}
    asynchronous["before"], synchronous["before"] = both()
    with suppress(TimedOut):
        faas.await_worked_off(within=WORKED_OFF_WITHIN_S)
    faas.kube.scale(NAMESPACE, QUEUE, 0)
    try:
        eventually(lambda: gone(faas), within=world.timeouts.deployment_available, every=0.2)
        asynchronous["without"], synchronous["without"] = both()
    finally:
        faas.kube.scale(NAMESPACE, QUEUE, 1)
        faas.await_own(QUEUE)
    back(caller, faas, world.namespace)
    before = len(printed(said_of(faas, world.namespace, QUEUED)))
    asynchronous["after"], synchronous["after"] = both()
    with suppress(TimedOut):
        faas.await_worked_off(within=WORKED_OFF_WITHIN_S)

    def ran() -> list[str]:
        ids = {record.request_id for record in synchronous["after"].records}
        return [one for one in printed(said_of(faas, world.namespace, QUEUED))[before:] if one not in ids]

    def all_said() -> None:
        assert len(ran()) >= FEW, f"{len(ran())} of {FEW} runs are written down"

    with suppress(TimedOut):
        eventually(all_said, within=SAYS_SO_WITHIN_S)

    decide(asynchronous=asynchronous, synchronous=synchronous, runs=ran())


def gone(faas: OpenFaasClient) -> None:
    """Return if the queue has no pod."""
    left = faas.kube.pods(NAMESPACE, f"app={QUEUE}")
    assert not left, f"{len(left)} pods of {QUEUE}"


def back(caller: Caller, faas: OpenFaasClient, namespace: str) -> None:
    """Return once gateway and worker have found the queue again, or when that is no longer to be expected; the calls are thrown away."""

    def found() -> None:
        status = queued(caller, namespace, QUEUED, 1).records[0].status
        assert status == 202, f"answered {status}"

    with suppress(TimedOut):
        eventually(found, within=BACK_WITHIN_S, every=0.5)
        faas.await_worked_off(within=BACK_WITHIN_S)
