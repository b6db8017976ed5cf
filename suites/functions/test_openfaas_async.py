"""Asynchronous calls of OpenFaaS's functions: accepted at once, run once, and told to whom the caller names; what the queue does not take is refused."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from clusters.apiserver import NotFound
from clusters.components.openfaas.client import OpenFaasClient, function_url
from clusters.waiting import NeverReached, TimedOut, eventually
from suites.support import faas as claims
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.image_processor.client import log_of, runs

WORKED, FAILING, CALLED_BACK = "worked", "fails-always", "called-back"
CALLS, FEW = 20, 5
ACCEPTED = 202
# Read by the gateway from its own process, written to the queue as base64 in JSON: 512 KiB are 700 kB there, 1 MiB is more than the queue's 1 MiB.
LARGE, TOO_LARGE = b"x" * (512 << 10), b"x" * (1 << 20)
REFUSED_WITHIN_S = 5.0
WORKED_OFF_WITHIN_S = 40.0
SAYS_SO_WITHIN_S = 10.0
KEPT = ("x-request-id", "x-call-id", "x-function-status", "x-function-name", "content-length")


# Finding: the limit is the queue's (NATS, `max_payload`), and it is told as 500 with the queue's own words, where 413 would say what is wrong.
# What is called back bears the call's id and the function's status; the gateway's answer has both before anything was run.
def judge(evidence: Evidence) -> Verdict:
    """Each is accepted at once and run once, its caller's address is told what became of it once; what is too large, or for nobody, is refused at once and not run."""
    calls, log, back = evidence["calls"], evidence["runs"], evidence["called_back"]
    return Verdict.of(
        accepted("every-one-is-accepted", calls, ("worked", "failing", "large")),
        claims.each_once("each-is-run-once", [*claims.ids_of(calls["worked"]), *claims.ids_of(calls["large"])], [one.get("x-request-id", "") for one in log]),
        told("each-is-called-back-with-200", calls["worked"], back, WORKED, "200"),
        told("failures-are-called-back-with-500", calls["failing"], back, FAILING, "500"),
        claims.bounded("what-the-queue-does-not-take-is-refused", calls["too-large"], 500, within_s=REFUSED_WITHIN_S),
        claims.bounded("for-nobody-is-refused", calls["nobody"], 500, within_s=REFUSED_WITHIN_S),
    )


def accepted(name: str, calls: Mapping[str, Mapping[str, Any]], which: Sequence[str]) -> Claim:
    """Claim that every call was answered 202 with an id of its own."""
    records = [record for one in which for record in calls[one].get("records", ())]
    ids = [value for record in records for value in record["headers"].get("x-call-id", ())]
    wrong = [record for record in records if record["status"] != ACCEPTED]
    said = f"{len(records) - len(wrong)} of {len(records)} calls were accepted, with {len(set(ids))} ids"
    if not records:
        return Claim(name, held=None, said="no call was made")
    return Claim(name, held=not wrong and len(set(ids)) == len(records), said=said, expected=f"{len(records)}, each with an id", got=judges.shapes(wrong) or said)


def told(name: str, draw: Mapping[str, Any], back: Sequence[Mapping[str, str]], function: str, status: str) -> Claim:
    """Claim that each call's end was told once, with its id and the function's status."""
    ids = [value for record in draw.get("records", ()) for value in record["headers"].get("x-call-id", ())]
    own = [one for one in back if one.get("x-function-name", "").partition(".")[0] == function]
    right = [one.get("x-call-id", "") for one in own if one.get("x-function-status") == status]
    said = f"of {len(ids)} calls {len(set(ids) & set(right))} were told with {status}; {len(own)} call-backs came, {len(right)} of them with {status}"
    if not ids:
        return Claim(name, held=None, said="no call was accepted")
    return Claim(name, held=sorted(ids) == sorted(right) and len(own) == len(right), said=said, expected=f"each once, with {status}", got=said)


@pytest.mark.slow
@requirement("functions.openfaas-async", level="MUST", judge=judge)
def test_an_asynchronous_call_is_run_once_and_told(
    world: World, faas: OpenFaasClient, served: Callable[..., None], caller: Caller, manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """An asynchronous call is accepted with an id at once, run once by the queue's worker, and its end told once to the address that it names, with the function's status; one that the queue does not take, or for a function that is not there, is refused at once.

    Calls back go by the gateway to another function, so the mesh's policies hold for them as well.
    """
    manifests.apply("openfaas_async.yaml", image=processor_image)
    # A function that is not there is for the verdict to tell.
    with suppress(TimedOut, NeverReached, NotFound):
        served(WORKED, CALLED_BACK)
        served(FAILING)
    before = {name: len(written(faas, world.namespace, name)) for name in (WORKED, CALLED_BACK)}
    tell = [("X-Callback-Url", function_url(CALLED_BACK, world.namespace))]

    def call(name: str, *, count: int = FEW, body: bytes = b"", told_back: bool = False) -> object:
        url = function_url(name, world.namespace, asynchronous=True)
        return caller.draw(url, method="POST", body=body, count=count, headers=tell if told_back else (), keep_headers=("x-call-id",))

    calls = {
        "worked": call(WORKED, count=CALLS, told_back=True), "failing": call(FAILING, told_back=True), "large": call(WORKED, count=1, body=LARGE),
        "too-large": call(WORKED, count=1, body=TOO_LARGE), "nobody": call("nobody"),
    }
    with suppress(TimedOut):
        faas.await_worked_off(within=WORKED_OFF_WITHIN_S)
    wanted = {WORKED: CALLS + 1, CALLED_BACK: CALLS + FEW}
    with suppress(TimedOut):
        eventually(lambda: said_by_now(faas, world.namespace, before, wanted), within=SAYS_SO_WITHIN_S)
    told_of = {name: [{field: one.get(field, "") for field in KEPT} for one in written(faas, world.namespace, name)[before[name]:]] for name in wanted}

    decide(calls=calls, runs=told_of[WORKED], called_back=told_of[CALLED_BACK])


def written(faas: OpenFaasClient, namespace: str, function: str) -> list[dict[str, str]]:
    """Return what a function's pods wrote down of the requests that they ran."""
    return runs(log_of(faas.kube, namespace, function, [str(pod["metadata"]["name"]) for pod in faas.pods(namespace, function)]))


def said_by_now(faas: OpenFaasClient, namespace: str, before: Mapping[str, int], wanted: Mapping[str, int]) -> None:
    """Return once a container's log has what its process wrote, which is a moment later."""
    for name, count in wanted.items():
        seen = len(written(faas, namespace, name)) - before[name]
        assert seen >= count, f"{name} wrote down {seen} of {count} runs"
