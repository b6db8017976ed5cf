"""What never becomes configuration: mistakes that the API server and Istio's webhook refuse, said in one line that names the place."""

import json
from collections.abc import Mapping

from clusters.errors import UserError
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Claim, Evidence, Verdict
from workloads.fixtures import World
from workloads.issuer.tokens import Issuer

MANIFEST = "jwt_validation.yaml"
# The line on which the object begins.
PLACE = f"{MANIFEST}:2"
ISSUER = "https://issuer.example.com"
# By claim: the rule, and what its refusal must name.
MISTAKES: Mapping[str, tuple[dict[str, object], str]] = {
    "unknown-field-is-refused": ({"fromHeader": [{"name": "x-token"}]}, "fromHeader"),
    "two-sources-of-keys-are-refused": ({"jwks": '{"keys": []}', "jwksUri": f"{ISSUER}/keys"}, "jwks"),
    "unreadable-keys-are-refused": ({"jwks": '{"keys": 7}'}, "jwks"),
    "place-without-a-name-is-refused": ({"fromHeaders": [{"prefix": "Bearer "}]}, "name"),
}


def judge(evidence: Evidence) -> Verdict:
    """Each mistake is refused in one line with place and name and leaves nothing behind; the same object without one is taken."""
    return Verdict.of(
        *(refused(name, evidence["said"][name], PLACE, names) for name, (_, names) in MISTAKES.items()),
        exactly("nothing-is-left-of-what-was-refused", evidence["left"], []),
        exactly("control-is-taken", [evidence["control"], *evidence["there"]], ["", "user-function"]),
    )


def refused(name: str, said: str, *named: str) -> Claim:
    """Claim that something was refused in one line that has all of these words."""
    missing = [word for word in named if word not in said]
    if not said or missing or "\n" in said:
        return Claim(name, held=False, said=f"said {said!r}" if said else "it was taken", expected=f"one line with {', '.join(named)}", got=said or "no refusal")
    return Claim(name, held=True, said=f"refused: {said}")


def exactly(name: str, seen: list[str], wanted: list[str]) -> Claim:
    """Claim that something is just what it must be."""
    return Claim(name, held=seen == wanted, said=f"seen {seen}", expected=str(wanted), got=str(seen))


@requirement("security.jwt-configuration-refused", level="MUST", judge=judge)
def test_mistakes_are_refused_with_file_and_line(world: World, manifests: Manifests, decide: Decide) -> None:
    """A RequestAuthentication with an unknown field, two sources of keys, unreadable keys or a place without a name is refused in one line that names file, line and field."""
    def apply(rule: Mapping[str, object]) -> str:
        try:
            # JSON is YAML.
            manifests.apply(MANIFEST, rule=json.dumps({"issuer": ISSUER, **rule}))
        except UserError as refusal:
            return str(refusal)
        return ""

    def there() -> list[str]:
        return [one["metadata"]["name"] for one in world.kube.list("security.istio.io/v1/RequestAuthentication", world.namespace)]

    said = {name: apply(rule) for name, (rule, _) in MISTAKES.items()}
    left = there()
    decide(said=said, left=left, control=apply({"jwks": Issuer(ISSUER, algorithm="ES256").jwks()}), there=there())
