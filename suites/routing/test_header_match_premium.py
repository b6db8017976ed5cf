"""Header routing: a VirtualService sends premium users to a function of their own."""

from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller

HOST = ("Host", "user-service.serverless.example.com")
# Envoy decides each request by its headers alone; one hundred show every path of a rule, none is a matter of chance.
CALLS = 100

# What a client may send that is not the one value `premium`. A header that is sent twice reaches the match
# joined by a comma (Envoy, "HTTP route components": header matching), so it is another value, whatever its parts are.
NOT_PREMIUM = {
    "absent": (),
    "empty": (("user-type", ""),),
    "other-case": (("user-type", "Premium"),),
    "longer": (("user-type", "premium-plus"),),
    "repeated": (("user-type", "premium"), ("user-type", "standard")),
    "repeated-alike": (("user-type", "premium"), ("user-type", "premium")),
}


def judge(evidence: Evidence) -> Verdict:
    """Premium requests are answered by premium only, every other by one of the others."""
    return Verdict.of(
        judges.only_version("premium-goes-to-premium", evidence["premium"], "premium", least=CALLS),
        judges.only_version("header-name-in-any-case", evidence["name-in-capitals"], "premium", least=CALLS),
        *(judges.never_version(f"{kind}-stays-out", evidence[kind], "premium", least=CALLS) for kind in NOT_PREMIUM),
    )


@requirement("routing.header-match-premium", level="MUST", judge=judge)
def test_premium_users_have_a_function_of_their_own(functions: str, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """Every request with the header `user-type: premium` goes to the premium function, and no other request does."""
    manifests.apply("header_match_premium.yaml")

    def draw(*headers: tuple[str, str]) -> object:
        return caller.draw(functions, count=CALLS, concurrency=4, headers=[HOST, *headers])

    decide(
        premium=draw(("user-type", "premium")),
        **{"name-in-capitals": draw(("USER-TYPE", "premium"))},
        **{kind: draw(*headers) for kind, headers in NOT_PREMIUM.items()},
    )
