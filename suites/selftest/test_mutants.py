"""Self-tests of the mutants' loading: what is wrong with a file is said with its line."""

import copy

import pytest

from clusters.errors import UserError
from suites.support import mutants

MANIFEST = """\
kind: VirtualService
metadata: {name: user-service}
spec:
  http:
    - route:
        - {weight: 90}
        - {weight: 10}
---
kind: Gateway
metadata: {name: edge}
spec: {hosts: [a]}
"""
GOOD = """\
# what must turn the check red
- name: weights-85-15
  target: VirtualService/user-service
  patch: [{op: replace, path: /spec/http/0/route/0/weight, value: 85}, {op: replace, path: /spec/http/0/route/1/weight, value: 15}]
  kills: shares
"""


@pytest.fixture
def beside(tmp_path):
    """Write a manifest and mutants beside a test and load them."""

    def load(text, manifest=MANIFEST):
        (tmp_path / "weighted_split.yaml").write_text(manifest)
        (tmp_path / "weighted_split.mutants.yaml").write_text(text)
        return mutants.beside(tmp_path / "test_weighted_split.py")

    return load


def test_a_mutant_changes_its_object_only(beside, tmp_path):
    (mutant,) = beside(GOOD)
    docs = mutants.documents(tmp_path / "weighted_split.yaml")
    before = copy.deepcopy(docs)

    changed = mutants.apply(mutant, docs)

    assert (mutant.name, mutant.kills, mutant.target, mutant.line) == ("weights-85-15", "shares", "VirtualService/user-service", 2)
    assert [leg["weight"] for leg in changed[0]["spec"]["http"][0]["route"]] == [85, 15]
    assert changed[1] == docs[1]
    changed[0]["spec"]["http"].clear()
    changed[1]["spec"]["hosts"].append("b")
    assert docs == before


def test_a_mutant_may_take_an_object_away(beside, tmp_path):
    (mutant,) = beside("- {name: gone, target: Gateway/edge, patch: [{op: remove, path: ''}], kills: served}")

    assert [doc["kind"] for doc in mutants.apply(mutant, mutants.documents(tmp_path / "weighted_split.yaml"))] == ["VirtualService"]


def test_a_mutant_may_change_several_objects(beside, tmp_path):
    (mutant,) = beside("""\
- name: both
  changes:
    - {target: Gateway/edge, patch: [{op: replace, path: /spec/hosts, value: ["*"]}]}
    - {target: VirtualService/user-service, patch: [{op: remove, path: /spec/http/0/route/1}]}
  kills: hosts
""")
    changed = mutants.apply(mutant, mutants.documents(tmp_path / "weighted_split.yaml"))

    assert changed[1]["spec"]["hosts"] == ["*"]
    assert len(changed[0]["spec"]["http"][0]["route"]) == 1


def test_no_file_means_no_mutants(tmp_path):
    assert mutants.beside(tmp_path / "test_plain.py") == ()


@pytest.mark.parametrize(("text", "message"), [
    (GOOD.replace("kills:", "kill:"), r"weighted_split\.mutants\.yaml:2: .*unknown kill"),
    (GOOD.replace("  kills: shares\n", ""), r":2: .*no kills"),
    (GOOD.replace("kills: shares", "kills: ''"), r":2: .*no kills"),
    (GOOD.replace("weights-85-15", "85"), r":2: expected name as str"),
    (GOOD.replace("user-service", "greeter"), r":2: .*'VirtualService/greeter' 0 times; hint: it has VirtualService/user-service, Gateway/edge"),
    (GOOD.replace("route/0/weight", "route/7/weight"), r":2: expected a patch that applies"),
    (GOOD.replace("op: replace", "op: swap"), r":2: expected a patch that applies"),
    (GOOD.replace("value: 85", "value: 90").replace("value: 15", "value: 10"), r":2: .*changes nothing"),
    (GOOD.replace("[{op", "[3, {op"), r":2: expected a patch of operations"),
    (GOOD + GOOD, r":7: .*'weights-85-15' twice"),
    (GOOD + "- just text\n", r":6: expected a mapping, seen str"),
    ("- {name: a, kills: b, changes: []}", r":1: .*no changes"),
    ("- {name: a, kills: b, changes: [{target: Gateway/edge}]}", r":1: .*no patch"),
    ("- {name: a, kills: b, target: Gateway/edge, patch: [{op: remove, path: /spec}], changes: [{}]}", r":1: .*unknown patch, target"),
    ("name: a", r"expected a list of at least one mutant, seen dict"),
    ("", r"expected a list of at least one mutant"),
    ("- {name: a\n  b", r"yaml:2: expected YAML"),
])
def test_a_mistake_is_named_with_its_line(beside, text, message):
    with pytest.raises(UserError, match=message):
        beside(text)


@pytest.mark.parametrize(("manifest", "message"), [
    ("kind: [", r"weighted_split\.yaml:\d+: expected YAML"),
    ("- 1", "expected objects with kind"),
    ("kind: A\nmetadata: {}", "expected objects with kind"),
    (MANIFEST + "---\n" + MANIFEST, "2 times"),
])
def test_a_mistake_in_the_manifest_is_named(beside, manifest, message):
    with pytest.raises(UserError, match=message):
        beside(GOOD, manifest)


def test_a_missing_manifest_is_named(tmp_path):
    (tmp_path / "lonely.mutants.yaml").write_text(GOOD)

    with pytest.raises(UserError, match=r"lonely\.yaml: expected a readable file"):
        mutants.beside(tmp_path / "test_lonely.py")
