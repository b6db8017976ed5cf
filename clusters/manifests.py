"""Manifests as read from disk: strict YAML, `$name` filled in, every object remembering the line it came from."""

import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clusters.errors import UserError


@dataclass(frozen=True)
class Document:
    """One Kubernetes object and where it was written; `line` counts from 1, and is 0 for an object made in code."""

    body: dict[str, Any]
    file: Path | None = None
    line: int = 0

    @property
    def kind(self) -> str:
        """The object's kind."""
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.body["metadata"]["name"])

    @property
    def target(self) -> str:
        """`VirtualService/user-service`, as messages and mutants name it."""
        return f"{self.kind}/{self.name}"

    @property
    def where(self) -> str:
        """`weighted_split.yaml:12 VirtualService/user-service`, as messages begin."""
        return f"{self.file.name}:{self.line} {self.target}" if self.file else self.target


def load_manifest(path: Path, **names: str) -> list[Document]:
    """Read a manifest of ours, with `$name` replaced by `names`.

    Raises UserError naming file and line for a file that cannot be read, a `$name` that is not among `names`
    (a literal dollar sign is written `$$`), invalid YAML, a duplicate key, or a document that is no Kubernetes object.
    """
    text = _read(path)
    try:
        filled = string.Template(text).substitute(names)
    except (KeyError, ValueError):
        raise _stray_dollar(path, text, names) from None
    return parse(filled, path)


def load_upstream(path: Path) -> list[Document]:
    """Read a manifest somebody else wrote: the same strictness, but dollar signs are theirs and stay."""
    return parse(_read(path), path)


def parse(text: str, path: Path) -> list[Document]:
    """Turn YAML into objects; `path` is only quoted. Empty documents are dropped, the items of a `kind: List` unfolded."""
    loader = _Loader(text)
    try:
        return list(_documents(loader, path))
    except yaml.YAMLError as error:
        raise _invalid(path, error) from error
    finally:
        loader.dispose()


# The C loader reads Istio's CRDs in a second; the Python one takes most of a minute.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # either of two loaders, chosen at import
    """YAML as kubectl reads it: no timestamps, no base 60, no `=` type, and no duplicate keys."""


# PyYAML keeps YAML 1.1's surprises: 2026-01-01 becomes a date, 1:30 becomes 90, and a bare = (in CRDs) fails.
_UNWANTED = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
_BASE_60 = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}


def _without_surprises() -> dict[str, list[tuple[str, Any]]]:
    kept: dict[str, list[tuple[str, Any]]] = {}
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items():
        kept[first] = [(tag, _NoColon(pattern) if tag in _BASE_60 else pattern) for tag, pattern in resolvers if tag not in _UNWANTED]
    return kept


@dataclass(frozen=True)
class _NoColon:
    """A number's pattern that leaves `1:30` a string."""

    pattern: re.Pattern[str]

    def match(self, text: str) -> re.Match[str] | None:
        return None if ":" in text else self.pattern.match(text)


def _mapping(loader: Any, node: yaml.MappingNode) -> Iterator[dict[Any, Any]]:  # noqa: ANN401  # two loaders, no common type
    written = [loader.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    for place, key in enumerate(written):
        if key in written[:place]:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", node.value[place][0].start_mark)
    loader.flatten_mapping(node)
    data: dict[Any, Any] = {}
    yield data
    data.update(loader.construct_mapping(node))


_Loader.yaml_implicit_resolvers = _without_surprises()
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _documents(loader: Any, path: Path) -> Iterator[Document]:  # noqa: ANN401  # two loaders, no common type
    while loader.check_node():
        node = loader.get_node()
        line = node.start_mark.line + 1
        body = loader.construct_document(node)
        if body is None:
            continue
        if isinstance(body, dict) and str(body.get("kind", "")).endswith("List") and isinstance(body.get("items"), list):
            for item, item_line in zip(body["items"], _item_lines(node), strict=True):
                yield _checked(item, path, item_line)
        else:
            yield _checked(body, path, line)


def _item_lines(node: yaml.MappingNode) -> list[int]:
    items = next(value for key, value in node.value if key.value == "items")
    return [item.start_mark.line + 1 for item in items.value]


def _checked(body: object, path: Path, line: int) -> Document:
    if not isinstance(body, dict):
        raise _not_an_object(path, line, f"a {type(body).__name__}")
    metadata = body.get("metadata")
    missing = [field for field in ("apiVersion", "kind") if not isinstance(body.get(field), str)]
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str):
        missing.append("metadata.name")
    if missing:
        raise _not_an_object(path, line, f"no {' and no '.join(missing)} (as text)")
    return Document(body, path, line)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"manifest {path}", expected="a readable YAML file", seen=str(error), hint="a manifest lies beside its test, with the same stem"
        ) from error


def _stray_dollar(path: Path, text: str, names: Mapping[str, str]) -> UserError:
    for match in string.Template.pattern.finditer(text):
        name = match["named"] or match["braced"]
        if match["escaped"] is not None or (name is not None and name in names):
            continue
        line = text.count("\n", 0, match.start()) + 1
        seen = f"${name}" if name else text[match.start() : match.start() + 12].splitlines()[0]
        known = ", ".join(f"${name}" for name in sorted(names)) or "no name at all"
        return UserError(f"{path.name}:{line}", expected=f"only {known}", seen=seen, hint="write $$ for a literal dollar sign")
    raise AssertionError(f"{path}: a substitution failed, but every dollar sign is accounted for")


def _invalid(path: Path, error: yaml.YAMLError) -> UserError:
    mark = getattr(error, "problem_mark", None)
    place = f"{path.name}:{mark.line + 1}" if mark else path.name
    problem = getattr(error, "problem", None) or str(error)
    return UserError(place, expected="valid YAML without duplicate keys", seen=problem, hint="look at the indentation, or quote the value")


def _not_an_object(path: Path, line: int, seen: str) -> UserError:
    return UserError(
        f"{path.name}:{line}",
        expected="a Kubernetes object with apiVersion, kind and metadata.name",
        seen=seen,
        hint="separate objects by a line of ---",
    )
