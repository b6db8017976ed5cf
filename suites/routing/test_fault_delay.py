"""Injected delays: a VirtualService holds a share of the requests back before they leave the caller."""

from suites.support import judges
from suites.support.judges import Draw, Record
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.greeter.client import Greeter

HOST = ("Host", "delayed-function.serverless.example.com")
MARKED = ("x-chaos", "delay")
DECLARED = {"delayed": 0.2, "prompt": 0.8}
DELAY_MS = 400
FALSE_ALARM = 1e-6
SHIFT = 0.08
# sampling.sample_size(0.2, 0.08, 1e-6) is 1 477. A hundred at a time wait out three hundred delays in little more than one second.
REQUESTS = 1_500
CONCURRENCY = 100
# A fifth of these delayed instead of none shows with a probability of 1 - 0.8^80, all but 2e-8.
CALLS = 80


def label(record: Record) -> str:
    """Say by the proxy's flag whether it delayed a call: a busy machine makes calls slow, but sets no flag."""
    return "" if not record["flags"] else "delayed" if delayed(record) else "prompt"


def delayed(record: Record) -> bool:
    """Tell whether the caller's proxy logged that it delayed the call."""
    return "DI" in record["flags"].split(",")


def judge(evidence: Evidence) -> Verdict:
    """A fifth is delayed, by its time; of the marked callers' everything, of the unmarked ones' and on the control route nothing."""
    some: Draw = evidence["some"]
    marked: Draw = evidence["marked"]

    def none_delayed(name: str, draw: Draw) -> Claim:
        return judges.only_version(name, judges.labelled(draw, label), "prompt", least=CALLS)

    return Verdict.of(
        judges.split("a-fifth-is-delayed", judges.labelled(some, label), declared=DECLARED, alpha=FALSE_ALARM, shift=SHIFT),
        judges.not_before("delayed-for-its-time", judges.chosen(some, delayed), DELAY_MS),
        judges.no_failures("every-call-answered", some, excused=judges.ON_THE_WAY),
        judges.reached("every-call-arrives-once", some, evidence["counts"], 1),
        judges.only_version("marked-are-delayed", judges.labelled(marked, label), "delayed", least=CALLS),
        judges.not_before("marked-are-delayed-for-their-time", marked, DELAY_MS),
        none_delayed("unmarked-are-not-delayed", evidence["unmarked"]),
        none_delayed("control-is-not-delayed", evidence["control"]),
    )


@requirement("routing.fault-delay", level="MUST", judge=judge, alpha=FALSE_ALARM, detects=SHIFT)
def test_a_fifth_is_delayed(functions: str, standard: Greeter, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """The declared share of a route's requests is held back for at least the declared time and then answered as ever.

    A fault with a header match takes all requests that carry it and no other.
    """
    manifests.apply("fault_delay.yaml")
    standard.reset_counts()

    def draw(path: str, count: int, *headers: tuple[str, str]) -> object:
        return caller.draw(
            functions, path=path, count=count, concurrency=CONCURRENCY, headers=[HOST, *headers], keep_headers=[], keep_seen=[], flags=True,
        )

    decide(
        some=draw("/some", REQUESTS),
        marked=draw("/marked", CALLS, MARKED),
        unmarked=draw("/marked", CALLS),
        control=draw("/none", CALLS, MARKED),
        counts=standard.counts(),
    )
