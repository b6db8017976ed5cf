"""The order of authorization policies: CUSTOM, then DENY, then ALLOW, and nothing is allowed by default once a policy allows something."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from clusters.bringup import Testbed
from clusters.components.istio.client import IstioClient
from suites.support import judges, permissions
from suites.support.manifests import Manifests
from suites.support.permissions import ALLOWED, ALLOWED_BY_POLICY, DENIED, FORBIDDEN, Case, Client, Expectation, Target
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.fixtures import World
from workloads.greeter import greeter
from workloads.greeter.client import Greeter

AGREES: tuple[tuple[str, str], ...] = ()
# The authorizer is a function that answers as it is told, by headers that are forwarded to it alone.
REFUSES = (("x-greeter-status", "403"), ("x-greeter-only", "authorizer"))
BREAKS = (("x-greeter-status", "500"), ("x-greeter-only", "authorizer"))
REFUSED = Expectation(403, details="ext_authz_denied")
# Without an answer that says yes or no, Istio has Envoy refuse (Istio reference, extension providers, failOpen and statusOnError).
BROKEN = Expectation(403, details="ext_authz_error")

CASES = (
    Case("allowed", ALLOWED_BY_POLICY, path="/allowed", policy="policy[permit]"),
    Case("denied", FORBIDDEN, path="/denied", policy="policy[forbid]"),
    Case("deny-before-allow", FORBIDDEN, path="/allowed-and-denied", policy="policy[forbid]"),
    Case("nothing-by-default", DENIED, path="/unnamed"),
    Case("custom-and-allowed", ALLOWED_BY_POLICY, path="/custom/allowed", headers=AGREES, policy="policy[permit]"),
    Case("custom-alone-is-not-enough", DENIED, path="/custom/unnamed", headers=AGREES),
    Case("custom-refuses-what-is-allowed", REFUSED, path="/custom/allowed", headers=REFUSES),
    Case("custom-agrees-to-what-is-denied", FORBIDDEN, path="/custom/denied", headers=AGREES, policy="policy[forbid]"),
    Case("custom-agrees-to-both", FORBIDDEN, path="/custom/allowed-and-denied", headers=AGREES, policy="policy[forbid]"),
    Case("custom-refuses-before-deny", REFUSED, path="/custom/denied", headers=REFUSES),
    Case("custom-breaks", BROKEN, path="/custom/allowed", headers=BREAKS),
    Case("custom-not-asked", ALLOWED_BY_POLICY, path="/allowed", headers=REFUSES),
    Case("empty-policy-allows-nothing", DENIED, target="closed", path="/allowed"),
    Case("empty-policy-allows-not-even-the-root", DENIED, target="closed", path="/"),
)
CONTROLS = (
    *(replace(case, expected=ALLOWED, target="open", policy="") for case in CASES),
    # A function behind a policy without a rule answers nobody; that it is alive is seen while its policy has one, an empty one.
    Case("empty-rule-allows", ALLOWED_BY_POLICY, target="closed"),
)


def judge(evidence: Evidence) -> Verdict:
    """Each path ends as the first policy that speaks of it says, and the authorizer is asked of its paths alone, once each."""
    policies, authorizer = evidence["policies"], evidence["authorizer"]
    asked = {name: draw for name, draw in policies["draws"].items() if name.startswith("custom-") and name != "custom-not-asked"}
    unasked = {name: draw for name, draw in policies["draws"].items() if name not in asked}
    return Verdict.of(
        *permissions.claims(CASES, policies, alive={"closed": evidence["control"]["draws"]["empty-rule-allows"]}),
        judges.reached("authorizer-asked-first", judges.joined(asked), authorizer, 1),
        judges.reached("authorizer-not-asked-of-other-paths", judges.joined(unasked), authorizer, 0),
        *permissions.claims(CONTROLS, evidence["control"], prefix="control-"),
    )


@pytest.fixture(scope="module")
def authorizer(world: World, testbed: Testbed) -> Greeter:
    """Whom a CUSTOM policy asks: a function beside the mesh, known to it by a name that only our own mesh configuration has."""
    if testbed.cluster is None or not testbed.cluster.owned:
        pytest.skip("whom a CUSTOM policy may ask is the mesh's own configuration, and this mesh is somebody's")
    world.deploy({"authorizer": greeter("authorizer", "authorizer", inject=False)})
    return Greeter(world.kube, world.namespace, world.pod("authorizer"))


@pytest.fixture(scope="module")
def ordered(world: World, targets: Mapping[str, Target]) -> Mapping[str, Target]:
    """The function under three policies, one under an empty policy, and the twin without any."""
    world.deploy({"closed-function": greeter("closed-function", "v1")})
    closed = Target("http://closed-function/", Greeter(world.kube, world.namespace, world.pod("closed-function")), targets["function"].principal)
    return {**targets, "closed": closed}


@requirement("security.authz-order", level="MUST", judge=judge)
def test_custom_goes_before_deny_and_deny_before_allow(
    clients: Mapping[str, Client], ordered: Mapping[str, Target], authorizer: Greeter, istio: IstioClient, manifests: Manifests, decide: Decide, *, audited: bool,
) -> None:
    """CUSTOM policies are asked first, then DENY, then ALLOW; what none allows is refused, and an empty policy refuses everything."""
    member = {"caller": clients["another-sa"]}
    manifests.apply("authz_order.control.yaml")
    control = permissions.try_all(CONTROLS, member, ordered, istio, audited=audited)
    manifests.apply("authz_order.yaml")
    authorizer.reset_counts()

    decide(control=control, policies=permissions.try_all(CASES, member, ordered, istio, audited=audited), authorizer=authorizer.counts())
