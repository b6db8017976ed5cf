"""What a container writes and what its runtime makes of it: long lines, stack traces, bytes that are no text."""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clusters.components.fluentd.client import FluentdClient
from clusters.components.store.client import StoreClient
from suites.support import logs
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict

COLLECTOR = "whole-lines"
FOUND_WITHIN_S = 12.0
LONG = 65_536


def texts(nonce: str) -> dict[str, bytes]:
    """Return what is written, by what is claimed of it.

    The runtime cuts a line after 16 384 bytes, here through a character of two.
    """
    trace = (
        f"java.lang.IllegalStateException: {nonce} trace\n\tat faasmesh.Function.serve(Function.java:17)\n\tat faasmesh.Function.main(Function.java:3)\n"
        f"Caused by: java.io.IOException: {nonce} cause\n\t... 2 more"
    )
    return {
        "a-stack-trace-is-one-line": trace.encode(),
        "what-follows-a-trace-is-a-line-of-its-own": f"{nonce} after".encode(),
        "a-long-line-is-whole": f"{nonce} long ".encode() + secrets.token_hex(LONG // 2).encode(),
        "a-cut-character-is-whole": f"{nonce} cut ".ljust(31).encode() + "é".encode() * (LONG // 2),
        "bytes-that-are-no-text-are-replaced": f"{nonce} bytes ".encode() + b"caf\xc3\xa9 \xff\xfe end",
        "the-line-after-them-is-as-it-was": f"{nonce} last".encode(),
    }


def judge(evidence: Evidence) -> Verdict:
    """Each text is one line in the store, as it was written."""
    found = evidence["found"]
    return Verdict.of(
        *(as_written(name, digest, found) for name, digest in evidence["written"].items()),
        found_by_field("a-long-object-is-found-by-its-fields", evidence["objects"]),
    )


def as_written(name: str, digest: str, found: Sequence[Mapping[str, Any]]) -> Claim:
    """Claim that exactly one of the lines that were found has this content."""
    same = [line for line in found if line["digest"] == digest]
    if len(same) == 1:
        return Claim(name, held=True, said=f"one line of {same[0]['length']} characters")
    return Claim(name, held=False, said=f"{len(same)} of {len(found)} lines are as it was written", expected="one", got=", ".join(f"{line['begins']!r} ({line['length']})" for line in found)[:400] or "none")


def found_by_field(name: str, objects: Sequence[Mapping[str, Any]]) -> Claim:
    """Claim that a JSON object longer than the runtime's piece was found once by a field of it, with all of another."""
    lengths = [one["length"] for one in objects]
    return Claim(name, held=lengths == [LONG], said=f"found {len(objects)} times, of {lengths} characters", expected=f"once, {LONG}", got=str(lengths))


def digest_of(text: str) -> str:
    """Return what tells one text from another in little room."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@requirement("logging.whole-lines", level="MUST", judge=judge)
def test_lines_are_whole(lines: StoreClient, collectors: FluentdClient, writers: Callable[..., Any], manifests: Manifests, decide: Decide) -> None:
    """A line of 64 KiB, which the runtime cuts into pieces, a stack trace and a line with bytes that are no UTF-8 are each one line in the store, readable and whole.

    Finding: a collector joins what it has read; pieces that it holds when it is killed are lost, with any joining filter of Fluentd's, for their position is written down when they are read.
    """
    writer = writers("whole-function")
    manifests.apply("whole_lines.yaml", image=collectors.image)
    collectors.await_reading(writer.function.namespace, COLLECTOR)
    nonce = secrets.token_hex(8)
    written = texts(nonce)

    writer.function.write(b"".join(text + b"\n" for text in written.values()))
    writer.function.emit(nonce, 1, rate_per_s=1.0, size=LONG)
    objects = logs.found_soon(lines, within=FOUND_WITHIN_S, nonce=nonce)
    found = logs.or_nothing(lambda: _all_there(lines, writer.of, nonce, len(written)), within=FOUND_WITHIN_S) or lines.texts(nonce, **writer.of)

    decide(
        written={name: digest_of(text.decode(errors="replace")) for name, text in written.items()},
        found=[{"digest": digest_of(line.message), "length": len(line.message), "begins": line.message[:60]} for line in found if not line.fields],
        objects=[{"length": len(line.fields.get("pad", ""))} for line in objects],
    )


def _all_there(store: StoreClient, writer: Mapping[str, str], nonce: str, count: int) -> list[Any]:
    found = [line for line in store.texts(nonce, **writer) if not line.fields]
    assert len(found) >= count, f"{len(found)} of {count} lines are there"
    return found
