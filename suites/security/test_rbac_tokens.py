"""ServiceAccount tokens: for one audience, for a time, and not in every pod."""

from collections.abc import Mapping
from typing import Any

import pytest

from clusters.identities import SHORTEST_SECONDS, Token, acting, token_of
from clusters.waiting import eventually
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.fixtures import World
from workloads.greeter.client import Found, Greeter

OK, UNAUTHORIZED = 200, 401
GREETER = "faasmesh.test/faasmesh/greeter:1"
ELSEWHERE = "https://elsewhere.example"
# How a ServiceAccount's token begins: {"alg":"RS256","kid":" in base64.
TOKEN_BEGINS = "eyJhbGciOiJSUzI1NiIsImtpZCI6I"  # noqa: S105  # the part that all of them share
MOUNTED_AT = "/var/run/secrets/kubernetes.io/serviceaccount/"


def judge(evidence: Evidence) -> Verdict:
    """A token is for one audience and for the time that was asked for, and a pod of an account that mounts none has none."""
    claims, pods, answers = evidence["claims"], evidence["pods"], evidence["answers"]
    return Verdict.of(
        says("token-names-its-account", claims["own"], "sub", evidence["subject"]),
        lasts("token-lasts-as-long-as-asked", claims["own"], SHORTEST_SECONDS),
        judges.api_answered("own-token-is-known", answers["own"], OK),
        says("another-audience-s-token-says-so", claims["elsewhere"], "aud", [ELSEWHERE]),
        judges.api_answered("another-audience-s-token-is-refused", answers["elsewhere"], UNAUTHORIZED),
        judges.api_answered("a-token-with-changed-claims-is-refused", answers["changed"], UNAUTHORIZED),
        tokenless("no-token-in-the-function-s-pod", pods["without"], control=pods["with"]),
    )


def says(name: str, claims: Mapping[str, Any], claim: str, value: object) -> Claim:
    """Claim that a token's claim has exactly this value."""
    if claims.get(claim) != value:
        return Claim(name, held=False, said=f"the token's {claim} is {claims.get(claim)}", expected=str(value), got=str(claims.get(claim)))
    return Claim(name, held=True, said=f"the token's {claim} is {value}")


def lasts(name: str, claims: Mapping[str, Any], seconds: int) -> Claim:
    """Claim that a token expires exactly `seconds` after it was issued."""
    got = claims.get("exp", 0) - claims.get("iat", 0)
    return Claim(name, held=got == seconds, said=f"the token lasts {got} s", expected=f"{seconds} s", got=f"{got} s")


def tokenless(name: str, without: Mapping[str, Any], *, control: Mapping[str, Any]) -> Claim:
    """Claim that no file of a container holds a ServiceAccount's token, while the same search finds the one that another pod has mounted."""
    if without["files"] or without["environment"]:
        return Claim(name, held=False, said=f"found in {', '.join([*without['files'], *without['environment']])}", expected="nowhere", got=str(without["files"]))
    if not any(file.startswith(MOUNTED_AT) for file in control["files"]) or not without["files_searched"]:
        return Claim(name, held=None, said=f"the search is blind: it found {control['files']} where a token is mounted, and read {without['files_searched']} files")
    return Claim(name, held=True, said=f"none in {without['files_searched']} files and {without['variables_searched']} variables; where one is mounted the search finds it")


@pytest.fixture
def room(world: World) -> None:
    """Pods of an earlier try are gone: one that is on its way out would be taken for the new one."""
    for pod in ("tokenless", "token-holder"):
        world.kube.await_gone("Pod", pod, world.namespace, within=world.timeouts.deployment_available)


@requirement("security.rbac-tokens", level="MUST", judge=judge)
@pytest.mark.usefixtures("room")
def test_a_token_is_for_one_audience_and_not_for_every_pod(world: World, manifests: Manifests, decide: Decide) -> None:
    """A ServiceAccount's token is taken by its audience only and lasts as asked, and a pod of an account with `automountServiceAccountToken: false` holds none."""
    kube, namespace = world.kube, world.namespace
    manifests.apply("rbac_tokens.yaml", image=world.image(GREETER))
    own, elsewhere = token_of(kube, namespace, "tokenless"), token_of(kube, namespace, "tokenless", audiences=[ELSEWHERE])
    head, _, signature = own.text.split(".")
    changed = Token(".".join((head, elsewhere.text.split(".")[1], signature)))

    decide(
        subject=f"system:serviceaccount:{namespace}:tokenless",
        claims={name: {key: token.claims.get(key) for key in ("sub", "aud", "iat", "exp")} for name, token in (("own", own), ("elsewhere", elsewhere))},
        answers={name: acting(kube, token).send("GET", "/api").status for name, token in (("own", own), ("elsewhere", elsewhere), ("changed", changed))},
        pods={"without": searched(world, "tokenless"), "with": searched(world, "token-holder")},
    )


def searched(world: World, pod: str) -> Found:
    """Wait until a pod runs and let it look for a token in its environment and files."""
    def answering() -> Found:
        return Greeter(world.kube, world.namespace, pod).search(TOKEN_BEGINS)

    return eventually(answering, within=world.timeouts.deployment_available, every=0.2, ignoring=(ConnectionError,), subject=f"pod {pod} does not answer")
