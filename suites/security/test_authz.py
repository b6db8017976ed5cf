"""The reference authorization policy: who, from where, how, what, and with which claim."""

from collections.abc import Mapping
from dataclasses import replace

from clusters.components.istio.client import IstioClient
from suites.support import permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED, ALLOWED_BY_POLICY, DENIED, UNAUTHENTICATED, Case, Client, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.issuer.tokens import Issuer, with_payload

FUNCTIONS = (("authorization", "Bearer $functions"),)
ADMINS = (("authorization", "Bearer $admins"),)
GUESTS = (("authorization", "Bearer $guests"),)
FORGED = (("authorization", "Bearer $forged"),)
POLICY = "policy[user-function]"
MAY = Case("", ALLOWED_BY_POLICY, "function-sa", headers=FUNCTIONS, policy=POLICY)
MAY_NOT = Case("", DENIED, "function-sa", headers=FUNCTIONS)

CASES = (
    # The full set, and each clause's other values.
    replace(MAY, name="full-set"),
    replace(MAY, name="post", method="POST"),
    replace(MAY, name="group-admins", headers=ADMINS),
    replace(MAY, name="deeper-path", path="/api/users/42/orders"),
    replace(MAY, name="shortest-path", path="/api/"),
    replace(MAY, name="with-query", path="/api/users?next=/admin"),
    # Who.
    replace(MAY_NOT, name="another-principal", caller="another-sa"),
    replace(MAY_NOT, name="another-namespace", caller="function-sa-elsewhere"),
    replace(MAY_NOT, name="no-identity", caller="intruder"),
    # How.
    *(replace(MAY_NOT, name=f"method-{method.lower()}", method=method) for method in ("PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")),
    # What.
    replace(MAY_NOT, name="another-path", path="/admin"),
    replace(MAY_NOT, name="root-path", path="/"),
    replace(MAY_NOT, name="path-without-slash", path="/api"),
    replace(MAY_NOT, name="path-of-the-same-beginning", path="/apis/users"),
    replace(MAY_NOT, name="path-with-the-allowed-one-inside", path="/admin/api/users"),
    replace(MAY_NOT, name="path-in-the-query", path="/admin?path=/api/users"),
    # With which claim.
    replace(MAY_NOT, name="no-token", headers=()),
    replace(MAY_NOT, name="another-group", headers=GUESTS),
    replace(MAY_NOT, name="forged-group", headers=FORGED, expected=UNAUTHENTICATED),
    # Two clauses at once, and all of them.
    replace(MAY_NOT, name="another-principal-and-method", caller="another-sa", method="DELETE"),
    replace(MAY_NOT, name="another-path-and-group", path="/admin", headers=GUESTS),
    replace(MAY_NOT, name="nothing-right", caller="intruder", method="DELETE", path="/admin", headers=()),
)
# The same requests where no policy is: what is refused above is refused by the policy, not by the way there.
CONTROLS = tuple(replace(case, expected=ALLOWED, target="open", policy="") for case in CASES)


def judge(evidence: Evidence) -> Verdict:
    """Only the full set is allowed; a function without the policy answers all of it."""
    return Verdict.of(*permissions.claims(CASES, evidence["policy"]), *permissions.claims(CONTROLS, evidence["control"], prefix="control-"))


@requirement("security.authz", level="MUST", judge=judge)
def test_only_the_full_set_of_clauses_is_allowed(
    clients: Mapping[str, Client], targets: Mapping[str, Target], istio: IstioClient, manifests: Manifests, decide: Decide, *, audited: bool,
) -> None:
    """A request is allowed only when principal, namespace, method, path and claim are all the policy's; with any of them broken it never reaches the function."""
    issuer = Issuer()
    tokens = {group: issuer.mint(groups=[group]) for group in ("functions", "admins", "guests")}
    tokens["forged"] = with_payload(tokens["guests"], groups=["functions"])
    manifests.apply("authz.yaml", jwks=issuer.jwks())

    decide(**{
        name: permissions.try_all(cases, clients, targets, istio, values=tokens, audited=audited)
        for name, cases in (("policy", CASES), ("control", CONTROLS))
    })
