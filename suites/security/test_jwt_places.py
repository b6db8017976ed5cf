"""Where a token may be, and what of it the function gets to see: the token itself, its payload, or single claims as headers."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from string import Template
from typing import Any

import pytest

from clusters.components.istio.client import IstioClient
from suites.support import judges, permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED_BY_POLICY, DENIED, Case, Client, Expectation, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.issuer.tokens import Issuer, digest, redacted

ISSUERS = ("forwarding", "keeping", "cookies", "parameters")
EXPIRED = Expectation(401, details="jwt_authn_access_denied{Jwt_is_expired")
ELSEWHERE = Expectation(401, details="jwt_authn_access_denied{")
CALLS = 5
# The host is in every request: without any header nothing shows that the function reported them.
KEPT = ("host", "authorization", "x-function-token", "cookie", "x-jwt-payload", "x-user", "x_user", "x-team", "x-level")


def place(name: str, expected: Expectation, *headers: tuple[str, str], path: str = "/private") -> Case:
    """Return the case of a token in one place."""
    return Case(name, expected, path=path, headers=headers, policy="token-required" if expected is DENIED else "")


CASES = (
    place("in-its-header", ALLOWED_BY_POLICY, ("authorization", "Bearer $forwarding")),
    place("in-its-own-header-and-scheme", ALLOWED_BY_POLICY, ("x-function-token", "Token $keeping")),
    place("in-its-cookie", ALLOWED_BY_POLICY, ("cookie", "theme=dark; session=$cookies; other=x")),
    place("in-its-parameter", ALLOWED_BY_POLICY, path="/private?a=b&token=$parameters"),
    place("in-its-header-expired", EXPIRED, ("authorization", "Bearer $forwarding_expired")),
    place("in-its-own-header-expired", EXPIRED, ("x-function-token", "Token $keeping_expired")),
    place("in-its-cookie-expired", EXPIRED, ("cookie", "session=$cookies_expired")),
    place("in-its-parameter-expired", EXPIRED, path="/private?token=$parameters_expired"),
    place("in-another-issuer-s-header", ELSEWHERE, ("authorization", "Bearer $keeping")),
    place("in-another-issuer-s-cookie", ELSEWHERE, ("cookie", "session=$forwarding")),
    place("in-another-issuer-s-parameter", ELSEWHERE, path="/private?token=$cookies"),
    place("in-the-default-parameter", DENIED, path="/private?access_token=$forwarding"),
    place("in-a-cookie-of-another-name", DENIED, ("cookie", "Session=$cookies")),
    place("under-another-scheme", DENIED, ("x-function-token", "Bearer $keeping")),
    place("in-a-header-as-the-parameter", DENIED, ("token", "$parameters")),
    place("no-token", DENIED),
)


def judge_places(evidence: Evidence) -> Verdict:
    """Each line of the table, and the two claims that only the whole can make."""
    return Verdict.of(*permissions.claims(CASES, evidence["trial"]))


@pytest.fixture(scope="module")
def issuers() -> Mapping[str, Issuer]:
    """One issuer for each of the manifest's rules."""
    return {name: Issuer(f"https://{name}.example.com", algorithm="ES256") for name in ISSUERS}


@pytest.fixture
def keys(issuers: Mapping[str, Issuer]) -> Mapping[str, str]:
    """What the manifest is filled in with."""
    return {name: issuer.jwks() for name, issuer in issuers.items()}


@requirement("security.jwt-places", level="MUST", judge=judge_places)
def test_a_token_counts_in_its_place_only(
    caller: Caller, targets: Mapping[str, Target], issuers: Mapping[str, Issuer], keys: Mapping[str, str],
    world: World, istio: IstioClient, manifests: Manifests, decide: Decide, *, audited: bool,
) -> None:
    """A token is looked for in the headers, cookies and parameters that its issuer's rule names, and in no other place."""
    manifests.apply("jwt_places.yaml", **keys)

    tokens = {name: issuer.mint() for name, issuer in issuers.items()} | {f"{name}_expired": issuer.mint(lifetime_s=-300) for name, issuer in issuers.items()}
    clients = {"caller": Client(caller, f"spiffe://cluster.local/ns/{world.namespace}/sa/caller")}
    asked = [replace(case, path=Template(case.path or "").substitute(tokens)) for case in CASES]
    decide(trial=redacted(permissions.try_all(asked, clients, targets, istio, values=tokens, audited=audited)))


def judge_forwarding(evidence: Evidence) -> Verdict:
    """The function sees the token where forwarding is asked for, and elsewhere only what is asked for instead."""
    seen, sent = evidence["seen"], evidence["sent"]
    return Verdict.of(
        judges.header_seen("forwarded-as-it-came", seen["forwarding"], "authorization", f"Bearer {sent['forwarding']}", least=CALLS),
        judges.header_absent("not-forwarded-unless-asked", seen["keeping"], "x-function-token", least=CALLS),
        # Finding: Envoy takes the token out of headers only; a cookie reaches the function whatever forwardOriginalToken says.
        judges.header_seen("cookie-stays", seen["cookies"], "cookie", f"session={sent['cookies']}", least=CALLS),
        judges.header_seen("payload-is-told", seen["parameters"], "x-jwt-payload", sent["payload"], least=CALLS),
        judges.header_absent("no-payload-of-another-issuer", seen["forwarding"], "x-jwt-payload", least=CALLS),
        judges.header_absent("payload-sent-without-a-token-is-removed", seen["smuggled-payload"], "x-jwt-payload", least=CALLS),
        judges.header_seen("payload-sent-beside-a-token-is-replaced", seen["doubled-payload"], "x-jwt-payload", sent["payload"], least=CALLS),
        # Finding: Istio orders the issuers by name, and Envoy looks no further once a token holds, nor cleans up after those behind it:
        # beside the token of an earlier issuer a client can write the payload header of a later one, not the other way round.
        judges.header_seen("payload-sent-beside-an-earlier-issuer-s-token-stays", seen["earlier-issuer"], "x-jwt-payload", sent["forged"], least=CALLS),
    )


@pytest.fixture
def ask(caller: Caller, targets: Mapping[str, Target]) -> Callable[..., dict[str, Any]]:
    """A draw of requests to the function, as evidence keeps it: with digests in place of tokens."""
    def draw(*headers: tuple[str, str], path: str = "/open") -> dict[str, Any]:
        return redacted(caller.draw(targets["function"].url, count=CALLS, path=path, headers=headers, keep_seen=KEPT).to_json())

    return draw


@requirement("security.jwt-forwarding", level="MUST", judge=judge_forwarding)
def test_the_function_sees_a_token_only_where_that_is_asked_for(
    ask: Callable[..., dict[str, Any]], issuers: Mapping[str, Issuer], keys: Mapping[str, str], manifests: Manifests, decide: Decide,
) -> None:
    """A header with a token reaches the function only under `forwardOriginalToken`, and a payload header only as the proxy wrote it."""
    manifests.apply("jwt_places.yaml", **keys)

    tokens = {name: issuer.mint() for name, issuer in issuers.items()}
    bearer, payload = ("authorization", f"Bearer {tokens['forwarding']}"), ("x-jwt-payload", "eyJzdWIiOiJhZG1pbiJ9")
    in_query = f"/open?token={tokens['parameters']}"
    decide(
        seen={
            "forwarding": ask(bearer),
            "keeping": ask(("x-function-token", f"Token {tokens['keeping']}")),
            "cookies": ask(("cookie", f"session={tokens['cookies']}")),
            "parameters": ask(path=in_query),
            "smuggled-payload": ask(payload),
            "doubled-payload": ask(payload, path=in_query),
            "earlier-issuer": ask(bearer, payload),
        },
        # The payload alone is no token: nobody can sign it.
        sent={**{name: digest(token) for name, token in tokens.items()}, "payload": tokens["parameters"].split(".")[1], "forged": payload[1]},
    )


def judge_claims(evidence: Evidence) -> Verdict:
    """Claims arrive as headers; what a client sends under their names never does."""
    told, forged, poor, bare, lower = (evidence[name] for name in ("told", "forged", "without-the-claims", "without-a-token", "underscored"))
    seen, absent = partial(judges.header_seen, least=CALLS), partial(judges.header_absent, least=CALLS)
    return Verdict.of(
        seen("claim-is-told", told, "x-user", "somebody"),
        seen("nested-claim-is-told", told, "x-team", "payments"),
        seen("number-is-told", told, "x-level", "7"),
        seen("forged-header-is-replaced", forged, "x-user", "somebody"),
        seen("forged-nested-header-is-replaced", forged, "x-team", "payments"),
        absent("forged-header-of-a-missing-claim-is-removed", poor, "x-team"),
        absent("forged-number-of-a-missing-claim-is-removed", poor, "x-level"),
        seen("other-claims-are-told-meanwhile", poor, "x-user", "somebody"),
        absent("forged-header-without-a-token-is-removed", bare, "x-user"),
        # Finding: as with payloads (above): the token of an issuer whose name comes earlier lets forged headers of a later one through.
        seen("forged-header-beside-an-earlier-issuer-s-token-stays", evidence["earlier-issuer"], "x-user", "admin"),
        absent("forged-header-beside-a-later-issuer-s-token-is-removed", evidence["later-issuer"], "x-user"),
        # Finding: a name with an underscore is another header to the mesh, and the same one to a function that reads headers as CGI
        # variables (HTTP_X_USER). It passes; a function must not read headers that way.
        seen("underscored-name-passes", lower, "x_user", "admin"),
        seen("underscored-name-is-not-the-claim-s", lower, "x-user", "somebody"),
    )


@requirement("security.jwt-claim-to-header", level="MUST", judge=judge_claims)
def test_claims_reach_the_function_as_headers_that_nobody_else_can_write(
    ask: Callable[..., dict[str, Any]], issuers: Mapping[str, Issuer], keys: Mapping[str, str], manifests: Manifests, decide: Decide,
) -> None:
    """The function sees the claims that the rule of a token's issuer names as headers, and never what the client sent under those names, in whatever case and however often.

    Finding: the headers of other issuers' rules are taken away only where those come earlier by their issuers' names (see the judge).
    """
    manifests.apply("jwt_places.yaml", **keys)

    rich, poor = (("authorization", f"Bearer {issuers['forwarding'].mint(**claims)}") for claims in ({"realm": {"team": "payments"}, "level": 7}, {}))
    forged = [("x-user", "admin"), ("X-User", "root"), ("x-team", "admins"), ("X-TEAM", ""), ("x-level", "9")]
    decide(
        told=ask(rich),
        forged=ask(*forged, rich, *forged),
        **{"earlier-issuer": ask(("x-user", "admin"), ("cookie", f"session={issuers['cookies'].mint()}"))},
        **{"later-issuer": ask(("x-user", "admin"), ("x-function-token", f"Token {issuers['keeping'].mint()}"))},
        **{"without-the-claims": ask(*forged, poor), "without-a-token": ask(*forged), "underscored": ask(rich, ("x_user", "admin"))},
    )
