"""What went wrong in a build, read from what the tools printed and said in one line."""

import errno
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from clusters.errors import UserError

GIB = 1 << 30


@dataclass(frozen=True)
class Pattern:
    """A line that a tool prints for one kind of failure, and what to say about it."""

    seen: re.Pattern[str]
    expected: str
    hint: str


_PATTERNS = (
    Pattern(
        re.compile(r"^.*no space left on device.*$|^.*No space left on device.*$", re.MULTILINE),
        "room on the disk", "free some space (`python -m clusters images clean` says how much it can), then run again: finished parts are kept",
    ),
    Pattern(
        re.compile(r"^(?:go: )?(?:.*verifying .*checksum mismatch|.*SECURITY ERROR|.*DO NOT MATCH THE HASHES|.*computed checksums? did NOT match).*$", re.MULTILINE),
        "the content that is pinned", "the download is not what was pinned; do not use it, look at who answers for the package registry",
    ),
    Pattern(
        re.compile(r"^.*missing go\.sum entry.*$", re.MULTILINE),
        "a go.sum entry for every module", "the set's go.mod and go.sum disagree; restore them from git",
    ),
    Pattern(
        re.compile(
            r"^.*(?:40[34] (?:Not Found|Forbidden)|410 Gone|unknown revision|No matching distribution found|Unable to locate package"
            r"|has no installation candidate|Could not find artifact|Could not find a valid gem).*$", re.MULTILINE,
        ),
        "the pinned version to be there", "the package registry does not have this version: pin another in clusters/versions.toml, or use another registry",
    ),
    Pattern(
        re.compile(
            r"^.*(?:dial tcp|TLS handshake|i/o timeout|connection refused|Temporary failure|Could not resolve|could not resolve"
            r"|Connection timed out|Failed to establish|ReadTimeout|certificate).*$", re.MULTILINE | re.IGNORECASE,
        ),
        "the package registry to answer", "check the network, GOPROXY, PIP_INDEX_URL, Maven's settings.xml, FAASMESH_GEMS and the proxies of this machine, then run again",
    ),
)
_UNKNOWN = Pattern(re.compile(r"(?!)"), "exit 0", "the log has everything the tool printed")
_LONGEST = 240


def explain(what: str, output: str, *, code: int | str, log: Path | None = None) -> UserError:
    """Turn a failed tool's output into the one line a person needs; the log keeps the rest."""
    for pattern in _PATTERNS:
        if match := pattern.seen.search(output):
            return _error(what, pattern, match[0], log)
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
    return _error(what, _UNKNOWN, f"exit {code}: {last}", log)


def explain_os_error(what: str, error: OSError) -> UserError:
    """Say what the operating system refused while `what` was made."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _error(what, _PATTERNS[0], f"no space left on device ({error.filename or 'the cache'})", None)
    return UserError(what, expected="to be written", seen=str(error), hint="check the owner and rights of the cache folder")


def docker_missing(error: Exception) -> UserError:
    """Say that no Docker daemon answers."""
    return UserError(
        "docker", expected="a running daemon", seen=str(error)[:_LONGEST],
        hint="start it (`systemctl start docker`, or `dockerd`); `python -m clusters doctor` says what else is missing",
    )


def require_space(folder: Path, needed: float, *, what: str) -> None:
    """Refuse to start what cannot finish: `needed` in GiB on the file system of `folder`.

    Raises:
        UserError: less is free.

    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / GIB
    if free < needed:
        raise UserError(
            what, expected=f"{needed:.1f} GiB free at {existing}", seen=f"{free:.1f} GiB",
            hint="free some space, or move the cache with XDG_CACHE_HOME",
        )


def _error(what: str, pattern: Pattern, seen: str, log: Path | None) -> UserError:
    where = f" (log: {log})" if log else ""
    return UserError(what, expected=pattern.expected, seen=_shorten(seen), hint=f"{pattern.hint}{where}")


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
