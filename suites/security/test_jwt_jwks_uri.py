"""Keys that are fetched: who fetches them, how a rotation arrives, and what becomes of tokens while the issuer cannot be reached.

istiod fetches them (Istio's default; PILOT_JWT_ENABLE_REMOTE_JWKS would have the proxies do it) and gives them to the proxies in line;
a proxy never asks. It asks again every PILOT_JWT_PUB_KEY_REFRESH_INTERVAL, 5 s on clusters of ours, where Istio's default is 20 min.

These change what istiod keeps for everybody, for a week (IstioClient.jwks_failures), so they run on clusters of ours, and alone where istiod may
have to forget it first. No other file has keys fetched.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from clusters.bringup import Testbed
from clusters.components.istio.client import IstioClient
from clusters.waiting import TimedOut, Waited, eventually, timed
from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.permissions import Target
from suites.support.requirements import requirement
from suites.support.rotation import drawn_beside
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.issuer import issuer as issuer_objects
from workloads.issuer.client import Fetch, IssuerServer
from workloads.issuer.tokens import Issuer, with_broken_signature
from workloads.records import Draw

CALLS = 20
RATE_PER_S = 40.0
PRIVATE = "/private"
# The refresh interval, a push, and the proxies' connections that still have the old keys: 5, 1 and 1 s on a quiet machine.
ROTATED_WITHIN_S = 30.0
# Of one worker thread's kept connection after the other, so that none is left which a former listener serves.
IN_A_ROW = 4


@pytest.fixture(scope="module")
def server(testbed: Testbed, world: World, unhurried: Target) -> IssuerServer:
    """The issuer's public side."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("istiod keeps an issuer that is gone for a week and refreshes everybody's keys ever more rarely meanwhile; not on somebody's cluster")
    del unhurried  # deployed before the first manifest
    world.deploy({"issuer": issuer_objects()})
    return IssuerServer(world.kube, world.namespace, world.pod("issuer"))


@pytest.fixture(scope="module")
def punctual_istiod(server: IssuerServer, istio: IstioClient) -> None:
    """An istiod that knows of no issuer that is gone, which would have it refresh all keys ever more rarely."""
    del server  # says where this may be done at all
    if istio.jwks_failures():
        istio.restart_istiod()


@pytest.fixture
def issuer(server: IssuerServer) -> Issuer:
    """An issuer whose keys are published at an address that nobody has asked for yet."""
    server.behave("answer")
    server.reset_fetches()
    return Issuer(f"https://{uuid.uuid4().hex[:12]}.example.com", algorithm="ES256")


@pytest.fixture
def inline() -> Issuer:
    """The control: an issuer whose keys nobody has to fetch."""
    return Issuer("https://inline.example.com", algorithm="ES256")


@pytest.fixture
def draw(caller: Caller, unhurried: Target) -> Callable[..., Draw]:
    """A paced draw with one token, or without any."""
    def with_token(token: str = "", path: str = PRIVATE) -> Draw:
        return caller.draw(
            unhurried.url, path=path, count=CALLS, rate_per_s=RATE_PER_S, concurrency=2, keep_headers=(), keep_seen=(),
            headers=[("authorization", f"Bearer {token}")] if token else [],
        )

    return with_token


def until(draw: Callable[[], Draw], status: int) -> Waited[None] | None:
    """Wait for a status on traffic that is thrown away; None when it does not come in time, which the draw that follows will tell."""
    def seen() -> None:
        statuses = draw().statuses()
        assert set(statuses) == {status}, f"expected {status} only, seen {dict(statuses)}"

    with suppress(TimedOut):
        return timed(seen, within=ROTATED_WITHIN_S, every=0.2, consecutive=IN_A_ROW)
    return None


def fetches_of(server: IssuerServer, uri: str) -> list[Fetch]:
    """Return who asked for the keys of one address. Finding: istiod goes on asking for those of every policy that is gone."""
    return [fetch for fetch in server.fetches() if uri.endswith(fetch.path)]


def fetched_by_istiod(name: str, fetches: Sequence[Mapping[str, Any]], istiod: Mapping[str, str], least: int) -> Claim:
    """Claim that the keys were fetched at least `least` times, by istiod alone."""
    count = sum(fetch["count"] for fetch in fetches)
    others = sorted({fetch["peer"] for fetch in fetches} - set(istiod.values()))
    if others:
        return Claim(name, held=False, said=f"{', '.join(others)} fetched keys too", expected="istiod only", got=", ".join(others))
    if count < least:
        return Claim(name, held=None, said=f"keys were fetched {count} times, {least} are wanted")
    return Claim(name, held=True, said=f"istiod alone fetched the keys, {count} times")


def judge_rotation(evidence: Evidence) -> Verdict:
    """As for keys in line (test_jwt_key_rotation.py), without anybody changing the mesh."""
    control = judges.joined({"old": evidence["old-at-first"], "new": evidence["new-at-last"]})
    return Verdict.of(
        judges.refused("unpublished-is-refused", evidence["new-at-first"], control=control, status=401),
        judges.every_status("old-passes-while-the-new-is-published", evidence["publishing"], 200, least=3 * CALLS),
        judges.every_status("new-passes-once-published", evidence["new-between"], 200, least=CALLS),
        judges.every_status("new-passes-while-the-old-is-withdrawn", evidence["withdrawing"], 200, least=3 * CALLS),
        judges.refused("withdrawn-is-refused", evidence["old-at-last"], control=control, status=401),
        judges.every_status("new-passes-afterwards", evidence["new-at-last"], 200, least=CALLS),
        fetched_by_istiod("istiod-alone-fetches", evidence["fetches"], evidence["istiod"], 3),
    )


# Two refreshes of five seconds each are waited for.
@pytest.mark.slow
@requirement("security.jwt-key-rotation-by-uri", level="MUST", judge=judge_rotation, alone=True)
@pytest.mark.usefixtures("punctual_istiod")
def test_a_rotation_arrives_by_itself(
    server: IssuerServer, issuer: Issuer, inline: Issuer, draw: Callable[..., Draw], istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """Keys of a `jwksUri` are fetched anew by istiod: a published key's tokens pass and a withdrawn key's are refused within the refresh interval and a push, and no request with a token of a published key is refused meanwhile."""
    uri = server.publish(issuer, f"/{issuer.kid}")
    manifests.apply("jwt_jwks_uri.yaml", issuer=issuer.name, uri=uri, inline=inline.name, jwks=inline.jwks())
    old = issuer.rotate()
    old_token, new_token = issuer.mint(kid=old), issuer.mint()

    at_first = {"old-at-first": draw(old_token), "new-at-first": draw(new_token)}
    server.publish(issuer, f"/{old}")
    publishing = drawn_beside(partial(until, partial(draw, new_token), 200), partial(draw, old_token))
    between = draw(new_token)
    issuer.withdraw(old)
    server.publish(issuer, f"/{old}")
    withdrawing = drawn_beside(partial(until, partial(draw, old_token), 401), partial(draw, new_token))

    decide(
        **at_first, publishing=publishing, withdrawing=withdrawing, fetches=fetches_of(server, uri), istiod=istio.istiod(),
        **{"new-between": between, "old-at-last": draw(old_token), "new-at-last": draw(new_token)},
    )


def judge_unreachable_at_start(evidence: Evidence) -> Verdict:
    """Without keys every token of the issuer is refused, and nothing else is; with them, the next push brings it round."""
    down, up = evidence["down"], evidence["up"]
    return Verdict.of(
        judges.refused("valid-is-refused-without-keys", down["valid"], control=down["inline"], status=401),
        judges.refused("no-token-is-refused-where-one-is-required", down["none"], control=down["inline"], status=403),
        judges.every_status("no-token-passes-where-none-is-required", down["open"], 200, least=CALLS),
        judges.every_status("the-other-issuer-s-passes", down["inline"], 200, least=CALLS),
        judges.every_status("valid-passes-with-keys", up["valid"], 200, least=CALLS),
        judges.refused("forged-is-refused-with-keys", up["forged"], control=up["valid"], status=401),
        fetched_by_istiod("istiod-alone-fetches", evidence["fetches"], evidence["istiod"], 2),
    )


@requirement("security.jwt-jwks-unreachable-at-start", level="MUST", judge=judge_unreachable_at_start)
def test_without_keys_no_token_of_the_issuer_passes(
    server: IssuerServer, issuer: Issuer, inline: Issuer, draw: Callable[..., Draw], istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """While an issuer's keys cannot be fetched its tokens are refused and nobody else's, and once they can be, the next push of configuration has them."""
    # Finding: istiod tries again for the rule's timeout, eight times at most and a second apart, and then never until it has another
    # reason to put the proxy's listeners together. An issuer that comes up later is not noticed by the refresh (seen: for 35 s, seven
    # intervals of it): its tokens stay refused until somebody changes something. In place of the keys the proxy has one whose
    # private half nobody has, so it fails closed.
    uri = server.publish(issuer, f"/{issuer.kid}")
    server.behave("fail")
    manifests.apply("jwt_jwks_uri.yaml", issuer=issuer.name, uri=uri, inline=inline.name, jwks=inline.jwks())
    valid = issuer.mint()

    down = {"valid": draw(valid), "none": draw(), "open": draw(path="/open"), "inline": draw(inline.mint())}
    server.behave("answer")
    manifests.apply("jwt_jwks_uri.push.yaml")
    until(partial(draw, valid), 200)

    decide(down=down, up={"valid": draw(valid), "forged": draw(with_broken_signature(valid))}, fetches=fetches_of(server, uri), istiod=istio.istiod())


def judge_unreachable_later(evidence: Evidence) -> Verdict:
    """Keys that were had once are kept: tokens are told apart as before, through a push too."""
    down, control = evidence["down"], evidence["before"]
    return Verdict.of(
        judges.every_status("control-valid-passes-before", control, 200, least=CALLS),
        asked_in_vain("istiod-asked-in-vain", evidence["fetches"]),
        judges.every_status("valid-passes", down["valid"], 200, least=CALLS),
        judges.refused("forged-is-refused", down["forged"], control=down["valid"], status=401),
        judges.every_status("valid-passes-after-a-push", evidence["after-a-push"], 200, least=CALLS),
    )


def asked_in_vain(name: str, fetches: Sequence[Mapping[str, Any]]) -> Claim:
    """Claim that the issuer was asked for its keys while it failed: without that, nobody had noticed that it was down."""
    count = sum(fetch["count"] for fetch in fetches)
    return Claim(name, held=True if count else None, said=f"the failing issuer was asked {count} times")


# The last one: what it leaves in istiod spoils the refresh interval of the others.
@requirement("security.jwt-jwks-unreachable-later", level="MUST", judge=judge_unreachable_later, alone=True)
@pytest.mark.usefixtures("punctual_istiod")
def test_keys_are_kept_while_the_issuer_is_down(
    server: IssuerServer, issuer: Issuer, inline: Issuer, draw: Callable[..., Draw], manifests: Manifests, decide: Decide,
) -> None:
    """When an issuer goes down after its keys were fetched, its tokens go on to pass, and forged ones to be refused."""
    uri = server.publish(issuer, f"/{issuer.kid}")
    manifests.apply("jwt_jwks_uri.yaml", issuer=issuer.name, uri=uri, inline=inline.name, jwks=inline.jwks())
    valid = issuer.mint()
    before = draw(valid)

    def asked() -> None:
        assert fetches_of(server, uri), "nobody has asked since"

    server.behave("fail")
    server.reset_fetches()
    with suppress(TimedOut):
        eventually(asked, within=ROTATED_WITHIN_S, subject="keys not asked for")
    down = {"valid": draw(valid), "forged": draw(with_broken_signature(valid))}
    manifests.apply("jwt_jwks_uri.push.yaml")

    decide(before=before, fetches=fetches_of(server, uri), down=down, **{"after-a-push": draw(valid)})
