"""The reference's collector as it is published, and what it does with the lines of a container runtime."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clusters.components.fluentd.client import FluentdClient
from clusters.components.store.client import StoreClient
from clusters.waiting import Broken, consistently, eventually
from suites.support import logs
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict

COLLECTOR = "reference"
REPLICAS = 2
LINES = 20
RATE = 20.0
READ_WITHIN_S = 15.0
# Flushed every second, shown every second: what would come would have come.
NOTHING_FOR_S = 4.0
NOT_PARSED = "pattern not matched"
FOLLOWS = "following tail of /var/log/containers/"
RUNS = "worker is now running"


# Finding: the container runtime writes `time stream F line`, not what the container wrote, so `format json` fits no line of any container: Fluentd
# warns of each, with all of it in its own log, and delivers nothing. Finding: replicas that read one node's files do not share the work. Each reads
# everything, their common position file is written by both, and each line is in the store as often as there are replicas on its node, under ids that
# the store makes up. What was written before the second began is there once, or lost with the first: it finds the first's positions. A DaemonSet, and an id made of the line itself, are what it takes.
def judge(evidence: Evidence) -> Verdict:
    """Nothing arrives of what is taken for JSON; of what is read as the runtime writes it, everything arrives once from each replica."""
    return Verdict.of(
        refused("each-replica-warns-of-every-line", evidence["warned"]),
        nothing("nothing-arrives-as-published", evidence["as_published"], evidence["warned"]),
        logs.none_lost("with-the-runtime-s-format-lines-arrive", evidence["corrected"], least=LINES),
        each_from_everyone("each-line-arrives-from-each-replica", evidence["corrected"]),
    )


def refused(name: str, warned: Mapping[str, int]) -> Claim:
    """Claim that every collector said of every line that it cannot be parsed."""
    return Claim(
        name, held=len(warned) == REPLICAS and set(warned.values()) == {LINES}, said=f"warnings by pod: {warned}",
        expected=f"{LINES} from each of {REPLICAS}", got=str(warned),
    )


def nothing(name: str, arrived: int, warned: Mapping[str, int]) -> Claim:
    """Claim that no line has arrived, though the collectors have read them; inconclusive where neither is seen."""
    if arrived:
        return Claim(name, held=False, said=f"{arrived} lines arrived", expected="none", got=str(arrived))
    return Claim(name, held=True if any(warned.values()) else None, said=f"none arrived, of {sum(warned.values())} warnings")


def each_from_everyone(name: str, seen: Mapping[str, Any]) -> Claim:
    """Claim that each line is there exactly once for each replica."""
    wanted = LINES * (REPLICAS - 1)
    return Claim(name, held=seen["again"] == wanted and not seen["foreign"], said=f"of {seen['once']} lines {seen['again']} are there again", expected=str(wanted), got=str(seen["again"]))


@requirement("logging.reference", level="MUST", judge=judge)
def test_the_reference_delivers_nothing_and_its_replicas_everything_twice(
    lines: StoreClient, collectors: FluentdClient, writers: Callable[..., Any], manifests: Manifests, decide: Decide,
) -> None:
    """The reference's collector delivers no line of a container runtime, for it takes each for JSON; told the runtime's format, its two replicas deliver every line twice."""
    writer = writers("serverless-reference")
    namespace, nonces = writer.function.namespace, (secrets.token_hex(8), secrets.token_hex(8))
    manifests.apply("reference.yaml", image=collectors.image, format="json")
    await_following(collectors, writer)
    writer.function.emit(nonces[0], LINES, rate_per_s=RATE)

    warned = logs.or_nothing(lambda: _all_warned(collectors, namespace, nonces[0]), within=READ_WITHIN_S) or warnings(collectors, namespace, nonces[0])
    as_published = arriving(lines, nonces[0], writer.of)
    manifests.apply("reference.yaml", image=collectors.image, format="cri")
    await_following(collectors, writer)
    writer.function.emit(nonces[1], LINES, rate_per_s=RATE)
    found = messages(lines, nonces[1], writer.of)

    decide(warned=warned, as_published=as_published, corrected=logs.tally(LINES, found))


def await_following(collectors: FluentdClient, writer: Any) -> None:
    """Return once every replica follows the function's log and has read what was in it: one that begins later takes over the others' positions."""
    namespace, pod = writer.function.namespace, writer.function.pod
    collectors.kube.wait_deployment(namespace, COLLECTOR, collectors.timeouts.deployment_available)

    def follow() -> None:
        said = {one: collectors.kube.logs(one, namespace) for one in collectors.pods(namespace, COLLECTOR)}
        late = [one for one, told in said.items() if f"{FOLLOWS}{pod}_" not in told or RUNS not in told]
        assert said, "there is no collector"
        assert not late, f"{', '.join(late)} do not follow {pod}"

    eventually(follow, within=READ_WITHIN_S, subject="the reference's collectors do not read")


def warnings(collectors: FluentdClient, namespace: str, nonce: str) -> dict[str, int]:
    """Return how many lines with a nonce each collector says it cannot parse."""
    said = {pod: collectors.kube.logs(pod, namespace).splitlines() for pod in collectors.pods(namespace, COLLECTOR)}
    return {pod: sum(NOT_PARSED in line and nonce in line for line in told) for pod, told in said.items()}


def _all_warned(collectors: FluentdClient, namespace: str, nonce: str) -> dict[str, int]:
    seen = warnings(collectors, namespace, nonce)
    assert len(seen) == REPLICAS, f"{len(seen)} collectors"
    assert set(seen.values()) == {LINES}, f"they warned of {seen}"
    return seen


def arriving(store: StoreClient, nonce: str, writer: Mapping[str, str]) -> int:
    """Return how many lines with a nonce are in the store once there are some, or 0 when none came for a while; this collector makes no fields of them."""

    def none() -> None:
        there = len(store.texts(nonce, **writer))
        assert not there, f"{there} lines are there"

    try:
        consistently(none, during=NOTHING_FOR_S)
    except Broken:
        return len(store.texts(nonce, **writer))
    return 0


def messages(store: StoreClient, nonce: str, writer: Mapping[str, str]) -> Sequence[str]:
    """Return the numbers of the lines with a nonce once each replica's are there, or after a bounded wait what is there."""

    def there() -> list[str]:
        found = [line.message for line in store.texts(nonce, **writer)]
        assert len(found) >= LINES * REPLICAS, f"{len(found)} lines are there"
        return found

    found = logs.or_nothing(there, within=READ_WITHIN_S) or [line.message for line in store.texts(nonce, **writer)]
    return [logs.number_of(message) for message in found]
