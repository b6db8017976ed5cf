"""The registry's storage on disk (the distribution project's filesystem driver), read and mended without a registry."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clusters.images.cache import Blob, ImageRecord, file_digest, write_whole


@dataclass(frozen=True)
class RegistryStorage:
    """One registry's folder; paths are those of github.com/distribution/distribution, registry/storage/paths.go."""

    root: Path

    def blob(self, digest: str) -> Path:
        """Return the file that holds a blob."""
        algorithm, _, value = digest.partition(":")
        return self._v2 / "blobs" / algorithm / value[:2] / value / "data"

    def holds(self, record: ImageRecord) -> bool:
        """Tell whether a node could pull the image by digest: every blob there, whole by size, and linked."""
        return all(self._size(blob.digest) == blob.size for blob in record.blobs) and self.linked(record)

    def linked(self, record: ImageRecord) -> bool:
        """Tell whether the image's repository knows its manifest and layers."""
        return all(link.exists() for link in self._links(record))

    def tagged(self, record: ImageRecord) -> bool:
        """Tell whether the image's tag points at it; another checkout may have moved the tag."""
        try:
            return self._tag(record).read_text().strip() == record.digest
        except OSError:
            return False

    def retag(self, record: ImageRecord) -> None:
        """Point the image's tag at it; the registry reads links anew at each request."""
        digest = record.digest.removeprefix("sha256:")
        write_whole(self._tag(record).parent.parent / "index" / "sha256" / digest / "link", record.digest)
        write_whole(self._tag(record), record.digest)

    def manifest_blobs(self, digest: str) -> tuple[Blob, ...]:
        """Return the manifest itself, the configuration and the layers that a manifest names.

        Raises:
            OSError, ValueError, KeyError: the manifest is missing or is not one.

        """
        file = self.blob(digest)
        manifest = json.loads(file.read_text())
        parts = [manifest["config"], *manifest["layers"]]
        named = {part["digest"]: Blob(part["digest"], part["size"]) for part in parts}
        return (Blob(digest, file.stat().st_size), *named.values())

    def judge(self, blob: Blob) -> str:
        """Recompute one blob's digest; empty when it is what its name says."""
        file = self.blob(blob.digest)
        if not file.exists():
            return f"blob {blob.digest} missing"
        seen = file_digest(file)
        return "" if seen == blob.digest else f"blob {blob.digest} has content {seen}"

    def drop_blob(self, digest: str) -> None:
        """Remove a blob and every link to it; as long as one is left, a push believes that the blob is there."""
        shutil.rmtree(self.blob(digest).parent, ignore_errors=True)
        value = digest.removeprefix("sha256:")
        for link in self._repositories.rglob(f"sha256/{value}"):
            shutil.rmtree(link, ignore_errors=True)

    def blobs(self) -> Iterator[str]:
        """Yield the digest of every blob."""
        for data in sorted(self._v2.glob("blobs/sha256/*/*/data")):
            yield f"sha256:{data.parent.name}"

    @property
    def _v2(self) -> Path:
        return self.root / "docker" / "registry" / "v2"

    @property
    def _repositories(self) -> Path:
        return self._v2 / "repositories"

    def _tag(self, record: ImageRecord) -> Path:
        return self._repositories / record.repository / "_manifests" / "tags" / record.tag / "current" / "link"

    def _links(self, record: ImageRecord) -> Iterator[Path]:
        repository = self._repositories / record.repository
        yield repository / "_manifests" / "revisions" / "sha256" / record.digest.removeprefix("sha256:") / "link"
        for blob in record.blobs:
            if blob.digest != record.digest:
                yield repository / "_layers" / "sha256" / blob.digest.removeprefix("sha256:") / "link"

    def _size(self, digest: str) -> int | None:
        try:
            return self.blob(digest).stat().st_size
        except OSError:
            return None
