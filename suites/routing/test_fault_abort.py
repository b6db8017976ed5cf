"""Injected aborts: a VirtualService answers a share of the requests itself, before they leave the caller."""

from suites.support import judges
from suites.support.judges import Record
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.caller.client import Caller
from workloads.greeter.client import Greeter

HOST = ("Host", "aborted-function.serverless.example.com")
MARKED = ("x-chaos", "abort")
DECLARED = {"standard": 0.9, "aborted": 0.1}
FALSE_ALARM = 1e-6
SHIFT = 0.03
# sampling.sample_size(0.1, 0.03, 1e-6) is 5 845: enough to tell 10 % from 13 %, and more than enough to tell it from 7 %.
REQUESTS = 5_900
# 90 % of the marked instead of all show in a hundred calls with a probability of 1 - 0.9^100, 99.997 %.
CALLS = 100
TEAPOT = 418


def aborted(record: Record) -> bool:
    """Tell whether a call ended with a status that no function answers unless it is asked to."""
    return record["status"] == TEAPOT


def label(record: Record) -> str:
    """Say what became of a call: the function that answered it, or that it was aborted, and how if not as declared."""
    otherwise = f"aborted with {record['status']}" if "FI" in record["flags"] else ""
    return "aborted" if aborted(record) else str(record["version"] or otherwise)


def judge(evidence: Evidence) -> Verdict:
    """A tenth is aborted and does not arrive; of the marked callers' everything, of the unmarked ones' and on the control route nothing."""
    some, marked, counts = evidence["some"], evidence["marked"], evidence["counts"]
    return Verdict.of(
        judges.split("a-tenth-is-aborted", judges.labelled(some, label), declared=DECLARED, alpha=FALSE_ALARM, shift=SHIFT),
        judges.reached("only-the-others-arrive", some, counts, lambda record: 0 if aborted(record) else 1),
        judges.flagged("marked-are-aborted", marked, 503, "FI"),
        judges.reached("marked-never-arrive", marked, counts, 0),
        judges.every_status("unmarked-are-answered", evidence["unmarked"], 200),
        judges.every_status("control-is-answered", evidence["control"], 200),
        judges.reached("control-arrives", evidence["control"], counts, 1),
    )


@requirement("routing.fault-abort", level="MUST", judge=judge, alpha=FALSE_ALARM, detects=SHIFT)
def test_a_tenth_is_aborted(functions: str, standard: Greeter, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """The declared share of a route's requests is answered with the declared status and never reaches the function.

    A fault with a header match takes all requests that carry it and no other.
    """
    manifests.apply("fault_abort.yaml")
    standard.reset_counts()

    def draw(path: str, count: int, *headers: tuple[str, str]) -> object:
        # Thousands of records with every header would be megabytes of evidence that nobody looks at.
        return caller.draw(functions, path=path, count=count, concurrency=8, headers=[HOST, *headers], keep_headers=[], keep_seen=[])

    decide(
        some=draw("/some", REQUESTS),
        marked=draw("/marked", CALLS, MARKED),
        unmarked=draw("/marked", CALLS),
        control=draw("/none", CALLS, MARKED),
        counts=standard.counts(),
    )
