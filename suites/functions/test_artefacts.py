"""Artefacts in object storage: a function of the mesh writes them through boto3, to a registered host and nowhere else."""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from suites.support import awscalls, judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.aws import PORT
from workloads.aws.account import INVENTED
from workloads.aws.resources import Resources
from workloads.aws.server import Aws
from workloads.fixtures import World
from workloads.media import STRANGER_HOST, media
from workloads.media.client import Media

BUCKET = "media-artefacts"
CALLS = 5
# Random, so that nobody has it already; as large as a small picture, so that it is more than one read.
ARTEFACT_BYTES = 200_000
# The mesh's limit is 2 s.
GIVEN_UP_WITHIN_MS = 5000.0
# The same address by a name that is not registered, on a port that the mesh knows and on one that it does not: they go different ways.
BY_NAME, BY_ADDRESS = f"http://{STRANGER_HOST}", f"http://{STRANGER_HOST}:{PORT}"


def judge(evidence: Evidence) -> Verdict:
    """What was written by the registered name is there as it was sent; nothing came by any other; keys are looked at; silence is bounded."""
    written, stored = evidence["written"], evidence["stored"]
    return Verdict.of(
        awscalls.ended("artefacts-are-written", written, 200, least=CALLS),
        kept("artefacts-are-as-they-were-sent", stored, evidence["sent"]),
        judges.logged("by-way-of-the-registered-host", evidence["log"]["written"], {"upstream_cluster": "outbound|80||s3.serverless.local"}, CALLS),
        awscalls.ended("strangers-by-name-are-refused", evidence["by-name"], 502, "502", least=CALLS),
        judges.logged("strangers-by-name-meet-block-all", evidence["log"]["by-name"], {"route_name": "block_all"}, CALLS),
        awscalls.ended("strangers-by-address-are-refused", evidence["by-address"], 0, "ConnectionClosedError", least=CALLS),
        nothing("strangers-write-nothing", stored, evidence["sent"]),
        awscalls.ended("the-same-address-takes-others", evidence["open"], 200, least=CALLS),
        awscalls.ended("own-keys-are-taken", evidence["keys"]["own"], 200, least=CALLS),
        awscalls.ended("unknown-keys-are-refused", evidence["keys"]["unknown"], 403, "InvalidAccessKeyId", least=CALLS),
        awscalls.ended("wrong-secrets-are-refused", evidence["keys"]["wrong"], 403, "SignatureDoesNotMatch", least=CALLS),
        awscalls.ended("keys-of-who-may-not-are-refused", evidence["keys"]["reader"], 403, "AccessDenied", least=CALLS),
        awscalls.ended("a-silent-store-is-given-up", evidence["silent"], 504, "504"),
        awscalls.within("a-silent-store-is-given-up-in-time", evidence["silent"], GIVEN_UP_WITHIN_MS),
        awscalls.ended("and-is-used-again", evidence["again"], 200),
    )


def kept(name: str, stored: Mapping[str, str], sent: Mapping[str, str]) -> Claim:
    """Claim that the store has what was sent under its key, by digest; keys that were refused are another claim's."""
    wrong = sorted(key for key in ("written", "own") if stored.get(key) != sent[key])
    if wrong:
        return Claim(name, held=False, said=f"{', '.join(wrong)} is not there as it was sent", expected="the same bytes", got=str({key: stored.get(key) for key in wrong}))
    return Claim(name, held=True, said="what was written is there as it was sent, byte for byte")


def nothing(name: str, stored: Mapping[str, str], sent: Mapping[str, str]) -> Claim:
    """Claim that nothing is there under the keys that were tried in forbidden ways."""
    forbidden = sorted(key for key in sent if key not in ("written", "own", "open", "silent", "again"))
    there = [key for key in forbidden if key in stored]
    return Claim(name, held=not there, said=f"of {len(forbidden)} keys that were tried in forbidden ways {len(there)} are there", expected="none", got=", ".join(there))


@pytest.fixture(scope="module")
def open_media(world: World, aws: Aws, media_function: Media) -> Media:
    """Another media function, whose proxy lets everything out: what it reaches is alive."""
    keys = aws.keys("media", "s3:PutObject", "lambda:InvokeFunction")
    world.deploy({"open-media": media("open-media", address=aws.server.address, keys=(keys.access_key, keys.secret_key))})
    return Media(media_function.caller, "http://open-media", world.pod("open-media"), media_function.access_log)


@requirement("functions.artefacts", level="MUST", judge=judge)
def test_artefacts_are_written_to_the_registered_store_only(
    aws: Aws, cloud: Resources, media_function: Media, open_media: Media, manifests: Manifests, decide: Decide,
) -> None:
    """A function of the mesh writes artefacts through boto3 to an S3 bucket that is registered as egress; other ways to the same store are closed, keys that may not write are refused, and a store that is silent is given up in time."""
    values = {"address": aws.server.address}
    cloud.apply(manifests.of_aws("artefacts.yaml", **values))
    manifests.apply("artefacts.yaml", **values)
    own, reader = aws.keys("media", "s3:PutObject"), aws.keys("reader", "s3:GetObject")
    run = uuid.uuid4().hex[:8]
    content = {way: hashlib.shake_256(f"{run} {way}".encode()).digest(ARTEFACT_BYTES) for way in ("written", "by-name", "by-address", "open", "own", "unknown", "wrong", "reader", "silent", "again")}

    def keep(way: str, by: Media = media_function, *, count: int = CALLS, **headers: str) -> Any:  # a draw
        return by.keep(BUCKET, f"{run}/{way}", content[way], count=count, headers=[(f"x-media-{name}", value) for name, value in headers.items()])

    written = keep("written")
    by_name, by_address = keep("by-name", endpoint=BY_NAME), keep("by-address", endpoint=BY_ADDRESS)
    openly = keep("open", open_media, endpoint=BY_ADDRESS)
    with aws.account.signatures_required():
        keys = {
            "own": keep("own"), "unknown": keep("unknown", keys=f"{INVENTED.access_key}:{INVENTED.secret_key}"),
            "wrong": keep("wrong", keys=f"{own.access_key}:wrong"), "reader": keep("reader", keys=f"{reader.access_key}:{reader.secret_key}"),
        }
    with aws.server.hanging():
        silent = keep("silent", count=1)
    again = keep("again", count=1)
    stored = {key.partition("/")[2]: digest for key, digest in digests(aws, run).items()}

    decide(
        written=written, open=openly, keys=keys, silent=silent, again=again, stored=stored, sent={way: hashlib.sha256(one).hexdigest() for way, one in content.items()},
        log={"written": awscalls.sent_out(media_function.access_log, [written]), "by-name": awscalls.sent_out(media_function.access_log, [by_name])},
        **{"by-name": by_name, "by-address": by_address},
    )


def digests(aws: Aws, prefix: str) -> dict[str, str]:
    """Return the digest of every object below a prefix of the bucket, as the store hands it out."""
    client = aws.account.client("s3")
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return {str(one["Key"]): hashlib.sha256(client.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read()).hexdigest() for one in listed}
