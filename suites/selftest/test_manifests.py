"""Manifests: read strictly, filled in by name, and never without the place they come from."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clusters.errors import UserError
from clusters.manifests import load_manifest, load_upstream, parse

HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n"


def one(text: str) -> dict[str, object]:
    (document,) = parse(HEAD + text, Path("some.yaml"))
    return document.body


def test_every_document_remembers_its_line() -> None:
    text = f"# a comment\n\n{HEAD}---\n---\n{HEAD.replace('one', 'two')}"

    documents = parse(text, Path("folder/some.yaml"))

    assert [document.where for document in documents] == ["some.yaml:3 ConfigMap/one", "some.yaml:8 ConfigMap/two"]


def test_a_list_is_unfolded_into_its_items_with_their_lines() -> None:
    item = "- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: one}\n"

    documents = parse(f"apiVersion: v1\nkind: List\nitems:\n{item}{item}", Path("some.yaml"))

    assert [document.line for document in documents] == [4, 7]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-01-01", "2026-01-01"),
        ("1:30", "1:30"),
        ("=", "="),
        ("0644", 420),
        ("1.5", 1.5),
        ("1h", "1h"),
        ('"true"', "true"),
        ("true", True),
    ],
)
def test_values_mean_what_kubectl_takes_them_for(written: str, meant: object) -> None:
    assert one(f"data: {{value: {written}}}\n")["data"] == {"value": meant}


def test_merged_keys_may_be_overridden() -> None:
    assert one("base: &base {a: 1, b: 2}\ndata: {<<: *base, b: 3}\n")["data"] == {"a": 1, "b": 3}


def test_names_are_filled_in_and_a_doubled_dollar_is_one(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(HEAD + "data: {host: greeter.$namespace.svc, other: ${namespace}x, env: $$(VAR)}\n")

    (document,) = load_manifest(path, namespace="run-1")

    assert document.body["data"] == {"host": "greeter.run-1.svc", "other": "run-1x", "env": "$(VAR)"}


@pytest.mark.parametrize(
    ("written", "seen"),
    [("$namesapce", "seen $namesapce"), ("${image}", "seen $image"), ("$(VAR)", "seen $(VAR)"), ("costs $5", "seen $5")],
)
def test_a_stray_dollar_is_named_by_its_line(tmp_path: Path, written: str, seen: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(f"{HEAD}data:\n  fine: $namespace $$\n  value: {written}\n")

    with pytest.raises(UserError) as caught:
        load_manifest(path, namespace="x")
    assert str(caught.value).startswith(f"some.yaml:6: expected only $namespace, {seen}")
    assert str(caught.value).endswith("hint: write $$ for a literal dollar sign")


def test_dollars_of_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "crd.yaml"
    path.write_text(HEAD + "pattern: ^[a-z]+$\n")

    (document,) = load_upstream(path)

    assert document.body["pattern"] == "^[a-z]+$"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "some.yaml:6: expected valid YAML without duplicate keys, seen duplicate key 'a'"),
        ("deep:\n  - {x: 1, x: 2}\n", "some.yaml:5: .*duplicate key 'x'"),
        ("a: [1\n", r"some\.yaml:\d+: expected valid YAML"),
        ("a: !!python/name:os.system x\n", "some.yaml:4: expected valid YAML"),
    ],
    ids=["duplicate", "deep duplicate", "open bracket", "a tag"],
)
def test_invalid_yaml_is_named_by_its_line(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse(HEAD + text, Path("some.yaml"))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("just text", "a str"),
        ("- apiVersion: v1", "a list"),
        ("kind: X\nmetadata: {name: a}", "no apiVersion"),
        ("apiVersion: v1\nkind: X\nmetadata: {generateName: a-}", r"no metadata\.name"),
        ("apiVersion: v1\nkind: X\nmetadata: {name: 1}", r"no metadata\.name \(as text\)"),
        ("apiVersion: v1\nkind: X\nmetadata:", r"no metadata\.name"),
        ("apiVersion: v1\nkind: List\nitems: [1]", "a int"),
    ],
)
def test_what_is_no_object_is_refused(text: str, seen: str) -> None:
    with pytest.raises(UserError, match=rf"some\.yaml:\d+: expected a Kubernetes object .*seen {seen}"):
        parse(text, Path("some.yaml"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lies beside its test"):
        load_manifest(tmp_path / "none.yaml")


SCALARS = st.text(alphabet=st.characters(codec="ascii", exclude_characters="$"), max_size=12) | st.integers() | st.booleans() | st.none()
OBJECTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), inner, max_size=3)
)


@given(content=OBJECTS)
def test_what_was_written_is_what_is_read(content: object) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": content}

    (document,) = parse(yaml.safe_dump(body), Path("some.yaml"))

    assert document.body == body
