"""Self-tests of the judges of functions that come and go: each holds on what is right, and each of its claims can be refuted and left open."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from suites.support import requirements
from suites.support.coldstarts import MOMENTS

FOUND = requirements.discover()
ZERO = {"pods": [], "leaving": 0, "wanted": 0, "there": 0, "endpoints": 0}
Evidence = dict[str, Any]


def draw(status: int = 200, *, pod: str = "p", version: str = "v1", error: str = "", greeting: str = "Hello Serverless World!") -> Evidence:
    record = {
        "index": 0, "status": status, "version": version if status == 200 else "", "pod": pod if status == 200 else "", "error": error, "flags": "",
        "latency_ms": 900.0, "started_ms": 0.0, "headers": {"x-greeting": [greeting]} if greeting else {}, "seen": {},
    }  # fmt: skip
    return {"count": 1, "records": [record]}


def start(function: str) -> Evidence:
    sidecar = function != "go-bare"
    names = [name for name in MOMENTS if sidecar or name != "proxy"]
    return {
        "function": function, "zero": dict(ZERO), "status": 200, "error": "", "latency_ms": 100.0 * (len(names) - 1),
        "containers": [*(["istio-proxy"] if sidecar else []), "user-container"], "pulls": {"user-container": "already present on machine"},
        "moments": {name: 100.0 * place for place, name in enumerate(names)},
    }


def said(*told: tuple[float, str, str, str]) -> list[Evidence]:
    return [{"after_s": after, "status": status, "reason": reason, "message": message} for after, status, reason, message in told]


NOWHERE = draw(0, error="resolve: no such host")
GOOD: dict[str, Evidence] = {
    "functions.knative-cold-start": {"starts": [start(name) for _ in range(2) for name in ("go", "python", "node", "go-bare")]},
    "functions.knative-scale-to-zero": {
        "first": draw(), "zero": ZERO, "gone_after_s": 29.4, "retained_s": 22.0, "proxied_s": 38.0, "again": draw(pod="q"), "twin": draw(),
        "pods": {"zero": ["p"], "one": ["o"], "one_after": ["o"], "one_ended": []},
    },
    "functions.knative-start-failures": {
        "told": {
            "crashes": said((1, "Unknown", "Deploying", ""), (9, "False", "ExitCode1", 'Container failed with: invalid duration "a-while"\n')),
            "never-ready": said((21, "False", "ProgressDeadlineExceeded", "ReplicaSet has timed out progressing."), (40, "False", "ProgressDeadlineExceeded", "Initial scale")),
            "no-such-image": said((25, "False", "ImagePullBackOff", "Back-off pulling image faasmesh.test/faasmesh/no-such-function:1")),
        },
        "answers": {"starts": draw(), "crashes": NOWHERE, "never-ready": draw(404), "no-such-image": NOWHERE},
    },
}


def outcome(name: str, change: Callable[[Evidence], None] = lambda _: None) -> dict[str, bool | None]:
    evidence = copy.deepcopy(GOOD[name])
    change(evidence)
    return {claim.name: claim.held for claim in FOUND[name].judge(evidence).claims}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_holds(name: str) -> None:
    assert set(outcome(name).values()) == {True}


def put(*path: Any, value: Any) -> Callable[[Evidence], None]:
    """Return a change that sets what lies at a path."""

    def change(evidence: Evidence) -> None:
        at: Any = evidence
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return change


COLD, TO_ZERO, FAILURES = GOOD
CASES = [
    (COLD, put("starts", 0, "zero", value={**ZERO, "pods": ["p"]}), "zero-before-every-start", False),
    (COLD, put("starts", value=[]), "zero-before-every-start", None),
    (COLD, put("starts", 2, "status", value=504), "every-start-is-answered", False),
    (COLD, lambda evidence: evidence["starts"].pop(), "every-start-is-answered", None),
    (COLD, put("starts", 1, "pulls", value={"user-container": "Successfully pulled image"}), "no-image-is-pulled", False),
    (COLD, put("starts", 1, "moments", "proxy", value=900.0), "phases-add-up", False),
    (COLD, put("starts", 1, "moments", value={}), "phases-add-up", None),
    (COLD, put("starts", 1, "containers", value=["user-container"]), "a-sidecar-is-ready-before-its-function-starts", False),
    (COLD, put("starts", 3, "containers", value=["istio-proxy", "user-container"]), "the-bare-arm-has-no-sidecar", False),
    (TO_ZERO, put("first", value=draw(503)), "served-before", False),
    (TO_ZERO, put("zero", "endpoints", value=1), "zero-pods-are-seen", False),
    (TO_ZERO, put("zero", value={}), "zero-pods-are-seen", None),
    (TO_ZERO, put("gone_after_s", value=4.9), "the-window-is-over-first", False),
    (TO_ZERO, put("gone_after_s", value=None), "the-window-is-over-first", None),
    (TO_ZERO, put("retained_s", value=20.0), "the-last-pod-stays-as-long-as-it-must", False),
    (TO_ZERO, put("retained_s", value=None), "the-last-pod-stays-as-long-as-it-must", None),
    (TO_ZERO, put("proxied_s", value=28.0), "the-activator-is-in-the-path-for-the-grace-period", False),
    (TO_ZERO, put("proxied_s", value=None), "the-activator-is-in-the-path-for-the-grace-period", None),
    (TO_ZERO, put("again", value=draw(504)), "the-next-request-is-answered", False),
    (TO_ZERO, put("again", value=draw(pod="p")), "the-next-request-is-answered", False),
    (TO_ZERO, put("again", value=draw(pod="q", greeting="")), "the-next-request-is-answered", False),
    (TO_ZERO, put("again", "records", value=[]), "the-next-request-is-answered", None),
    (TO_ZERO, put("twin", value=draw(503)), "the-twin-answers", False),
    (TO_ZERO, put("pods", "one_after", value=["n"]), "the-twin-keeps-its-pod", False),
    (TO_ZERO, put("pods", "one_ended", value=["o"]), "the-twin-keeps-its-pod", False),
    (TO_ZERO, put("pods", "one", value=[]), "the-twin-keeps-its-pod", None),
    (FAILURES, put("told", "crashes", value=said((9, "False", "ExitCode1", "exited"))), "crashes-is-told", False),
    (FAILURES, put("told", "crashes", 1, "after_s", value=61), "crashes-is-told", False),
    (FAILURES, put("told", "never-ready", value=said((1, "Unknown", "Deploying", ""))), "never-ready-is-told", False),
    (FAILURES, put("told", "no-such-image", value=[]), "no-such-image-is-told", None),
    (FAILURES, put("answers", "crashes", value=draw()), "crashes-is-not-served", False),
    (FAILURES, put("told", "never-ready", value=said((9, "True", "", ""))), "never-ready-is-not-served", False),
    (FAILURES, put("answers", "no-such-image", value=draw(0, error="read: timeout")), "no-such-image-is-not-served", None),
    (FAILURES, put("answers", "starts", value=draw(504)), "the-twin-answers", False),
]


@pytest.mark.parametrize(("name", "change", "claim", "held"), CASES, ids=[f"{claim}-{held}" for _, _, claim, held in CASES])
def test_a_claim_is_refuted_and_left_open_where_it_should_be(name: str, change: Callable[[Evidence], None], claim: str, *, held: bool | None) -> None:
    assert outcome(name, change)[claim] is held
