"""Pod Security: which pods of this project a namespace takes that enforces `restricted`, and what exactly it holds against the others."""

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from clusters.apiserver import status_of
from clusters.manifests import load_manifest
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller import caller
from workloads.caller.client import Caller
from workloads.edge import MANIFESTS as EDGE
from workloads.fixtures import World
from workloads.greeter import greeter
from workloads.intruder import intruder
from workloads.provider import Accounts, provider

CALLS = 5
CREATED, FORBIDDEN = 201, 403
GREETER = "faasmesh.test/faasmesh/greeter:1"

# What is changed in a pod that is taken, and what must be held against it (Kubernetes documentation, Pod Security Standards).
WORSE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "privileged": ("privileged (", {"securityContext": {"privileged": True, "allowPrivilegeEscalation": True}}),
    "may be root": ("runAsNonRoot != true", {"securityContext": {"runAsNonRoot": None}}),
    "is root": ("runAsUser=0", {"securityContext": {"runAsUser": 0}}),
    "may escalate": ("allowPrivilegeEscalation != false", {"securityContext": {"allowPrivilegeEscalation": True}}),
    "keeps capabilities": ("unrestricted capabilities", {"securityContext": {"capabilities": {"drop": ["NET_RAW"]}}}),
    "adds a capability": ("unrestricted capabilities", {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}}}),
    "no seccomp profile": ("seccompProfile", {"securityContext": {"seccompProfile": None}}),
    "seccomp off": ("seccompProfile", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
    "node's network": ("host namespaces (hostNetwork=true)", {"pod": {"hostNetwork": True}}),
    "node's processes": ("host namespaces (hostPID=true)", {"pod": {"hostPID": True}}),
    "node's files": ("restricted volume types", {"pod": {"volumes": [{"name": "node", "hostPath": {"path": "/etc"}}]}}),
    "node's port": ("hostPort", {"ports": [{"containerPort": 8080, "hostPort": 8080}]}),
}
# Finding: a pod with a sidecar is refused. Without Istio's network plugin, its init container sets the pod's routing up: as root, and
# with two capabilities more than none.
SIDECAR = ('unrestricted capabilities (container "istio-init" must not include "NET_ADMIN", "NET_RAW" in securityContext.capabilities.add)', "runAsNonRoot", "runAsUser=0")
# Finding: who listens on the wire needs to.
WIRETAP = ("unrestricted capabilities", '"NET_RAW"')


def judge(evidence: Evidence) -> Verdict:
    """Every workload is taken without a sidecar, and one runs; a worse twin of it is refused for what is worse about it, as is a sidecar."""
    taken, worse = evidence["taken"], evidence["worse"]
    return Verdict.of(
        all_taken("every-workload-is-taken", taken),
        refused_for("worse-twins-are-refused", worse, {name: (said,) for name, (said, _) in WORSE.items()}),
        all_taken("without-the-label-they-are-taken", evidence["unlabelled"]),
        refused_for("finding-sidecars-are-refused", {"sidecar": evidence["sidecar"]}, {"sidecar": SIDECAR}),
        refused_for("finding-listening-is-refused", {"wiretap": evidence["wiretap"]}, {"wiretap": WIRETAP}),
        answered("a-restricted-function-answers", evidence["running"]),
    )


def all_taken(name: str, answers: Mapping[str, Mapping[str, Any]]) -> Claim:
    """Claim that the API server would have created every one of some pods."""
    refused = {pod: answer for pod, answer in answers.items() if answer["status"] == FORBIDDEN}
    other = {pod: answer for pod, answer in answers.items() if answer["status"] not in (CREATED, FORBIDDEN)}
    if refused:
        said = "; ".join(f"{pod}: {answer['message']}" for pod, answer in refused.items())
        return Claim(name, held=False, said=f"refused: {said}", expected="201 each", got=", ".join(refused))
    if other or not answers:
        return Claim(name, held=None, said="; ".join(f"{pod}: {answer['status']} {answer['message']}" for pod, answer in other.items()) or "no pod was tried")
    return Claim(name, held=True, said=f"{', '.join(answers)} would be created")


def refused_for(name: str, answers: Mapping[str, Mapping[str, Any]], expected: Mapping[str, Sequence[str]]) -> Claim:
    """Claim that each pod is refused by Pod Security, and that its message names what is expected of that pod."""
    wrong, unclear = [], []
    for pod, parts in expected.items():
        answer = answers.get(pod, {"status": 0, "message": "not tried"})
        lacks = [part for part in parts if part not in answer["message"]]
        if answer["status"] == CREATED or (answer["status"] == FORBIDDEN and lacks):
            wrong.append(f"{pod}: {answer['status']} {answer['message']} (lacks {', '.join(lacks)})")
        elif answer["status"] != FORBIDDEN:
            unclear.append(f"{pod}: {answer['status']} {answer['message']}")
    if wrong:
        return Claim(name, held=False, said="; ".join(wrong), expected="; ".join(f"{pod}: 403 {', '.join(parts)}" for pod, parts in expected.items()), got="; ".join(wrong))
    if unclear or not expected:
        return Claim(name, held=None, said="; ".join(unclear) or "no pod was tried")
    return Claim(name, held=True, said="; ".join(f"{pod}: {answers[pod]['message']}" for pod in expected))


def answered(name: str, running: Mapping[str, Any]) -> Claim:
    """Claim that a function's pod was created in the restricted namespace and answered every call."""
    if running["failure"]:
        return Claim(name, held=False, said=f"its pod was not created: {running['failure']}", expected="a running pod", got="none")
    if running["calls"] is None:
        return Claim(name, held=None, said="its pod did not become ready")
    return judges.only_version(name, running["calls"], "restricted", least=CALLS)


@pytest.fixture(scope="module")
def restricted(worlds: Callable[[str], World]) -> World:
    """A namespace that enforces `restricted`; nothing but this file's pods is in it."""
    made = worlds("security-restricted").view()
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
    made.kube.server.call(
        "PATCH", f"/api/v1/namespaces/{made.namespace}", body={"metadata": {"labels": labels}}, content_type="application/merge-patch+json",
    )
    return made


@requirement("security.pod-security", level="MUST", judge=judge)
def test_restricted_takes_every_workload_but_not_its_sidecar(
    world: World, restricted: World, intruder: Caller, manifests: Manifests, decide: Decide,
) -> None:
    """A namespace that enforces `restricted` takes every workload of this project and one runs there; worse twins, and sidecars, are refused with the reason."""
    function = pods_of(greeter("function", "v1", inject=False))["function"]
    worse = {name: worsened(function, changes) for name, (_, changes) in WORSE.items()}
    there = replace(manifests, world=restricted)
    there.apply("pod_security.yaml", image=world.image(GREETER))

    decide(
        taken={name: attempt(restricted, pod) for name, pod in every_workload(restricted.namespace).items()},
        worse={name: attempt(restricted, pod) for name, pod in worse.items()},
        unlabelled={name: attempt(world, pod) for name, pod in worse.items()},
        sidecar=attempt(restricted, pods_of(greeter("function", "v1"))["function"]),
        wiretap=attempt(restricted, pods_of(greeter("function", "v1", wiretap=True, inject=False))["function"]),
        running=running(restricted, intruder),
    )


def every_workload(namespace: str) -> dict[str, dict[str, Any]]:
    """Return a pod of each workload of this project, without a sidecar."""
    objects = [
        *greeter("greeter", "v1", inject=False), *caller(), *intruder(), *provider(namespace, Accounts({"alice": 1}), redirect_uri="http://edge/callback"),
        *(document.body for document in load_manifest(EDGE)),
    ]
    pods = pods_of(objects)
    pods["caller"]["metadata"]["labels"]["sidecar.istio.io/inject"] = "false"
    return pods


def pods_of(objects: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the pods that Deployments would make, by their names."""
    pods = {}
    for one in objects:
        if one["kind"] == "Deployment":
            template = copy.deepcopy(one["spec"]["template"])
            # Another admission plugin refuses a pod whose account is missing; every namespace has this one.
            template["spec"]["serviceAccountName"] = "default"
            pods[one["metadata"]["name"]] = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "generateName": "tried-"}, "spec": template["spec"]}
    return pods


def worsened(pod: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pod with fields of its spec and of its first container replaced; None takes a field away."""
    changed: dict[str, Any] = copy.deepcopy(dict(pod))
    container = changed["spec"]["containers"][0]
    changed["spec"] |= changes.get("pod", {})
    container |= {name: value for name, value in changes.items() if name not in ("pod", "securityContext")}
    merged = {**container["securityContext"], **changes.get("securityContext", {})}
    container["securityContext"] = {name: value for name, value in merged.items() if value is not None}
    return changed


def attempt(world: World, pod: Mapping[str, Any]) -> dict[str, Any]:
    """Have the API server go through all of a pod's creation but the last step, and say what it answered."""
    answer = world.kube.server.send(
        "POST", f"/api/v1/namespaces/{world.namespace}/pods", query=[("dryRun", "All")], headers={"content-type": "application/json"}, body=json.dumps(pod).encode(),
    )
    message = str((status_of(answer) or {}).get("message", ""))
    return {"status": answer.status, "message": re.sub(r'^pods "[^"]*" is forbidden: ', "", message)}


def running(world: World, visitor: Caller) -> dict[str, Any]:
    """Wait until the function runs or its pod is refused; return the refusal, and what it answered where it runs."""
    def settled() -> str:
        found = world.kube.get("Deployment", "restricted-function", world.namespace)
        conditions = {one["type"]: one for one in found.get("status", {}).get("conditions", ()) if one["status"] == "True"}
        assert "ReplicaFailure" in conditions or found["status"].get("readyReplicas"), f"conditions {', '.join(conditions) or 'none'}"
        return str(conditions.get("ReplicaFailure", {}).get("message", ""))

    failure = "it neither runs nor is it refused"
    with suppress(TimedOut):
        failure = eventually(settled, within=world.timeouts.deployment_available, every=0.2)
        calls = None if failure else visitor.draw(f"http://{world.address(world.pod('restricted-function'))}:8080/", count=CALLS)
        return {"failure": failure, "calls": calls}
    return {"failure": "", "calls": None, "seen": failure}
