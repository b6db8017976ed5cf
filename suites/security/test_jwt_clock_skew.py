"""A token's times: how late is too late, how early too early, and what becomes of a token that does not say."""

from collections.abc import Mapping

import pytest

from clusters.components.istio.client import IstioClient
from suites.support import permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED_BY_POLICY, Case, Client, Expectation, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.issuer.tokens import Issuer, redacted

EXPIRED = Expectation(401, details="jwt_authn_access_denied{Jwt_is_expired")
EARLY = Expectation(401, details="jwt_authn_access_denied{Jwt_not_yet_valid")
BROKEN = Expectation(401, details="jwt_authn_access_denied{Jwt_payload_")

# Finding: Envoy grants a minute either way (JwtProvider.clock_skew_seconds, 60 by default), which a RequestAuthentication cannot
# change: a token that ended half a minute ago is taken. Half a minute from that bound is what a machine's clock and a slow draw may cost.
CASES: Mapping[str, Expectation] = {
    "ends-in-half-a-minute": ALLOWED_BY_POLICY,
    "expired-half-a-minute-ago": ALLOWED_BY_POLICY,
    "expired-a-minute-and-a-half-ago": EXPIRED,
    "expired-five-minutes-ago": EXPIRED,
    "begins-in-half-a-minute": ALLOWED_BY_POLICY,
    "begins-in-a-minute-and-a-half": EARLY,
    "begins-in-five-minutes": EARLY,
    # Finding: without an end a token is good for ever, and an end of 0 counts as none.
    "without-an-end": ALLOWED_BY_POLICY,
    "ended-with-the-epoch": ALLOWED_BY_POLICY,
    "ended-before-the-epoch": BROKEN,
    "ends-in-words": BROKEN,
    # Finding: when a token says it was issued is not looked at (RFC 7519, section 4.1.6, does not ask for it either).
    "issued-in-the-future": ALLOWED_BY_POLICY,
}
TABLE = tuple(Case(name, expected, path="/private", headers=(("authorization", f"Bearer ${{{name.replace('-', '_')}}}"),)) for name, expected in CASES.items())


def judge(evidence: Evidence) -> Verdict:
    """Each line of the table, and the two claims that only the whole can make."""
    return Verdict.of(*permissions.claims(TABLE, evidence["trial"]))


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Whose tokens are late and early."""
    return Issuer(algorithm="ES256")


@requirement("security.jwt-clock-skew", level="MUST", judge=judge)
def test_times_are_held_to_give_or_take_a_minute(
    caller: Caller, targets: Mapping[str, Target], issuer: Issuer,
    world: World, istio: IstioClient, manifests: Manifests, decide: Decide, *, audited: bool,
) -> None:
    """A token is refused before it begins and after it ended, each give or take a minute, and one that names no end is taken."""
    manifests.apply("jwt_clock_skew.yaml", issuer=issuer.name, jwks=issuer.jwks())

    tokens = {
        "ends_in_half_a_minute": issuer.mint(lifetime_s=30),
        "expired_half_a_minute_ago": issuer.mint(lifetime_s=-30),
        "expired_a_minute_and_a_half_ago": issuer.mint(lifetime_s=-90),
        "expired_five_minutes_ago": issuer.mint(lifetime_s=-300),
        "begins_in_half_a_minute": issuer.mint(starts_in_s=30),
        "begins_in_a_minute_and_a_half": issuer.mint(starts_in_s=90),
        "begins_in_five_minutes": issuer.mint(starts_in_s=300),
        "without_an_end": issuer.mint(exp=None),
        "ended_with_the_epoch": issuer.mint(exp=0),
        "ended_before_the_epoch": issuer.mint(exp=-1),
        "ends_in_words": issuer.mint(exp="tomorrow"),
        "issued_in_the_future": issuer.mint(iat=4_102_444_800),
    }
    clients = {"caller": Client(caller, f"spiffe://cluster.local/ns/{world.namespace}/sa/caller")}
    decide(trial=redacted(permissions.try_all(TABLE, clients, targets, istio, values=tokens, audited=audited)))
