"""Two thousand lines a second, and the collector killed in the middle of them."""

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from clusters.components.fluentd.client import FluentdClient
from clusters.components.store.client import StoreClient
from suites.support import logs
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict

COLLECTOR = "load"
RATE = 2_000.0
SECONDS = 30.0
LINES = int(RATE * SECONDS)
# What is read and delivered by then is in part under way: the kill meets lines in every state. It comes half-way where a busy machine delivers later.
KILLED_AFTER = LINES // 3
CAUGHT_UP_WITHIN_S = 60.0
# A generator that was slower than this has not put the load on.
SLOWEST_S = 1.1 * SECONDS


def judge(evidence: Evidence) -> Verdict:
    """All lines are there once each, though the collector that began with them was not the one that ended."""
    return Verdict.of(
        paced("two-thousand-a-second", evidence["took_s"]),
        replaced("the-collector-was-killed-meanwhile", evidence["killed"]),
        logs.none_lost("none-is-lost", evidence["seen"], least=LINES),
        logs.none_again("none-is-there-twice", evidence["seen"]),
    )


def paced(name: str, took_s: float) -> Claim:
    """Claim that the lines were written at the rate that was asked for."""
    return Claim(name, True if took_s <= SLOWEST_S else None, f"{LINES} lines in {took_s:.1f} s")


def replaced(name: str, killed: Mapping[str, Any]) -> Claim:
    """Claim that the collectors that were there when a part was delivered were killed, and that others went on; inconclusive where nothing was by then, or all."""
    said = f"{', '.join(killed['pods']) or 'none'} with {killed['after']} of {LINES} lines delivered, {', '.join(killed['then'])} went on"
    return Claim(name, True if killed["pods"] and 0 < killed["after"] < LINES and not set(killed["pods"]) & set(killed["then"]) else None, said)


@pytest.mark.slow
@requirement("logging.under-load", level="MUST", judge=judge)
def test_a_killed_collector_loses_nothing_under_load(
    lines: StoreClient, collectors: FluentdClient, writers: Callable[..., Any], manifests: Manifests, decide: Decide,
) -> None:
    """Of 2 000 lines a second for 30 s none is lost and none is there twice, with the collector killed in the middle of them."""
    nonce = secrets.token_hex(8)
    # One for each time: a collector that reads everything again would be kept busy with what was written for another.
    name = f"loaded-{nonce}"
    writer = writers(name)
    namespace = writer.function.namespace
    manifests.apply("load.yaml", image=collectors.image, function=name)
    collectors.await_reading(namespace, COLLECTOR)

    def a_part_delivered() -> None:
        there = lines.count(nonce=nonce)
        assert there >= KILLED_AFTER, f"{there} of {KILLED_AFTER} lines are there"

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(writer.function.emit, nonce, LINES, rate_per_s=RATE)
        logs.or_nothing(a_part_delivered, within=SECONDS / 2)
        after = lines.count(nonce=nonce)
        pods = collectors.kill(namespace, COLLECTOR)
        then = collectors.await_reading(namespace, COLLECTOR, besides=pods)
        took_s = writing.result()
    found = logs.arrived(lines, LINES, within=CAUGHT_UP_WITHIN_S, settle=lambda: logs.delivered(collectors, namespace, COLLECTOR), nonce=nonce)

    decide(took_s=took_s, killed={"pods": pods, "after": after, "then": then}, seen=logs.tally(LINES, found))
