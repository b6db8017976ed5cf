"""The Debian base system: made by mmdebstrap from the sources that this machine itself uses."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from clusters import progress
from clusters.errors import UserError
from clusters.images import process
from clusters.images.failures import explain

_SOURCES = Path("/etc/apt")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PROXY = re.compile(r'^Acquire::(https?)::Proxy "([^"]+)";', re.MULTILINE)
# What nobody reads in a container; licences stay.
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def build_base(suite: str, target: Path, scratch: Path, log: Path, step: progress.Step) -> None:
    """Write a root file system of `suite` with apt in it to the tar file `target`.

    Raises:
        UserError: mmdebstrap is missing and may not be installed, or failed.

    """
    require_program("mmdebstrap", "mmdebstrap", step, log)
    sources = scratch / "debian.sources"
    found = "\n\n".join(debian_sources(_SOURCES, suite))
    sources.write_text(found + "\n")
    step.update("mmdebstrap")
    # Without sources of its own (another distribution's machine), mmdebstrap knows Debian's.
    argv = [
        "mmdebstrap", "--variant=minbase", "--format=tar", '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT), "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        suite, str(target), *([str(sources)] if found else []),
    ]
    done = process.run(argv, env={**os.environ, **proxy_environment(), "TMPDIR": str(scratch)}, log=log, line=_Milestones(step))
    if done.code:
        raise explain("Debian base system", done.output, code=done.code, log=log)


def debian_sources(apt: Path, suite: str) -> Iterator[str]:
    """Yield this machine's apt sources of the Debian release `suite`, as deb822 stanzas; other vendors' are left out."""
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    for file in sorted(apt.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text()):
            fields = _fields(stanza)
            suites = set(fields.get("suites", "").split())
            if suites and suites <= wanted and fields.get("enabled", "yes") != "no" and "deb" in fields.get("types", "").split():
                yield _stanza(fields["uris"], fields["suites"], fields.get("signed-by"))
    for file in [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))]:
        for line in file.read_text().splitlines() if file.exists() else []:
            match = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)", line)
            if match and match["suite"] in wanted:
                key = re.search(r"signed-by=(\S+)", match["options"] or "")
                yield _stanza(match["uri"], match["suite"], key[1] if key else None)


def proxy_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the proxies that this machine's environment or apt names, as the variables every downloader reads."""
    found: dict[str, str] = {}
    if shutil.which("apt-config"):
        done = process.output(["apt-config", "dump"], env=environment)
        found = {f"{match[1]}_proxy": match[2] for match in _PROXY.finditer(done.output) if match[2] != "DIRECT"}
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        if value := environment.get(name) or environment.get(name.upper()):
            found[name] = value
    return found


def require_program(program: str, package: str, step: progress.Step, log: Path) -> None:
    """Have a program of a Debian package on PATH, installed where this user may and it is missing.

    Raises:
        UserError: it is missing and may not be installed, or apt-get failed.

    """
    if shutil.which(program):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise UserError(
            package, expected=f"{program} to be installed", seen="not on PATH, and this user may not install it",
            hint=f"apt-get install {package} as root, or use --images=published",
        )
    step.note(f"installing {package} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for argv in (["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", package]):
        done = process.run(argv, env=environment, log=log)
        if done.code:
            raise explain(f"installation of {package}", done.output, code=done.code, log=log)


def _stanza(uris: str, suites: str, signed_by: str | None) -> str:
    # One component is enough, and a key file that the base system will have itself.
    key = signed_by if signed_by and "\n" not in signed_by and Path(signed_by).exists() else str(_KEYRING)
    signed = f"\nSigned-By: {key}" if Path(key).exists() else ""
    return f"Types: deb\nURIs: {uris}\nSuites: {suites}\nComponents: main{signed}"


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in stanza.splitlines():
        if line[:1] not in {"#", " ", "\t"} and ":" in line:
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
    return fields


class _Milestones:
    """Shows mmdebstrap's own headings and nothing of what lies between."""

    def __init__(self, step: progress.Step) -> None:
        self._step = step

    def __call__(self, line: str) -> None:
        if line.startswith("I: ") and "..." in line:
            self._step.update(line[3:].rstrip("."))
