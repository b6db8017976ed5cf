"""The store away for half a minute, and the node's log rotated under the collector meanwhile."""

import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from clusters import kubelet
from clusters.bringup import Testbed
from clusters.components.fluentd.client import FluentdClient
from clusters.components.store.client import DEPLOYMENT, NAMESPACE, StoreClient, StoreUnreachable
from suites.support import logs
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.observed.client import CONTAINER

COLLECTOR = "outage"
RATE = 200.0
# With the collector's start, which the store does not see either, half a minute and more.
SECONDS = 28.0
AWAY_S = 30.0
LINES = int(RATE * SECONDS)
# With what the runtime puts before each line some 70 kB a second: a log of this size is full in four seconds, and the kubelet looks every three.
PAD = 220
LARGEST = "256Ki"
# Of ten looks.
ROTATIONS = 3
CAUGHT_UP_WITHIN_S = 30.0


def judge(evidence: Evidence) -> Verdict:
    """All lines are there once each, though nobody took them for half a minute and the file that held them was renamed several times."""
    return Verdict.of(
        away("the-store-was-away", evidence["away_s"]),
        named("the-client-says-who-is-missing", evidence["said"]),
        waited("the-collector-held-what-it-had-read", evidence["backlog"]),
        rotated("the-kubelet-rotated-the-log", evidence["files"]),
        logs.none_lost("none-is-lost", evidence["seen"], least=LINES),
        logs.none_again("none-is-there-twice", evidence["seen"]),
    )


def away(name: str, seconds: float) -> Claim:
    """Claim that the store was away for half a minute."""
    return Claim(name, True if seconds >= AWAY_S else None, f"away for {seconds:.1f} s")


def named(name: str, said: str) -> Claim:
    """Claim that who asked meanwhile was told in one line that it is the store that is missing, and not that there are no lines."""
    wanted = f"log store {NAMESPACE}/{DEPLOYMENT}"
    return Claim(name, held=said.startswith(wanted) and "\n" not in said, said=said or "an answer", expected=f"a line that begins with {wanted}", got=said or "an answer")


def waited(name: str, backlog: Mapping[str, int] | None) -> Claim:
    """Claim that the collector had read lines and was refused when the store was about to come back; inconclusive where it could not be asked."""
    if backlog is None:
        return Claim(name, None, "the collector could not be asked")
    held = backlog["read"] > 0 and backlog["size"] > 0 and backlog["retries"] > 0
    return Claim(name, held=held, said=f"it had read {backlog['read']} lines, held {backlog['size']} bytes, and had tried {backlog['retries']} times", expected="all three above 0", got=str(backlog))


def rotated(name: str, files: Mapping[str, list[str]]) -> Claim:
    """Claim that the log was rotated several times while it was written to; inconclusive where it was not."""
    new = sorted(set(files["seen"]) - set(files["before"]))
    return Claim(name, True if len(new) >= ROTATIONS else None, f"{len(new)} rotated files came: {', '.join(new)}")


@pytest.mark.slow
@requirement("logging.outage", level="MUST", judge=judge, alone=True)
def test_an_outage_of_the_store_loses_nothing_while_logs_are_rotated(
    lines: StoreClient, collectors: FluentdClient, writers: Callable[..., Any], testbed: Testbed, manifests: Manifests, decide: Decide,
) -> None:
    """A collector that begins while the store is away, and reads a log that the kubelet rotates every few seconds, delivers every line once when the store is back after 30 s.

    Finding: one that begins, or is down, while a log is rotated does not read what was in it: `/var/log/containers` leads to the newest file only. Begun beside the
    lines, six seconds after the first of them, it lost the 1 277 that were in the first file.
    """
    nonce = secrets.token_hex(8)
    # One for each time: what another's collector could not deliver is not this one's.
    name = f"outlasting-{nonce}"
    writer = writers(name)
    function, namespace = writer.function, writer.function.namespace
    pod = function.kube.get("Pod", function.pod, namespace)
    # kind names a node as it names its container.
    node, uid = pod["spec"]["nodeName"], pod["metadata"]["uid"]

    def files() -> list[str]:
        return [name for name in kubelet.log_files(node, namespace, function.pod, uid, CONTAINER) if name != "0.log"]

    before, seen = files(), set[str]()
    with kubelet.rotating([node], LARGEST), lines.away(), ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        manifests.apply("outage.yaml", image=collectors.image, function=name)
        collectors.await_reading(namespace, COLLECTOR)
        writing = pool.submit(function.emit, nonce, LINES, rate_per_s=RATE, size=PAD)
        while not writing.done():
            seen.update(files())
            logs.or_nothing(lambda: _ended(writing), within=1.0)
        said = _said(lines)
        backlog = collectors.backlog(namespace, COLLECTOR)
        away_s = time.monotonic() - began
        writing.result()
    found = logs.arrived(lines, LINES, within=CAUGHT_UP_WITHIN_S, settle=lambda: logs.delivered(collectors, namespace, COLLECTOR), nonce=nonce)

    decide(away_s=away_s, said=said, backlog=backlog, files={"before": before, "seen": sorted(seen)}, seen=logs.tally(LINES, found))


def _said(store: StoreClient) -> str:
    try:
        store.health()
    except StoreUnreachable as error:
        return str(error)
    return ""


def _ended(writing: Any) -> None:
    assert writing.done(), "the function still writes"
