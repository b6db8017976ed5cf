"""Key rotation with keys given in line: a new key beside the old, tokens of the new one, the old one withdrawn, while requests run."""

from collections.abc import Callable
from functools import partial

import pytest

from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.permissions import Target
from suites.support.requirements import requirement
from suites.support.rotation import drawn_beside
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.issuer.tokens import Issuer
from workloads.records import Draw

# Requests run on kept connections all the while: half a second of them at a time, so that a change has many beside it.
CALLS = 20
RATE_PER_S = 40.0


def judge(evidence: Evidence) -> Verdict:
    """No token of a published key is refused at any moment; one of a key not yet or no longer published always is."""
    control = judges.joined({"old": evidence["old-at-first"], "new": evidence["new-at-last"]})
    between = judges.joined({"old": evidence["old-between"], "new": evidence["new-between"]})
    return Verdict.of(
        judges.refused("unpublished-is-refused", evidence["new-at-first"], control=control, status=401),
        judges.every_status("old-passes-while-the-new-is-published", evidence["publishing"], 200, least=3 * CALLS),
        judges.every_status("both-pass-in-between", between, 200, least=2 * CALLS),
        judges.every_status("new-passes-while-the-old-is-withdrawn", evidence["withdrawing"], 200, least=3 * CALLS),
        judges.refused("withdrawn-is-refused", evidence["old-at-last"], control=control, status=401),
        judges.every_status("new-passes-afterwards", evidence["new-at-last"], 200, least=CALLS),
    )


@pytest.fixture
def draw(caller: Caller, unhurried: Target) -> Callable[[str], Draw]:
    """A paced draw with one token."""
    def with_token(token: str) -> Draw:
        headers = [("authorization", f"Bearer {token}")]
        return caller.draw(unhurried.url, count=CALLS, rate_per_s=RATE_PER_S, concurrency=2, headers=headers, keep_headers=(), keep_seen=())

    return with_token


@requirement("security.jwt-key-rotation", level="MUST", judge=judge)
def test_no_valid_token_is_refused_while_keys_rotate(
    draw: Callable[[str], Draw], unhurried: Target, manifests: Manifests, decide: Decide,
) -> None:
    """While a new key is published beside the old and the old is withdrawn, no request with a token of a published key is refused, and a withdrawn key's tokens are refused once every proxy has the new keys."""
    del unhurried  # deployed before the first manifest
    issuer = Issuer(algorithm="ES256")
    apply = partial(manifests.apply, "jwt_key_rotation.yaml", issuer=issuer.name)
    first = issuer.jwks()
    old = issuer.rotate()
    both = issuer.jwks()
    old_token, new_token = issuer.mint(kid=old), issuer.mint()
    issuer.withdraw(old)

    apply(jwks=first)
    at_first = {"old-at-first": draw(old_token), "new-at-first": draw(new_token)}
    publishing = drawn_beside(partial(apply, jwks=both), partial(draw, old_token))
    between = {"old-between": draw(old_token), "new-between": draw(new_token)}
    withdrawing = drawn_beside(partial(apply, jwks=issuer.jwks()), partial(draw, new_token))

    decide(**at_first, publishing=publishing, **between, withdrawing=withdrawing, **{"old-at-last": draw(old_token), "new-at-last": draw(new_token)})
