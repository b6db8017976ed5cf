"""Self-tests of the judges of tokens: each holds on what a right mesh leaves behind, and on nothing less."""

import copy
import functools
from dataclasses import replace

import pytest

from suites.support import requirements
from suites.support.rotation import drawn_beside, one_after_another
from workloads.records import CallRecord, Draw

ISTIOD = {"istiod-1": "10.0.0.9"}
PAYLOAD, FORGED = "payload-of-the-token", "payload-of-a-client"


@functools.cache
def judges():
    return {name: entry.judge for name, entry in requirements.discover().items()}


def draw(status=200, count=20, **seen):
    version = "v1" if status == 200 else ""
    headers = {"host": ["user-function"], **{name.replace("_", "-"): [value] for name, value in seen.items()}} if version else {}
    return {"count": count, "records": [{"index": index, "status": status, "version": version, "request_id": f"{index}", "seen": headers} for index in range(count)]}


def rotation():
    return {
        "old-at-first": draw(), "new-at-first": draw(401), "publishing": draw(count=60), "old-between": draw(), "new-between": draw(),
        "withdrawing": draw(count=60), "old-at-last": draw(401), "new-at-last": draw(),
    }


def fetches(count=4, peer="10.0.0.9"):
    return [{"path": "/keys", "peer": peer, "agent": "Go-http-client/1.1", "count": count}]


def rotation_by_uri():
    return {**rotation(), "fetches": fetches(), "istiod": ISTIOD}


def unreachable_at_start():
    down = {"valid": draw(401), "none": draw(403), "open": draw(), "inline": draw()}
    return {"down": down, "up": {"valid": draw(), "forged": draw(401)}, "fetches": fetches(), "istiod": ISTIOD}


def unreachable_later():
    return {"before": draw(), "fetches": fetches(1), "down": {"valid": draw(), "forged": draw(401)}, "after-a-push": draw()}


def forwarding():
    sent = {"forwarding": "sha256:a", "keeping": "sha256:b", "cookies": "sha256:c", "parameters": "sha256:d", "payload": PAYLOAD, "forged": FORGED}
    seen = {
        "forwarding": draw(authorization="Bearer sha256:a"), "keeping": draw(), "cookies": draw(cookie="session=sha256:c"),
        "parameters": draw(x_jwt_payload=PAYLOAD), "smuggled-payload": draw(), "doubled-payload": draw(x_jwt_payload=PAYLOAD),
        "earlier-issuer": draw(x_jwt_payload=FORGED),
    }
    return {"seen": seen, "sent": sent}


def claim_to_header():
    told = draw(x_user="somebody", x_team="payments", x_level="7")
    underscored = draw(x_user="somebody")
    for record in underscored["records"]:
        record["seen"]["x_user"] = ["admin"]
    return {
        "told": told, "forged": copy.deepcopy(told), "without-the-claims": draw(x_user="somebody"), "without-a-token": draw(),
        "underscored": underscored, "earlier-issuer": draw(x_user="admin"), "later-issuer": draw(),
    }


RIGHT = {
    "security.jwt-key-rotation": rotation,
    "security.jwt-key-rotation-by-uri": rotation_by_uri,
    "security.jwt-jwks-unreachable-at-start": unreachable_at_start,
    "security.jwt-jwks-unreachable-later": unreachable_later,
    "security.jwt-forwarding": forwarding,
    "security.jwt-claim-to-header": claim_to_header,
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_mesh_is_held_right(name):
    verdict = judges()[name](RIGHT[name]())

    assert verdict.outcome == "held", verdict.text()


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_drawn_shows_nothing(name):
    def emptied(value):
        if isinstance(value, dict):
            return {"count": 0, "records": []} if "records" in value else {key: emptied(one) for key, one in value.items()}
        return [] if isinstance(value, list) else value

    verdict = judges()[name](emptied(RIGHT[name]()))

    assert {claim.held for claim in verdict.claims} == {None}, verdict.text()


def passed(part):
    part["records"][-1] |= {"status": 200, "version": "v1", "seen": {"host": ["user-function"]}}


def turned_away(part):
    part["records"][-1] |= {"status": 401, "version": "", "seen": {}}


def wrote(header, *values):
    def write(part):
        part["records"][-1]["seen"][header] = list(values)

    return write


FAULTS = [
    *((name, path, fault, claim) for name in ("security.jwt-key-rotation", "security.jwt-key-rotation-by-uri") for path, fault, claim in (
        (["new-at-first"], passed, "unpublished-is-refused"),
        (["publishing"], turned_away, "old-passes-while-the-new-is-published"),
        (["withdrawing"], turned_away, "new-passes-while-the-old-is-withdrawn"),
        (["old-at-last"], passed, "withdrawn-is-refused"),
        (["new-at-last"], turned_away, "new-passes-afterwards"),
    )),
    ("security.jwt-key-rotation", ["old-between"], turned_away, "both-pass-in-between"),
    ("security.jwt-key-rotation", ["new-between"], turned_away, "both-pass-in-between"),
    ("security.jwt-key-rotation-by-uri", ["new-between"], turned_away, "new-passes-once-published"),
    ("security.jwt-key-rotation-by-uri", ["fetches"], lambda part: part.extend(fetches(1, "10.0.0.7")), "istiod-alone-fetches"),
    ("security.jwt-jwks-unreachable-at-start", ["down", "valid"], passed, "valid-is-refused-without-keys"),
    ("security.jwt-jwks-unreachable-at-start", ["down", "none"], passed, "no-token-is-refused-where-one-is-required"),
    ("security.jwt-jwks-unreachable-at-start", ["down", "open"], turned_away, "no-token-passes-where-none-is-required"),
    ("security.jwt-jwks-unreachable-at-start", ["down", "inline"], turned_away, "the-other-issuer-s-passes"),
    ("security.jwt-jwks-unreachable-at-start", ["up", "valid"], turned_away, "valid-passes-with-keys"),
    ("security.jwt-jwks-unreachable-at-start", ["up", "forged"], passed, "forged-is-refused-with-keys"),
    ("security.jwt-jwks-unreachable-later", ["before"], turned_away, "control-valid-passes-before"),
    ("security.jwt-jwks-unreachable-later", ["down", "valid"], turned_away, "valid-passes"),
    ("security.jwt-jwks-unreachable-later", ["down", "forged"], passed, "forged-is-refused"),
    ("security.jwt-jwks-unreachable-later", ["after-a-push"], turned_away, "valid-passes-after-a-push"),
    ("security.jwt-forwarding", ["seen", "forwarding"], wrote("authorization"), "forwarded-as-it-came"),
    ("security.jwt-forwarding", ["seen", "forwarding"], wrote("x-jwt-payload", PAYLOAD), "no-payload-of-another-issuer"),
    ("security.jwt-forwarding", ["seen", "keeping"], wrote("x-function-token", "Token sha256:b"), "not-forwarded-unless-asked"),
    ("security.jwt-forwarding", ["seen", "cookies"], wrote("cookie"), "cookie-stays"),
    ("security.jwt-forwarding", ["seen", "parameters"], wrote("x-jwt-payload"), "payload-is-told"),
    ("security.jwt-forwarding", ["seen", "smuggled-payload"], wrote("x-jwt-payload", FORGED), "payload-sent-without-a-token-is-removed"),
    ("security.jwt-forwarding", ["seen", "doubled-payload"], wrote("x-jwt-payload", FORGED, PAYLOAD), "payload-sent-beside-a-token-is-replaced"),
    ("security.jwt-forwarding", ["seen", "earlier-issuer"], wrote("x-jwt-payload"), "payload-sent-beside-an-earlier-issuer-s-token-stays"),
    ("security.jwt-claim-to-header", ["told"], wrote("x-user", "admin"), "claim-is-told"),
    ("security.jwt-claim-to-header", ["told"], wrote("x-team"), "nested-claim-is-told"),
    ("security.jwt-claim-to-header", ["told"], wrote("x-level", "9"), "number-is-told"),
    ("security.jwt-claim-to-header", ["forged"], wrote("x-user", "somebody", "admin"), "forged-header-is-replaced"),
    ("security.jwt-claim-to-header", ["forged"], wrote("x-team", "admins"), "forged-nested-header-is-replaced"),
    ("security.jwt-claim-to-header", ["without-the-claims"], wrote("x-team", "admins"), "forged-header-of-a-missing-claim-is-removed"),
    ("security.jwt-claim-to-header", ["without-the-claims"], wrote("x-level", "9"), "forged-number-of-a-missing-claim-is-removed"),
    ("security.jwt-claim-to-header", ["without-the-claims"], wrote("x-user", "admin"), "other-claims-are-told-meanwhile"),
    ("security.jwt-claim-to-header", ["without-a-token"], wrote("x-user", "admin"), "forged-header-without-a-token-is-removed"),
    ("security.jwt-claim-to-header", ["earlier-issuer"], wrote("x-user"), "forged-header-beside-an-earlier-issuer-s-token-stays"),
    ("security.jwt-claim-to-header", ["later-issuer"], wrote("x-user", "admin"), "forged-header-beside-a-later-issuer-s-token-is-removed"),
    ("security.jwt-claim-to-header", ["underscored"], wrote("x_user"), "underscored-name-passes"),
    ("security.jwt-claim-to-header", ["underscored"], wrote("x-user", "admin"), "underscored-name-is-not-the-claim-s"),
]


@pytest.mark.parametrize(("name", "path", "fault", "claim"), FAULTS, ids=[f"{name.partition('.')[2]}:{claim}:{path[-1]}" for name, path, _, claim in FAULTS])
def test_one_wrong_call_refutes_its_claim(name, path, fault, claim):
    evidence = RIGHT[name]()
    fault(functools.reduce(lambda part, key: part[key], path, evidence))

    verdict = judges()[name](evidence)

    assert claim in {refuted.name for refuted in verdict.failed_claims}, verdict.text()


@pytest.mark.parametrize("name", RIGHT)
def test_every_claim_has_a_fault_that_refutes_it(name):
    told = {claim.name for claim in judges()[name](RIGHT[name]()).claims}

    # That a failing issuer was asked is what the others rest on: without it they show nothing.
    assert told - {claim for of, _, _, claim in FAULTS if of == name} <= {"istiod-alone-fetches", "istiod-asked-in-vain"}


def test_keys_that_were_never_fetched_settle_nothing():
    evidence = rotation_by_uri() | {"fetches": fetches(2)}

    verdict = judges()["security.jwt-key-rotation-by-uri"](evidence)

    assert [claim.name for claim in verdict.open_claims] == ["istiod-alone-fetches"]


TABLES = ["security.jwt", "security.jwt-claims", "security.jwt-places", "security.jwt-clock-skew"]


def table_of(name):
    words = judges()[name].__globals__
    return words["TABLE"] if "TABLE" in words else words["CASES"]


def trial(cases, *, wrong=()):
    """What a right mesh leaves behind of a table, but for the `wrong` cases: those reach the function where they must not, and the other way round."""
    draws, counted, logged = {}, {}, []
    for number, case in enumerate(cases):
        reaches = case.expected.reaches != (case.name in wrong)
        status = case.expected.status if case.name not in wrong else 200 if reaches else 401
        request_id = f"{number:08}-0000-4000-8000-000000000000"
        draws[case.name] = {"count": 1, "records": [{"index": 0, "status": status, "version": "v1" if reaches else "", "request_id": request_id}]}
        counted |= {request_id: 1} if reaches else {}
        logged.append({
            "request_id": request_id, "method": case.method, "response_code": status, "downstream_peer_principal": "spiffe://c", "rbac_policy": case.policy,
            "response_code_details": case.expected.details, "rbac_decision": case.expected.decision or None, "downstream_local_principal": "spiffe://f",
        })  # fmt: skip
    return {
        "draws": draws, "at": {case.name: "f-0" for case in cases}, "counts": {"f-0": {"by_request_id": counted}}, "said": {"f-0": [{"request_id": each} for each in counted]},
        "logged": {"f-0": logged}, "principals": {case.name: ["spiffe://c", "spiffe://f"] for case in cases},
    }


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_came_true_holds(name):
    verdict = judges()[name]({"trial": trial(table_of(name))})

    assert verdict.outcome == "held", verdict.text()


@pytest.mark.parametrize(("name", "case"), [(name, case.name) for name in TABLES for case in table_of(name)])
def test_each_line_of_a_table_can_be_refuted(name, case):
    verdict = judges()[name]({"trial": trial(table_of(name), wrong={case})})

    assert {case, "only-the-allowed-arrive", "each-is-logged-once-with-its-decision"} <= {claim.name for claim in verdict.failed_claims}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_draws_shows_nothing(name):
    right = trial(table_of(name))
    empty = {case: {"count": 0, "records": []} for case in right["draws"]}

    verdict = judges()[name]({"trial": {**right, "draws": empty}})

    assert {claim.held for claim in verdict.claims} == {None}


# Changing while requests run


def made(count=2):
    records = tuple(CallRecord(index, 200, "", 1.0, float(index)) for index in range(count))
    return Draw("http://f", "GET", count, 1, records, "2026-01-01T00:00:00.000000Z", 0.5)


def test_calls_are_drawn_until_the_change_is_done_and_once_more():
    drawn = []

    def draw_one():
        drawn.append(made())
        return drawn[-1]

    whole = drawn_beside(lambda: None, draw_one)

    assert len(drawn) >= 3
    assert whole["count"] == len(whole["records"]) == 2 * len(drawn)
    assert [record["index"] for record in whole["records"]] == list(range(whole["count"]))


def test_a_change_that_takes_longer_has_more_calls_beside_it():
    drawn = []

    def change():
        while len(drawn) < 7:
            pass

    drawn_beside(change, lambda: drawn.append(made()) or drawn[-1])

    assert len(drawn) >= 8


def test_a_change_that_fails_is_said():
    def change():
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        drawn_beside(change, made)


def test_an_incomplete_draw_stays_so_among_others():
    whole = one_after_another([made(), replace(made(), records=made().records[:1])])

    assert (whole["count"], len(whole["records"]), whole["seconds"]) == (4, 3, 1.0)
