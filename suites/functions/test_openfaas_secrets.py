"""Secrets of OpenFaaS's functions: kept by the gateway's API, read as a file by the functions that name them, and by nobody else."""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from clusters.apiserver import NotFound
from clusters.components.openfaas.client import Api, OpenFaasClient, function_url
from clusters.waiting import Broken, NeverReached, TimedOut, consistently
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World

NAME, LATE = "api-key", "late-key"
FUNCTIONS = ("sealed", "unsealed", "awaiting", "looked-into")
CALLS = 2
# The operator makes a function's pods within a second or two of its object; one that waits for its secret has none for longer.
WAITS_S = 3.0


# Finding: a function whose secret is missing is not refused, and not tried again when its secret comes: the operator's log has one line, and its queue
# forgets what failed (pkg/controller/controller.go says that it is put back, and does not do so). It is made when the Function is applied anew, or
# at the operator's next look at everything, every five minutes. Istio's own Secrets of the namespace are listed by nobody: the API lists
# what it has made itself.
def judge(evidence: Evidence) -> Verdict:
    """Who names the secret reads it, others have none, nobody has it in the environment, the API tells its name alone, and a function that is applied anew has the one that was missing."""
    answers, digests = evidence["answers"], evidence["digests"]
    return Verdict.of(
        reads("who-names-it-reads-it", answers["sealed"], digests[NAME]),
        judges.every_status("who-does-not-has-none", answers["unsealed"], 500, least=CALLS),
        Claim("not-in-the-environment", held=_environment(evidence), said=f"the value is in {evidence['found'] or 'no variable'}", expected="no variable", got=evidence["found"]),
        listed("listed-by-name-alone", evidence["listed"]),
        Claim(
            "not-made-before-its-secret", held=not evidence["early"], said=f"within {WAITS_S:g} s without its secret there was {evidence['early'] or 'no Deployment'}",
            expected="no Deployment", got=evidence["early"],
        ),
        reads("made-when-it-is-applied-anew", answers["awaiting"], digests[LATE]),
    )


def _environment(evidence: Evidence) -> bool | None:
    if evidence["variables"]:
        return not evidence["found"]
    return None


def reads(name: str, draw: Mapping[str, Any], digest: str) -> Claim:
    """Claim that every answer is the secret's digest, as the function's own pod worked it out."""
    records, incomplete = judges.records_of(name, draw, least=CALLS)
    wrong = [record for record in records if record["status"] != 200 or record["headers"].get("x-said") != [digest]]
    got = f"status {wrong[0]['status']}, {wrong[0]['headers'].get('x-said') or 'nothing'}" if wrong else ""
    if wrong:
        return Claim(name, held=False, said=f"{len(wrong)} of {len(records)} answers were others: {got}", expected=digest, got=got)
    return incomplete or Claim(name, held=True, said=f"all {len(records)} answers are its digest")


def listed(name: str, seen: Mapping[str, Any]) -> Claim:
    """Claim that the API tells the secret by its name, and nothing of its value."""
    said = f"{seen['names'] or 'nothing'} with {seen['fields'] or 'no fields'}"
    right = NAME in seen["names"] and not seen["told"]
    return Claim(name, held=right, said=said + (", the value among them" if seen["told"] else ""), expected=f"{NAME}, without its value", got=said)


@requirement("functions.openfaas-secrets", level="MUST", judge=judge)
def test_a_secret_is_for_whom_names_it(
    world: World, faas: OpenFaasClient, faas_api: Api, served: Callable[..., None], caller: Caller, manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """A secret that the gateway's API keeps is a file in the pods of the functions that name it, and in no other's, in no environment and in no list; a function whose secret is missing is not made, and is made when it is applied anew once the secret is there.

    Evidence keeps digests only; the values are made for the check.
    """
    values = {name: secrets.token_urlsafe(24) for name in (NAME, LATE)}
    for name in values:
        with suppress(NotFound):
            faas.kube.delete_one("Secret", name, world.namespace)
    faas_api.create_secret(NAME, values[NAME])
    manifests.apply("openfaas_secrets.yaml", image=processor_image, applied="once")
    early = before_its_secret(faas, world.namespace)
    listed_then = faas_api.secrets()
    faas_api.create_secret(LATE, values[LATE])
    manifests.apply("openfaas_secrets.yaml", image=processor_image, applied="anew")
    with suppress(TimedOut, NeverReached):
        served(*FUNCTIONS)
    said = {name: said_by(caller, function_url(name, world.namespace)) for name in FUNCTIONS}
    environment = said["looked-into"][1].splitlines()
    for name in values:
        faas_api.delete_secret(name)

    decide(
        answers={name: draw for name, (draw, _) in said.items()}, early=early, variables=len(environment),
        found=", ".join(line.partition("=")[0] for line in environment if values[NAME] in line),
        digests={name: hashlib.sha256(value.encode()).hexdigest() for name, value in values.items()},
        listed={
            "names": [one.get("name") for one in listed_then], "fields": sorted({field for one in listed_then for field in one}),
            "told": any(values[NAME] in str(one) for one in listed_then),
        },
    )


def before_its_secret(faas: OpenFaasClient, namespace: str) -> str:
    """Return what was made of the function whose secret is missing, "" where nothing was for as long as it takes to be sure."""

    def nothing_made() -> None:
        try:
            faas.kube.get("Deployment", "awaiting", namespace)
        except NotFound:
            return
        raise AssertionError("a Deployment")

    try:
        consistently(nothing_made, during=WAITS_S)
    except Broken as made:
        return made.last
    return ""


def said_by(caller: Caller, url: str) -> tuple[dict[str, Any], str]:
    """Return a draw with the first word of each answer as its header `x-said`, without the bodies, and the last body."""
    draw = caller.draw(url, count=CALLS, keep_body=True)
    records = [
        {**record.to_json(), "body": "", "headers": {**record.headers, "x-said": record.content().decode("utf-8", "replace").split()[:1]}} for record in draw.records
    ]
    return {**draw.to_json(), "records": records}, draw.records[-1].content().decode("utf-8", "replace")
