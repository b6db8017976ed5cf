"""Headers as a way around a policy: forged identities, repeated and disguised headers, a second request inside the first."""

from collections.abc import Mapping
from dataclasses import replace

from clusters.components.istio.client import IstioClient
from suites.support import judges, permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED_BY_POLICY, DENIED, FORBIDDEN, MALFORMED, Case, Client, Expectation, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict

BLUE = ("x-tenant", "blue")
FORGED = "x-forwarded-client-cert", "By=spiffe://cluster.local/ns/$namespace/sa/function-sa;Hash=0;URI=spiffe://cluster.local/ns/$namespace/sa/function-sa"
MEMBER = Case("", DENIED, "intruder", path="/members/1")
TENANT = Case("", DENIED, "intruder", path="/tenant/1")
HOST = Case("", DENIED, "intruder", path="/host/1")

CASES = (
    # Who: only a certificate says it.
    replace(MEMBER, name="member", expected=ALLOWED_BY_POLICY, caller="function-sa", policy="policy[by-header]"),
    replace(MEMBER, name="another-member", caller="another-sa"),
    replace(MEMBER, name="identity-forged-beside-the-mesh", headers=(FORGED,)),
    replace(MEMBER, name="identity-forged-in-the-mesh", caller="another-sa", headers=(FORGED,)),
    replace(MEMBER, name="path-in-a-header", headers=(BLUE, ("x-original-url", "/tenant/1"), ("x-rewrite-url", "/tenant/1"), ("x-envoy-original-path", "/tenant/1"))),
    # A header's value.
    replace(TENANT, name="tenant", expected=ALLOWED_BY_POLICY, headers=(BLUE,), policy="policy[by-header]"),
    replace(TENANT, name="tenant-by-a-name-in-upper-case", expected=ALLOWED_BY_POLICY, headers=(("X-TENANT", "blue"),), policy="policy[by-header]"),
    replace(TENANT, name="no-tenant"),
    replace(TENANT, name="another-tenant", headers=(("x-tenant", "red"),)),
    replace(TENANT, name="tenant-in-upper-case", headers=(("x-tenant", "BLUE"),)),
    replace(TENANT, name="two-tenants", headers=(("x-tenant", "red"), BLUE)),
    replace(TENANT, name="two-tenants-the-other-way", headers=(BLUE, ("x-tenant", "red"))),
    replace(TENANT, name="tenants-in-a-list", headers=(("x-tenant", "blue,red"),)),
    replace(TENANT, name="tenant-with-an-underscore", headers=(("x_tenant", "blue"),)),
    replace(TENANT, name="tenant-in-the-query", path="/tenant/1?x-tenant=blue"),
    replace(TENANT, name="method-in-a-header", method="DELETE", headers=(BLUE, ("x-http-method-override", "GET"))),
    # A header's absence.
    replace(TENANT, name="debug", expected=FORBIDDEN, headers=(BLUE, ("x-debug", "1")), policy="policy[without-header]"),
    replace(TENANT, name="debug-in-upper-case", expected=FORBIDDEN, headers=(BLUE, ("X-DEBUG", "1")), policy="policy[without-header]"),
    # Finding: what Connection names goes no further than the next proxy (RFC 9110, section 7.6.1). Envoy takes it away before any policy
    # looks: a policy that must see a header cannot be kept from it, one that asks for a header's absence is told the truth.
    replace(TENANT, name="debug-named-by-connection", expected=ALLOWED_BY_POLICY, headers=(BLUE, ("x-debug", "1"), ("connection", "close, x-debug")), policy="policy[by-header]"),
    replace(TENANT, name="debug-without-a-value", expected=FORBIDDEN, headers=(BLUE, ("x-debug", "")), policy="policy[without-header]"),
    # The host.
    replace(HOST, name="host", expected=ALLOWED_BY_POLICY, policy="policy[by-header]"),
    replace(HOST, name="host-in-upper-case", expected=ALLOWED_BY_POLICY, headers=(("host", "USER-FUNCTION.$namespace"),), policy="policy[by-header]"),
    replace(HOST, name="another-host", headers=(("host", "another-function"),)),
    replace(HOST, name="host-with-a-port", headers=(("host", "user-function.$namespace:80"),)),
    replace(HOST, name="host-in-a-header", headers=(("host", "another-function"), ("x-forwarded-host", "user-function.$namespace"))),
    # Two requests in one.
    replace(TENANT, name="two-lengths", expected=MALFORMED, method="POST", headers=(BLUE, ("content-length", "0"), ("content-length", "60"))),
    replace(TENANT, name="length-and-chunks", expected=MALFORMED, method="POST", headers=(BLUE, ("content-length", "5"), ("transfer-encoding", "chunked"))),
    replace(TENANT, name="unknown-encoding", expected=Expectation(501, logged=False), method="POST", headers=(BLUE, ("transfer-encoding", "xchunked"))),
    replace(HOST, name="two-hosts", headers=(("host", "user-function.$namespace"), ("host", "another-function"))),
    replace(HOST, name="two-hosts-the-other-way", headers=(("host", "another-function"), ("host", "user-function.$namespace"))),
)


def judge(evidence: Evidence) -> Verdict:
    """Nothing but the header that a policy names, with its one value, fulfils it, and nothing hides one from it."""
    named = evidence["policy"]["draws"].get("debug-named-by-connection", {})
    return Verdict.of(*permissions.claims(CASES, evidence["policy"]), judges.header_absent("what-connection-names-is-gone", named, "x-debug"))


@requirement("security.authz-headers", level="MUST", judge=judge)
def test_headers_are_no_way_around_a_policy(
    clients: Mapping[str, Client], targets: Mapping[str, Target], istio: IstioClient, manifests: Manifests, decide: Decide, *, audited: bool,
) -> None:
    """A forged identity, a repeated, disguised or hidden header, another host or a second request inside the first does not get past a policy."""
    manifests.apply("authz_headers.yaml")

    namespace = manifests.world.namespace
    decide(policy=permissions.try_all(CASES, clients, targets, istio, values={"namespace": namespace}, audited=audited, keep_seen=("host", "x-debug")))
