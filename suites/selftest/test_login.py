"""The claims of the checks of login, permissions, secrets and pod security, on evidence made by hand."""

from types import SimpleNamespace

import pytest

from suites.support import judges, requirements
from workloads.browser import Browser, parameters
from workloads.records import CallRecord, Draw

FOUND = requirements.discover()


def claims_of(requirement_id):
    """The functions of a check's file: nothing imports a test, but a judge knows its neighbours."""
    return SimpleNamespace(**FOUND[requirement_id].judge.__globals__)


oauth2, rbac, tokens, kept, pod_security = map(claims_of, ("security.oauth2", "security.rbac", "security.rbac-tokens", "security.secrets", "security.pod-security"))

PROVIDER = "http://provider.ns"
ASKED = {"response_type": "code", "client_id": "edge", "redirect_uri": oauth2.CALLBACK, "scope": "openid", "code_challenge_method": "S256", "state": "-", "code_challenge": "-"}


def step(status=302, at=oauth2.HOME, *, to="", parameters=None, cookies=None, version="", seconds=0.1, error=""):
    return {"status": status, "at": at, "to": to, "parameters": parameters or {}, "cookies": cookies or {}, "version": version, "seconds": seconds, "error": error}


TO_LOGIN = step(to=f"{PROVIDER}/auth", parameters=ASKED)
GUARDED = {"kept": True, "attributes": ["path=/", "secure", "HttpOnly", "SameSite=Lax"]}
GONE = {"kept": False, "attributes": []}


@pytest.mark.parametrize(
    ("seen", "held"),
    [
        (TO_LOGIN, True), (step(403), False), (step(200, version="v1"), False), (step(to="http://elsewhere/auth", parameters=ASKED), False),
        (step(to=f"{PROVIDER}/auth", parameters={**ASKED, "code_challenge_method": "plain"}), False),
        (step(to=f"{PROVIDER}/auth", parameters={key: value for key, value in ASKED.items() if key != "state"}), False),
        (step(307, to=f"{PROVIDER}/auth", parameters=ASKED), False), (step(0, error="read: EOF"), None),
    ],
)
def test_a_visitor_is_sent_to_the_provider_with_all_that_belongs_to_it(seen, held):
    assert oauth2.sent_to_login("x", seen, PROVIDER).held is held
    assert oauth2.all_sent_to_login("x", {"one": TO_LOGIN, "other": seen}, PROVIDER).held is held


def test_nobody_sent_anywhere_settles_nothing():
    assert oauth2.all_sent_to_login("x", {}, PROVIDER).held is None


@pytest.mark.parametrize(
    ("steps", "held"),
    [([step(302), step(200)], True), ([step(302)], False), ([step(302), step(403)], False), ([step(302), step(200), step(200)], False),
     ([], None), ([step(302), step(0)], None)],
)
def test_a_way_is_as_declared_and_no_longer(steps, held):
    assert oauth2.went("x", steps, [(302, oauth2.HOME), (200, oauth2.HOME)]).held is held


@pytest.mark.parametrize(
    ("cookies", "held"),
    [
        ({"OauthHMAC": GUARDED, "BearerToken": GUARDED}, True), ({"OauthNonce": GUARDED}, None), ({}, None),
        *(({"OauthHMAC": {"kept": True, "attributes": [one for one in GUARDED["attributes"] if one != lacking]}}, False) for lacking in GUARDED["attributes"][1:]),
        ({"OauthHMAC": GUARDED, "OauthNonce": GONE}, True),
    ],
)
def test_every_cookie_that_is_kept_is_guarded(cookies, held):
    assert oauth2.guarded("x", [step(cookies=cookies)]).held is held


@pytest.mark.parametrize(("cookies", "held"), [({"BearerToken": False}, True), ({"BearerToken": False, "IdToken": True}, False), ({}, None)])
def test_a_readable_token_is_not_sealed(cookies, held):
    assert oauth2.sealed("x", cookies).held is held


@pytest.mark.parametrize(
    ("seen", "held"),
    [
        (step(cookies=dict.fromkeys(("OauthHMAC", "BearerToken", "IdToken"), GONE)), True),
        (step(cookies=dict.fromkeys(("OauthHMAC", "BearerToken"), GONE)), False), (step(200), False), (step(0), None),
    ],
)
def test_signing_out_takes_all_of_a_session(seen, held):
    assert oauth2.taken_away("x", seen).held is held


@pytest.mark.parametrize(
    ("seen", "held"),
    [
        (step(401), True), (step(503), True), (step(503, seconds=11), False), (step(302), False), (step(200, version="v1"), False), (step(0), False),
        (step(401, cookies={"OauthHMAC": GUARDED}), False),
    ],
)
def test_a_clear_failure_is_an_error_in_time_without_a_session(seen, held):
    assert oauth2.failed_clearly("x", seen, within_s=10).held is held


@pytest.mark.parametrize(
    ("status", "seconds", "held"), [(200, 1, True), (200, 9, True), (302, 1, False), (302, 9, None), (0, 1, None)],
)
def test_a_login_that_took_too_long_says_nothing_of_a_brief_session(status, seconds, held):
    assert oauth2.taken_in_time("x", {"step": step(status, version="v1" if status == 200 else ""), "seconds": seconds}, 3).held is held


@pytest.mark.parametrize(("statuses", "total", "held"), [([200, 200], 2, True), ([200, 200], 3, False), ([200, 200], 1, None), ([200, 0], 2, None), ([403], 0, None)])
def test_no_more_arrived_than_were_let_in(statuses, total, held):
    draw = {"count": len(statuses), "records": [{"status": status} for status in statuses]}
    assert oauth2.arrived("x", draw, {"total": total}).held is held


def reply(status, reason=""):
    return {"status": status, "reason": reason or {403: "Forbidden", 404: "NotFound"}.get(status, "")}


@pytest.mark.parametrize(
    ("statuses", "held"), [([403, 403], True), ([403, 200], False), ([403, 404], False), ([403, 400], False), ([403, 503], None), ([403, 401], None), ([403], None), ([], None)],
)
def test_only_the_authorizer_s_refusal_is_forbidden(statuses, held):
    assert rbac.forbidden("x", {str(at): reply(status) for at, status in enumerate(statuses)}, least=2).held is held


def test_a_403_of_something_else_is_not_forbidden():
    assert rbac.forbidden("x", {"one": reply(403, "Invalid")}).held is False


@pytest.mark.parametrize(("statuses", "held"), [([200], True), ([200, 403], False), ([401], False), ([500], None), ([], None)])
def test_what_is_allowed_is_answered(statuses, held):
    assert rbac.allowed("x", {str(at): reply(status) for at, status in enumerate(statuses)}).held is held


@pytest.mark.parametrize(
    ("rules", "incomplete", "held"),
    [
        (rbac.RULES, False, True), ([*rbac.RULES, *rbac.DEFAULTS], False, True), (rbac.RULES, True, None), ([], False, False),
        ([*rbac.RULES, {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}], False, False),
        ([{**rbac.RULES[0], "resourceNames": []}], False, False), ([{**rbac.RULES[0], "verbs": ["*"]}], False, False),
    ],
)
def test_rules_are_the_declared_ones_and_the_defaults(rules, incomplete, held):
    assert rbac.rules("x", {"rules": rules, "incomplete": incomplete}).held is held


def looked(files=(), environment=(), searched=5):
    return {"files": list(files), "environment": list(environment), "files_searched": searched, "variables_searched": 1}


MOUNTED = looked([tokens.MOUNTED_AT + "token"])


@pytest.mark.parametrize(
    ("without", "control", "held"),
    [(looked(), MOUNTED, True), (looked(["/a"]), MOUNTED, False), (looked(environment=["A"]), MOUNTED, False), (looked(), looked(), None), (looked(searched=0), MOUNTED, None)],
)
def test_no_token_is_found_by_a_search_that_sees(without, control, held):
    assert tokens.tokenless("x", without, control=control).held is held


@pytest.mark.parametrize(("claims", "held"), [({"iat": 1, "exp": 601}, True), ({"iat": 1, "exp": 602}, False), ({}, False)])
def test_a_token_lasts_exactly_as_long_as_asked(claims, held):
    assert tokens.lasts("x", claims, 600).held is held


@pytest.mark.parametrize(("got", "held"), [(403, True), (200, False), (500, None), (0, None)])
def test_the_api_server_answers_as_wanted(got, held):
    assert judges.api_answered("x", got, 403).held is held


@pytest.mark.parametrize(
    ("seen", "held"), [({"status": 200, "seal": "a"}, True), ({"status": 200, "seal": "b"}, False), ({"status": 200, "seal": ""}, False), ({"status": 503, "seal": ""}, None)],
)
def test_a_seal_shows_the_secret(seen, held):
    assert kept.has("x", {"expected": "a", "seconds": 1.0, **seen}).held is held


@pytest.mark.parametrize(
    ("places", "logs", "held"),
    [([kept.AT_HOME + "value"], 3, True), ([kept.AT_HOME + "value", "log of greeter in a"], 3, False), ([], 3, None), ([kept.AT_HOME + "value"], 0, None)],
)
def test_a_value_is_in_its_own_file_only(places, logs, held):
    assert kept.nowhere_else("x", {"places": places, "looked_at": {"logs": logs, "files": 1}}).held is held


def test_the_scan_must_find_every_leak():
    assert kept.leaks_found("x", {"places": [f"{leak}-abc" for leak in kept.LEAKS]}).held is True
    assert all(kept.leaks_found("x", {"places": [one for one in kept.LEAKS if one != leak]}).held is False for leak in kept.LEAKS)


def test_another_pod_is_not_the_same():
    assert kept.same_pod("x", {"before": {"uid": "a", "restarts": 0}, "after": {"uid": "a", "restarts": 0}}).held is True
    assert kept.same_pod("x", {"before": {"uid": "a", "restarts": 0}, "after": {"uid": "a", "restarts": 1}}).held is False


@pytest.mark.parametrize(("status", "held"), [(201, True), (403, False), (500, None)])
def test_every_pod_is_taken(status, held):
    assert pod_security.all_taken("x", {"a": {"status": 201, "message": ""}, "b": {"status": status, "message": "m"}}).held is held
    assert pod_security.all_taken("x", {}).held is None


@pytest.mark.parametrize(
    ("answer", "held"), [((403, "privileged (x)"), True), ((403, "quota"), False), ((201, ""), False), ((500, ""), None)],
)
def test_a_pod_is_refused_for_the_right_reason(answer, held):
    seen = {"a": {"status": answer[0], "message": answer[1]}}
    assert pod_security.refused_for("x", seen, {"a": ("privileged (",)}).held is held
    assert pod_security.refused_for("x", {}, {"a": ("privileged (",)}).held is None


def test_a_function_that_is_refused_does_not_answer():
    calls = {"count": 5, "records": [{"index": at, "status": 200, "version": "restricted"} for at in range(5)]}
    assert pod_security.answered("x", {"failure": "", "calls": calls}).held is True
    assert pod_security.answered("x", {"failure": "violates PodSecurity", "calls": None}).held is False
    assert pod_security.answered("x", {"failure": "", "calls": None}).held is None


class Answering:
    """A caller whose calls are answered from a list, and which keeps what was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def draw(self, url, **asked):
        status, headers = self.answers.pop(0)
        self.asked.append((url, asked))
        return Draw(url, "GET", 1, 1, (CallRecord(0, status, "", 1.0, 0.0, headers=headers),), "", 0.0)


def test_a_browser_keeps_cookies_until_they_are_taken_away_and_says_nothing_secret():
    caller = Answering(
        (302, {"location": ["http://b/next?code=secret&state=t"], "set-cookie": ["s=value; Secure", "t=1; HttpOnly"]}),
        (302, {"location": ["http://a:81/home"]}), (200, {"set-cookie": ["s=; Max-Age=0"]}), (200, {}),
    )
    browser = Browser(caller)
    steps = browser.follow("http://a/home?x=1")
    browser.step("http://a/again")

    sent = [dict(asked["headers"]).get("cookie") for _, asked in caller.asked]
    assert [one.status for one in steps] == [302, 302, 200]
    assert sent == [None, None, "s=value; t=1", "t=1"]
    assert parameters(steps[0].to)["code"] == "secret"
    assert "secret" not in str(steps[0].to_json())
    assert "value" not in str(steps[0].to_json()["cookies"])


def test_a_copied_browser_goes_its_own_way():
    browser = Browser(Answering(), {"a": {"s": "1", "t": "2"}})
    copied = browser.copy("a", {"s": "", "t": "3"})
    assert (copied.cookies, browser.cookies) == ({"a": {"t": "3"}}, {"a": {"s": "1", "t": "2"}})
