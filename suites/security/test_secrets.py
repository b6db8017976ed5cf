"""Secrets: a key that a function has as a file, that nobody else has, and that can be changed without a restart."""

import base64
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest

from clusters.apiserver import NotFound
from clusters.components.istio.client import IstioClient
from clusters.identities import acting, token_of
from clusters.waiting import TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.greeter import greeter
from workloads.greeter.client import Greeter

FUNCTION, LEAKING = "key-function", "leaking-function"
MOUNT = "/etc/function-key"
AT_HOME = f"file of {FUNCTION} {MOUNT}/"
OK, FORBIDDEN, INVALID = 200, 403, 422
# Finding: left to itself, the kubelet looks at a pod's volumes every 60 to 90 s (Kubernetes documentation, Secrets, "Mounted
# Secrets are updated automatically"); a changed annotation of the pod makes it look at once. Seen: about a second.
ARRIVES_WITHIN_S = 15.0
# Where the control's value must be found for the scan to be believed.
LEAKS = (
    "object ConfigMap/leak", "object Event/leak", "object VirtualService/leak", f"object Deployment/{LEAKING}", f"object ReplicaSet/{LEAKING}",
    f"object Pod/{LEAKING}", f"log of greeter in {LEAKING}", "log of istio-proxy in caller", f"environment of {LEAKING}", "proxy configuration of caller",
)


def judge(evidence: Evidence) -> Verdict:
    """The function has the key and gets a new one without a restart; the key is nowhere else, as a scan says that finds a key that leaks."""
    first, second = evidence["first"], evidence["second"]
    return Verdict.of(
        has("the-function-has-the-secret", first),
        has("a-new-value-arrives", second),
        same_pod("without-a-restart", evidence["pod"]),
        nowhere_else("the-value-is-nowhere-else", evidence["found"]),
        leaks_found("the-scan-finds-what-leaks", evidence["leaked"]),
        judges.api_answered("the-named-account-can-read-it", evidence["keeper"], OK),
        judges.api_answered("another-account-cannot-read-it", evidence["snooper"], FORBIDDEN),
        judges.api_answered("an-immutable-secret-cannot-be-changed", evidence["sealed"], INVALID),
    )


def has(name: str, seen: Mapping[str, Any]) -> Claim:
    """Claim that a function answered a nonce with the HMAC that only the secret's holder can make."""
    if seen["status"] != OK:
        return Claim(name, held=None, said=f"the function answered {seen['status']}")
    if seen["seal"] != seen["expected"]:
        return Claim(name, held=False, said=f"after {seen['seconds']:.1f} s the seal is {seen['seal'] or 'missing'}", expected=seen["expected"], got=seen["seal"] or "none")
    return Claim(name, held=True, said=f"the function's seal is right {seen['seconds']:.1f} s after the Secret changed")


def same_pod(name: str, pod: Mapping[str, Mapping[str, Any]]) -> Claim:
    """Claim that the pod and its containers are the ones that there were before."""
    before, after = pod["before"], pod["after"]
    return Claim(name, held=before == after, said=f"pod and restarts were {before} and are {after}", expected=str(before), got=str(after))


def nowhere_else(name: str, found: Mapping[str, Any]) -> Claim:
    """Claim that a value is found in its own file and nowhere else, by a scan that looked at something of every kind."""
    elsewhere = [place for place in found["places"] if not place.startswith(AT_HOME)]
    blind = [kind for kind, count in found["looked_at"].items() if not count]
    if elsewhere:
        return Claim(name, held=False, said=f"found in {', '.join(elsewhere)}", expected=f"only below {MOUNT} of {FUNCTION}", got=", ".join(elsewhere))
    if blind or not found["places"]:
        return Claim(name, held=None, said=f"the scan saw no {', '.join(blind) or 'value at all, not even in its own file'}")
    return Claim(name, held=True, said=f"only in its own file; looked at {', '.join(f'{count} {kind}' for kind, count in found['looked_at'].items())}")


def leaks_found(name: str, found: Mapping[str, Any]) -> Claim:
    """Claim that the scan finds the value that was put everywhere on purpose."""
    missed = [leak for leak in LEAKS if not any(place.startswith(leak) for place in found["places"])]
    return Claim(name, held=not missed, said=f"found in {len(found['places'])} places, missed {', '.join(missed) or 'none'}", expected=", ".join(LEAKS), got=f"without {', '.join(missed)}")


class Scan:
    """Everything of a namespace that somebody else may come to see, read once; says where a value stands in it."""

    def __init__(self, world: World, istio: IstioClient) -> None:
        self.world = world
        self.istio = istio
        self._texts = {"objects": list(self._objects()), "logs": list(self._logs()), "proxies": list(self._proxies())}

    def of(self, value: str) -> dict[str, Any]:
        """Return the places where a value stands, as text or in base64, and how much was looked at. The value is not among them."""
        needles = (value, _base64(value))
        functions = {name: Greeter(self.world.kube, self.world.namespace, self.world.pod(name)) for name in (FUNCTION, LEAKING)}
        inside = {name: [function.search(needle) for needle in needles] for name, function in functions.items()}
        places = [place for texts in self._texts.values() for place, text in texts if any(needle in text for needle in needles)]
        places += [f"file of {name} {file}" for name, found in inside.items() for one in found for file in one.files]
        places += [f"environment of {name} {variable}" for name, found in inside.items() for one in found for variable in one.environment]
        searched = [found[0] for found in inside.values()]
        return {
            "places": sorted(set(places)),
            "looked_at": {
                **{kind: len(texts) for kind, texts in self._texts.items()},
                "files": sum(one.files_searched for one in searched), "variables": sum(one.variables_searched for one in searched),
            },
        }

    def _objects(self) -> Iterator[tuple[str, str]]:
        """Every object of the namespace, of every kind that can be listed; of Secrets all but the data, which is where a value belongs."""
        api = self.world.kube.server
        versions = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in api.call("GET", "/apis")["groups"])]
        for version in versions:
            for resource in api.call("GET", version)["resources"]:
                # Events are served by two groups; one is enough.
                if not resource["namespaced"] or "list" not in resource["verbs"] or version.startswith("/apis/events."):
                    continue
                for found in api.call("GET", f"{version}/namespaces/{self.world.namespace}/{resource['name']}")["items"]:
                    kept = {key: value for key, value in found.items() if resource["kind"] != "Secret" or key not in ("data", "stringData")}
                    yield f"object {resource['kind']}/{found['metadata']['name']}", json.dumps(kept)

    def _logs(self) -> Iterator[tuple[str, str]]:
        for pod in self.world.kube.pods(self.world.namespace):
            name, status = pod["metadata"]["name"], pod["status"]
            started = {one["name"] for key in ("containerStatuses", "initContainerStatuses") for one in status.get(key) or () if "waiting" not in one["state"]}
            for container in sorted(started):
                # A pod of a check before this one may end meanwhile, and its log with it.
                with suppress(NotFound):
                    yield f"log of {container} in {name}", self.world.kube.logs(name, self.world.namespace, container)

    def _proxies(self) -> Iterator[tuple[str, str]]:
        for pod in self.world.proxied_pods():
            yield f"proxy configuration of {pod}", self.istio.proxy_admin(self.world.namespace, pod, "config_dump")


@pytest.fixture(scope="module")
def key_function(world: World) -> str:
    """A function with a key that is mounted as a file, and one that has the control's value in its environment; returns that value."""
    canary = secrets.token_hex(24)
    first = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "function-key"}, "data": {"value": _base64(secrets.token_hex(24))}}
    world.kube.apply([first], world.namespace)
    keeping = greeter(FUNCTION, "v1", env={"SECRET_FILE": f"{MOUNT}/value"})
    pod = keeping[-1]["spec"]["template"]["spec"]
    pod["volumes"] = [*pod.get("volumes", ()), {"name": "key", "secret": {"secretName": "function-key"}}]
    pod["containers"][0]["volumeMounts"] = [{"name": "key", "mountPath": MOUNT, "readOnly": True}]
    world.deploy({FUNCTION: keeping, LEAKING: greeter(LEAKING, "v1", env={"LEAK": canary}, inject=False)})
    return canary


@requirement("security.secrets", level="MUST", judge=judge)
def test_a_secret_is_where_it_belongs(
    key_function: str, world: World, caller: Caller, istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """A function has its Secret as a file and gets a new value without a restart; no log, event, object, environment or proxy holds it, and no other account reads it."""
    old, new, canary = secrets.token_hex(24), secrets.token_hex(24), key_function
    before = identity(world)
    manifests.apply("secrets.yaml", value=_base64(old), canary=canary)
    first = sealed(world, caller, old)
    caller.draw(f"http://{LEAKING}/leak/{canary}")
    logged(world, canary)
    scan = Scan(world, istio)
    found, leaked = scan.of(old), scan.of(canary)
    manifests.apply("secrets.yaml", value=_base64(new), canary=canary)

    decide(
        first=first, second=sealed(world, caller, new), found=found, leaked=leaked, pod={"before": before, "after": identity(world)},
        keeper=reading(world, "keeper"), snooper=reading(world, "snooper"), sealed=changing(world, "sealed-key"),
    )


def sealed(world: World, caller: Caller, value: str) -> dict[str, Any]:
    """Let the function seal a nonce until it does so with `value`, making the kubelet look; return the last seal, whatever it is, and how long it took."""
    seen: dict[str, Any] = {}
    began = time.monotonic()

    def with_the_value() -> None:
        nonce = uuid.uuid4().hex
        record = caller.draw(f"http://{FUNCTION}/", headers=[("x-nonce", nonce)], keep_headers=["x-seal"], keep_seen=[]).records[0]
        seen.update(
            status=record.status, seal=record.headers.get("x-seal", [""])[0], seconds=time.monotonic() - began,
            expected=hmac.new(value.encode(), nonce.encode(), "sha256").hexdigest(),
        )
        if seen["seal"] != seen["expected"]:
            look_at(world)
            raise AssertionError("another seal than the new value's")

    with suppress(TimedOut):
        eventually(with_the_value, within=ARRIVES_WITHIN_S, every=0.5, subject="the new value has not arrived")
    return seen


def look_at(world: World) -> None:
    """Make the kubelet look at the function's pod: a changed annotation is a reason to, and changes nothing else."""
    path = f"/api/v1/namespaces/{world.namespace}/pods/{world.pod(FUNCTION)}"
    body = {"metadata": {"annotations": {"faasmesh.dev/looked-at": uuid.uuid4().hex}}}
    world.kube.server.call("PATCH", path, body=body, content_type="application/merge-patch+json")


def logged(world: World, canary: str) -> None:
    """Wait until the control's value is in the log of the caller's proxy, which writes once a second; the scan says whether it was."""
    def written() -> None:
        assert canary in world.kube.logs(world.pod("caller"), world.namespace, "istio-proxy"), "nothing was written yet"

    with suppress(TimedOut):
        eventually(written, within=10.0, every=0.2)


def identity(world: World) -> dict[str, Any]:
    """Return which pod the function's is, and how often its containers started."""
    pod = world.kube.get("Pod", world.pod(FUNCTION), world.namespace)
    return {"uid": pod["metadata"]["uid"], "restarts": sum(one["restartCount"] for one in pod["status"]["containerStatuses"])}


def reading(world: World, account: str) -> int:
    """Return the status with which the API server answers a ServiceAccount that asks for the Secret; its answer is dropped."""
    api = acting(world.kube, token_of(world.kube, world.namespace, account))
    return api.send("GET", f"/api/v1/namespaces/{world.namespace}/secrets/function-key").status


def changing(world: World, secret: str) -> int:
    """Return the status with which the API server answers the owner who gives a Secret another value, as a dry run."""
    body = json.dumps({"data": {"value": _base64("another")}}).encode()
    path = f"/api/v1/namespaces/{world.namespace}/secrets/{secret}"
    return world.kube.server.send("PATCH", path, query=[("dryRun", "All")], headers={"content-type": "application/merge-patch+json"}, body=body).status


def _base64(value: str) -> str:
    return base64.b64encode(value.encode()).decode()
