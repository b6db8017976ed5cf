"""Quota: what the pods of a namespace may ask for and use together, and what becomes of the one beyond it."""

import copy
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from clusters.apiserver import status_of
from clusters.waiting import TimedOut, eventually
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.fixtures import World

QUOTA = "serverless-quota"
CREATED, FORBIDDEN = 201, 403
# A pod that asks for all there is.
WHOLE = {"requests.cpu": "4", "requests.memory": "8Gi", "limits.cpu": "8", "limits.memory": "16Gi"}
# One unit more of one of them: a thousandth of a core, a byte.
BEYOND = {"requests.cpu": "4001m", "requests.memory": "8589934593", "limits.cpu": "8001m", "limits.memory": "17179869185"}
# Four of these ask for all there is.
QUARTER = {"requests.cpu": "1", "requests.memory": "2Gi", "limits.cpu": "2", "limits.memory": "4Gi"}
# What the sidecar of the tried pods is given, and what is left of the whole beside it.
SIDECAR = {"proxyCPU": "100m", "proxyMemory": "128Mi", "proxyCPULimit": "200m", "proxyMemoryLimit": "256Mi"}
WITH_SIDECAR = {"limits.cpu": "8200m", "limits.memory": "16640Mi", "requests.cpu": "4100m", "requests.memory": "8320Mi"}
BESIDE_SIDECAR = {"requests.cpu": "3900m", "requests.memory": "8064Mi", "limits.cpu": "7800m", "limits.memory": "16128Mi"}
FLEET, FITTING = 5, 4
# The API server's own copy of a quota lags behind what is stored, usually by less than a second.
KNOWN_WITHIN_S = 15.0


def judge(evidence: Evidence) -> Verdict:
    """What fits is admitted, one unit more of anything is refused by the quota's own word, and elsewhere it is not."""
    quarters = {name: f"{name}={value}" for name, value in sorted(QUARTER.items())}
    return Verdict.of(
        admitted("at-the-limits-is-admitted", {"the whole": evidence["whole"]}),
        *(
            refused(f"{name}-beyond-is-refused", evidence["beyond"][name], f"exceeded quota: {QUOTA}, requested: {name}={value}, used: {name}=0, limited: {name}={WHOLE[name]}")
            for name, value in BEYOND.items()
        ),
        refused("unsaid-is-refused", evidence["unsaid"], f"failed quota: {QUOTA}: must specify {' for: function; '.join(sorted(WHOLE))} for: function"),
        fleet("four-fill-it-and-the-fifth-is-refused", evidence["fleet"], f"exceeded quota: {QUOTA}, requested: {','.join(quarters.values())}, used: "),
        admitted("freed-is-given-again", {"a quarter": evidence["freed"]}),
        refused(
            "finding-sidecar-counts", evidence["with-sidecar"],
            f"exceeded quota: {QUOTA}, requested: {','.join(f'{name}={value}' for name, value in WITH_SIDECAR.items())}, used: ",
        ),
        admitted("finding-beside-the-sidecar-is-admitted", {"what is left": evidence["beside-sidecar"]}),
        admitted("without-a-quota-all-are-admitted", evidence["elsewhere"]),
    )


def admitted(name: str, answers: Mapping[str, Mapping[str, Any]]) -> Claim:
    """Claim that the API server would have created each pod."""
    wrong = [f"{pod}: {answer['message']}" for pod, answer in answers.items() if answer["status"] == FORBIDDEN]
    other = [f"{pod}: {answer['status']} {answer['message']}" for pod, answer in answers.items() if answer["status"] not in (CREATED, FORBIDDEN)]
    if wrong:
        return Claim(name, held=False, said=f"refused: {'; '.join(wrong)}", expected="201 each", got=f"{len(wrong)} times 403")
    if other or not answers:
        return Claim(name, held=None, said="; ".join(other) or "no pod was tried")
    return Claim(name, held=True, said=f"{', '.join(answers)} would be created")


def refused(name: str, answer: Mapping[str, Any], message: str) -> Claim:
    """Claim that the API server refused a pod with a message that begins so."""
    said = f"{answer['status']} {answer['message']}".strip()
    if answer["status"] == CREATED or (answer["status"] == FORBIDDEN and not answer["message"].startswith(message)):
        return Claim(name, held=False, said=f"the pod was answered {said}", expected=f"403 {message}", got=said)
    if answer["status"] != FORBIDDEN:
        return Claim(name, held=None, said=f"the pod was answered {said}")
    return Claim(name, held=True, said=said)


def fleet(name: str, seen: Mapping[str, Any], message: str) -> Claim:
    """Claim that as many pods of a Deployment were created as fit, and that it says why the next was not."""
    said = f"{seen['created']} of {FLEET} pods were created; {seen['failure'] or 'nothing was refused'}"
    if seen["created"] < FITTING and not seen["failure"]:
        return Claim(name, held=None, said=said)
    if seen["created"] == FITTING and message in seen["failure"]:
        return Claim(name, held=True, said=said)
    return Claim(name, held=False, said=said, expected=f"{FITTING} pods, the next refused: {message}", got=said)


@pytest.fixture(scope="module")
def world(worlds: Callable[[str], World]) -> World:
    """A namespace of its own: a quota binds every pod of its namespace."""
    return worlds("performance-quota").view()


@requirement("performance.quota", level="MUST", judge=judge)
def test_pods_together_stay_within_the_quota(world: World, worlds: Callable[[str], World], manifests: Manifests, decide: Decide) -> None:
    """A namespace's pods may ask for 4 cores and 8 GiB and use 8 and 16 in all, exactly; the pod beyond it is refused with the quota's own word.

    Nothing of this needs to run: pods are tried on the API server (a dry run), or wait for a scheduler that does not exist, and count all the same.

    Finding: a pod counts with what its sidecar asks for: the sidecar is injected before the quota looks. A pod without a word about one
    of the four is refused outright, so under a quota on limits a sidecar needs limits as much as a function does.
    """
    free = worlds("performance").namespace
    manifests.apply("quota.yaml")
    await_known(world)

    decide(
        whole=attempt(world, world.namespace, pod(WHOLE)),
        beyond={name: attempt(world, world.namespace, pod(WHOLE | {name: value})) for name, value in BEYOND.items()},
        unsaid=attempt(world, world.namespace, pod({})),
        elsewhere={name: attempt(world, free, pod(WHOLE | {name: value})) for name, value in BEYOND.items()},
        **{"with-sidecar": attempt(world, world.namespace, pod(WHOLE, sidecar=True)), "beside-sidecar": attempt(world, world.namespace, pod(BESIDE_SIDECAR, sidecar=True))},
        **fill(world),
    )


def pod(asked: Mapping[str, str], *, sidecar: bool = False) -> dict[str, Any]:
    """Return a pod that asks for so much and may use so much, by `requests.cpu` and the like; nobody schedules it."""
    amounts: dict[str, dict[str, str]] = {}
    for name, value in asked.items():
        kind, _, what = name.partition(".")
        amounts.setdefault(kind, {})[what] = value
    annotations = {f"sidecar.istio.io/{name}": value for name, value in SIDECAR.items()} if sidecar else {}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "tried-", "labels": {"app": "tried", "sidecar.istio.io/inject": str(sidecar).lower()}, "annotations": annotations},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "function", "image": "faasmesh.test/faasmesh/greeter:1", "resources": amounts}]},
    }


def attempt(world: World, namespace: str, tried: Mapping[str, Any]) -> dict[str, Any]:
    """Have the API server go through all of a pod's creation but the last step, and say what it answered."""
    answer = world.kube.server.send(
        "POST", f"/api/v1/namespaces/{namespace}/pods", query=[("dryRun", "All")], headers={"content-type": "application/json"}, body=json.dumps(tried).encode(),
    )
    message = str((status_of(answer) or {}).get("message", ""))
    return {"status": answer.status, "message": re.sub(r'^pods "[^"]*" is forbidden: ', "", message)}


def await_known(world: World) -> None:
    """Wait until the API server refuses by the quota; one that it does not refuse by is for the verdict to tell."""
    def refusing() -> None:
        said = attempt(world, world.namespace, pod(dict.fromkeys(WHOLE, "1T")))["message"]
        assert said.startswith(("exceeded quota", "failed quota")), said

    with suppress(TimedOut):
        eventually(refusing, within=KNOWN_WITHIN_S, every=0.1, subject="the quota is not enforced")


def fill(world: World) -> dict[str, Any]:
    """Let a Deployment ask for one pod too many, then for one less than fit; return what came of it, and whether a further pod would be admitted then."""
    template = copy.deepcopy(pod(QUARTER))
    del template["metadata"]["generateName"]
    selector = {"app": "tried"}
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "fleet"},
        "spec": {"replicas": FLEET, "selector": {"matchLabels": selector}, "template": {"metadata": template["metadata"], "spec": template["spec"]}},
    }
    world.kube.apply([deployment], world.namespace)
    seen = {"created": 0, "failure": ""}

    def settled() -> None:
        conditions = {one["type"]: one for one in world.kube.get("Deployment", "fleet", world.namespace).get("status", {}).get("conditions", ())}
        seen["failure"] = str(conditions.get("ReplicaFailure", {}).get("message", ""))
        seen["created"] = len(world.kube.pods(world.namespace, "app=tried"))
        assert seen["created"] == FLEET or (seen["failure"] and seen["created"] >= FITTING), f"{seen['created']} pods; {seen['failure']}"

    def given() -> None:
        freed.update(attempt(world, world.namespace, pod(QUARTER)))
        assert freed["status"] == CREATED, freed["message"]

    freed: dict[str, Any] = {}
    try:
        with suppress(TimedOut):
            eventually(settled, within=KNOWN_WITHIN_S, every=0.1, subject="the Deployment neither has its pods nor says why not")
        world.kube.scale(world.namespace, "fleet", FITTING - 1)
        with suppress(TimedOut):
            eventually(given, within=KNOWN_WITHIN_S, every=0.2, subject="the freed part of the quota is not given again")
    finally:
        world.kube.delete([deployment], world.namespace, within=KNOWN_WITHIN_S)
    return {"fleet": seen, "freed": freed}
