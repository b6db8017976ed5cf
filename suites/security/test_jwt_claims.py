"""Claims: an AuthorizationPolicy lets a request through for what the issuer says of its bearer."""

from collections.abc import Mapping

import pytest

from clusters.components.istio.client import IstioClient
from suites.support import permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED_BY_POLICY, DENIED, UNAUTHENTICATED, Case, Client, Expectation, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.issuer.tokens import Issuer, redacted

MEMBERS = "/api/users"


def with_claims(name: str, expected: Expectation, path: str = MEMBERS) -> Case:
    """Return the case of a request with the token that is named as the case is."""
    return Case(name, expected, path=path, headers=(("authorization", f"Bearer ${{{name.replace('-', '_')}}}"),))


CASES = (
    with_claims("first-group", ALLOWED_BY_POLICY),
    with_claims("second-group", ALLOWED_BY_POLICY),
    with_claims("one-of-several", ALLOWED_BY_POLICY),
    # Finding: a claim that is one text counts as a list of it, so `groups: functions` is as good as `groups: [functions]`.
    with_claims("group-as-text", ALLOWED_BY_POLICY),
    # Only `scope` and `permission` are taken apart at spaces, and what a rule names in spaceDelimitedClaims.
    with_claims("groups-as-one-text-of-several", DENIED),
    with_claims("another-group", DENIED),
    with_claims("other-groups-only", DENIED),
    with_claims("empty-groups", DENIED),
    with_claims("no-groups", DENIED),
    with_claims("null-groups", DENIED),
    with_claims("group-in-another-case", DENIED),
    with_claims("longer-group", DENIED),
    with_claims("group-with-something-before", DENIED),
    with_claims("claim-in-another-case", DENIED),
    with_claims("groups-as-number", DENIED),
    with_claims("groups-as-flag", DENIED),
    with_claims("groups-as-object", DENIED),
    with_claims("groups-in-a-list-in-a-list", DENIED),
    with_claims("groups-below-another-claim", DENIED),
    with_claims("member-on-another-path", DENIED, path="/other"),
    with_claims("expired-member", UNAUTHENTICATED),
    Case("no-token", DENIED, path=MEMBERS),
    with_claims("nested-claim", ALLOWED_BY_POLICY, path="/nested"),
    with_claims("nested-claim-on-the-surface", DENIED, path="/nested"),
    with_claims("nested-claim-of-another-value", DENIED, path="/nested"),
    with_claims("scope-of-several-words", ALLOWED_BY_POLICY, path="/scoped"),
    with_claims("scope-of-other-words", DENIED, path="/scoped"),
)


def judge(evidence: Evidence) -> Verdict:
    """Each line of the table, and the two claims that only the whole can make."""
    return Verdict.of(*permissions.claims(CASES, evidence["trial"]))


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Who says who is in which group."""
    return Issuer()


@pytest.fixture
def tokens(issuer: Issuer) -> Mapping[str, str]:
    """One token for each line of the table, by its name."""
    return {
        "first_group": issuer.mint(groups=["functions"]),
        "second_group": issuer.mint(groups=["admins"]),
        "one_of_several": issuer.mint(groups=["guests", "functions", "auditors"]),
        "group_as_text": issuer.mint(groups="functions"),
        "groups_as_one_text_of_several": issuer.mint(groups="guests functions"),
        "another_group": issuer.mint(groups=["auditors"]),
        "other_groups_only": issuer.mint(groups=["guests", "auditors"]),
        "empty_groups": issuer.mint(groups=[]),
        "no_groups": issuer.mint(),
        "null_groups": issuer.mint(groups=[None]),
        "group_in_another_case": issuer.mint(groups=["Functions", "ADMINS"]),
        "longer_group": issuer.mint(groups=["functions-readonly"]),
        "group_with_something_before": issuer.mint(groups=["not-admins"]),
        "claim_in_another_case": issuer.mint(Groups=["functions"]),
        "groups_as_number": issuer.mint(groups=1),
        "groups_as_flag": issuer.mint(groups=True),
        "groups_as_object": issuer.mint(groups={"functions": True, "admins": "admins"}),
        "groups_in_a_list_in_a_list": issuer.mint(groups=[["functions"]]),
        "groups_below_another_claim": issuer.mint(realm={"groups": ["functions"]}),
        "member_on_another_path": issuer.mint(groups=["functions"]),
        "expired_member": issuer.mint(groups=["functions"], lifetime_s=-300),
        "nested_claim": issuer.mint(realm={"roles": ["reader", "admin"]}),
        "nested_claim_on_the_surface": issuer.mint(roles=["admin"]),
        "nested_claim_of_another_value": issuer.mint(realm={"roles": ["reader"]}),
        "scope_of_several_words": issuer.mint(scope="read write"),
        "scope_of_other_words": issuer.mint(scope="read write-all"),
    }


@requirement("security.jwt-claims", level="MUST", judge=judge)
def test_only_members_of_a_named_group_pass(
    caller: Caller, targets: Mapping[str, Target], issuer: Issuer, tokens: Mapping[str, str],
    world: World, istio: IstioClient, manifests: Manifests, decide: Decide, *, audited: bool,
) -> None:
    """A request passes for a token whose claim has one of the named values, whole and in that case, and for no other."""
    manifests.apply("jwt_claims.yaml", issuer=issuer.name, jwks=issuer.jwks())

    clients = {"caller": Client(caller, f"spiffe://cluster.local/ns/{world.namespace}/sa/caller")}
    decide(trial=redacted(permissions.try_all(CASES, clients, targets, istio, values=tokens, audited=audited)))
