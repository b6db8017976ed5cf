"""Packages of Java and Ruby, taken only as a list of digests beside the image's Dockerfile says."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from clusters import progress
from clusters.errors import UserError
from clusters.images import process
from clusters.images.cache import Cache, content_key, file_digest, move_into_place, seal, sealed, source_digest
from clusters.images.debian import require_program
from clusters.images.failures import explain

# Where the gems lie that an image is to be made from; without it the build asks RubyGems itself.
GEMS = "FAASMESH_GEMS"
# Maven's own way to bring what a project needs together; pinned, because its default follows Maven's version.
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>[^/\s]+)")


def read_lock(lock: Path) -> dict[str, str]:
    """Return the digest of each file that a list in the form of `sha256sum` names, in its order.

    Raises:
        UserError: the list is missing, empty, or has a line of another form.

    """
    try:
        lines = [line for line in lock.read_text().splitlines() if line.strip() and not line.startswith("#")]
    except OSError as error:
        raise UserError(f"lock {lock.name}", expected="a list of digests", seen=str(error), hint="restore it from git") from error
    matches = [_LINE.fullmatch(line) for line in lines]
    wrong = next((line for line, match in zip(lines, matches, strict=True) if match is None), None)
    if wrong is not None or not lines:
        raise UserError(f"lock {lock}", expected="lines of 64 hex digits, two spaces and a file's name", seen=repr(wrong or "nothing")[:120], hint="restore it from git")
    return {match["name"]: f"sha256:{match['digest']}" for match in matches if match}


def require_locked(folder: Path, lock: Mapping[str, str], *, what: str, hint: str) -> dict[str, Path]:
    """Return the locked files of a folder by name; others in it are nobody's business.

    Raises:
        UserError: one is missing, or its content is not the locked one.

    """
    for name, digest in lock.items():
        file = folder / name
        if not file.is_file():
            raise UserError(what, expected=f"{name} in {folder}", seen="no such file", hint=hint)
        if (seen := file_digest(file)) != digest:
            raise UserError(f"{what}: {name}", expected=digest, seen=seen, hint="the download is not what was pinned; do not use it")
    return {name: folder / name for name in lock}


def locked_gems(lock: Path, folder: str | None = None) -> dict[str, Path]:
    """Return the gems of the folder that FAASMESH_GEMS (or `folder`) names; none where it names none, for the build fetches them then.

    The folder is flat and holds `*.gem`, as Bundler's cache does.

    Raises:
        UserError: there is no such folder, or it lacks a locked gem, or has another one under its name.

    """
    named = os.environ.get(GEMS, "") if folder is None else folder
    if not named:
        return {}
    place = Path(named).expanduser().absolute()
    if not place.is_dir():
        raise UserError(GEMS, expected="a folder with *.gem files", seen=f"no folder {place}", hint=f"name another one, or unset {GEMS}: the gems come from RubyGems then")
    return require_locked(place, read_lock(lock), what=GEMS, hint=f"fill the folder with what {lock} lists, or unset {GEMS}")


def maven_set(cache: Cache, pom: Path, lock: Path) -> Path:
    """Return a folder with the artifacts that a project's pom.xml asks for, downloaded by Maven as this machine has it set up.

    Maven's own settings of this user (mirrors, proxies, a local repository) are honoured; what it brings must be what is locked, and no more.

    Raises:
        UserError: Maven is missing and may not be installed, it failed, or it brought something else.

    """
    target = cache.artifacts / f"{pom.parent.name}-{content_key({'pom': source_digest(pom), 'lock': source_digest(lock)})}"
    if sealed(target):
        return target
    with progress.step(f"artifacts of {pom.parent.name}") as step, cache.lock(target.name, waiting=step.update):
        if sealed(target):
            return target
        log = cache.log_file(f"artifacts-{pom.parent.name}", target.name.rsplit("-", 1)[-1])
        log.unlink(missing_ok=True)
        require_program("mvn", "maven", step, log)
        with cache.scratch("artifacts") as scratch:
            shutil.copy(pom, scratch / "pom.xml")
            out = scratch / "out"
            step.update("mvn")
            done = process.run(["mvn", "--batch-mode", "--no-transfer-progress", _COPY, f"-DoutputDirectory={out}", "-DincludeScope=runtime"],
                               env=os.environ, cwd=scratch, log=log)
            if done.code:
                raise explain(f"artifacts of {pom.parent.name}", done.output, code=done.code, log=log)
            wanted = read_lock(lock)
            require_locked(out, wanted, what=f"artifacts of {pom.parent.name}", hint=f"{pom.name} and {lock.name} disagree; restore them from git")
            if more := sorted({file.name for file in out.iterdir()} - wanted.keys()):
                raise UserError(f"artifacts of {pom.parent.name}", expected=f"no more than {lock.name} lists", seen=more[0], hint="lock it too, or exclude it in the pom.xml")
            seal(out)
            move_into_place(out, target)
    return target
