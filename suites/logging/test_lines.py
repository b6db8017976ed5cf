"""One line: written once, found once, under whom wrote it, and nowhere else."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from clusters.components.fluentd.client import FluentdClient
from clusters.components.store.client import StoreClient
from suites.support import logs
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict

COLLECTOR = "lines"
# Enough for a p95, over some seconds: the collector delivers every second, and the store shows what it has every second.
PACED = 60
RATE = 15.0
# Room for a fault that brings them again.
MOST = 10 * PACED
FOUND_WITHIN_S = 12.0


def judge(evidence: Evidence) -> Verdict:
    """The line is found once, whoever reads again what was read before; a neighbour's is its neighbour's, and a stranger's is not there."""
    return Verdict.of(
        logs.found_once("found-once-with-its-writer", evidence["found"], evidence["writer"], evidence["labels"]),
        logs.absent("not-found-under-another-pod", evidence["under_neighbour"], where="under the neighbour's pod", written=bool(evidence["found"])),
        logs.found_once("a-neighbour-s-is-its-own", evidence["neighbour_s"], evidence["neighbour"], {}),
        logs.absent("what-is-not-read-is-not-there", evidence["elsewhere"], where="at all", written=evidence["written_elsewhere"]),
        logs.none_lost("each-is-found", evidence["paced"], least=PACED),
        logs.none_again("each-is-found-once", evidence["paced"]),
        read_again("all-was-read-again", evidence["backlog"]),
        logs.none_lost("each-is-found-after-all-was-read-again", evidence["read_again"], least=PACED),
        logs.none_again("once-after-all-was-read-again", evidence["read_again"]),
    )


def read_again(name: str, backlog: Mapping[str, int] | None) -> Claim:
    """Claim that the collector that took the killed one's place has read all lines a second time; inconclusive where it could not be asked."""
    if backlog is None:
        return Claim(name, None, "the collector could not be asked")
    return Claim(name, held=backlog["read"] > PACED, said=f"it has read {backlog['read']} lines", expected=f"more than {PACED}", got=str(backlog["read"]))


@requirement("logging.exactly-once", level="MUST", judge=judge)
def test_a_line_is_found_once_with_its_writer(
    lines: StoreClient, collectors: FluentdClient, writers: Callable[..., Any], manifests: Manifests, decide: Decide,
) -> None:
    """A line that a function writes once is in the store exactly once, with its namespace, pod, container and labels, even where the collector reads all of it again.

    The delays in the evidence are from the runtime's time of a line to its first being found.
    """
    writer, neighbour, stranger = writers("serverless-function"), writers("neighbour-function"), writers("stranger-function", elsewhere=True)
    namespace = writer.function.namespace
    manifests.apply("lines.yaml", image=collectors.image)
    collectors.await_reading(namespace, COLLECTOR)
    nonces = {name: secrets.token_hex(8) for name in ("one", "neighbour", "stranger", "paced")}
    stranger.function.emit(nonces["stranger"], 1, rate_per_s=RATE)
    neighbour.function.emit(nonces["neighbour"], 1, rate_per_s=RATE)
    writer.function.emit(nonces["one"], 1, rate_per_s=RATE)

    found = logs.found_soon(lines, within=FOUND_WITHIN_S, nonce=nonces["one"])
    neighbour_s = logs.found_soon(lines, within=FOUND_WITHIN_S, nonce=nonces["neighbour"])
    paced = logs.watched_while(
        lambda: writer.function.emit(nonces["paced"], PACED, rate_per_s=RATE), lambda: lines.search(MOST, nonce=nonces["paced"]), PACED, within=FOUND_WITHIN_S,
    )
    killed = collectors.kill(namespace, COLLECTOR)
    collectors.await_reading(namespace, COLLECTOR, besides=killed)
    marker = secrets.token_hex(8)
    writer.function.emit(marker, 1, rate_per_s=RATE)
    # What is written last is read last: by then all the others have been delivered again.
    last = logs.found_soon(lines, within=FOUND_WITHIN_S, nonce=marker)
    backlog = collectors.backlog(namespace, COLLECTOR)
    lines.refresh()

    decide(
        found=found, writer={**writer.of, "stream": "stdout"}, labels=writer.labels,
        under_neighbour=lines.search(nonce=nonces["one"], pod=neighbour.function.pod),
        neighbour_s=neighbour_s, neighbour=neighbour.of,
        elsewhere=lines.search(nonce=nonces["stranger"]), written_elsewhere=nonces["stranger"] in stranger.function.kube.logs(stranger.function.pod, stranger.function.namespace),
        paced=logs.tally(PACED, [str(line.fields["n"]) for line in paced.lines]), delays=paced.delays(),
        read_again=logs.tally(PACED, lines.values("n", nonce=nonces["paced"])), killed=killed, backlog=backlog, last=last,
    )
