"""JSON web tokens: a RequestAuthentication takes those of its issuers and refuses all others; a policy says where one is needed."""

from collections.abc import Mapping
from dataclasses import replace
from string import Template

import pytest

from clusters.components.istio.client import IstioClient
from suites.support import permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED_BY_POLICY, DENIED, Case, Client, Expectation, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.issuer.tokens import Issuer, redacted, with_broken_signature, with_payload

ISSUER = "https://issuer.serverless.example.com"
PARTNER = "https://partner.serverless.example.com"
AUTHORIZATION = "authorization"


def refused(reason: str, status: int = 401) -> Expectation:
    """Expect a refusal by the token filter, for this reason (Envoy's words, in the response code details)."""
    return Expectation(status, details=f"jwt_authn_access_denied{{{reason}")


def bearer(name: str, token: str, expected: Expectation, path: str = "/private", **more: str) -> Case:
    """Return the case of one token in the place that RFC 6750 gives it."""
    return Case(name, expected, path=path, headers=((AUTHORIZATION, f"Bearer ${token}"),), **more)


def without(name: str, *headers: tuple[str, str], path: str = "/private") -> Case:
    """Return the case of a request in which the filter finds no token, so that the policy decides."""
    return Case(name, DENIED, path=path, headers=headers, policy="token-required")


NOT_A_TOKEN = refused("Jwt_is_not_in_the_form_of")
NO_SUCH_KEY = refused("Jwks_doesn't_have_key_to_match_kid_or_alg")
WRONG_AUDIENCE = refused("Audiences_in_Jwt_are_not_allowed", 403)

CASES = (
    bearer("valid", "valid", ALLOWED_BY_POLICY),
    bearer("valid-of-another-issuer", "partner", ALLOWED_BY_POLICY),
    # Without an id every key of the issuer is tried.
    bearer("valid-without-a-key-id", "no_kid", ALLOWED_BY_POLICY),
    bearer("one-audience-of-several", "several_audiences", ALLOWED_BY_POLICY),
    bearer("expired", "expired", refused("Jwt_is_expired")),
    bearer("not-yet-valid", "early", refused("Jwt_not_yet_valid")),
    bearer("wrong-issuer", "stranger", refused("Jwt_issuer_is_not_configured")),
    bearer("no-issuer", "no_issuer", refused("Jwt_issuer_is_not_configured")),
    bearer("issuer-with-another-s-key", "borrowed", NO_SUCH_KEY),
    # Finding: Envoy answers a token for somebody else with 403, where every other bad token is answered with 401.
    bearer("wrong-audience", "wrong_audience", WRONG_AUDIENCE),
    bearer("audience-of-another-issuer", "partner_audience", WRONG_AUDIENCE),
    bearer("no-audience", "no_audience", WRONG_AUDIENCE),
    bearer("bad-signature", "bad_signature", refused("Jwt_verification_fails")),
    bearer("tampered-payload", "tampered", refused("Jwt_verification_fails")),
    bearer("algorithm-none", "unsigned", NOT_A_TOKEN),
    bearer("algorithm-none-with-a-signature", "signed_none", refused("Jwt_header_[alg]_is_not_supported")),
    bearer("algorithm-confusion", "confused", NO_SUCH_KEY),
    bearer("unknown-key-id", "wrong_kid", NO_SUCH_KEY),
    bearer("unknown-key", "unknown_key", NO_SUCH_KEY),
    bearer("unknown-key-under-a-known-id", "forged", refused("Jwt_verification_fails")),
    Case("malformed", NOT_A_TOKEN, path="/private", headers=((AUTHORIZATION, "Bearer not-a-token"),)),
    without("no-token"),
    # Finding: a scheme with nothing behind it counts as no token, so it passes where no token is required.
    without("nothing-behind-the-scheme", (AUTHORIZATION, "Bearer ")),
    Case("no-token-where-none-is-required", ALLOWED_BY_POLICY, path="/open"),
    bearer("expired-where-none-is-required", "expired", refused("Jwt_is_expired"), path="/open"),
    bearer("bad-signature-where-none-is-required", "bad_signature", refused("Jwt_verification_fails"), path="/open"),
    without("in-a-cookie", ("cookie", f"{AUTHORIZATION}=$valid; access_token=$valid")),
    without("in-another-header", ("x-authorization", "Bearer $valid")),
    without("without-the-scheme", (AUTHORIZATION, "$valid")),
    without("under-another-scheme", (AUTHORIZATION, "Basic $valid")),
    # Finding: schemes have no case (RFC 9110, section 11.1), but Envoy looks for "Bearer" only.
    without("lower-case-scheme", (AUTHORIZATION, "bearer $valid")),
    # Finding: unless a rule names its places, the query parameter access_token is one (Istio's JWTRule, fromParams), and both
    # proxies then write the token to their access logs with the rest of the path.
    Case("in-the-query", ALLOWED_BY_POLICY, path="/private?access_token=$valid"),
    without("in-another-parameter", path="/private?token=$valid"),
    Case("in-the-query-expired", refused("Jwt_is_expired"), path="/private?access_token=$expired"),
    # Of two tokens in two places each must hold; two of one header are one text to Envoy, and that is no token.
    Case("two-places-both-valid", ALLOWED_BY_POLICY, path="/private?access_token=$valid", headers=((AUTHORIZATION, "Bearer $partner"),)),
    Case("two-places-header-valid", refused("Jwt_is_expired"), path="/private?access_token=$expired", headers=((AUTHORIZATION, "Bearer $valid"),)),
    Case("two-places-query-valid", refused("Jwt_is_expired"), path="/private?access_token=$valid", headers=((AUTHORIZATION, "Bearer $expired"),)),
    Case("two-headers-valid-first", NOT_A_TOKEN, path="/private", headers=((AUTHORIZATION, "Bearer $valid"), (AUTHORIZATION, "Bearer $expired"))),
    Case("two-headers-expired-first", NOT_A_TOKEN, path="/private", headers=((AUTHORIZATION, "Bearer $expired"), (AUTHORIZATION, "Bearer $valid"))),
    bearer("own-issuer-where-only-it-may", "valid", ALLOWED_BY_POLICY, path="/ours"),
    bearer("other-accepted-issuer-where-only-one-may", "partner", DENIED, path="/ours", policy="token-required"),
)


def judge(evidence: Evidence) -> Verdict:
    """Each line of the table, and the two claims that only the whole can make."""
    return Verdict.of(*permissions.claims(CASES, evidence["trial"]))


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """The function's own issuer."""
    return Issuer(ISSUER)


@pytest.fixture(scope="module")
def partner() -> Issuer:
    """Another issuer that the function trusts, with keys of another kind."""
    return Issuer(PARTNER, algorithm="ES256")


@pytest.fixture
def tokens(issuer: Issuer, partner: Issuer) -> Mapping[str, str]:
    """One token for each line of the table."""
    stranger = Issuer("https://stranger.serverless.example.com")
    impostor = Issuer(ISSUER)
    valid = issuer.mint()
    return {
        "valid": valid,
        "partner": partner.mint(),
        "no_kid": issuer.mint(headers={"kid": None}),
        "several_audiences": issuer.mint(aud=["billing", "serverless"]),
        # Both beyond the clock skew that Envoy grants (test_jwt_clock_skew.py).
        "expired": issuer.mint(lifetime_s=-300),
        "early": issuer.mint(starts_in_s=300),
        "stranger": stranger.mint(),
        "no_issuer": issuer.mint(iss=None),
        "borrowed": partner.mint(iss=ISSUER),
        "wrong_audience": issuer.mint(aud="billing"),
        "partner_audience": issuer.mint(aud="partners"),
        "no_audience": issuer.mint(aud=None),
        "bad_signature": with_broken_signature(valid),
        "tampered": with_payload(valid, sub="somebody-else"),
        "unsigned": issuer.unsigned(),
        "signed_none": f"{issuer.unsigned()}c2lnbmVk",
        "confused": issuer.confused(),
        "wrong_kid": issuer.mint(headers={"kid": "nobody-s"}),
        "unknown_key": impostor.mint(),
        "forged": impostor.mint(headers={"kid": issuer.kid}),
    }


@requirement("security.jwt", level="MUST", judge=judge)
def test_only_tokens_of_the_issuers_are_taken(
    caller: Caller, targets: Mapping[str, Target], issuer: Issuer, partner: Issuer, tokens: Mapping[str, str],
    world: World, istio: IstioClient, manifests: Manifests, decide: Decide, *, audited: bool,
) -> None:
    """A valid token of an accepted issuer is taken, any other is refused before the function sees it, and a request without one passes unless a policy requires a principal."""
    manifests.apply("jwt.yaml", issuer=ISSUER, partner=PARTNER, jwks=issuer.jwks(), partner_jwks=partner.jwks())

    clients = {"caller": Client(caller, f"spiffe://cluster.local/ns/{world.namespace}/sa/caller")}
    asked = [replace(case, path=Template(case.path or "").substitute(tokens)) for case in CASES]
    decide(trial=redacted(permissions.try_all(asked, clients, targets, istio, values=tokens, audited=audited)))
