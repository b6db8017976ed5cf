"""Running a build tool: its output goes to a log line by line, and it dies with the process that started it."""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_stopping = threading.Event()
_running: set["subprocess.Popen[str]"] = set()


class StoppedError(Exception):
    """Another part of the same build failed or was interrupted; nobody needs this one any more."""


@dataclass(frozen=True)
class Finished:
    """How a tool ended and everything it printed."""

    code: int
    output: str


def run(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, log: Path | None = None,
    line: Callable[[str], None] = lambda _: None,
) -> Finished:
    """Run a tool to its end; `line` sees each line as it is printed, standard error among standard output."""
    go_on()
    kept: list[str] = []
    with (
        subprocess.Popen(
            [*_bound_to_parent(), *argv], env=dict(env), cwd=cwd, text=True, errors="replace", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as child,
        (log.open("a") if log else Path("/dev/null").open("w")) as saved,
    ):
        _running.add(child)
        saved.write(f"$ {' '.join(argv)}\n")
        try:
            for printed in child.stdout or ():
                kept.append(printed)
                saved.write(printed)
                saved.flush()
                line(printed.rstrip())
        except BaseException:
            child.kill()
            raise
        finally:
            _running.discard(child)
    go_on()
    return Finished(child.returncode, "".join(kept))


def go_on() -> None:
    """Return at once, or end the calling piece of work because the build is being stopped.

    Raises:
        StoppedError: inside `stopped()`.

    """
    if _stopping.is_set():
        raise StoppedError


def stopping() -> bool:
    """Tell whether the build is being stopped."""
    return _stopping.is_set()


@contextmanager
def stopped() -> Iterator[None]:
    """End every running tool, and refuse new ones while the block waits for their threads."""
    _stopping.set()
    try:
        for child in tuple(_running):
            child.kill()
        yield
    finally:
        _stopping.clear()


def output(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None) -> Finished:
    """Run a tool whose standard output is an answer and whose standard error is only of interest when it failed."""
    done = subprocess.run(
        [*_bound_to_parent(), *argv], env=dict(env), cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )
    return Finished(done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr)


def _bound_to_parent() -> list[str]:
    # After a kill -9 of this process a compiler would go on for minutes, on a scratch folder that the next run removes.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
