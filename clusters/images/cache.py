"""The cache outside the checkout: what is built once per input, written whole or not at all, by one process at a time."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from clusters.images import process
from clusters.paths import cache_root

RECORD_SCHEMA = 1
SUMS = "SHA256SUMS.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Blob:
    """One content-addressed file of the registry; `size` in bytes."""

    digest: str
    size: int


@dataclass(frozen=True)
class ImageRecord:
    """What a build left in the registry; it is true only while every blob it names is there.

    `digest` is the manifest's, `config` the image id under which Docker knows it. `seconds` is what the build took,
    `packages` the Debian packages inside as name=version.
    """

    name: str
    key: str
    reference: str
    repository: str
    tag: str
    digest: str
    config: str
    blobs: tuple[Blob, ...]
    seconds: float
    built: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    schema: int = RECORD_SCHEMA

    @property
    def size(self) -> int:
        """Bytes on the registry's disk."""
        return sum(blob.size for blob in self.blobs)


@dataclass(frozen=True)
class Cache:
    """Where everything lies below one root."""

    root: Path

    @classmethod
    def default(cls) -> "Cache":
        """Return the cache of this user."""
        return cls(cache_root())

    @property
    def images(self) -> Path:
        """One JSON record per image and key."""
        return self.root / "images"

    @property
    def binaries(self) -> Path:
        """One folder per Go set and key."""
        return self.root / "bin"

    @property
    def registry(self) -> Path:
        """The local registry's storage."""
        return self.root / "registry"

    @property
    def bootstrap(self) -> Path:
        """The registry's own image, which no registry can serve."""
        return self.root / "bootstrap"

    @property
    def wheels(self) -> Path:
        """Files taken from wheels."""
        return self.root / "wheels"

    @property
    def artifacts(self) -> Path:
        """One folder per locked set of Maven's artifacts."""
        return self.root / "artifacts"

    @property
    def toolchains(self) -> Path:
        """Go."""
        return self.root / "toolchains"

    @property
    def go(self) -> Path:
        """Go's module and build caches."""
        return self.root / "go"

    @property
    def logs(self) -> Path:
        """One build log per image or set and key."""
        return self.root / "logs"

    @property
    def locks(self) -> Path:
        """Lock files; they are never removed, because a lock on a removed file locks nobody out."""
        return self.root / "locks"

    def log_file(self, name: str, key: str) -> Path:
        """Return where the build of `name` writes its full output."""
        self.logs.mkdir(parents=True, exist_ok=True)
        return self.logs / f"{name}-{key}.log"

    @contextmanager
    def lock(self, name: str, *, waiting: Callable[[str], None]) -> Iterator[None]:
        """Hold `name` against every other thread and process; `waiting` is told once who has it."""
        self.locks.mkdir(parents=True, exist_ok=True)
        holder = self.locks / f"{name}.holder"
        lock = FileLock(self.locks / f"{name}.lock", thread_local=False, preserve_lock_file=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting(f"waiting for another build of {name} ({_read_or(holder, 'another process')})")
            try:
                lock.acquire(poll_interval=0.2, cancel_check=process.stopping)
            except Timeout:
                process.go_on()
                raise
        try:
            write_whole(holder, f"pid {os.getpid()}")
            yield
        finally:
            lock.release()

    @contextmanager
    def scratch(self, purpose: str) -> Iterator[Path]:
        """Lend a folder on the cache's own file system, so that its content can be moved into place by one rename."""
        folder = self.root / "tmp" / f"{purpose}-{process_mark()}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> int:
        """Remove the scratch folders of processes that were killed; return how many."""
        swept = 0
        for folder, pid in self._scratch_folders():
            # mmdebstrap mounts below its scratch folder; what is still mounted is not ours to empty.
            if pid is None and not mounted_below(folder):
                shutil.rmtree(folder, ignore_errors=True)
                swept += 1
        return swept

    def busy(self) -> int | None:
        """Return the id of another process that is building at this moment, if there is one."""
        return next((pid for _, pid in self._scratch_folders() if pid not in {None, os.getpid()}), None)

    def _scratch_folders(self) -> Iterator[tuple[Path, int | None]]:
        """Yield every scratch folder and the process that is using it; None when that process is gone."""
        for folder in sorted((self.root / "tmp").glob("*-*-*-*")):
            _, pid, started, _ = folder.name.rsplit("-", 3)
            yield folder, int(pid) if alive(f"{pid}-{started}") else None

    def record_file(self, name: str, key: str) -> Path:
        """Return where the record of an image lies."""
        return self.images / f"{name}-{key}.json"

    def read_record(self, name: str, key: str) -> ImageRecord | None:
        """Return the record of an image, or None when there is none that can be read."""
        return read_record(self.record_file(name, key))

    def records(self) -> list[ImageRecord]:
        """Return every readable record."""
        found = (read_record(file) for file in sorted(self.images.glob("*.json")))
        return [record for record in found if record is not None]

    def write_record(self, record: ImageRecord) -> None:
        """Write a record whole."""
        write_whole(self.record_file(record.name, record.key), json.dumps(asdict(record), indent=1, sort_keys=True) + "\n")


def read_record(file: Path) -> ImageRecord | None:
    """Read one record; anything unreadable or of another schema counts as absent, so that it is built again."""
    try:
        told = json.loads(file.read_text())
        blobs = tuple(Blob(**blob) for blob in told.pop("blobs"))
        record = ImageRecord(blobs=blobs, **{**told, "packages": tuple(told["packages"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if record.schema == RECORD_SCHEMA else None


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old content or the new and nothing between."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def file_digest(file: Path) -> str:
    """Return `sha256:<hex>` of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def seal(folder: Path) -> None:
    """Write the digests and sizes of a folder's files into it; only a sealed folder is complete."""
    sums = {
        file.relative_to(folder).as_posix(): {"digest": file_digest(file), "size": file.stat().st_size}
        for file in sorted(folder.rglob("*")) if file.is_file() and file.name != SUMS
    }
    write_whole(folder / SUMS, json.dumps(sums, indent=1) + "\n")


def sealed(folder: Path) -> bool:
    """Tell whether every file that was sealed is there with its size; contents are `verify`'s business."""
    sums = read_sums(folder)
    return sums is not None and all(_size(folder / name) == size for name, (_, size) in sums.items())


def read_sums(folder: Path) -> dict[str, tuple[str, int]] | None:
    """Return digest and size per file of a sealed folder, or None when it is not sealed."""
    try:
        told: Mapping[str, Any] = json.loads((folder / SUMS).read_text())
        return {name: (str(entry["digest"]), int(entry["size"])) for name, entry in told.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def move_into_place(folder: Path, target: Path) -> None:
    """Put a finished scratch folder where it belongs; an incomplete predecessor goes first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        doomed = folder.parent / f"{target.name}.old"
        target.rename(doomed)
    folder.rename(target)


def content_key(parts: Mapping[str, Any]) -> str:
    """Fold every input of a build into sixteen hex digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def folder_digests(folder: Path) -> dict[str, str]:
    """Return digest and mode per file of a source folder: all that a build can see of it."""
    return {
        file.relative_to(folder).as_posix(): source_digest(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }


def source_digest(file: Path) -> str:
    """Return a source file's digest and whether it is executable: the two that survive a checkout."""
    return f"{file_digest(file)} {'x' if file.stat().st_mode & 0o100 else '-'}"


def tree_size(path: Path) -> int:
    """Return the bytes below a path; 0 when there is nothing."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def mounted_below(folder: Path) -> bool:
    """Tell whether anything is mounted at or below a folder."""
    try:
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:
        return False
    return any(Path(point).is_relative_to(folder) for point in points)


def process_mark() -> str:
    """Return what tells this process from every other, a later one with the same id included."""
    return f"{os.getpid()}-{_started(os.getpid())}"


def alive(mark: str) -> bool:
    """Tell whether the process that made a mark still runs; a mark that cannot be read is nobody's."""
    pid, _, started = mark.partition("-")
    return pid.isdigit() and started != "" and _started(int(pid)) == started


def _started(pid: int) -> str | None:
    # A process id is reused after a restart; the pair with its start time is not.
    try:
        return str(int(psutil.Process(pid).create_time()))
    except psutil.Error:
        return None


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def _read_or(file: Path, otherwise: str) -> str:
    try:
        return file.read_text()
    except OSError:
        return otherwise
