"""Cloud Map under traffic: an instance that is deregistered while its callers call is left without a failure, and with nobody left calls end at once."""

import json
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from clusters.waiting import eventually
from suites.support import awscalls, judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.aws.discovery import discover, endpoints
from workloads.aws.execution import Environment
from workloads.aws.resources import Resources
from workloads.aws.server import Aws
from workloads.media.client import Media

FUNCTION, NAMESPACE, SERVICE = "serverless-function", "serverless.local", "lambda-function"
# One after the other, each some 60 ms: some six seconds of traffic, of which a change takes one or two.
CALLS = 100
BUSY_MS = 50
# Before the change both have had their share of this many calls.
BOTH_CALLED_WITHIN_S = 20.0
FEW = 5
AT_ONCE_MS = 1000.0


# Finding: Cloud Map tells nobody. Whoever keeps the ServiceEntry has to ask again; until then the mesh calls who has left, and what is still
# under way there is lost when it ends. App Mesh asked for its members' proxies.
def judge(evidence: Evidence) -> Verdict:
    """No call failed while one of two left; the one that left is not called once the mesh knows; with nobody left calls are answered at once."""
    before, known, after = (evidence["ran"][when] for when in ("before", "known", "after"))
    left = after["live-2"] - known["live-2"]
    return Verdict.of(
        awscalls.ended("no-call-fails", evidence["draw"], 200, least=CALLS),
        Claim("both-were-called", held=min(before.values()) > 0, said=f"before the change they had run {before}", expected="each at least once", got=str(before)),
        Claim("who-left-is-not-called", held=left == 0 if evidence["rests"] else None, said=f"who left ran {left} times once the mesh knew", expected="0", got=str(left)),
        stays("who-stays-is-called", known, after),
        awscalls.ran("each-call-ran-once", sum(after.values()), CALLS),
        judges.every_status("with-nobody-left-calls-fail", evidence["nobody"], 502, least=FEW),
        awscalls.ended("with-nobody-left-the-proxy-says-so", evidence["nobody"], 503, "503", least=FEW),
        awscalls.within("with-nobody-left-calls-end-at-once", evidence["nobody"], AT_ONCE_MS),
    )


def stays(name: str, known: Mapping[str, int], after: Mapping[str, int]) -> Claim:
    """Claim that who stayed was called after the change too; traffic that had ended by then settles nothing."""
    more = after["live-1"] - known["live-1"]
    return Claim(name, held=more > 0 or None, said=f"who stayed ran {more} times once the mesh knew")


@requirement("functions.cloud-map", level="MUST", judge=judge)
def test_an_instance_that_is_deregistered_under_traffic_is_left_without_a_failure(
    aws: Aws, cloud: Resources, environments: Callable[[str, str], Environment], media_function: Media, manifests: Manifests, decide: Decide,
) -> None:
    """When one of two Cloud Map instances is deregistered while a mesh function calls, no call fails and the one that left is called no more; with none left, calls are refused at once."""
    nowhere = {"first": "{}", "second": "{}", "address": "", "endpoints": "[]", "count": "0"}
    cloud.apply(one for one in manifests.of_aws("cloud_map.yaml", **nowhere) if one.kind != "Instance")
    running = {name: environments(FUNCTION, name) for name in ("live-1", "live-2")}
    told = [json.dumps({**environment.attributes, "stage": "live"}) for environment in running.values()]
    values = {"first": told[0], "second": told[1], "address": running["live-2"].address}
    cloud.apply(manifests.of_aws("cloud_map.yaml", **{**nowhere, **values}))

    def spread() -> None:
        """Tell the mesh of the instances that there are."""
        instances = discover(aws.account, NAMESPACE, SERVICE)
        manifests.apply("cloud_map.yaml", **values, endpoints=endpoints(instances), count=len(instances))

    spread()
    nonce = uuid.uuid4().hex

    def ran() -> dict[str, int]:
        return {name: environment.invocations(nonce) for name, environment in running.items()}

    def both_called() -> None:
        now = ran()
        assert all(now.values()) or sum(now.values()) > CALLS // 2 or calling.done(), f"they ran {now}"

    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(media_function.invoke, FUNCTION, {"nonce": nonce, "sleep_ms": BUSY_MS}, count=CALLS)
        eventually(both_called, within=BOTH_CALLED_WITHIN_S, every=0.2, subject="traffic not under way")
        before = ran()
        cloud.remove_one("Instance", "live-2")
        spread()
        # What was under way there when the mesh was told is no call of later.
        rests = running["live-2"].lives()
        known = ran()
        draw = calling.result()
    after = ran()
    cloud.remove_one("Instance", "live-1")
    spread()

    decide(draw=draw, rests=rests, ran={"before": before, "known": known, "after": after}, nobody=media_function.invoke(FUNCTION, {}, count=FEW))
