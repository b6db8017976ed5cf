"""The bounds of a Knative function's scale: what cannot be kept is refused when it is written down, with a line that says why."""

from collections.abc import Mapping
from typing import Any

from clusters.apiserver import ApiRefused
from clusters.components.knative.client import KnativeClient
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict

BAD_REQUEST = 400
MIN, MAX = "autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/max-scale"
# Least and most pods, by what is to become of them. A maximum of 0 means none (Knative documentation, scale bounds).
ACCEPTED = {"declared": ("1", "10"), "equal": ("2", "2"), "unlimited": ("2", "0")}
# What is refused, and which of the two fields the line has to name.
REFUSED = {"crossed": ("10", "1", (MIN, MAX)), "off-by-one": ("3", "2", (MIN, MAX)), "negative": ("-1", "10", (MIN,)), "not-a-number": ("1", "ten", (MAX,))}


def judge(evidence: Evidence) -> Verdict:
    """Bounds that can be kept are accepted; others are refused by Knative's webhook, which names the fields."""
    return Verdict.of(
        *(accepted(f"{name}-is-accepted", evidence["tried"][name]) for name in ACCEPTED),
        *(refused(f"{name}-is-refused", evidence["tried"][name], fields) for name, (_, _, fields) in REFUSED.items()),
    )


def accepted(name: str, answer: Mapping[str, Any]) -> Claim:
    """Claim that the API server took the function."""
    if answer["status"] == 0:
        return Claim(name, held=True, said="it was taken")
    return Claim(name, held=False, said=f"it was refused with {answer['status']}: {answer['said']}", expected="taken", got=str(answer["status"]))


def refused(name: str, answer: Mapping[str, Any], fields: tuple[str, ...]) -> Claim:
    """Claim that the webhook refused the function with a line that names the fields; any other refusal says nothing of it."""
    if answer["status"] == 0:
        return Claim(name, held=False, said="it was taken", expected=f"status {BAD_REQUEST}", got="taken")
    said = f"status {answer['status']}: {answer['said']}"
    if answer["status"] != BAD_REQUEST or "serving.knative.dev" not in answer["said"]:
        return Claim(name, held=None, said=f"somebody else refused it: {said}")
    unnamed = [field for field in fields if field not in answer["said"]]
    return Claim(name, held=not unnamed, said=said, expected=f"{', '.join(fields)} to be named", got=f"nothing of {', '.join(unnamed)}")


@requirement("functions.knative-scale-bounds", level="MUST", judge=judge)
def test_bounds_that_cannot_be_kept_are_refused(knative: KnativeClient, manifests: Manifests, greeter_image: str, decide: Decide) -> None:
    """A Knative Service whose `maxScale` is below its `minScale`, or whose bounds are no numbers of pods, is refused in one line that names them; equal and unlimited ones are accepted."""
    del knative  # installed before it is asked
    pairs = {**ACCEPTED, **{name: (least, most) for name, (least, most, _) in REFUSED.items()}}

    decide(tried={name: tried(manifests, least=least, most=most, image=greeter_image) for name, (least, most) in pairs.items()})


def tried(manifests: Manifests, **values: str) -> dict[str, Any]:
    """Return the status and the words with which the function was refused; 0 where it was taken."""
    try:
        manifests.apply("knative_bounds.yaml", **values)
    except ApiRefused as refusal:
        return {"status": refusal.status, "said": str(refusal)}
    return {"status": 0, "said": ""}
