"""Permission tables: what their claims hold, refute and leave open, on evidence made by hand."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.errors import UserError
from suites.support import permissions
from suites.support.permissions import ALLOWED, ALLOWED_BY_POLICY, ARRIVALS, AUDIT, CLOSED, DENIED, UNAUTHENTICATED, Case, Client, Target
from suites.support.verdicts import HELD, Verdict
from workloads.caller.client import Caller
from workloads.greeter.client import Counts
from workloads.records import CallRecord, Draw

MEMBER, FUNCTION = "spiffe://cluster.local/ns/n/sa/caller", "spiffe://cluster.local/ns/n/sa/function-sa"
CASES = (
    Case("allowed", ALLOWED_BY_POLICY, policy="policy[one]"),
    Case("denied", DENIED, method="PUT"),
    Case("denied-over-grpc", DENIED, protocol="grpc"),
    Case("unauthenticated", UNAUTHENTICATED),
    Case("closed", CLOSED, caller="intruder"),
    Case("open", ALLOWED, target="open", caller="intruder"),
)
Trial = dict[str, Any]


def record(case: Case, index: int) -> dict[str, Any]:
    status = case.expected.status
    return {
        "index": index, "status": status, "error": "" if status else "read: connection reset by peer", "version": "v1" if case.expected.reaches else "",
        "request_id": f"00000000-0000-4000-8000-{case.name[:8]:0>8}{index:04}", "flags": "", "seen": {}, "headers": {}, "latency_ms": 1.0,
    }  # fmt: skip


def entry(case: Case, record: dict[str, Any], principals: Sequence[str]) -> dict[str, Any]:
    source, destination = principals
    return {
        # Where tracing is on, a proxy writes its decision into the id.
        "request_id": record["request_id"].replace("-4000-", "-9000-"), "method": "POST" if case.protocol == "grpc" else case.method,
        "response_code": 200 if case.protocol == "grpc" else case.expected.status, "response_code_details": f"{case.expected.details}_and_more",
        "downstream_peer_principal": source or None, "downstream_local_principal": (destination if source else "") or "-",
        "rbac_decision": case.expected.decision or None, "rbac_policy": f"ns[n]-{case.policy}-rule[0]" if case.policy else None,
    }  # fmt: skip


def trial(cases: Sequence[Case] = CASES) -> Trial:
    """Return the evidence of a mesh that does what the cases say."""
    draws = {case.name: {"count": 2, "records": [record(case, index) for index in range(2)]} for case in cases}
    principals = {case.name: ["" if case.caller == "intruder" else MEMBER, FUNCTION] for case in cases}
    at = {case.name: "open-0" if case.target == "open" else "function-0" for case in cases}
    made: Trial = {"draws": draws, "at": at, "counts": {}, "said": {}, "logged": {}, "principals": principals}
    for pod in ("function-0", "open-0"):
        arrived = [one["request_id"] for case in cases if at[case.name] == pod and case.expected.reaches for one in draws[case.name]["records"]]
        made["counts"][pod] = {"by_request_id": dict.fromkeys(arrived, 1)}
        made["said"][pod] = [{"request_id": key, "path": "/"} for key in arrived]
        made["logged"][pod] = [
            entry(case, one, principals[case.name]) for case in cases if at[case.name] == pod and case.expected.logged for one in draws[case.name]["records"]
        ]
    return made


def outcome(changed: Trial, cases: Sequence[Case] = CASES) -> dict[str, str]:
    return {claim.name: claim.outcome for claim in permissions.claims(cases, changed) if claim.held is not True}


def at(made: Trial, case: str) -> dict[str, Any]:
    found: dict[str, Any] = made["draws"][case]["records"][0]
    return found


def logged(made: Trial, case: str) -> dict[str, Any]:
    key = at(made, case)["request_id"][15:]
    return next(one for entries in made["logged"].values() for one in entries if one["request_id"][15:] == key)


def test_a_mesh_that_does_what_it_should_holds_every_claim() -> None:
    verdict = Verdict.of(*permissions.claims(CASES, trial(), prefix="twice-"))

    assert verdict.outcome == HELD
    assert {claim.name for claim in verdict.claims} == {f"twice-{name}" for name in (*(case.name for case in CASES), ARRIVALS, AUDIT)}


CHANGES: dict[str, tuple[Callable[[Trial], object], dict[str, str]]] = {
    "refused what is allowed": (lambda made: at(made, "allowed").update(status=403, version=""), {"allowed": "failed", **dict.fromkeys(("denied", "denied-over-grpc", "unauthenticated", "closed"), "inconclusive")}),
    "answered by the proxy": (lambda made: at(made, "allowed").update(version=""), {"allowed": "failed"}),
    "let through": (lambda made: at(made, "denied").update(status=200, version="v1"), {"denied": "failed"}),
    "refused otherwise": (lambda made: at(made, "unauthenticated").update(status=403), {"unauthenticated": "failed"}),
    "not refused but lost": (lambda made: at(made, "closed").update(error="connect: timeout"), {"closed": "inconclusive"}),
    "counted although refused": (lambda made: made["counts"]["function-0"]["by_request_id"].update({at(made, "denied")["request_id"]: 1}), {ARRIVALS: "failed"}),
    "written down although refused": (lambda made: made["said"]["function-0"].append({"request_id": at(made, "closed")["request_id"]}), {ARRIVALS: "failed"}),
    "arrived twice": (lambda made: made["counts"]["function-0"]["by_request_id"].update({at(made, "allowed")["request_id"]: 2}), {ARRIVALS: "failed"}),
    "not written down": (lambda made: made["said"]["function-0"].pop(0), {ARRIVALS: "failed"}),
    "logged twice": (lambda made: made["logged"]["function-0"].append(dict(logged(made, "denied"))), {AUDIT: "failed"}),
    "not logged": (lambda made: made["logged"]["function-0"].remove(logged(made, "denied")), {AUDIT: "failed"}),
    "logged with another decision": (lambda made: logged(made, "denied").update(rbac_decision="allowed"), {AUDIT: "failed"}),
    "logged for another policy": (lambda made: logged(made, "allowed").update(rbac_policy="ns[n]-policy[another]-rule[0]"), {AUDIT: "failed"}),
    "logged for another caller": (lambda made: logged(made, "allowed").update(downstream_peer_principal=FUNCTION), {AUDIT: "failed"}),
    "logged for nobody": (lambda made: logged(made, "allowed").update(downstream_peer_principal="-"), {AUDIT: "failed"}),
    "logged for another function": (lambda made: logged(made, "allowed").update(downstream_local_principal=MEMBER), {AUDIT: "failed"}),
    "logged with another method": (lambda made: logged(made, "denied-over-grpc").update(method="GET"), {AUDIT: "failed"}),
    "logged with another status": (lambda made: logged(made, "denied").update(response_code=200), {AUDIT: "failed"}),
    "logged with other details": (lambda made: logged(made, "unauthenticated").update(response_code_details="rbac_access_denied"), {AUDIT: "failed"}),
    "a case that was not drawn": (lambda made: made["draws"].pop("denied"), {"denied": "inconclusive", ARRIVALS: "inconclusive", AUDIT: "inconclusive"}),
    "an allowed call that was lost": (lambda made: at(made, "open").update(status=0, version="", error="read: timeout"), {"open": "inconclusive"}),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_mesh_does_otherwise_is_said_by_its_claim(what: str) -> None:
    change, expected = CHANGES[what]
    made = trial()

    change(made)

    assert outcome(made) == expected


def test_a_lost_call_that_never_arrived_and_was_not_logged_settles_nothing() -> None:
    made = trial()
    lost = at(made, "open")
    lost.update(status=0, version="", error="read: timeout")
    del made["counts"]["open-0"]["by_request_id"][lost["request_id"]]
    made["said"]["open-0"].pop(0)
    made["logged"]["open-0"].remove(logged(made, "open"))

    assert outcome(made) == {"open": "inconclusive", ARRIVALS: "inconclusive", AUDIT: "inconclusive"}


def test_refusals_without_a_living_control_settle_nothing() -> None:
    cases = [case for case in CASES if case.expected.reaches is False]

    said = outcome(trial(cases), cases)

    assert said == {**{case.name: "inconclusive" for case in cases}, ARRIVALS: "inconclusive"}


def test_a_target_that_refuses_everything_is_known_to_be_alive_from_elsewhere() -> None:
    cases = [case for case in CASES if case.expected.reaches is False]
    elsewhere = trial()["draws"]["open"]

    claims = permissions.claims(cases, trial(cases), alive={"function": elsewhere})

    assert all(claim.held for claim in claims)


def test_a_mesh_whose_log_is_its_owner_s_is_not_asked_for_it() -> None:
    claims = list(permissions.claims(CASES, {**trial(), "logged": None}))

    assert [claim.name for claim in claims] == [*(case.name for case in CASES), ARRIVALS]
    assert all(claim.held for claim in claims)


@given(data=st.data())
def test_no_single_answer_can_change_unseen(data: st.DataObject) -> None:
    made = trial()
    case = data.draw(st.sampled_from(CASES))
    index = data.draw(st.integers(0, 1))
    status = data.draw(st.sampled_from([200, 400, 401, 403, 404, 500, 503]).filter(lambda status: status != case.expected.status))

    made["draws"][case.name]["records"][index].update(status=status, error="")

    assert outcome(made)[case.name] != HELD


def test_evidence_without_the_function_s_count_is_damaged() -> None:
    made = trial()
    made["at"]["allowed"] = "another-0"

    with pytest.raises(UserError, match="counts and log of the function that allowed was sent to"):
        outcome(made)


def test_combinations_are_counted_wherever_they_are() -> None:
    assert permissions.tried({"policy": trial(), "control": {"deeper": trial()}, "draw": {"draws": {}}, "text": "draws"}) == 2 * len(CASES)


class RecordingCaller(Caller):
    """Answers each draw with one call, and keeps what was ordered."""

    def __init__(self) -> None:
        self.ordered: list[dict[str, Any]] = []

    def draw(self, url: str, **order: Any) -> Draw:
        """Note the order."""
        self.ordered.append({"url": url, **order})
        record = CallRecord(0, 200, "", 1.0, 0.0, version="v1", request_id=f"00000000-0000-4000-8000-{len(self.ordered):012}")
        return Draw(url, "GET", 1, 1, (record,), "2026-01-01T00:00:00Z", 0.1)


class RecordedGreeter:
    """A function that counted nothing and wrote down what a caller was ordered."""

    namespace, pod = "n", "function-0"

    def __init__(self, caller: RecordingCaller) -> None:
        self.caller = caller

    def reset_counts(self) -> Counts:
        """Return nothing."""
        return self.counts()

    def counts(self) -> Counts:
        """Return nothing."""
        return Counts(0, {}, {}, 0, 0)

    def logged(self, since: str) -> list[dict[str, str]]:
        """Return a line for each order."""
        del since
        return [{"request_id": f"00000000-0000-4000-8000-{number + 1:012}"} for number in range(len(self.caller.ordered))]


def test_what_a_case_names_is_filled_in_and_evidence_keeps_no_token() -> None:
    caller = RecordingCaller()
    cases = [Case("one", ALLOWED, headers=(("authorization", "Bearer $token"),), path="/x", protocol="h2")]

    made = permissions.try_all(cases, {"caller": Client(caller)}, {"function": Target("http://f/", RecordedGreeter(caller))}, proxies=None, values={"token": "secret"}, audited=False)  # type: ignore[arg-type]

    (ordered,) = caller.ordered
    assert (ordered["headers"], ordered["path"], ordered["protocol"]) == ([("authorization", "Bearer secret")], "/x", "h2")
    assert "authorization" not in ordered["keep_seen"]
    assert "secret" not in str(copy.deepcopy(made))
    with pytest.raises(KeyError, match="token"):
        permissions.try_all(cases, {"caller": Client(caller)}, {"function": Target("http://f/", RecordedGreeter(caller))}, proxies=None, audited=False)  # type: ignore[arg-type]
