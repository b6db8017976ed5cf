"""The reference authorization policy by HTTP/1.1, HTTP/2 and gRPC: a clause means the same by each of them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from clusters.components.istio.client import IstioClient
from suites.support import permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED_BY_POLICY, DENIED, UNAUTHENTICATED, Case, Client, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.issuer.tokens import Issuer, with_payload

CHECK = "/grpc.health.v1.Health/Check"
FUNCTIONS = (("authorization", "Bearer $functions"),)
GUESTS = (("authorization", "Bearer $guests"),)
FORGED = (("authorization", "Bearer $forged"),)


def clauses(protocol: str, target: str, path: str) -> Iterator[Case]:
    """Yield what every protocol has in common: the full set, and each clause broken alone."""
    may = Case("full-set", ALLOWED_BY_POLICY, "function-sa", target, path=path, headers=FUNCTIONS, protocol=protocol, policy="policy[user-function]")
    may_not = replace(may, expected=DENIED, policy="")
    yield may
    yield replace(may_not, name="another-principal", caller="another-sa")
    yield replace(may_not, name="another-namespace", caller="function-sa-elsewhere")
    yield replace(may_not, name="no-identity", caller="intruder")
    yield replace(may_not, name="no-token", headers=())
    yield replace(may_not, name="another-group", headers=GUESTS)
    yield replace(may_not, name="forged-group", headers=FORGED, expected=UNAUTHENTICATED)


def table() -> Iterator[Case]:
    """Yield each protocol's cases, named by it; the last lines are those that only some protocols have."""
    for prefix, protocol, target, path in (("http1", "http/1.1", "function", "/api/users"), ("h2", "h2", "over-http2", "/api/users"), ("grpc", "grpc", "over-grpc", CHECK)):
        common = list(clauses(protocol, target, path))
        may_not = next(case for case in common if case.name == "another-group")
        own = [
            replace(may_not, name="another-path", headers=FUNCTIONS, path="/admin"), replace(may_not, name="another-method", headers=FUNCTIONS, method="DELETE"),
        ] if protocol != "grpc" else [
            replace(may_not, name="another-method", headers=FUNCTIONS, path="/admin.Users/Delete"),
            replace(may_not, name="another-method-of-the-service", headers=FUNCTIONS, path="/grpc.health.v1.Health/Watch"),
        ]
        yield from (replace(case, name=f"{prefix}-{case.name}") for case in (*common, *own))


CASES = tuple(table())


def judge(evidence: Evidence) -> Verdict:
    """By each protocol only the full set is allowed."""
    return Verdict.of(*permissions.claims(CASES, evidence["policy"]))


@requirement("security.authz-protocols", level="MUST", judge=judge)
def test_a_clause_means_the_same_by_each_protocol(
    clients: Mapping[str, Client], targets: Mapping[str, Target], istio: IstioClient, manifests: Manifests, decide: Decide, *, audited: bool,
) -> None:
    """By HTTP/1.1, HTTP/2 and gRPC alike, a request with every clause of the policy is allowed, and one with a clause broken is refused before the function."""
    issuer = Issuer()
    tokens = {group: issuer.mint(groups=[group]) for group in ("functions", "guests")}
    tokens["forged"] = with_payload(tokens["guests"], groups=["functions"])
    manifests.apply("authz_protocols.yaml", jwks=issuer.jwks())

    decide(policy=permissions.try_all(CASES, clients, targets, istio, values=tokens, audited=audited))
