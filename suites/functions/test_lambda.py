"""AWS Lambda: functions are made, changed, run and removed through boto3, and their handlers really run, each time in a container of its own."""

import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.aws import invoking
from workloads.aws.resources import Resources
from workloads.aws.server import Aws

FUNCTION, PYTHON = "serverless-function", "upload-function"
ENDPOINT = "http://lambda-function.serverless.local"
# Longer than the function's own limit of 2 s; what is not ended by it would take so long.
SLOW_MS = 8000
# A container is made for an invocation, and others beside it; a busy machine takes a few seconds for one.
ENDED_WITHIN_S = 45.0


# Finding: moto marks every error "Handled", whatever came of the handler, and knows no throttling: a reserved concurrency is kept and nobody is
# refused for it. What Lambda would refuse with 429 the mesh refuses with 503 (functions.app-mesh).
def judge(evidence: Evidence) -> Verdict:
    """What was made answers as it was made, and as it was changed; what fails is told apart; each invocation is in the account's log once."""
    calls, log = evidence["calls"], evidence["log"]
    return Verdict.of(
        answers("created-answers", calls["created"], {"function": FUNCTION, "release": "1", "nonce": evidence["nonces"]["created"]}, runtime="node 18."),
        has("created-has-its-variables", calls["created"], {"APP_MESH_ENDPOINT": ENDPOINT, "ENVOY_LOG_LEVEL": "info"}),
        answers("python-answers", calls["python"], {"function": PYTHON, "release": "1", "nonce": evidence["nonces"]["python"]}, runtime="python 3.11."),
        fails("what-it-throws-arrives", calls["thrown"], "RangeError", "as asked"),
        fails("too-slow-is-ended", calls["slow"], "Sandbox.Timedout", "timed out after 2.00 seconds"),
        answers("updated-runs-the-new-code", calls["updated"], {"release": "2", "nonce": evidence["nonces"]["updated"]}, runtime="node 18."),
        has("updated-has-its-variables", calls["updated"], {"APP_MESH_ENDPOINT": ENDPOINT, "ENVOY_LOG_LEVEL": "debug"}),
        refused("nobody-s-function-is-refused", calls["unknown"], 404, "ResourceNotFoundException"),
        refused("removed-is-refused", calls["removed"], 404, "ResourceNotFoundException"),
        once("each-invocation-is-in-the-log-once", log, [evidence["nonces"][name] for name in ("created", "updated")]),
        bounded("each-ends-in-time", calls, ENDED_WITHIN_S),
    )


def answers(name: str, call: Mapping[str, Any], wanted: Mapping[str, str], *, runtime: str) -> Claim:
    """Claim that an invocation was answered, by the code, the function and the runtime that are meant."""
    answer = call["answer"]
    if call["error"] or not isinstance(answer, Mapping):
        return Claim(name, held=False, said=f"the invocation ended with {call['status']} {call['error']}: {str(answer)[:200]}", expected="an answer", got=call["error"] or str(answer)[:60])
    wrong = {field: answer.get(field) for field, value in wanted.items() if answer.get(field) != value}
    if wrong or not str(answer.get("runtime")).startswith(runtime):
        got = str(wrong or answer.get("runtime"))
        return Claim(name, held=False, said=f"it was answered by another than was meant: {got}", expected=f"{dict(wanted)} on {runtime}", got=got)
    return Claim(name, held=True, said=f"answered by {answer['function']}, release {answer['release']}, on {answer['runtime']}")


def has(name: str, call: Mapping[str, Any], wanted: Mapping[str, str]) -> Claim:
    """Claim that the handler had exactly these of the reference's variables; an invocation that was not answered settles nothing."""
    answer = call["answer"]
    if call["error"] or not isinstance(answer, Mapping):
        return Claim(name, held=None, said=f"the invocation ended with {call['status']} {call['error']}")
    return Claim(name, held=answer["variables"] == wanted, said=f"the handler had {answer['variables']}", expected=str(dict(wanted)), got=str(answer["variables"]))


def fails(name: str, call: Mapping[str, Any], error: str, words: str) -> Claim:
    """Claim that an invocation is told to have failed, as what and with which words."""
    said = str(call["answer"].get("errorMessage")) if isinstance(call["answer"], Mapping) else str(call["answer"])
    held = call["status"] == 200 and call["error"] == error and words in said  # HTTP's own
    return Claim(name, held=held, said=f"the invocation ended with {call['status']} {call['error']}: {said[:200]}", expected=f"{error}: {words}", got=f"{call['error']}: {said[:60]}")


def refused(name: str, call: Mapping[str, Any], status: int, error: str) -> Claim:
    """Claim that the account itself refused an invocation."""
    got = f"{call['status']} {call['error']}"
    return Claim(name, held=got == f"{status} {error}", said=f"the invocation ended with {got}", expected=f"{status} {error}", got=got)


def once(name: str, log: list[Mapping[str, Any]], nonces: list[str]) -> Claim:
    """Claim that the account's log has one line of the handler for each of the invocations, told apart by their nonces."""
    seen = [sum(line.get("nonce") == nonce for line in log) for nonce in nonces]
    return Claim(name, held=seen == [1] * len(nonces), said=f"of {len(nonces)} invocations the log has {seen} lines", expected="one line each", got=str(seen))


def bounded(name: str, calls: Mapping[str, Mapping[str, Any]], bound_s: float) -> Claim:
    """Claim that no invocation took longer than `bound_s` seconds, whatever came of it."""
    slowest = max(calls, key=lambda one: float(calls[one]["seconds"]))
    seconds = float(calls[slowest]["seconds"])
    return Claim(name, held=seconds <= bound_s, said=f"the slowest of {len(calls)} was {slowest}: {seconds:.1f} s", expected=f"at most {bound_s:g} s", got=f"{seconds:.1f} s")


@requirement("functions.lambda", level="MUST", judge=judge)
def test_functions_made_and_changed_through_boto3_run_their_handlers(aws: Aws, cloud: Resources, manifests: Manifests, decide: Decide) -> None:
    """A Lambda function made through boto3 runs its handler with its variables, a changed one the new code with the new ones; one that throws, takes too long or is not there is told apart."""
    nonces = {name: uuid.uuid4().hex for name in ("created", "python", "updated")}
    cloud.apply(manifests.of_aws("lambda.yaml", release=1, level="info"))
    asked = {
        "created": (FUNCTION, {"nonce": nonces["created"]}), "python": (PYTHON, {"nonce": nonces["python"]}), "thrown": (FUNCTION, {"fail": "as asked"}),
        "slow": (FUNCTION, {"sleep_ms": SLOW_MS}), "unknown": ("no-such-function", {}),
    }
    # Side by side: each is a container that starts, and most of it is waiting.
    with ThreadPoolExecutor(len(asked)) as pool:
        under_way = {name: pool.submit(invoking.invoke, aws.account, function, event) for name, (function, event) in asked.items()}
        calls = {name: call.result() for name, call in under_way.items()}
    cloud.apply(manifests.of_aws("lambda.yaml", release=2, level="debug"))
    calls["updated"] = invoking.invoke(aws.account, FUNCTION, {"nonce": nonces["updated"]})
    log = invoking.logged(aws.account, FUNCTION)
    cloud.remove()
    calls["removed"] = invoking.invoke(aws.account, FUNCTION, {})

    decide(calls=calls, nonces=nonces, log=log)
