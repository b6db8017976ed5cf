"""Progress that a person can follow: one live line per step on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

# pytest captures sys.stderr; a person waiting for a cluster must see the lines all the same.
_console = Console(stderr=True, highlight=False)
_lock = threading.Lock()
_live: Progress | None = None
_open_steps = 0


@dataclass
class Step:
    """One piece of work that takes longer than a few seconds; `update` says what it does now."""

    title: str
    began: float = field(default_factory=time.monotonic)
    task: TaskID | None = None
    _said: str = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.began

    def update(self, now: str) -> None:
        """Show what the step is doing; repeats of the same text are not printed twice."""
        if now == self._said:
            return
        self._said = now
        if _live is not None and self.task is not None:
            _live.update(self.task, now=now)
        else:
            say(f"  {self.title}: {now} ({self.elapsed:.0f} s)")

    def note(self, text: str) -> None:
        """Print a line that stays."""
        say(f"  {self.title}: {text}")


def say(text: str) -> None:
    """Print one plain line to the person, above any live lines."""
    with _lock:
        _console.print(text, markup=False, soft_wrap=True)


def live() -> bool:
    """Tell whether a line can change in front of the person; where it cannot, every update is a line of its own."""
    return _console.is_terminal


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Show a step while the block runs, and how it ended and how long it took."""
    current = Step(title)
    _begin(current)
    try:
        yield current
    except BaseException:
        _end(current, "failed")
        raise
    _end(current, "done")


def redirect(stream: object) -> None:
    """Send progress to `stream` from now on (pytest hands over its uncaptured terminal)."""
    global _console  # noqa: PLW0603  # one terminal per process, chosen once at start
    _console = Console(file=stream, highlight=False)  # type: ignore[arg-type]


def _begin(current: Step) -> None:
    global _live, _open_steps  # noqa: PLW0603  # rich allows one live display per console
    with _lock:
        _open_steps += 1
        if _console.is_terminal:
            if _live is None:
                _live = Progress(
                    SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
                    TextColumn("{task.fields[now]}"), console=_console, transient=True,
                )
                _live.start()
            current.task = _live.add_task(current.title, total=None, now="")
            return
    say(f"{current.title} ...")


def _end(current: Step, outcome: str) -> None:
    global _live, _open_steps  # noqa: PLW0603  # see _begin
    with _lock:
        _open_steps -= 1
        if _live is not None and current.task is not None:
            _live.remove_task(current.task)
            if _open_steps == 0:
                _live.stop()
                _live = None
    say(f"{current.title}: {outcome} in {current.elapsed:.1f} s")
