"""The local rate limit: a function's own proxy lets a number of requests of one kind through, and refuses the rest of the window's."""

from collections import Counter
from typing import Any

from suites.support import judges
from suites.support.judges import Draw, Record
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.greeter.client import Greeter

HOST = ("Host", "limited-function.serverless.example.com")
STANDARD = ("user-type", "standard")
PREMIUM = ("user-type", "premium")
CALLS = 50
# Finding: Envoy fills a bucket up little by little, not once a window: of twenty in 20 s, three were there again after 3 s. Twenty
# an hour are one in three minutes; a check that counts to twenty must be done before the twenty-first comes: this one takes seconds.
TOKENS = 20
REFUSED = 429


def judge(evidence: Evidence) -> Verdict:
    """Twenty of the limited calls arrive and the others are refused, before and after others that are not limited; without the limit all arrive."""
    limited, counts = evidence["limited"], evidence["counts"]
    return Verdict.of(
        let_through("exactly-twenty-are-let-through", limited, TOKENS),
        judges.reached("only-those-arrive", limited, counts, lambda record: 1 if record["status"] == 200 else 0),
        by_the_proxy("refused-by-the-function-s-proxy", limited),
        judges.every_status("premium-is-not-limited", evidence["premium"], 200),
        judges.every_status("unnamed-is-not-limited", evidence["unnamed"], 200),
        judges.every_status("still-refused-afterwards", evidence["afterwards"], REFUSED),
        judges.every_status("another-function-is-not-limited", evidence["elsewhere"], 200),
        judges.every_status("control-is-not-limited", evidence["control"], 200),
    )


def let_through(name: str, draw: Draw, tokens: int) -> Claim:
    """Claim that exactly `tokens` calls were answered and all others refused with 429; a lost call may have taken a token along."""
    statuses = Counter(record["status"] for record in draw["records"])
    calls, lost = len(draw["records"]), statuses[0] + statuses[503]
    expected, seen = f"200: {tokens}, {REFUSED}: {calls - tokens}", ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    if calls <= tokens:
        return Claim(name, held=None, said=f"{calls} calls are too few to see a limit of {tokens}")
    if statuses[200] + statuses[REFUSED] + lost < calls or statuses[200] > tokens or statuses[200] + lost < tokens:
        return Claim(name, held=False, said=f"of {calls} calls by status: {seen}", expected=expected, got=seen)
    if open_ := judges.incomplete(name, draw):
        return open_
    if lost:
        return Claim(name, held=None, said=f"{lost} calls were lost; by status: {seen}")
    return Claim(name, held=True, said=f"of {calls} calls by status: {seen}")


def by_the_proxy(name: str, draw: Draw) -> Claim:
    """Claim that every refused call carries the header that the limit adds, and no function's word."""
    refused = [record for record in draw["records"] if record["status"] == REFUSED]
    other = [record for record in refused if record["version"] or not said_so(record)]
    if other:
        return Claim(name, held=False, said=f"{len(other)} of {len(refused)} refusals are somebody else's", expected="x-limited-by", got=str(other[0]["headers"])[:200])
    if not refused:
        return Claim(name, held=None, said="no call was refused")
    return Claim(name, held=True, said=f"all {len(refused)} refusals carry the limit's header")


def said_so(record: Record) -> bool:
    """Tell whether the limit put its name on an answer."""
    named: Any = record["headers"].get("x-limited-by")
    return bool(named == ["limited-function"])


@requirement("routing.rate-limit", level="MUST", judge=judge)
def test_standard_users_share_twenty_requests(functions: str, backup: Greeter, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """Of the limited callers' requests exactly as many as the bucket holds reach the function, and all others are answered 429 by its proxy.

    Other callers of the function, and other functions, are not limited meanwhile.
    """
    def draw(path: str, *headers: tuple[str, str], count: int = CALLS) -> object:
        return caller.draw(functions, path=path, count=count, concurrency=8, headers=[HOST, *headers])

    # The control comes first: a bucket is made full when its configuration arrives, and this makes sure that it does arrive anew.
    manifests.apply("rate_limit.control.yaml")
    control = draw("/limited", STANDARD)
    manifests.apply("rate_limit.yaml")
    backup.reset_counts()

    decide(
        control=control,
        limited=draw("/limited", STANDARD),
        premium=draw("/limited", PREMIUM),
        unnamed=draw("/limited"),
        afterwards=draw("/limited", STANDARD, count=10),
        elsewhere=draw("/elsewhere", STANDARD),
        counts=backup.counts(),
    )
