"""Ways to write a path: what a policy refuses is refused however it is written, and what it allows arrives as it was judged."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clusters.components.istio.client import IstioClient
from suites.support import permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED, ALLOWED_BY_POLICY, DENIED, FORBIDDEN, MALFORMED, Case, Client, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.records import join_key

# Who may not go to /admin at all, by /api or otherwise; each written as a client with raw bytes would.
OUTSIDE = {
    "dot-segment": "/api/../admin",
    "dot-segment-twice": "/api/x/../../admin",
    "encoded-dots": "/api/%2e%2e/admin",
    "half-encoded-dots": "/api/.%2e/admin",
    "encoded-slash": "/api/..%2fadmin",
    "encoded-slash-upper-case": "/api/..%2Fadmin",
    "encoded-dots-and-slash": "/api/%2e%2e%2fadmin",
    "backslash": "/api/..\\admin",
    "encoded-backslash": "/api/..%5cadmin",
    "double-slash-in-front": "//admin",
    "upper-case": "/API/users",
    "encoded-letter-elsewhere": "/%61dmin",
    "fragment": "/admin#/api/users",
}
# Who may go to /api may still not go to /api/admin.
INSIDE = {
    "plain": "/api/admin",
    "double-slash": "/api//admin",
    "many-slashes": "/api////admin/users",
    "trailing-slash": "/api/admin/",
    "dot": "/api/./admin",
    "detour": "/api/x/../admin",
    "encoded-slash": "/api%2fadmin",
    "encoded-letter": "/api/%61dmin",
    "encoded-backslash": "/api%5cadmin",
    # Finding: dot segments are resolved before slashes are merged, so this one does not lead out of /api.
    "slashes-and-dots": "/api//..//../admin",
    "query": "/api/admin?x=/api/users",
}
# What is allowed, and how the function must then see it: as the policy judged it.
ARRIVES = {
    "plain": ("/api/users", "/api/users"),
    "dot": ("/api/./users", "/api/users"),
    "detour": ("/api/x/../users", "/api/users"),
    "double-slash": ("/api//users", "/api/users"),
    "encoded-slash": ("/api/users%2f42", "/api/users/42"),
    "encoded-letter": ("/api/%75sers", "/api/users"),
    "from-outside": ("/admin/../api/users", "/api/users"),
    "fragment": ("/api/users#/../admin", "/api/users"),
}
# Finding: Envoy decodes once. What is encoded twice, and what only some servers take for a dot segment, is a name like any other to
# the policy and arrives as such; a function that decodes once more, or cuts off `;`, is on its own.
LITERAL = {
    "encoded-twice": ("/api/%252e%252e/admin", "/api/%252e%252e/admin"),
    "path-parameter": ("/api/..;/admin", "/api/..;/admin"),
    "upper-case-of-the-forbidden": ("/api/ADMIN", "/api/ADMIN"),
}
CASES = (
    *(Case(f"outside-{name}", DENIED, path=path) for name, path in OUTSIDE.items()),
    *(Case(f"inside-{name}", FORBIDDEN, path=path, policy="policy[forbidden-paths]") for name, path in INSIDE.items()),
    *(Case(f"arrives-{name}", ALLOWED_BY_POLICY, path=path, policy="policy[allowed-paths]") for name, (path, _) in ARRIVES.items()),
    *(Case(f"literal-{name}", ALLOWED_BY_POLICY, path=path, policy="policy[allowed-paths]") for name, (path, _) in LITERAL.items()),
    Case("malformed-nul", MALFORMED, path="/api/%00/admin"),
)
# Beside the mesh, so that nothing but the function's own proxy has had a look at the bytes.
RAW = tuple(replace(case, name=f"raw-{case.name}", caller="intruder") for case in CASES)
CONTROLS = tuple(
    Case(f"control-{name}", ALLOWED, "intruder", "open", path=path) for name, path in (("admin", "/admin"), ("api-admin", "/api/admin"), ("upper-case", "/API/users"))
)


def judge(evidence: Evidence) -> Verdict:
    """Whatever is refused plainly is refused in disguise; the function sees paths as they were judged."""
    trial = evidence["policy"]
    return Verdict.of(*permissions.claims((*CASES, *RAW, *CONTROLS), trial), as_judged("the-function-sees-the-path-that-was-judged", trial))


def as_judged(name: str, trial: Mapping[str, Any]) -> Claim:
    """Claim that the function wrote down each allowed path as the policy saw it: normalized, or literally."""
    draws = trial["draws"]
    paths = {join_key(line["request_id"]): line["path"] for lines in trial["said"].values() for line in lines}
    wanted = {f"{raw}{group}-{case}": path for raw in ("", "raw-") for group, table in (("arrives", ARRIVES), ("literal", LITERAL)) for case, (_, path) in table.items()}
    seen = {case: {paths.get(join_key(record["request_id"]), "") for record in draws[case]["records"]} for case in wanted if case in draws}
    wrong = {case: sorted(path) for case, path in seen.items() if path != {wanted[case]}}
    if wrong and all(any(path) for path in wrong.values()):
        case, path = next(iter(wrong.items()))
        return Claim(name, held=False, said=f"{len(wrong)} of {len(wanted)} paths arrived otherwise, {case} as {', '.join(path)}", expected=wanted[case], got=", ".join(path))
    if wrong or not seen:
        return Claim(name, held=None, said=f"{len(wrong)} of {len(wanted)} paths are not in the function's log")
    return Claim(name, held=True, said=f"all {len(wanted)} paths arrived as they were judged")


@requirement("security.authz-paths", level="MUST", judge=judge)
def test_a_forbidden_path_is_refused_however_it_is_written(
    clients: Mapping[str, Client], targets: Mapping[str, Target], istio: IstioClient, manifests: Manifests, decide: Decide, *, audited: bool,
) -> None:
    """A path that a policy refuses is refused with dot segments, encoded or repeated slashes, backslashes or encoded letters in it, and the function sees what was judged."""
    manifests.apply("authz_paths.yaml")

    callers = {"caller": clients["another-sa"], "intruder": clients["intruder"]}
    decide(policy=permissions.try_all((*CASES, *RAW, *CONTROLS), callers, targets, istio, audited=audited))
