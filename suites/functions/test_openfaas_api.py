"""A function of OpenFaaS through its life by the gateway's API: who may, what becomes of it, and what a mistake is answered."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from clusters.apiserver import NotFound
from clusters.components.openfaas.client import FUNCTION, Api, Credentials, GatewayRefused, OpenFaasClient, function_url
from clusters.waiting import NeverReached, TimedOut, eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.image_processor.client import as_told
from workloads.records import Draw

NAME = "api-processor"
CALLS = 5
UNAUTHORIZED, BAD_REQUEST = 401, 400
NOBODY = Credentials("nobody", "nothing")
# What is tried by whom the gateway does not know; the deletion last, for there is nothing to delete.
TRIED = ("list", "deploy", "scale", "secret", "delete")
# Prometheus looks every five seconds, and the gateway asks it.
COUNTED_WITHIN_S = 30.0
GONE_WITHIN_S = 30.0
# What is wrong with a specification, and which words of the answer say so.
MISTAKES: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "no-image": ({"service": "mistaken"}, "image: is required"),
    "no-name": ({"image": "x"}, "service: is required"),
    "not-a-name": ({"service": "Not_A_Name", "image": "x"}, "must be a valid DNS entry"),
}


def judge(evidence: Evidence) -> Verdict:
    """Nobody whom the gateway does not know does anything; who is known deploys, sees, updates and deletes; mistakes are told in one line."""
    return Verdict.of(
        unauthorized("refused-without-credentials", evidence["without"]),
        unauthorized("refused-with-wrong-ones", evidence["wrong"]),
        Claim("nothing-came-of-it", held=not evidence["made"], said=f"there is {evidence['made'] or 'nothing'}", expected="nothing", got=evidence["made"]),
        done("deployed", evidence["done"], "deploy"),
        judges.only_version("its-calls-are-answered", evidence["calls"], NAME, least=CALLS),
        listed("listed-with-its-calls", evidence["listed"]),
        done("updated", evidence["done"], "update"),
        done("deleted", evidence["done"], "delete"),
        mistaken("mistakes-are-refused-in-one-line", evidence["mistakes"]),
    )


def unauthorized(name: str, tried: Mapping[str, Mapping[str, Any]]) -> Claim:
    """Claim that everything that was tried was refused with 401, in one line."""
    got = "; ".join(f"{what}: {one['said']}" for what, one in tried.items() if one["status"] != UNAUTHORIZED)
    if any(not one["status"] and one["said"] for one in tried.values()):
        return Claim(name, held=None, said=f"not every attempt was answered: {got}")
    if got:
        return Claim(name, held=False, said=got, expected="401 for each", got=got)
    return Claim(name, held=set(tried) == set(TRIED) or None, said=f"{', '.join(tried) or 'nothing'}: 401 for each")


def done(name: str, steps: Mapping[str, Mapping[str, Any]], step: str) -> Claim:
    """Claim that a step was accepted, and that it was seen to be carried out."""
    one = steps.get(step)
    if one is None:
        return Claim(name, held=None, said="it was not come to")
    said = one["said"] or ("carried out" if one["seen"] else "accepted, and nothing came of it")
    return Claim(name, held=bool(one["seen"]) and not one["said"], said=said, expected="accepted and carried out", got=said)


def listed(name: str, seen: Mapping[str, Any]) -> Claim:
    """Claim that the list has the function once, with a pod and with the calls that it has had."""
    if seen["asked"]:
        return Claim(name, held=False, said=seen["asked"], expected="a list", got=seen["asked"])
    own = [one for one in seen["functions"] if one["name"] == NAME]
    said = f"{len(own)} of that name of {len(seen['functions'])}: " + "; ".join(f"{one.get('availableReplicas')} pods, {one.get('invocationCount', 0):g} calls" for one in own)
    right = len(own) == 1 and own[0].get("availableReplicas") == 1 and own[0].get("invocationCount", 0) >= seen["calls"]
    return Claim(name, held=right, said=said, expected=f"one, with a pod and {seen['calls']} calls", got=said)


def mistaken(name: str, tried: Mapping[str, Mapping[str, Any]]) -> Claim:
    """Claim that each mistake was refused with 400 in one line with the words that say what is wrong."""
    wrong = {
        what: one["said"] or "taken" for what, one in tried.items()
        if one["status"] != BAD_REQUEST or MISTAKES[what][1] not in one["said"] or "\n" in one["said"]
    }
    got = "; ".join(f"{what}: {said}" for what, said in wrong.items())
    if set(tried) != set(MISTAKES):
        return Claim(name, held=None, said="not every mistake was made")
    return Claim(name, held=not wrong, said=got or "; ".join(str(one["said"]) for one in tried.values()), expected="400 and what is wrong", got=got)


def outcome(ask: Callable[[], object]) -> dict[str, Any]:
    """Return the status and the line with which the gateway refused; 0 and nothing where it did not."""
    try:
        ask()
    except GatewayRefused as refusal:
        return {"status": refusal.status, "said": str(refusal)}
    return {"status": 0, "said": ""}


def attempts(api: Api, specification: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Try everything by somebody."""
    asked: tuple[Callable[[], object], ...] = (
        api.functions, lambda: api.deploy(specification), lambda: api.scale(NAME, 1), lambda: api.create_secret("api-key", "x"), lambda: api.delete(NAME),
    )
    return {what: outcome(ask) for what, ask in zip(TRIED, asked, strict=True)}


# Finding: what the operator makes of a function that is asked to be deleted and is not there is 500 with Kubernetes' own words, and 404 where
# its replicas are asked for; a deployment of one that is there is an update.
@requirement("functions.openfaas-api", level="MUST", judge=judge)
def test_a_function_lives_by_the_gateway_s_api(
    world: World, faas: OpenFaasClient, faas_api: Api, caller: Caller, manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """The gateway's API deploys, lists, updates and deletes a function for whom it knows, answers everybody else 401, and says in one line what is wrong with a specification."""
    specification = {
        "service": NAME, "image": processor_image, "envProcess": "env", "labels": {"com.openfaas.scale.min": "1"},
        "requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"},
    }
    faas.kube.delete_one(FUNCTION, NAME, world.namespace, within=world.timeouts.namespace_gone)
    manifests.apply("openfaas_api.yaml")
    without, wrong = (attempts(replace(faas_api, credentials=one), specification) for one in (None, NOBODY))
    made = FUNCTION if _function(faas, world.namespace) else ""
    mistakes = {what: outcome(lambda body=body: faas_api.deploy(body)) for what, (body, _) in MISTAKES.items()}

    steps = {"deploy": step(lambda: faas_api.deploy(specification), lambda: _ready(faas, world.namespace))}
    calls = as_told(called(caller, world), NAME)
    listed_then = listing(faas_api, sum(record.status == 200 for record in calls.records))
    changed = {**specification, "envVars": {"UPDATED": "yes"}}
    steps["update"] = step(lambda: faas_api.update(changed), lambda: _updated(faas, world.namespace))
    steps["delete"] = step(lambda: faas_api.delete(NAME), lambda: _gone(faas, world.namespace))

    decide(without=without, wrong=wrong, made=made, mistakes=mistakes, done=steps, calls=calls, listed=listed_then)


def step(ask: Callable[[], object], seen: Callable[[], None]) -> dict[str, Any]:
    """Take a step and return what the gateway said against it, and whether it was carried out within the bounds of its own."""
    said = outcome(ask)
    if not said["said"]:
        with suppress(TimedOut, NeverReached):
            seen()
            return {"said": "", "seen": True}
    return {"said": said["said"], "seen": False}


def called(caller: Caller, world: World) -> Draw:
    """Call the function, once the gateway leads to it or does not come to."""
    url = function_url(NAME, world.namespace)

    def answered() -> None:
        (record,) = caller.draw(url).records
        assert record.status == 200, f"answered {record.status}"

    with suppress(TimedOut):
        eventually(answered, within=world.timeouts.propagation, every=0.2, consecutive=2)
    return caller.draw(url, count=CALLS, keep_body=True)


def listing(api: Api, calls: int) -> dict[str, Any]:
    """Return the list of functions once the calls are counted in it, or when that is no longer to be expected."""
    seen: dict[str, Any] = {"asked": "", "functions": [], "calls": calls}

    def counted() -> None:
        asked = outcome(lambda: seen.update(functions=api.functions()))
        seen["asked"] = asked["said"]
        assert listed("listed", seen).held, listed("listed", seen).said

    with suppress(TimedOut):
        eventually(counted, within=COUNTED_WITHIN_S, every=1.0)
    return seen


def _function(faas: OpenFaasClient, namespace: str) -> Mapping[str, Any] | None:
    try:
        return faas.kube.get(FUNCTION, NAME, namespace)
    except NotFound:
        return None


def _ready(faas: OpenFaasClient, namespace: str) -> None:
    if _function(faas, namespace) is None:
        raise TimedOut("there is no Function", seconds=0, attempts=1, last="")
    faas.await_ready(namespace, NAME)


def _updated(faas: OpenFaasClient, namespace: str) -> None:
    _ready(faas, namespace)
    (container,) = faas.kube.get("Deployment", NAME, namespace)["spec"]["template"]["spec"]["containers"]
    if {"name": "UPDATED", "value": "yes"} not in container["env"]:
        raise TimedOut("the Deployment is as it was", seconds=0, attempts=1, last="")


def _gone(faas: OpenFaasClient, namespace: str) -> None:
    faas.kube.await_gone(FUNCTION, NAME, namespace, within=GONE_WITHIN_S)
    faas.kube.await_gone("Deployment", NAME, namespace, within=GONE_WITHIN_S)
