"""The claims of the checks of Knative functions, on evidence made by hand."""

from types import SimpleNamespace

import pytest

from suites.support import requirements

FOUND = requirements.discover()


def claims_of(requirement_id):
    """The functions of a check's file: nothing imports a test, but a judge knows its neighbours."""
    return SimpleNamespace(**FOUND[requirement_id].judge.__globals__)


service, failing, headers, outage, bounds, identity = (
    claims_of(f"functions.knative-{name}") for name in ("service", "failed-revision", "headers", "activator-outage", "scale-bounds", "caller-identity")
)


def look(at=1.0, wanted=1, ready=1, control=1):
    return {"at": at, "wanted": wanted, "ready": ready, "control": control}


@pytest.mark.parametrize(
    ("looks", "held"),
    [
        ([look(), look(9, control=0)], True), ([look(), look(9)], None), ([], None), ([look(), look(5, wanted=0), look(9, control=0)], False),
        ([look(), look(5, ready=0), look(9, control=0)], False), ([look(wanted=-1), look(9, control=0)], True),
    ],
)
def test_a_function_stays_as_long_as_its_control_took_to_go(looks, held):
    assert service.stays("x", looks).held is held


@pytest.mark.parametrize(("looks", "held"), [([look(), look(control=0)], True), ([look(), look()], False), ([look(control=0)], None), ([look(control=-1), look(control=0)], None), ([], None)])
def test_a_control_that_never_was_there_settles_nothing(looks, held):
    assert service.scaled_down("x", looks).held is held


def conditions(**false):
    told = {name: {"status": "False", "reason": reason, "message": message} for name, (reason, message) in false.items()}
    return {"conditions": {"Active": {"status": "True", "reason": "", "message": ""}, **told}}


CRASHED = conditions(Ready=("ExitCode1", "it ended"), ContainerHealthy=("ExitCode1", "it ended"))
WANTED = (("ContainerHealthy", "ExitCode1"), ("ResourcesAvailable", "ProgressDeadlineExceeded"))


@pytest.mark.parametrize(
    ("revision", "held"),
    [
        (CRASHED, True), (conditions(Ready=("x", "y"), ResourcesAvailable=("ProgressDeadlineExceeded", "never")), True), (None, None),
        (conditions(), False), (conditions(Ready=("x", "y")), False), (conditions(ContainerHealthy=("ExitCode1", "it ended")), False),
        (conditions(Ready=("ExitCode1", ""), ContainerHealthy=("ExitCode1", "")), False), (conditions(Ready=("x", "y"), ContainerHealthy=("ExitCode2", "z")), False),
        (conditions(Ready=("x", "y"), ResourcesAvailable=("PodInitializing", "")), None), ({"conditions": {}}, False),
    ],
)
def test_a_revision_says_why_it_is_not_ready(revision, held):
    assert failing.told("x", revision, WANTED).held is held


@pytest.mark.parametrize(
    ("status", "message", "ready", "held"),
    [("False", "Revision failing-b failed", "failing-good", True), ("True", "failing-b", "failing-good", False), ("False", "something", "failing-good", False),
     ("False", "failing-b", "failing-b", False)],
)
def test_a_function_names_the_revision_that_it_waits_for(status, message, ready, held):
    told = {"conditions": {"Ready": {"status": status, "reason": "", "message": message}}, "latest_created": "failing-b", "latest_ready": ready}

    assert failing.names_the_newest("x", told).held is held


def call(index=0, status=200, peer="", **more):
    seen = {"x-forwarded-client-cert": [f"Hash=1;URI={peer}"]} if peer else {}
    return {"index": index, "status": status, "error": "", "version": "v" if status == 200 else "", "flags": "", "seen": seen, "request_id": "", **more}


def draw(*records, count=None):
    return {"count": len(records) if count is None else count, "records": [{**one, "index": index} for index, one in enumerate(records)]}


def with_id(sent, came):
    return call(request_id=sent, seen={"x-request-id": [came]} if came else {"host": ["h"]})


A, B, C, D = (f"{letter * 8}-1111-4111-8111-111111111111" for letter in "abcd")


@pytest.mark.parametrize(
    ("records", "count", "held"),
    [
        ([with_id(A, B), with_id(C, D)], None, True), ([with_id(A, A), with_id(C, D)], None, False), ([with_id(A, B), with_id(C, B)], None, False),
        # The character in which Envoy writes its tracing decision makes no other id of it.
        ([with_id(A, A.replace("-4111-", "-9111-"))], None, False), ([with_id(A, "")], None, False), ([call(status=503)], None, None), ([], None, None),
        ([with_id(A, B)], 2, None),
    ],
)
def test_an_id_that_was_kept_or_is_shared_is_no_other_id(records, count, held):
    assert headers.another_id("x", draw(*records, count=count)).held is held


OWN = "cluster.local/ns/here/sa/caller"
WAYS = ("relayed", "direct", "round-relayed", "round-direct")


def seen_by(ways):
    """Return what became of the calls by each way: the peer that the function saw, or none where the policy refused it."""
    refused = draw(*[call(status=403)] * 10)
    return {way: draw(*[call(peer=f"spiffe://{ways[way]}")] * 10) if way in ways else refused for way in WAYS}


ROUND = {"round-relayed": OWN, "round-direct": OWN}
IDENTITIES = {
    "gateway-api": {
        "caller": seen_by(ROUND), "activator": seen_by({"relayed": identity.ACTIVATOR}), "gateway": seen_by({"direct": identity.GATEWAY}),
    },
    "istio": {"caller": seen_by({**ROUND, "direct": OWN}), "activator": seen_by({"relayed": identity.ACTIVATOR}), "gateway": seen_by({})},
}


@pytest.mark.parametrize("ingress", IDENTITIES)
def test_whom_a_function_sees_depends_on_the_ingress(ingress):
    (other,) = IDENTITIES.keys() - {ingress}

    right = identity.judge({"ingress": ingress, "principal": OWN, **IDENTITIES[ingress]})
    wrong = identity.judge({"ingress": ingress, "principal": OWN, **IDENTITIES[other]})

    assert [claim.name for claim in right.claims if claim.held is not True] == []
    assert {claim.name for claim in wrong.claims if claim.held is False} >= {f"direct-comes-from-the-{'gateway' if ingress == 'gateway-api' else 'caller'}"}


@pytest.mark.parametrize(
    ("records", "held"),
    [([call()] * 199 + [call(status=503)], True), ([call()] * 199 + [call(status=504)], False), ([call()] * 199 + [call(status=0)], False), ([call()] * 10, None), ([], None)],
)
def test_whoever_is_lost_is_told_so(records, held):
    assert outage.told("x", draw(*records)).held is held


@pytest.mark.parametrize(
    ("records", "held"),
    [
        ([call(peer=outage.BY_ACTIVATOR), call(peer=outage.BY_GATEWAY)], True), ([call(peer=outage.BY_ACTIVATOR)] * 30, None),
        ([call(peer=outage.BY_ACTIVATOR)] * 5 + [call(status=503)] * 25, False), ([], None),
    ],
)
def test_calls_that_went_past_the_activator_came_from_whoever_calls_past_it(records, held):
    assert outage.past_it("x", draw(*records), outage.BY_GATEWAY).held is held


@pytest.mark.parametrize(("before", "after", "held"), [(["a"], ["b"], True), (["a"], ["a"], False), (["a", "b"], ["b", "c"], False), ([], ["b"], None), (["a"], [], None)])
def test_a_pod_that_was_killed_is_no_more(before, after, held):
    assert outage.replaced("x", {"before": before, "after": after}).held is held


def scale(wanted=1, *pods):
    return {"wanted": wanted, "pods": list(pods)}


@pytest.mark.parametrize(
    ("before", "after", "held"),
    [(scale(1, "a"), scale(1, "a"), True), (scale(1, "a"), scale(1, "b"), False), (scale(2, "a", "b"), scale(2, "a", "b"), False), (scale(1, "a"), scale(0), False),
     (scale(), scale(), False)],
)
def test_the_pods_that_are_declared_are_kept(before, after, held):
    assert outage.kept("x", {"before": before, "after": after}).held is held


REFUSED = {"status": 400, "said": f'webhook "validation.webhook.serving.knative.dev" denied: {bounds.MIN} {bounds.MAX}'}


@pytest.mark.parametrize(
    ("answer", "held"),
    [(REFUSED, True), ({"status": 0, "said": ""}, False), ({"status": 400, "said": "serving.knative.dev: no"}, False), ({"status": 500, "said": REFUSED["said"]}, None),
     ({"status": 400, "said": "another webhook"}, None)],
)
def test_a_refusal_names_the_fields_and_is_knative_s(answer, held):
    assert bounds.refused("x", answer, (bounds.MIN, bounds.MAX)).held is held


def test_what_was_refused_was_not_accepted():
    assert bounds.accepted("x", {"status": 0, "said": ""}).held is True
    assert bounds.accepted("x", REFUSED).held is False
