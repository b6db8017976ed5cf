"""Whether the cache still holds what it says it holds, and what in it nobody needs any more."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clusters.images.builder import Builder
from clusters.images.cache import Blob, Cache, file_digest, read_record, read_sums, tree_size
from clusters.images.storage import RegistryStorage

# Hashing releases the interpreter's lock; more threads than this only seek.
_THREADS = 4
# A lock that is removed locks nobody out, and a cluster's state belongs to its provider.
_NOT_OURS = frozenset({"locks", "clusters"})


@dataclass(frozen=True)
class Damage:
    """One broken entry: `what` it is, `how` it is broken, and the paths or blob whose removal lets it be built again."""

    what: str
    how: str
    paths: tuple[Path, ...] = ()
    blob: str = ""


@dataclass(frozen=True)
class Audit:
    """What `verify` read: every damage found, the entries and the bytes that were hashed."""

    damages: tuple[Damage, ...]
    entries: int
    size: int


@dataclass(frozen=True)
class Leftover:
    """Something that no current input leads to."""

    what: str
    path: Path
    size: int


def audit(cache: Cache) -> Audit:
    """Recompute the digest of every file that a record or a seal names; nothing is changed."""
    damages, users = _read_records(cache)
    unsealed, sums = _read_seals(cache)
    storage = RegistryStorage(cache.registry)
    with ThreadPoolExecutor(_THREADS) as pool:
        said_of_blobs = pool.map(storage.judge, users)
        said_of_files = pool.map(_judge_file, sums, sums.values())
        damages += [
            Damage(", ".join(sorted({name for name, _ in named})), said, tuple(file for _, file in named), blob.digest)
            for (blob, named), said in zip(users.items(), said_of_blobs, strict=True) if said
        ]
        damages += [
            Damage(f"files {file.parent.name}", f"{file.name} {said}", (file.parent,))
            for file, said in zip(sums, said_of_files, strict=True) if said
        ]
    size = sum(blob.size for blob in users) + sum(tree_size(file) for file in sums if file.exists())
    return Audit((*damages, *unsealed), len(users) + len(sums), size)


def _read_records(cache: Cache) -> tuple[list[Damage], dict[Blob, list[tuple[str, Path]]]]:
    """Return what is wrong with the records themselves, and who uses each blob."""
    storage = RegistryStorage(cache.registry)
    damages: list[Damage] = []
    users: dict[Blob, list[tuple[str, Path]]] = {}
    for file in sorted(cache.images.glob("*.json")):
        record = read_record(file)
        if record is None:
            damages.append(Damage(f"record {file.name}", "unreadable", (file,)))
            continue
        if not storage.linked(record):
            damages.append(Damage(f"image {record.name}", "links in the registry missing", (file,)))
        for blob in record.blobs:
            users.setdefault(blob, []).append((f"image {record.name}", file))
    return damages, users


def _read_seals(cache: Cache) -> tuple[list[Damage], dict[Path, str]]:
    """Return the folders whose seal cannot be read, and the digest of every file that a seal names."""
    damages: list[Damage] = []
    sums: dict[Path, str] = {}
    for folder in _sealed_folders(cache):
        told = read_sums(folder)
        if told is None:
            damages.append(Damage(f"files {folder.name}", "no readable seal", (folder,)))
        else:
            sums |= {folder / name: digest for name, (digest, _) in told.items()}
    return damages, sums


def repair(cache: Cache, damages: tuple[Damage, ...]) -> None:
    """Remove what is broken, so that the next build makes it again."""
    storage = RegistryStorage(cache.registry)
    for damage in damages:
        for path in damage.paths:
            _remove(path)
        if damage.blob:
            storage.drop_blob(damage.blob)


def leftovers(builder: Builder, *, everything: bool) -> list[Leftover]:
    """Return what may go: entries of other inputs and Go's compiled packages, or all there is."""
    cache = builder.cache
    if everything:
        entries = sorted(cache.root.iterdir()) if cache.root.exists() else []
        return [Leftover(entry.name, entry, tree_size(entry)) for entry in entries if entry.name not in _NOT_OURS]
    storage = RegistryStorage(cache.registry)
    kept = {cache.record_file(name, builder.keys.image(name)) for name in builder.catalogue.images}
    kept |= {builder.program_folder(name) for name in builder.catalogue.programs} | {builder.bootstrap_file("registry")}
    kept |= {storage.blob(blob.digest) for file in kept if (record := read_record(file)) for blob in record.blobs}
    candidates = [
        *((f"record {file.stem}", file) for file in sorted(cache.images.glob("*.json"))),
        *((f"program {folder.name}", folder) for folder in _folders(cache.binaries)),
        *((f"saved {file.stem}", file) for file in sorted(cache.bootstrap.glob("*"))),
        *((f"blob {digest[:19]}", storage.blob(digest)) for digest in storage.blobs()),
    ]
    found = [Leftover(what, path, tree_size(path)) for what, path in candidates if path not in kept]
    # Only the next build would read it, and it outgrows everything else.
    found += [Leftover("compiled Go packages", path, tree_size(path)) for path in (cache.go / "build",) if path.exists()]
    return found


def remove(builder: Builder, found: list[Leftover]) -> int:
    """Remove leftovers; return the bytes that were freed."""
    storage = RegistryStorage(builder.cache.registry)
    for leftover in found:
        if leftover.path.name == "data" and leftover.path.is_relative_to(storage.root):
            storage.drop_blob(f"sha256:{leftover.path.parent.name}")
        else:
            _remove(leftover.path)
    return sum(leftover.size for leftover in found)


def _judge_file(file: Path, digest: str) -> str:
    if not file.exists():
        return "missing"
    seen = file_digest(file)
    return "" if seen == digest else f"has content {seen}"


def _sealed_folders(cache: Cache) -> Iterator[Path]:
    for parent in (cache.binaries, cache.wheels, cache.artifacts):
        yield from _folders(parent)


def _folders(parent: Path) -> list[Path]:
    return sorted(entry for entry in parent.glob("*") if entry.is_dir())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
