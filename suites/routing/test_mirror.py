"""Mirroring: a VirtualService has copies of requests sent to another function, whose answers nobody gets."""

from collections.abc import Mapping

from clusters.components.istio.client import IstioClient
from clusters.waiting import eventually
from suites.support import judges
from suites.support.judges import Draw, Record
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads import records
from workloads.caller.client import Caller
from workloads.greeter.client import Counts, Greeter
from workloads.records import join_key

HOST = ("Host", "mirrored-function.serverless.example.com")
# Finding: a copy names the host of its original, so nothing in it says that it is one. Envoy's own default, and that of older
# Istio, puts "-shadow" at the end of the host; this Istio turns that off, and brings it back where istiod runs with
# DISABLE_SHADOW_HOST_SUFFIX=false (pilot, features). That is a choice of the cluster's owner: either will do, a mixture will not.
HOSTS = (HOST[1], f"{HOST[1]}-shadow")
# Of 200 copies, 5 % that were missing would go unnoticed with a probability of 0.95^200, 4e-5.
CALLS = 200
# A copy is sent when its original is; it arrives within milliseconds, on a busy machine within a second.
SETTLED_WITHIN_S = 15.0
LOGGED_WITHIN_S = 10.0
# Not the draw's own time: the function's node may keep another.
LOG_SECONDS = 60

DECLARED = {"mirrored": 0.3, "alone": 0.7}
FALSE_ALARM = 1e-6
SHIFT = 0.07
# sampling.sample_size(0.3, 0.07, 1e-6) is 2 374.
REQUESTS = 2_400


def settled(function: Greeter) -> Counts:
    """Return a function's count once it has stayed the same for a second: nobody says when the last copy has arrived.

    Raises TimedOut when it goes on growing.
    """
    seen = [-1]

    def stays() -> Counts:
        counts = function.counts()
        seen.append(counts.total)
        assert seen[-1] == seen[-2], f"{function.pod} counts {seen[-1]} requests, {seen[-2]} just before"
        return counts

    return eventually(stays, within=SETTLED_WITHIN_S, every=0.25, consecutive=4, subject="copies still arrive")


def judge_all(evidence: Evidence) -> Verdict:
    """Both functions get each request once, one of them answers, and the control's requests are not mirrored."""
    everything, control, mirror = evidence["all"], evidence["control"], evidence["mirror"]
    return Verdict.of(
        judges.only_version("function-answers", everything, "standard", least=CALLS),
        judges.every_status("every-call-answered", everything, 200),
        judges.reached("function-gets-each-once", everything, evidence["function"], 1),
        judges.reached("mirror-gets-each-once", everything, mirror, 1),
        hosts("mirror-sees-the-host", everything, evidence["hosts"]),
        judges.only_version("control-is-answered", control, "standard", least=CALLS),
        judges.reached("control-is-not-mirrored", control, mirror, 0),
    )


def hosts(name: str, draw: Draw, seen: Mapping[str, str]) -> Claim:
    """Claim that every copy that the mirror's proxy logged (`seen`: host by request id) named the one same host, one of HOSTS."""
    logged = [seen[key] for record in draw["records"] if (key := join_key(record["request_id"])) in seen]
    named = sorted(set(logged))
    if len(named) > 1 or not set(named) <= set(HOSTS):
        return Claim(name, held=False, said=f"the mirror was asked as {', '.join(named)}", expected=" or ".join(HOSTS), got=", ".join(named))
    if open_ := judges.incomplete(name, draw):
        return open_
    if len(logged) < len(draw["records"]):
        return Claim(name, held=None, said=f"the mirror's proxy logged {len(logged)} of {len(draw['records'])} calls")
    return Claim(name, held=True, said=f"the mirror was asked as {named[0]} on all {len(logged)} calls")


@requirement("routing.mirror", level="MUST", judge=judge_all)
def test_every_request_is_mirrored(
    functions: str, standard: Greeter, backup: Greeter, caller: Caller, istio: IstioClient, manifests: Manifests, decide: Decide,
) -> None:
    """A copy of every request goes to the mirror, with the request's own id; the caller gets the function's answers only."""
    manifests.apply("mirror.yaml")
    standard.reset_counts()
    backup.reset_counts()

    def draw(path: str) -> records.Draw:
        return caller.draw(functions, path=path, count=CALLS, concurrency=8, headers=[HOST])

    everything, control = draw("/all"), draw("/none")

    def logged() -> dict[str, str]:
        wanted = {join_key(record.request_id) for record in everything.records}
        entries = istio.access_log(backup.namespace, backup.pod, LOG_SECONDS)
        seen = {key: str(entry["authority"]) for entry in entries if (key := join_key(str(entry["request_id"]))) in wanted}
        arrived = settled_mirror.total
        assert len(seen) >= min(arrived, len(wanted)), f"{len(seen)} of {arrived} requests are in the log of {backup.pod}"
        return seen

    settled_mirror = settled(backup)
    decide(
        all=everything, control=control, function=standard.counts(), mirror=settled_mirror,
        hosts=eventually(logged, within=LOGGED_WITHIN_S, subject="the mirror's requests are not logged"),
    )


def judge_some(evidence: Evidence) -> Verdict:
    """The declared share is mirrored, the function gets and answers every request."""
    some = evidence["some"]
    copies = {join_key(request_id) for request_id in evidence["mirror"]["by_request_id"]}

    def label(record: Record) -> str:
        return "mirrored" if join_key(record["request_id"]) in copies else "alone"

    return Verdict.of(
        judges.split("three-in-ten-are-mirrored", judges.labelled(some, label), declared=DECLARED, alpha=FALSE_ALARM, shift=SHIFT),
        judges.only_version("function-answers", some, "standard", least=REQUESTS),
        judges.reached("function-gets-each-once", some, evidence["function"], 1),
    )


@requirement("routing.mirror-percentage", level="MUST", judge=judge_some, alpha=FALSE_ALARM, detects=SHIFT)
def test_a_share_is_mirrored(functions: str, standard: Greeter, backup: Greeter, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """The declared share of a route's requests is mirrored, and every one of them is answered by the function."""
    manifests.apply("mirror.yaml")
    standard.reset_counts()
    backup.reset_counts()

    some = caller.draw(functions, path="/some", count=REQUESTS, concurrency=8, headers=[HOST], keep_headers=[], keep_seen=[])

    decide(some=some, mirror=settled(backup), function=standard.counts())


# Asked of the mirror alone; the function itself behaves.
OF_THE_MIRROR = ("x-greeter-only", "backup")
FEW = 20


def judge_isolated(evidence: Evidence) -> Verdict:
    """The function's answers come as ever, although the mirror fails every request, or answers none within the route's timeout."""
    failing, hanging, mirror = evidence["failing"], evidence["hanging"], evidence["mirror"]
    return Verdict.of(
        judges.every_status("failing-mirror-fails-nobody", failing, 200),
        judges.only_version("failing-mirror-answers-nobody", failing, "standard", least=FEW),
        judges.reached("failing-mirror-gets-each-once", failing, mirror, 1),
        judges.every_status("hanging-mirror-slows-nobody", hanging, 200),
        judges.reached("hanging-mirror-gets-each-once", hanging, mirror, 1),
    )


@requirement("routing.mirror-isolated", level="MUST", judge=judge_isolated)
def test_a_broken_mirror_is_nobodys_concern(functions: str, backup: Greeter, caller: Caller, manifests: Manifests, decide: Decide) -> None:
    """A mirror that answers 500, or not at all, neither fails nor holds up the requests it gets copies of."""
    manifests.apply("mirror.yaml")
    backup.reset_counts()

    def draw(*asked: tuple[str, str]) -> records.Draw:
        return caller.draw(functions, path="/all", count=FEW, concurrency=FEW, headers=[HOST, OF_THE_MIRROR, *asked])

    # A mirror that hangs would let a caller who waited for it run into the route's timeout: a status, not a matter of the clock.
    decide(failing=draw(("x-greeter-status", "500")), hanging=draw(("x-greeter-hang", "true")), mirror=settled(backup))
