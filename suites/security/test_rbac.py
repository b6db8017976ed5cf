"""Kubernetes' own permissions: what a function's ServiceAccount may ask of the API server, shown by asking for everything there is."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from clusters.apiserver import ApiServer, status_of
from clusters.identities import acting, token_of
from clusters.kube import Kube
from clusters.waiting import TimedOut, eventually
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.fixtures import World

OK, UNAUTHORIZED, FORBIDDEN = 200, 401, 403
# An ordinary cluster serves several hundred pairs of resource and verb; fewer were not all of them.
LEAST_ASKED = 300
AT_ONCE = 8
REVOKED_WITHIN_S = 10.0
METHODS = {
    "get": "GET", "list": "GET", "watch": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE",
}
OF_ONE = frozenset({"get", "update", "patch", "delete"})
RULES = [{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["settings"]}]
# What Kubernetes gives every ServiceAccount (documentation, RBAC, default roles): to ask about oneself (system:basic-user), and, a
# finding, to read every ClusterTrustBundle (system:cluster-trust-bundle-discovery).
DEFAULTS = [
    {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
    {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
    {"verbs": ["get", "list", "watch"], "apiGroups": ["certificates.k8s.io"], "resources": ["clustertrustbundles"]},
]
Answers = Mapping[str, Mapping[str, Any]]


def judge(evidence: Evidence) -> Verdict:
    """The list is allowed, all else that the API server serves is forbidden, and the right ends with its binding."""
    return Verdict.of(
        allowed("the-list-is-allowed", evidence["listed"]),
        forbidden("everything-else-is-forbidden", evidence["others"], least=LEAST_ASKED),
        rules("the-rules-are-the-list", evidence["rules"]),
        forbidden("a-revoked-right-is-gone", evidence["revoked"]),
        allowed("another-account-s-right-stays", evidence["twin"]),
    )


def allowed(name: str, answers: Answers) -> Claim:
    """Claim that every request was answered 200."""
    other = {asked: one for asked, one in answers.items() if one["status"] != OK}
    denied = {asked: one for asked, one in other.items() if one["status"] in (UNAUTHORIZED, FORBIDDEN)}
    if denied:
        return Claim(name, held=False, said=f"refused: {_shown(denied)}", expected="200 each", got=_shown(denied))
    if other or not answers:
        return Claim(name, held=None, said=f"answered otherwise: {_shown(other)}" if other else "nothing was asked")
    return Claim(name, held=True, said=f"{len(answers)} requests were answered 200: {', '.join(answers)}")


def forbidden(name: str, answers: Answers, *, least: int = 1) -> Claim:
    """Claim that every request was answered 403 by the authorizer, whatever else would have been wrong with it, of at least `least`.

    The authorizer is asked before an object is looked up and before a body is read: any answer of a later stage (200, 404, 400)
    means that it let the request through. A server's error, or 429, says neither.
    """
    unclear = {asked: one for asked, one in answers.items() if one["status"] == 0 or one["status"] == UNAUTHORIZED or one["status"] in (429, *range(500, 600))}
    passed = {asked: one for asked, one in answers.items() if asked not in unclear and (one["status"] != FORBIDDEN or one["reason"] != "Forbidden")}
    if passed:
        return Claim(name, held=False, said=f"{len(passed)} of {len(answers)} requests were let through: {_shown(passed)}", expected="403 each", got=_shown(passed))
    if unclear or len(answers) < least:
        return Claim(name, held=None, said=f"{len(unclear)} of {len(answers)} requests have no answer of the authorizer; {least} are wanted: {_shown(unclear)}")
    return Claim(name, held=True, said=f"all {len(answers)} requests were answered 403 Forbidden")


def rules(name: str, seen: Mapping[str, Any]) -> Claim:
    """Claim that the API server's own list of what an account may is exactly the Role's, the defaults of every cluster left out."""
    listed = {pair for rule in seen["rules"] for pair in _pairs(rule)} - _DEFAULT_PAIRS
    declared = {pair for rule in RULES for pair in _pairs(rule)}
    if listed != declared:
        more, less = sorted(listed - declared), sorted(declared - listed)
        return Claim(name, held=False, said=f"too many: {more}; missing: {less}", expected="exactly the list", got=f"{len(more)} too many, {len(less)} missing")
    if seen["incomplete"]:
        return Claim(name, held=None, said="the API server says that its list is not complete")
    return Claim(name, held=True, said=f"{len(listed)} pairs of verb and resource, as declared")


@dataclass(frozen=True)
class Asking:
    """Requests in the name of one ServiceAccount; none of them changes anything: what would is asked as a dry run."""

    api: ApiServer
    namespace: str

    def ask(self, verb: str, path: str, query: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """Make one request and say what came of it, in the API server's words."""
        method = METHODS[verb]
        dry = [("dryRun", "All")] if method != "GET" else []
        # Belt and braces: should this ever be allowed, and not dry, it would still meet nothing.
        none = [("labelSelector", "faasmesh.dev/never=met")] if verb == "deletecollection" else []
        watch = [("watch", "true"), ("timeoutSeconds", "1")] if verb == "watch" else []
        body = b"{}" if method in ("POST", "PUT", "PATCH") else None
        kind = {"content-type": "application/merge-patch+json" if method == "PATCH" else "application/json"} if body else {}
        answer = self.api.send(method, path, query=[*dry, *none, *watch, *query], headers=kind, body=body)
        return {"status": answer.status, "reason": str((status_of(answer) or {}).get("reason", ""))}

    def everything(self, requests: Iterable[tuple[str, str, str]]) -> dict[str, dict[str, Any]]:
        """Make many requests, each a name, a verb and a path."""
        asked = list(requests)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = pool.map(lambda one: self.ask(one[1], one[2]), asked)
            return {name: answer for (name, _, _), answer in zip(asked, answers, strict=True)}

    def listed(self) -> dict[str, dict[str, Any]]:
        """Make the three requests that the list allows."""
        settings, named = f"/api/v1/namespaces/{self.namespace}/configmaps", [("fieldSelector", "metadata.name=settings")]
        return {"get": self.ask("get", f"{settings}/settings"), "list": self.ask("list", settings, named), "watch": self.ask("watch", settings, named)}


def everything_served(kube: Kube, namespace: str) -> Iterator[tuple[str, str, str]]:
    """Yield a name, a verb and a path for each verb of each resource and subresource that the API server says it serves.

    Namespaced ones are asked in `namespace`, lists in all namespaces as well. Objects are named as the one that may be read: a
    Role that names it and is too wide in its resources would show; of other kinds there is none of that name to be hit. What the
    list allows is not among them, its neighbours are.
    """
    for version in _versions(kube):
        for resource in kube.server.call("GET", version)["resources"]:
            plural, _, sub = resource["name"].partition("/")
            for verb in resource["verbs"]:
                if verb not in METHODS or (verb, version.removeprefix("/apis/").rpartition("/")[0], resource["name"], "") in _DEFAULT_PAIRS:
                    continue
                inside = f"{version}/namespaces/{namespace}/{plural}" if resource["namespaced"] else f"{version}/{plural}"
                one = f"{inside}/settings/{sub}" if sub else f"{inside}/settings"
                if (verb, version, plural) == ("get", "/api/v1", "configmaps"):
                    continue
                yield f"{verb} {version} {resource['name']}", verb, one if sub or verb in OF_ONE else inside
                if resource["namespaced"] and verb == "list":
                    yield f"{verb} {version} {resource['name']} everywhere", verb, f"{version}/{plural}"
    named = f"/api/v1/namespaces/{namespace}/configmaps"
    yield "get another ConfigMap", "get", f"{named}/other-settings"
    yield "get the ConfigMap of that name elsewhere", "get", "/api/v1/namespaces/default/configmaps/settings"


def _versions(kube: Kube) -> list[str]:
    groups = kube.server.call("GET", "/apis")["groups"]
    return ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]


def _pairs(rule: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (verb, group, resource, name)
        for verb in rule.get("verbs") or [] for group in rule.get("apiGroups") or [] for resource in rule.get("resources") or []
        for name in rule.get("resourceNames") or [""]
    ]


_DEFAULT_PAIRS = frozenset(pair for rule in DEFAULTS for pair in _pairs(rule))


def _shown(answers: Answers, most: int = 5) -> str:
    first = ", ".join(f"{asked} {one['status']} {one['reason']}".strip() for asked, one in list(answers.items())[:most])
    return f"{first}{f' and {len(answers) - most} more' if len(answers) > most else ''} ({dict(Counter(one['status'] for one in answers.values()))})"


def rules_of(api: ApiServer, namespace: str) -> dict[str, Any]:
    """Ask the API server what the asking account may in a namespace."""
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    said = api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body=body)["status"]
    return {"rules": said["resourceRules"], "incomplete": bool(said.get("incomplete"))}


def settled(asking: Asking, wanted: int) -> None:
    """Wait until a listed request is answered `wanted`, the authorizer hears of a binding a moment later; what comes then is for the draw to show."""
    def answered() -> None:
        got = asking.ask("get", f"/api/v1/namespaces/{asking.namespace}/configmaps/settings")["status"]
        assert got == wanted, f"still answered {got}"

    with suppress(TimedOut):
        eventually(answered, within=REVOKED_WITHIN_S, every=0.1, subject=f"the right is not answered {wanted}")


@requirement("security.rbac", level="MUST", judge=judge)
def test_a_function_may_what_its_role_lists(world: World, manifests: Manifests, decide: Decide) -> None:
    """Of everything that the API server serves, a function's ServiceAccount may exactly what its Role lists, and nothing once the binding is gone."""
    manifests.apply("rbac.yaml")
    reader, auditor = (
        Asking(acting(world.kube, token_of(world.kube, world.namespace, account)), world.namespace) for account in ("reader", "auditor")
    )
    settled(reader, OK)
    listed, others = reader.listed(), reader.everything(everything_served(world.kube, world.namespace))
    allowed_rules = rules_of(reader.api, world.namespace)

    manifests.apply("rbac.revoked.yaml")
    settled(reader, FORBIDDEN)

    decide(listed=listed, others=others, rules=allowed_rules, revoked=reader.listed(), twin=auditor.listed())
