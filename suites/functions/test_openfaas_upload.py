"""An upload as the event that triggers a function of OpenFaaS: it runs the function, and runs it once, by every count there is."""

import base64
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from clusters.bringup import Testbed
from clusters.components.istio.client import IstioClient
from clusters.components.openfaas.client import OpenFaasClient, function_url
from clusters.waiting import NeverReached, TimedOut, eventually
from suites.support import faas as claims
from suites.support import judges, permissions
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.caller.client import Caller
from workloads.fixtures import World
from workloads.image_processor import pictures
from workloads.image_processor.client import forks, log_of
from workloads.records import join_key

NAME, TWIN = "triggered", "untouched"
UPLOADS = 6
WIDTH, HEIGHT = 16, 12
QUERY = f"?width={WIDTH}&height={HEIGHT}&format=ppm"
UPLOAD, NO_PICTURE = pictures.quartered(32, 24), b"this is no picture"
SAYS_SO_WITHIN_S = 10.0


def judge(evidence: Evidence) -> Verdict:
    """Each upload started one process and one request at the function's proxy, whether it went well or failed; nothing else started any."""
    good, bad = evidence["good"], evidence["bad"]
    return Verdict.of(
        pictured("each-upload-is-answered-with-its-picture", good["calls"]),
        judges.every_status("each-failing-upload-is-told", bad["calls"], 500, least=UPLOADS),
        ran("each-upload-runs-it-once", good),
        ran("each-failing-upload-runs-it-once", bad),
        Claim("nothing-else-is-run", held=evidence["twin"] == 0, said=f"the twin was started {evidence['twin']} times", expected="never", got=str(evidence["twin"])),
    )


def pictured(name: str, draw: Mapping[str, Any]) -> Claim:
    """Claim that every upload was answered with its picture in the size that was asked for."""
    records, incomplete = judges.records_of(name, draw, least=UPLOADS)
    wanted = pictures.Picture(WIDTH, HEIGHT, pictures.QUARTERS)
    wrong = [record for record in records if pictures.read(base64.b64decode(record.get("body", ""))) != wanted]
    if wrong:
        return Claim(name, held=False, said=f"{len(wrong)} of {len(records)} were answered otherwise: {judges.shapes(wrong)}", expected=str(wanted), got=judges.shapes(wrong))
    return incomplete or Claim(name, held=True, said=f"all {len(records)} were answered with the picture, {WIDTH} x {HEIGHT}")


def ran(name: str, uploads: Mapping[str, Any]) -> Claim:
    """Claim that as many processes were started as uploads were made, and that the function's proxy passed each on once.

    Where the proxy's log is not ours to read, the processes alone are counted.
    """
    ids, logged = claims.ids_of(uploads["calls"]), uploads["logged"]
    said = f"{len(ids)} uploads started {uploads['forks']} processes"
    if not ids:
        return Claim(name, held=None, said="nothing was uploaded")
    once = uploads["forks"] == len(ids)
    if logged is not None:
        seen = claims.each_once(name, ids, logged)
        once, said = once and bool(seen.held), f"{said}; by the proxy's log, {seen.said}"
    return Claim(name, held=once, said=said, expected="one each", got=said)


@pytest.mark.slow
# Finding: Istio tries a call again by default where it cannot have reached the function (connect-failure, refused-stream), so a failing upload runs it
# once. With `retryOn: 5xx`, which many copy, each failing one runs it three times.
@requirement("functions.openfaas-upload-once", level="MUST", judge=judge)
def test_an_upload_runs_its_function_once(
    testbed: Testbed, world: World, faas: OpenFaasClient, served: Callable[..., None], at_gateway: Callable[[str], None], istio: IstioClient, caller: Caller,
    manifests: Manifests, processor_image: str, decide: Decide,
) -> None:
    """An upload to the gateway runs the function that it triggers exactly once, by the processes that were started and by the log of the function's proxy, also where the function fails; it runs no other."""
    route = f"triggered-{uuid.uuid4().hex[:8]}"
    manifests.apply("openfaas_upload.yaml", image=processor_image, route=route)
    with suppress(TimedOut, NeverReached):
        served(NAME, TWIN)
    at_gateway(route)
    ours = testbed.cluster is not None and testbed.cluster.owned
    (pod,) = faas.pods(world.namespace, NAME)

    def started(name: str) -> int:
        return forks(log_of(faas.kube, world.namespace, name, [str(one["metadata"]["name"]) for one in faas.pods(world.namespace, name)]))

    def upload(body: bytes) -> dict[str, Any]:
        before = settled(lambda: started(NAME), 0)
        draw = caller.draw(function_url(NAME, world.namespace) + QUERY, method="POST", body=body, count=UPLOADS, keep_body=True, keep_headers=(), keep_seen=())
        keys = {join_key(record.request_id) for record in draw.records}
        entries = permissions.written(partial(istio.access_log, world.namespace, str(pod["metadata"]["name"]), draw.began), keys) if ours else []
        # Whoever was called a moment ago is not ours: who waited for the function called it as well.
        own = [str(one["request_id"]) for one in entries if join_key(str(one["request_id"])) in keys]
        return {"calls": draw, "logged": own if ours else None, "forks": settled(lambda: started(NAME), before + UPLOADS) - before}

    twin = settled(lambda: started(TWIN), 0)
    good, bad = upload(UPLOAD), upload(NO_PICTURE)

    decide(good=good, bad=bad, twin=settled(lambda: started(TWIN), twin) - twin)


def settled(count: Callable[[], int], least: int) -> int:
    """Return a count of what is in a log once it is at least so much and the same at two looks, or what it is when the bound is reached."""
    seen = [-1]

    def at_rest() -> None:
        seen.append(count())
        assert seen[-1] == seen[-2], f"{seen[-1]}, {seen[-2]} before"
        assert seen[-1] >= least, f"{seen[-1]} of {least}"

    with suppress(TimedOut):
        eventually(at_rest, within=SAYS_SO_WITHIN_S, every=0.5)
    return seen[-1]
