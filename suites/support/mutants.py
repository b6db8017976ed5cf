"""Mutants: declared faults of the mesh, each a JSON Patch of objects of the manifest beside it."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonpatch
import yaml

from clusters.errors import UserError

if TYPE_CHECKING:
    from suites.support.requirements import Requirement

Document = Mapping[str, Any]

FIELDS: Mapping[str, type] = {"name": str, "kills": str}
CHANGE: Mapping[str, type] = {"target": str, "patch": list}
HINT = "name, target (Kind/name), patch (RFC 6902 operations), kills (a claim); changes: [{target, patch}] for several objects"

WHOLE = ({"op": "remove", "path": ""},)


@dataclass(frozen=True)
class Change:
    """One object of the manifest and what is done to it; a patch that removes the path "" takes the object away."""

    target: str
    patch: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Mutant:
    """One fault: `changes` made to the manifest must turn the claim `kills` red.

    `requirement` is the id of the requirement it is meant for, empty when the test file declares only one.
    """

    name: str
    changes: tuple[Change, ...]
    kills: str
    requirement: str
    file: Path
    line: int

    @property
    def target(self) -> str:
        """The changed objects, for people."""
        return ", ".join(change.target for change in self.changes)


def beside(test_file: Path) -> tuple[Mutant, ...]:
    """Load the mutants of `test_<stem>.py` from `<stem>.mutants.yaml`, against `<stem>.yaml`; none if there is no such file."""
    stem = test_file.stem.removeprefix("test_")
    file = test_file.with_name(f"{stem}.mutants.yaml")
    return load(file, documents(test_file.with_name(f"{stem}.yaml"))) if file.exists() else ()


def of(entry: "Requirement") -> tuple[Mutant, ...]:
    """Return the mutants that must turn this requirement red."""
    return tuple(mutant for mutant in beside(entry.path) if mutant.requirement in ("", entry.id))


def documents(manifest: Path) -> tuple[Document, ...]:
    """Read the objects of a manifest; raises UserError naming file and line when it is no YAML or holds no objects."""
    try:
        loaded = [document for document in yaml.safe_load_all(manifest.read_text()) if document is not None]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"manifest {manifest}", expected="a readable file", seen=str(error), hint="a mutants file lies beside the manifest it changes") from error
    except yaml.YAMLError as error:
        raise UserError(f"manifest {manifest}{_mark(error)}", expected="YAML", seen=str(error), hint="kubectl apply --dry-run=client shows the same") from error
    if not all(isinstance(document, dict) and "kind" in document and "name" in (document.get("metadata") or {}) for document in loaded):
        raise UserError(f"manifest {manifest}", expected="objects with kind and metadata.name", seen="something else", hint="separate objects by ---")
    return tuple(loaded)


def load(file: Path, docs: Sequence[Document]) -> tuple[Mutant, ...]:
    """Read a mutants file and prove every mutant against the manifest's objects.

    Raises UserError with file and line for: no list, an unknown or missing or wrong field, a name used twice, a target
    that is not in the manifest, a patch that does not apply, a patch that changes nothing.
    """
    try:
        text = file.read_text()
        entries, root = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"mutants {file}", expected="a readable file", seen=str(error), hint="one list of mutants") from error
    except yaml.YAMLError as error:
        raise UserError(f"mutants {file}{_mark(error)}", expected="YAML", seen=str(error), hint=HINT) from error
    if not isinstance(entries, list) or not entries or not isinstance(root, yaml.SequenceNode):
        raise UserError(f"mutants {file}", expected="a list of at least one mutant", seen=type(entries).__name__, hint=HINT)
    found: list[Mutant] = []
    for entry, node in zip(entries, root.value, strict=True):
        mutant = _read(file, node.start_mark.line + 1, entry)
        if mutant.name in {other.name for other in found}:
            raise _wrong(mutant.file, mutant.line, "a name of its own", f"{mutant.name!r} twice", "the kill matrix has one row per name")
        if (idle := _idle(mutant, docs, apply(mutant, docs))):
            raise _wrong(mutant.file, mutant.line, f"a patch that changes {idle}", f"{mutant.name!r} changes nothing", "a mutant equal to its original cannot be killed")
        found.append(mutant)
    return tuple(found)


def apply(mutant: Mutant, docs: Sequence[Document]) -> list[Document]:
    """Return the objects with the fault in place; the given ones stay as they are.

    A value that was filled into the manifest may already be the mutant's: that stage of a check is then as declared.
    Raises UserError when a target is not among them, or a patch does not apply.
    """
    changed: list[Document] = [copy.deepcopy(document) for document in docs]
    for change in mutant.changes:
        changed = _apply(mutant, change, changed)
    return changed


def _idle(mutant: Mutant, docs: Sequence[Document], changed: Sequence[Document]) -> str:
    """Return the targets that a mutant leaves as they are, as text."""
    kept = [f"{document['kind']}/{document['metadata']['name']}" for document in docs if document in changed]
    return ", ".join(change.target for change in mutant.changes if change.target in kept)


def _apply(mutant: Mutant, change: Change, docs: list[Document]) -> list[Document]:
    names = [f"{document['kind']}/{document['metadata']['name']}" for document in docs]
    if names.count(change.target) != 1:
        raise _wrong(mutant.file, mutant.line, "a target that the manifest has once", f"{change.target!r} {names.count(change.target)} times", f"it has {', '.join(names) or 'no objects'}")
    index = names.index(change.target)
    if change.patch == WHOLE:
        return docs[:index] + docs[index + 1 :]
    try:
        patched = jsonpatch.apply_patch(docs[index], [dict(operation) for operation in change.patch])
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError) as error:
        raise _wrong(mutant.file, mutant.line, f"a patch that applies to {change.target}", f"{mutant.name!r}: {error}", "RFC 6902; paths count list items from 0") from error
    return [*docs[:index], patched, *docs[index + 1 :]]


def _read(file: Path, line: int, entry: object) -> Mutant:
    several = isinstance(entry, dict) and "changes" in entry
    plain = _mapping(file, line, entry, {**FIELDS, **({"changes": list} if several else CHANGE)}, {"requirement": str})
    changes = plain["changes"] if several else [{key: plain[key] for key in CHANGE}]
    return Mutant(
        name=plain["name"], changes=tuple(_change(file, line, change) for change in changes), kills=plain["kills"],
        requirement=plain.get("requirement", ""), file=file, line=line,
    )


def _change(file: Path, line: int, entry: object) -> Change:
    plain = _mapping(file, line, entry, CHANGE, {})
    if not all(isinstance(operation, dict) for operation in plain["patch"]):
        raise _wrong(file, line, "a patch of operations", repr(plain["patch"]), "RFC 6902: [{op: replace, path: /spec/..., value: ...}]")
    return Change(plain["target"], tuple(plain["patch"]))


def _mapping(file: Path, line: int, entry: object, required: Mapping[str, type], optional: Mapping[str, type]) -> Mapping[str, Any]:
    """Hold an entry to its fields: none unknown, none missing or empty, each of its type."""
    if not isinstance(entry, dict):
        raise _wrong(file, line, "a mapping", type(entry).__name__, HINT)
    known = {**required, **optional}
    if unknown := sorted(str(key) for key in entry if key not in known):
        raise _wrong(file, line, f"only {', '.join(known)}", f"unknown {', '.join(unknown)}", HINT)
    if missing := sorted(key for key in required if not entry.get(key)):
        raise _wrong(file, line, ", ".join(required), f"no {', '.join(missing)}", HINT)
    if wrong := sorted(key for key, value in entry.items() if not isinstance(value, known[key])):
        raise _wrong(file, line, f"{wrong[0]} as {known[wrong[0]].__name__}", repr(entry[wrong[0]]), HINT)
    return entry


def _wrong(file: Path, line: int, expected: str, seen: str, hint: str) -> UserError:
    return UserError(f"mutants {file}:{line}", expected=expected, seen=seen, hint=hint)


def _mark(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark is not None else ""
