"""The code of Lambda functions, packed so that equal code is equal bytes."""

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

FUNCTIONS = Path(__file__).parent / "functions"


def files(folder: str, *, release: str) -> dict[str, bytes]:
    """Return a function's files by their names; `release` is what the code says of itself, so that an update can be seen."""
    found = {file.name: file.read_bytes() for file in sorted((FUNCTIONS / folder).iterdir()) if file.is_file()}
    if not found:
        raise ValueError(f"no function {folder!r} in {FUNCTIONS}")
    return found | {"release.json": json.dumps({"release": release}).encode()}


def package(content: Mapping[str, bytes]) -> bytes:
    """Return the zip file that Lambda takes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(name)
            # Readable for everybody: a function does not run as root.
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return packed.getvalue()


def digest(package_: bytes) -> str:
    """Return a package's digest as Lambda names it (`CodeSha256`)."""
    return base64.b64encode(hashlib.sha256(package_).digest()).decode()
