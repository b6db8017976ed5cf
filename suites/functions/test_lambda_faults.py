"""What goes wrong around a Lambda function ends in time and is told: its image is missing, its payload too long, its AWS gone."""

from collections.abc import Mapping
from typing import Any

from suites.support import awscalls, judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.aws import invoking, server
from workloads.aws.resources import Resources
from workloads.aws.server import Aws
from workloads.media.client import Media

FUNCTION = "serverless-function"
# A port of this machine on which nobody listens: looking for the image ends there.
ABSENT = "127.0.0.1:9/faasmesh/absent:1"
# Lambda takes 6 MB of event and of answer.
FITS_BYTES, TOO_LONG_BYTES = 1_000_000, 7_000_000
# Beyond what Linux takes as one argument of a program.
LONG_EVENT_BYTES = 200_000
ENDED_WITHIN_S = 45.0
# The mesh's own limit to connect is 1 s.
GONE_WITHIN_MS = 5000.0
FEW = 3


# Finding: an event goes to moto's functions as an argument of their program, of which Linux takes 128 KiB: a longer event is refused by Docker,
# not by Lambda's limit of 6 MB. Nor does AWS's own emulator refuse a longer one than that: it cuts it off, and the function is told half of it.
def judge(evidence: Evidence) -> Verdict:
    """What fits is answered; what does not, what has no image and what has gone are told, and each in time."""
    calls = evidence["calls"]
    return Verdict.of(
        Claim("what-fits-is-answered", held=not calls["fits"]["error"], said=f"an answer of {FITS_BYTES} bytes ended with {calls['fits']['status']} {calls['fits']['error']}", expected="an answer", got=str(calls["fits"]["error"])),
        told("too-long-an-answer-is-refused", calls["long-answer"], "Function.ResponseSizeTooLarge"),
        told("too-long-an-event-is-refused", calls["long-event"], "argument list too long"),
        told("a-missing-image-is-told", calls["no-image"], ABSENT.partition("/")[0]),
        *(in_time(f"{name}-ends-in-time", call) for name, call in calls.items()),
        awscalls.ended("a-store-that-has-gone-is-told", evidence["gone"], 503, "503", least=FEW),
        judges.logged("a-store-that-has-gone-is-told-by-the-proxy", evidence["log"], {"response_flags": "UF", "upstream_cluster": "outbound|80||s3.serverless.local"}, FEW),
        awscalls.within("a-store-that-has-gone-is-given-up-in-time", evidence["gone"], GONE_WITHIN_MS),
    )


def told(name: str, call: Mapping[str, Any], words: str) -> Claim:
    """Claim that an invocation is told to have failed, in words that say why."""
    said = f"{call['error']}: {call['answer']}"
    return Claim(name, held=bool(call["error"]) and words in said, said=f"it ended with {call['status']} {said[:200]}", expected=words, got=said[:80])


def in_time(name: str, call: Mapping[str, Any]) -> Claim:
    """Claim that an invocation ended within its bound."""
    seconds = float(call["seconds"])
    return Claim(name, held=seconds <= ENDED_WITHIN_S, said=f"it took {seconds:.1f} s", expected=f"at most {ENDED_WITHIN_S:g} s", got=f"{seconds:.1f} s")


@requirement("functions.lambda-faults", level="MUST", judge=judge)
def test_what_goes_wrong_around_a_function_is_told_in_time(
    aws: Aws, cloud: Resources, media_function: Media, manifests: Manifests, decide: Decide,
) -> None:
    """An invocation whose image is missing, or whose event or answer is too long, is told to have failed in time, and so is a function of the mesh whose store has gone."""
    unplaced = manifests.of_aws("lambda_faults.yaml", gone="")
    cloud.apply(unplaced)
    calls = {
        "fits": invoking.invoke(aws.account, FUNCTION, {"answer_bytes": FITS_BYTES}),
        "long-answer": invoking.invoke(aws.account, FUNCTION, {"answer_bytes": TOO_LONG_BYTES}),
        "long-event": invoking.invoke(aws.account, FUNCTION, {"nonce": "x" * LONG_EVENT_BYTES}),
    }
    with server.started(aws.image, f"faults-{aws.label}", runtime=ABSENT) as without:
        elsewhere = Resources(without.account, without.role)
        elsewhere.apply(unplaced)
        calls["no-image"] = invoking.invoke(without.account, FUNCTION, {})
        gone = without.server.address
    manifests.apply("lambda_faults.yaml", gone=gone)
    lost = media_function.keep("media-artefacts", "lost", b"artefact", count=FEW)

    decide(calls=calls, gone=lost, log=awscalls.sent_out(media_function.access_log, [lost]))
