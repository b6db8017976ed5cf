"""The event source of the reference world: a file that is uploaded runs a function, exactly once."""

import uuid
from collections import Counter
from collections.abc import Mapping

from suites.support import awscalls
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.aws import invoking
from workloads.aws.resources import Resources
from workloads.aws.server import Aws
from workloads.media.client import Media

BUCKET, FUNCTION = "media-uploads", "upload-function"
CONTENT = b"a small picture"
# A function's container is made for each upload.
ANSWERED_WITHIN_S = 30.0
CREATED = "ObjectCreated:Put"


# Finding: moto's S3 tells Lambda itself, and an upload is answered when the function has ended: S3 answers at once and tells later.
# A mesh's time limit on the way to the store is then one on the function, and a retry there is a second event.
def judge(evidence: Evidence) -> Verdict:
    """Each upload ran the function once and told it of that object; other files, and a removal, ran nothing."""
    runs, uploads = evidence["runs"], evidence["uploads"]
    return Verdict.of(
        *(awscalls.ended(f"uploads-are-taken{'' if not number else f'-{number}'}", draw, 200) for number, draw in enumerate(evidence["draws"].values())),
        exactly("each-upload-runs-the-function-once", runs, dict.fromkeys(((CREATED, BUCKET, key) for key in uploads), 1), among=uploads),
        exactly("other-files-run-nothing", runs, {}, among=evidence["others"]),
        exactly("removal-runs-nothing", runs, {}, among=uploads, other_than=CREATED),
        Claim(
            "the-files-are-there", held=set(evidence["stored"]) == {*uploads[1:], *evidence["others"]},
            said=f"{len(evidence['stored'])} files are in the store", expected="all but the one that was removed", got=str(sorted(evidence["stored"])),
        ),
    )


def exactly(
    name: str, runs: list[list[Mapping[str, str]]], wanted: Mapping[tuple[str, str, str], int], *, among: list[str], other_than: str = "",
) -> Claim:
    """Claim that the function ran so often for each event of the keys `among`, and for no other event of theirs; `other_than` leaves one kind of event out."""
    seen = Counter((one["name"], one["bucket"], one["key"]) for run in runs for one in run if one["key"] in among and one["name"] != other_than)
    got = ", ".join(f"{count} x {what} {key.rpartition('/')[2]}" for (what, _, key), count in sorted(seen.items())) or "nothing"
    return Claim(name, held=seen == Counter(wanted), said=f"the function ran for {got}", expected=f"{len(wanted)} events, once each", got=got)


@requirement("functions.upload-trigger", level="MUST", judge=judge)
def test_an_upload_runs_the_function_exactly_once(aws: Aws, cloud: Resources, media_function: Media, manifests: Manifests, decide: Decide) -> None:
    """A file that a function of the mesh uploads to object storage runs the Lambda function that the bucket names, exactly once and with that file's name; other files, and a removal, run nothing."""
    values = {"address": aws.server.address}
    cloud.apply(manifests.of_aws("upload.yaml", **values))
    manifests.apply("upload.yaml", **values)
    run = uuid.uuid4().hex[:8]
    uploads = [f"uploads/{run}-{number}.png" for number in range(2)]
    others = [f"uploads/{run}.txt", f"elsewhere/{run}.png"]

    draws = {key: media_function.keep(BUCKET, key, CONTENT, timeout_s=ANSWERED_WITHIN_S) for key in (*uploads, *others)}
    aws.account.client("s3").delete_object(Bucket=BUCKET, Key=uploads[0])
    stored = [str(one["Key"]) for one in aws.account.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    # Nothing is under way any more: the store answered when the function had ended.
    decide(draws=draws, uploads=uploads, others=others, stored=stored, runs=[line["objects"] for line in invoking.logged(aws.account, FUNCTION)])
