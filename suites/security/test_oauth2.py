"""Login at the edge: OpenID Connect's code flow with a real provider, and what a session lets nobody do.

Envoy's own OAuth2 filter keeps the sessions: the mesh's proxy enforces, no further component stands in the path, and the filter is the
same in every build of Envoy. The provider is made from a certified library (workloads/provider). The edge is a gateway of the
namespace's own, so that filter, secrets and policies are namespaced. The function's sidecar checks the provider's token once more:
who comes past the edge is refused there.
"""

import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest

from clusters.components.istio.client import IstioClient
from clusters.waiting import eventually
from suites.support import judges
from suites.support.judges import Draw
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.browser import Browser, Step, parameters
from workloads.caller.client import Caller
from workloads.edge import Edge, edge
from workloads.fixtures import World
from workloads.greeter import greeter
from workloads.greeter.client import Greeter
from workloads.provider import Accounts, issuer, provider
from workloads.records import Draw as Drawn

HOME = "http://edge/home"
CALLBACK = "http://edge/callback"
# The same gateway's other listener; a browser does not tell a host's ports apart where cookies are concerned.
OTHER = "http://edge:81/home"
FUNCTION = "http://portal-function/home"
# A session is taken or not by a calculation, not by chance; a few calls show that each is looked at.
CALLS = 5
# Tokens expire at a whole second, up to one before their time.
BRIEF_SECONDS = 4.0
HTTP_OK, FOUND, UNAUTHENTICATED, DENIED = 200, 302, 401, 403
SERVER_ERROR = 500
# The filter waits 3 s for the provider's answer (oauth2.yaml); the rest is a busy machine's.
ANSWERED_WITHIN_S = 10.0


def judge_login(evidence: Evidence) -> Verdict:
    """A visitor is sent to the provider, a program is told 401, and who logs in there arrives as themselves, with a guarded session."""
    inside, provider_ = evidence["inside"], evidence["issuer"]
    return Verdict.of(
        sent_to_login("visitor-is-sent-to-the-provider", evidence["visit"], provider_),
        judges.all_refused("programs-are-told-401", evidence["programs"], control=inside, status=UNAUTHENTICATED),
        went("login-ends-at-the-page-asked-for", evidence["login"], [
            (302, HOME), (302, f"{provider_}/auth"), (200, f"{provider_}/login/username"),
            (302, f"{provider_}/login/username"), (302, f"{provider_}/auth/callback"), (302, CALLBACK), (200, HOME),
        ]),
        judges.header_seen("the-function-sees-who-logged-in", inside, "x-user", "alice", least=CALLS),
        judges.header_seen("a-claimed-identity-is-replaced", evidence["claimed"], "x-user", "alice", least=CALLS),
        guarded("session-cookies-are-guarded", evidence["login"]),
        sealed("tokens-in-cookies-are-sealed", evidence["cookies"]),
        went("wrong-password-stays-at-the-form", evidence["wrong-password"], [
            (302, HOME), (302, f"{provider_}/auth"), (200, f"{provider_}/login/username"), (200, f"{provider_}/login/username"),
        ]),
        sent_to_login("wrong-password-opens-no-session", evidence["after-wrong-password"], provider_),
    )


def judge_sessions(evidence: Evidence) -> Verdict:
    """A session lasts as long as the token and is worth nothing when anything of it is changed, or to a proxy with another secret."""
    provider_ = evidence["issuer"]
    return Verdict.of(
        judges.only_version("session-is-taken", evidence["inside"], "v1", least=CALLS),
        all_sent_to_login("changed-cookies-are-refused", evidence["changed"], provider_),
        all_sent_to_login("missing-cookies-are-refused", evidence["missing"], provider_),
        sent_to_login("another-secret-s-session-is-refused", evidence["elsewhere"], provider_),
        taken_in_time("brief-session-is-taken", evidence["before-expiry"], BRIEF_SECONDS - 1.0),
        sent_to_login("expired-session-is-refused", evidence["after-expiry"], provider_),
    )


def judge_state(evidence: Evidence) -> Verdict:
    """An answer of the provider is taken once, by the browser that asked, and in no other form."""
    return Verdict.of(
        judges.all_refused("answers-to-nobody-s-question-are-refused", evidence["refused"], control=evidence["inside"], status=UNAUTHENTICATED),
        sent_to_login("the-victim-has-no-session", evidence["victim"], evidence["issuer"]),
        went("the-browser-that-asked-is-let-in", evidence["own"], [(302, CALLBACK), (200, HOME)]),
        judges.refused("a-used-code-is-refused", evidence["replayed"], control=evidence["inside"], status=UNAUTHENTICATED),
    )


def judge_users(evidence: Evidence) -> Verdict:
    """Of those who can log in, the function's proxy lets in whom the policy names, and nobody who comes past the edge."""
    inside, counts = evidence["inside"], evidence["counts"]
    refused = {name: evidence[name] for name in ("other-user", "past-the-edge", "forged")}
    return Verdict.of(
        judges.only_version("named-user-is-let-in", inside, "v1", least=CALLS),
        judges.refused("another-user-is-denied", refused["other-user"], control=inside, status=DENIED),
        judges.refused("past-the-edge-is-denied", refused["past-the-edge"], control=inside, status=DENIED),
        judges.refused("a-forged-token-is-refused", refused["forged"], control=inside, status=UNAUTHENTICATED),
        arrived("only-the-named-user-s-calls-arrive", inside, counts),
    )


def judge_logout(evidence: Evidence) -> Verdict:
    """Signing out takes the session from the browser; a copy that was made before is good until the token expires."""
    return Verdict.of(
        judges.only_version("session-is-taken-before", evidence["before"], "v1", least=CALLS),
        taken_away("signing-out-takes-the-cookies-away", evidence["signout"]),
        sent_to_login("afterwards-the-browser-has-no-session", evidence["after"], evidence["issuer"]),
        # Finding: the filter keeps no list of sessions; what was copied before is as good as ever until it expires.
        judges.only_version("finding-a-copy-made-before-goes-on", evidence["copy"], "v1", least=CALLS),
    )


def judge_provider_down(evidence: Evidence) -> Verdict:
    """Without its provider the edge goes on with the sessions there are, and says at once that it can open no new one."""
    return Verdict.of(
        judges.only_version("open-sessions-go-on", evidence["inside"], "v1", least=CALLS),
        failed_clearly("a-login-under-way-fails-clearly", evidence["half-way"], within_s=ANSWERED_WITHIN_S),
        sent_to_login("a-new-visitor-is-sent-to-the-provider", evidence["new"], evidence["issuer"]),
        went("login-works-when-it-is-back", evidence["again"][-2:], [(302, CALLBACK), (200, HOME)]),
    )


def sent_to_login(name: str, step: Mapping[str, Any], provider_: str) -> Claim:
    """Claim that a request was answered with a redirect to the provider that asks for a code, with a state and PKCE (RFC 7636)."""
    wanted = {"response_type": "code", "client_id": "edge", "redirect_uri": CALLBACK, "scope": "openid", "code_challenge_method": "S256"}
    asked = step["parameters"]
    other = sorted({key for key, value in wanted.items() if asked.get(key) != value} | {key for key in ("state", "code_challenge") if key not in asked})
    said = f"{step['at']} was answered {step['status']}{' to ' + step['to'] if step['to'] else ''}"
    if step["status"] == 0:
        return Claim(name, held=None, said=f"{step['at']} was not answered: {step['error']}")
    if step["status"] != FOUND or step["to"] != f"{provider_}/auth":
        return Claim(name, held=False, said=said, expected=f"302 to {provider_}/auth", got=f"{step['status']} {step['to']}".strip())
    if other:
        return Claim(name, held=False, said=f"{said}, asking otherwise for {', '.join(other)}", expected=str(wanted), got=str(asked))
    return Claim(name, held=True, said=f"{said} for a code, with a state and a code challenge")


def all_sent_to_login(name: str, steps: Mapping[str, Mapping[str, Any]], provider_: str) -> Claim:
    """Claim `sent_to_login` of each of several requests, named by what was tried; none at all leave it inconclusive."""
    claims = {tried: sent_to_login(name, step, provider_) for tried, step in steps.items()}
    for held in (False, None):
        if found := {tried: claim for tried, claim in claims.items() if claim.held is held}:
            first = next(iter(found.values()))
            return Claim(name, held=held, said="; ".join(f"{tried}: {claim.said}" for tried, claim in found.items()), expected=first.expected, got=first.got)
    if not claims:
        return Claim(name, held=None, said="nothing was tried")
    return Claim(name, held=True, said=f"{', '.join(claims)}: each was sent to the provider")


def went(name: str, steps: Sequence[Mapping[str, Any]], expected: Sequence[tuple[int, str]]) -> Claim:
    """Claim that a browser's steps were these: status and address of each, in this order, and no others."""
    seen = [(step["status"], step["at"]) for step in steps]
    wanted, got = (", ".join(f"{status} {at}" for status, at in way) for way in (expected, seen))
    if not steps or any(status == 0 for status, _ in seen):
        return Claim(name, held=None, said=f"a step was not answered: {got or 'no step was made'}")
    if seen != list(expected):
        return Claim(name, held=False, said=f"the way was {got}", expected=wanted, got=got)
    return Claim(name, held=True, said=f"the way was {got}")


def taken_in_time(name: str, seen: Mapping[str, Any], most_s: float) -> Claim:
    """Claim that a login ended at the function; one that took longer than the session lasts says nothing."""
    step = seen["step"]
    said = f"{step['at']} was answered {step['status']} by {step['version'] or 'no function'}, {seen['seconds']:.1f} s after the login began"
    if step["status"] == HTTP_OK and step["version"]:
        return Claim(name, held=True, said=said)
    if step["status"] == 0 or seen["seconds"] > most_s:
        return Claim(name, held=None, said=said)
    return Claim(name, held=False, said=said, expected="200 by the function", got=str(step["status"]))


def guarded(name: str, steps: Sequence[Mapping[str, Any]]) -> Claim:
    """Claim that every cookie that the edge gave a browser is Secure, HttpOnly and SameSite."""
    given = {cookie: one["attributes"] for step in steps for cookie, one in step["cookies"].items() if one["kept"]}
    wanted = {"secure", "httponly", "samesite=lax"}
    open_ = {cookie: sorted(wanted - {attribute.lower() for attribute in attributes}) for cookie, attributes in given.items()}
    if lacking := {cookie: lacks for cookie, lacks in open_.items() if lacks}:
        got = "; ".join(f"{cookie} lacks {', '.join(lacks)}" for cookie, lacks in lacking.items())
        return Claim(name, held=False, said=got, expected="secure, httponly and samesite=lax on each", got=got)
    if "OauthHMAC" not in given:
        return Claim(name, held=None, said=f"no session was opened; cookies: {', '.join(given) or 'none'}")
    return Claim(name, held=True, said=f"each of {', '.join(sorted(given))} is Secure, HttpOnly and SameSite=Lax")


def sealed(name: str, cookies: Mapping[str, Any]) -> Claim:
    """Claim that no cookie of a session can be read as a token by who has it; `cookies` tells whether each looks like a JWT."""
    readable = sorted(cookie for cookie, is_token in cookies.items() if is_token)
    if readable:
        return Claim(name, held=False, said=f"{', '.join(readable)} can be read as a token", expected="no token in the clear", got=", ".join(readable))
    if "BearerToken" not in cookies:
        return Claim(name, held=None, said="the browser holds no token")
    return Claim(name, held=True, said=f"none of {', '.join(sorted(cookies))} can be read as a token")


def taken_away(name: str, step: Mapping[str, Any]) -> Claim:
    """Claim that an answer takes a session's cookies away."""
    gone = {cookie for cookie, one in step["cookies"].items() if not one["kept"]}
    # Finding: OauthExpires stays behind, a time and nothing else.
    wanted = {"OauthHMAC", "BearerToken", "IdToken"}
    if step["status"] == 0:
        return Claim(name, held=None, said=f"signing out was not answered: {step['error']}")
    if step["status"] != FOUND or not wanted <= gone:
        return Claim(name, held=False, said=f"signing out was answered {step['status']} and left {', '.join(sorted(wanted - gone)) or 'nothing'}", expected="302 and no session cookie left", got=str(step["status"]))
    return Claim(name, held=True, said=f"signing out took {', '.join(sorted(gone))} away")


def arrived(name: str, inside: Draw, counts: Mapping[str, Any]) -> Claim:
    """Claim that a function counted as many requests as `inside` has answers, while others were sent at it in vain.

    It is counted by number: the edge gives requests from outside ids of its own.
    """
    answered, seen = sum(record["status"] == HTTP_OK for record in inside["records"]), counts["total"]
    if seen > answered and answered == inside["count"]:
        return Claim(name, held=False, said=f"the function was reached {seen} times, {answered} calls were let in", expected=str(answered), got=str(seen))
    if seen != answered or not answered:
        return Claim(name, held=None, said=f"{answered} calls were answered and the function counted {seen}")
    return Claim(name, held=True, said=f"the function was reached {seen} times, by the calls that were let in")


def failed_clearly(name: str, step: Mapping[str, Any], *, within_s: float) -> Claim:
    """Claim that the edge itself answered a request with an error (401 or 5xx), opened no session, and did so in time."""
    said = f"{step['at']} was answered {step['status']} after {step['seconds']:.1f} s"
    opened = [cookie for cookie, one in step["cookies"].items() if one["kept"]]
    if step["status"] == 0:
        return Claim(name, held=False, said=f"{step['at']} was not answered: {step['error']}", expected="an error status", got="no answer")
    if (step["status"] != UNAUTHENTICATED and step["status"] < SERVER_ERROR) or step["version"] or opened:
        return Claim(name, held=False, said=said, expected="401 or a server's error, by the edge, without cookies", got=f"{step['status']}, cookies {opened}")
    if step["seconds"] > within_s:
        return Claim(name, held=False, said=said, expected=f"within {within_s:g} s", got=f"{step['seconds']:.1f} s")
    return Claim(name, held=True, said=said)


@dataclass(frozen=True)
class Site:
    """The edge, its function and its provider, and the people who may log in."""

    world: World
    gateway: Edge
    accounts: Accounts
    visitor: Caller

    @property
    def issuer(self) -> str:
        """The provider's name."""
        return issuer(self.world.namespace)

    def start_provider(self) -> None:
        """Start the provider where it is not there, and return once visitors reach it: nodes hear of a Service's pods later than the API server."""
        def answers() -> None:
            step = self.browser().step(f"{self.issuer}/ready")
            assert step.status == HTTP_OK, f"the provider's Service is answered {step.status} {step.error}"

        self.world.scale("provider", 1)
        self.world.await_scaled("provider")
        eventually(answers, within=self.world.timeouts.deployment_available, every=0.1, consecutive=2, subject="the provider is not reached")

    def browser(self) -> Browser:
        """Return a browser that has never been here."""
        return Browser(self.visitor)

    def ask(self, browser: Browser, user: str, *, password: str | None = None) -> list[Step]:
        """Ask for the home page, fill in the form that this leads to, and follow the provider as far as its answer, not further."""
        asked = browser.follow(HOME)
        form = asked[-1].at
        entered = {"id": parameters(form).get("authRequestID", ""), "username": user, "password": password or self.accounts.passwords[user]}
        sent = browser.step(form.partition("?")[0], form=entered)
        return [*asked, sent, *([browser.step(sent.to)] if sent.to else [])]

    def login(self, browser: Browser, user: str, *, password: str | None = None) -> list[Step]:
        """Log in and return every step from the first visit to the page that was asked for."""
        steps = self.ask(browser, user, password=password)
        return [*steps, *(browser.follow(steps[-1].to) if steps[-1].to else [])]

    def at_home(self, browser: Browser, *, count: int = CALLS, headers: Sequence[tuple[str, str]] = ()) -> Drawn:
        """Ask for the home page with the cookies there are."""
        return browser.draw(HOME, count=count, headers=headers, keep_seen=["x-user"])


@pytest.fixture(scope="module")
def deployed(world: World, istio: IstioClient, intruder: Caller) -> Site:
    """A gateway, a function behind it and a provider; three pods that start side by side."""
    accounts = Accounts({"alice": 300, "mallory": 300, "brief": BRIEF_SECONDS})
    drawn = {"client": accounts.client_secret, "sessions": secrets.token_hex(32), "other-sessions": secrets.token_hex(32)}
    gateway = edge(world, istio, function="portal-function", secrets=drawn)
    world.deploy({
        "portal-function": greeter("portal-function", "v1"),
        "provider": provider(world.namespace, accounts, redirect_uri=CALLBACK),
    })
    gateway.await_up()
    return Site(world, gateway, accounts, intruder)


@pytest.fixture
def site(deployed: Site, manifests: Manifests) -> Site:
    """The site with this check's policies in force."""
    manifests.apply("oauth2.yaml")
    deployed.gateway.await_configured()
    return deployed


@pytest.fixture
def provider_restored(deployed: Site) -> Iterator[None]:
    """The provider is there again for the next check, whatever becomes of this one."""
    yield
    deployed.start_provider()


@requirement("security.oauth2", level="MUST", judge=judge_login)
def test_login_at_the_edge(site: Site, decide: Decide) -> None:
    """Who has no session is sent to the provider, and who logs in there arrives at the function as themselves; a program without a session is told 401."""
    alice, stranger = site.browser(), site.browser()
    visit = site.browser().step(HOME)
    login = site.login(alice, "alice")

    decide(
        issuer=site.issuer,
        visit=visit,
        login=login,
        inside=site.at_home(alice),
        claimed=site.at_home(alice, headers=[("x-user", "mallory"), ("authorization", "Bearer mallory")]),
        cookies={name: value.count(".") == 2 for name, value in alice.cookies.get("edge", {}).items()},
        programs={
            "by header": site.at_home(site.browser(), headers=[("x-requested-with", "XMLHttpRequest")]),
            "by path": site.browser().draw("http://edge/api/home", count=CALLS),
        },
        **{"wrong-password": site.login(stranger, "alice", password="wrong")},  # noqa: S106  # what it says
        **{"after-wrong-password": stranger.step(HOME)},
    )


@requirement("security.oauth2-sessions", level="MUST", judge=judge_sessions)
def test_a_session_cannot_be_changed_lent_or_outlived(site: Site, decide: Decide) -> None:
    """A session is refused when any part of it is changed or missing, at a listener with another secret, and when its token has expired."""
    alice, brief = site.browser(), site.browser()
    site.login(alice, "alice")
    began = time.monotonic()
    last = site.login(brief, "brief")[-1]
    expires = time.monotonic() + BRIEF_SECONDS
    held = alice.cookies.get("edge", {})

    inside = site.at_home(alice)
    changed = {name: alice.copy("edge", {name: altered(value)}).step(HOME) for name, value in held.items() if name != "IdToken"}
    missing = {name: alice.copy("edge", {name: ""}).step(HOME) for name in ("OauthHMAC", "OauthExpires", "BearerToken")}
    elsewhere = alice.copy().step(OTHER, headers=[("Host", "edge")])
    eventually(lambda: past(expires), within=BRIEF_SECONDS + 5.0, every=0.1)

    decide(
        issuer=site.issuer, inside=inside, changed=changed, missing=missing, elsewhere=elsewhere,
        **{"before-expiry": {"step": last, "seconds": expires - BRIEF_SECONDS - began}, "after-expiry": brief.step(HOME)},
    )


@requirement("security.oauth2-state", level="MUST", judge=judge_state)
def test_only_the_browser_that_asked_is_let_in(site: Site, decide: Decide) -> None:
    """The provider's answer lets in the browser that asked for it, once; another browser, a changed or missing state and a made-up code are refused."""
    asking, victim = site.browser(), site.browser()
    answer = site.ask(asking, "alice")[-1].to
    said = parameters(answer)
    thief = asking.copy()
    wrong = {
        "in another browser": (victim, said),
        "state changed": (asking.copy(), {**said, "state": altered(said.get("state", ""))}),
        "state missing": (asking.copy(), {"code": said.get("code", "")}),
        "code made up": (asking.copy(), {**said, "code": secrets.token_urlsafe(24)}),
        "the provider said no": (asking.copy(), {"error": "access_denied", "state": said.get("state", "")}),
    }
    refused = {tried: browser.draw(f"{CALLBACK}?{urlencode(query)}") for tried, (browser, query) in wrong.items()}
    own = asking.follow(answer) if answer else []

    decide(
        issuer=site.issuer, refused=refused, own=own, victim=victim.step(HOME), inside=site.at_home(asking),
        replayed=thief.draw(answer or CALLBACK),
    )


@requirement("security.oauth2-users", level="MUST", judge=judge_users)
def test_a_login_is_not_a_permission(site: Site, caller: Caller, decide: Decide) -> None:
    """The function's own proxy lets in the users whom the policy names; another user, a call past the edge and a forged token never reach the function."""
    alice, mallory = site.browser(), site.browser()
    site.login(alice, "alice")
    site.login(mallory, "mallory")
    function = Greeter(site.world.kube, site.world.namespace, site.world.pod("portal-function"))
    function.reset_counts()

    decide(
        inside=site.at_home(alice),
        **{"other-user": site.at_home(mallory), "past-the-edge": caller.draw(FUNCTION, count=CALLS)},
        forged=caller.draw(FUNCTION, count=CALLS, headers=[("authorization", f"Bearer {unsigned(site.issuer)}")]),
        counts=function.counts(),
    )


@requirement("security.oauth2-logout", level="MUST", judge=judge_logout)
def test_signing_out_ends_the_browser_s_session(site: Site, decide: Decide) -> None:
    """Signing out takes the session's cookies away and the browser is sent to the provider again; a copy made before goes on until it expires."""
    alice = site.browser()
    site.login(alice, "alice")
    copied, before = alice.copy(), site.at_home(alice)
    signout = alice.step("http://edge/signout")

    decide(issuer=site.issuer, before=before, signout=signout, after=alice.step(HOME), copy=site.at_home(copied))


@requirement("security.oauth2-provider-down", level="MUST", judge=judge_provider_down)
@pytest.mark.usefixtures("provider_restored")
def test_without_the_provider_open_sessions_go_on(site: Site, decide: Decide) -> None:
    """When the provider is down, open sessions go on and a login that is under way is answered with an error in bounded time; when it is back, logins work."""
    alice, late = site.browser(), site.browser()
    site.login(alice, "alice")
    answer = site.ask(late, "alice")[-1].to or CALLBACK
    site.world.scale("provider", 0)
    site.world.await_scaled("provider")
    inside, half_way, new = site.at_home(alice), late.step(answer), site.browser().step(HOME)
    site.start_provider()

    decide(issuer=site.issuer, inside=inside, new=new, again=site.login(site.browser(), "alice"), **{"half-way": half_way})


def altered(value: str) -> str:
    """Return the value with its first character changed to another of the same kind."""
    return ("2" if value[:1] != "2" else "3") + value[1:]


def past(moment: float) -> None:
    """Assert that a moment of the monotonic clock is over."""
    left = moment - time.monotonic()
    assert left < 0, f"{left:.1f} s are left"


def unsigned(issuer_: str) -> str:
    """Return a token for alice that says of itself that it needs no signature."""
    head = '{"alg":"none","typ":"JWT"}'
    claims = f'{{"iss":"{issuer_}","sub":"alice","aud":["edge"],"exp":4102444800}}'
    return ".".join(urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in (head, claims)) + "."
