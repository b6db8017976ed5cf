"""Starting and ending Locust, and what it saw as a draw: it runs beside this process and is never imported into it."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusters import progress
from clusters.paths import CHECKOUT
from clusters.waiting import GiveUp, eventually
from workloads.load import ANYBODY, PERSONA_HEADER, STEADY, LoadProfile, OpenProfile, Persona, results
from workloads.load.results import Generator
from workloads.records import NO_ANSWER, SERVER_ERROR, Draw

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
# Python, gevent and Locust start in about a second; a busy machine takes several.
STARTS_WITHIN_S = 60.0
# Calls under way when the load ends are waited for: their answers are evidence like the others.
LAST_CALLS_S = 15
# What an earlier load of the same name may have left.
LEFT = ("begun", "calls.jsonl", "generator.jsonl", "result.json", "summary.json", "locust.html")
# A load of a few seconds needs no line of its own while it lasts.
FIRST_WORD_S, NEXT_WORD_S = 5.0, 1.0
NEXT_LINE_S = 30.0


class LoadBroken(Exception):  # noqa: N818  # states what happened
    """The load generator ended, or recorded otherwise than it counted: what it drew is no evidence."""


@dataclass
class Load:
    """Load under way; times are milliseconds since it was started, by the clock of the host that records them.

    The folder keeps one line a call (`calls.jsonl`), lines on the generator itself (`generator.jsonl`), how it fared (`result.json`), and Locust's
    own output (`locust.log`), figures (`summary.json`) and page (`locust.html`).
    """

    profile: LoadProfile | OpenProfile
    personas: int
    url: str
    folder: Path
    process: subprocess.Popen[bytes]
    began: float
    _ended: float = 0.0
    _stopped: float = 0.0
    _tail: "Tail" = field(init=False)

    def __post_init__(self) -> None:
        """Read what is recorded, from the beginning."""
        self._tail = Tail(self.folder / "calls.jsonl")

    def elapsed_ms(self) -> float:
        """Return the milliseconds since the start."""
        return 1000 * (time.time() - self.began)

    def await_begun(self, *, within: float = STARTS_WITHIN_S) -> None:
        """Return when the users are there and calls begin as the profile has it; raises NeverReached when Locust has ended, and TimedOut."""

        def begun() -> None:
            self._refuse_ended()
            assert self._begun() is not None, "its users are not there yet"

        eventually(begun, within=within, every=0.05, subject=f"load on {self.url} not begun")

    def await_calls(self, count: int, *, within: float = STARTS_WITHIN_S) -> None:
        """Return when `count` more calls have ended.

        Raises:
            NeverReached: Locust has ended.
            TimedOut: they did not end within so many seconds.

        """
        before = self._tail.read().calls

        def ended() -> None:
            over = self.process.poll() is not None
            more = self._tail.read().calls - before
            if over and more < count:
                self._refuse_ended()
            assert more >= count, f"{more} calls ended"

        eventually(ended, within=within, every=0.1, subject=f"{count} calls of the load on {self.url} not made")

    def await_end(self) -> None:
        """Return when every arrival of an open load has been made and has ended; raises TimedOut, and LoadBroken for a load that has no end."""
        if isinstance(self.profile, LoadProfile):
            raise LoadBroken(f"load on {self.url}: {self.profile.users} users go on until the block ends; only an open load ends by itself")

        def ended() -> None:
            assert self.process.poll() is not None, f"{self._tail.read().calls} calls ended"

        eventually(ended, within=self.profile.longest_s + LAST_CALLS_S + STARTS_WITHIN_S, every=0.1, subject=f"load on {self.url} not over")

    def draw(self) -> Draw:
        """Return every call that counts as a record, in the order in which they were to begin; the load must have ended.

        Raises:
            LoadBroken: the generator did not end by itself, or counted another number of calls than it recorded.

        """
        calls = self._calls()
        return results.drawn(self.url, self.profile, calls, self._fared(calls), zero=self.began, ended=self._ended)

    def fared(self) -> Generator:
        """Return how the generator fared; the load must have ended. Raises LoadBroken as `draw` does."""
        return self._fared(self._calls())

    def end(self) -> None:
        """Let the calls under way end, and Locust with them; it is killed where it does not."""
        self._stopped = self._stopped or time.time()
        if self.process.poll() is None:
            # Before it has begun, the signal ends it at once.
            self.process.send_signal(signal.SIGUSR1)
            try:
                self.process.wait(LAST_CALLS_S + STARTS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._ended = time.time()

    def keep_result(self) -> None:
        """Write down how the generator fared beside what it saw, for people; a load that broke says so itself when it is drawn."""
        if self._begun() is not None and self._summary.exists():
            calls = lines(self.folder / "calls.jsonl")
            said = {"url": self.url, "profile": self.profile.to_json(), "calls": len(calls), "generator": self._fared(calls).to_json()}
            (self.folder / "result.json").write_text(json.dumps(said, indent=1))

    def _fared(self, calls: Sequence[Mapping[str, Any]]) -> Generator:
        begun = self._begun()
        if begun is None:
            raise LoadBroken(f"load on {self.url} never began; its output is in {self._log}")
        return results.generator(self.profile, calls, lines(self.folder / "generator.jsonl"), began=begun, ended=self._stopped)

    def _calls(self) -> list[dict[str, Any]]:
        calls = lines(self.folder / "calls.jsonl")
        counted = sum(int(each["num_requests"]) for each in json.loads(self._summary.read_text())) if self._summary.exists() else None
        if counted != len(calls):
            raise LoadBroken(f"load on {self.url}: Locust counted {counted} calls and recorded {len(calls)}; its output is in {self._log}")
        return calls

    def _begun(self) -> float | None:
        file = self.folder / "begun"
        text = file.read_text() if file.exists() else ""
        return float(text) if text else None

    def _refuse_ended(self) -> None:
        if self.process.poll() is not None:
            raise GiveUp(f"Locust ended with exit code {self.process.returncode}; its output is in {self._log}")

    @property
    def _summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def _log(self) -> Path:
        return self.folder / "locust.log"


@dataclass
class Tail:
    """How many calls a growing file holds; each line is read once."""

    file: Path
    calls: int = 0
    failures: int = 0
    _offset: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> "Tail":
        """Count the whole lines that have come since the last look."""
        with self._lock:
            if self.file.exists():
                with self.file.open("rb") as stream:
                    stream.seek(self._offset)
                    text = stream.read()
                whole = text[: text.rfind(b"\n") + 1]
                self._offset += len(whole)
                statuses = [int(json.loads(line)["status"]) for line in whole.splitlines()]
                self.calls += len(statuses)
                self.failures += sum(status == NO_ANSWER or status >= SERVER_ERROR for status in statuses)
        return self


@contextmanager
def load(
    url: str, host: str, path: str, *, folder: Path, personas: Sequence[Persona] = (ANYBODY,), profile: LoadProfile | OpenProfile = STEADY,
    keep_seen: Sequence[str] = (),
) -> Iterator[Load]:
    """Put load on `path` of `url`, naming `host`, while the block runs; it has begun when the block does.

    Steady load goes on until the block ends; an open load ends by itself, which `Load.await_end` waits for, or early with the block. What is kept in
    `folder` is said at `Load`. `keep_seen` names request headers, as the function saw them, that records keep, besides whose call
    it was (PERSONA_HEADER). Raises NeverReached or TimedOut when no call is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in LEFT:
        (folder / left).unlink(missing_ok=True)
    order = order_of(url, host, path, folder=folder, personas=personas, profile=profile, keep_seen=keep_seen)
    arguments = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), *options_of(profile, folder)]
    with (folder / "locust.log").open("wb") as log:
        began = time.time()
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, "FAASMESH_LOAD": json.dumps(order), "PYTHONPATH": str(CHECKOUT)},
        )
    running = Load(profile, len(personas), f"{url}{path}", folder, process, began)
    try:
        with following(f"load on {host}{path}", Tail(folder / "calls.jsonl")):
            running.await_begun()
            if isinstance(profile, LoadProfile):
                running.await_calls(profile.users)
            yield running
    finally:
        running.end()
        running.keep_result()


def order_of(
    url: str, host: str, path: str, *, folder: Path, personas: Sequence[Persona], profile: LoadProfile | OpenProfile, keep_seen: Sequence[str], workers: int = 0,
) -> dict[str, Any]:
    """Return what Locust's process is told, as JSON types; `workers` is their number where there is a master."""
    return {
        "url": url, "host": host, "path": path, "timeout_s": profile.timeout_s, "folder": str(folder), "workers": workers,
        "open" if isinstance(profile, OpenProfile) else "closed": profile.to_json(),
        "personas": [{"name": one.name, "headers": dict(one.headers)} for one in personas], "persona_header": PERSONA_HEADER,
        "keep_seen": [PERSONA_HEADER, *keep_seen],
    }


def options_of(profile: LoadProfile | OpenProfile, folder: Path) -> list[str]:
    """Return Locust's own options for a profile."""
    return [
        "--headless", "--users", str(profile.users), "--spawn-rate", str(profile.users),
        # An open load ends by itself; nothing goes on for ever.
        "--run-time", f"{math.ceil(profile.longest_s + (STARTS_WITHIN_S if isinstance(profile, OpenProfile) else 0))}s",
        "--stop-timeout", str(LAST_CALLS_S), "--only-summary", "--exit-code-on-error", "0",
        "--json-file", str(folder / "summary"), "--html", str(folder / "locust.html"),
    ]


@contextmanager
def following(title: str, tail: Tail) -> Iterator[None]:
    """Say, while the block runs and once it has lasted a few seconds, how many calls were made, how many a second, and how many failed."""
    over = threading.Event()

    def follow() -> None:
        if over.wait(FIRST_WORD_S):
            return
        with progress.step(title) as step:
            calls, at = tail.read().calls, time.monotonic()
            while not over.wait(NEXT_WORD_S if progress.live() else NEXT_LINE_S):
                before, since = calls, at
                calls, at = tail.read().calls, time.monotonic()
                step.update(f"{calls} calls, {(calls - before) / (at - since):.0f} a second, {tail.failures} failed")
            step.note(f"{tail.read().calls} calls, {tail.failures} failed")

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file with one a line; none where there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
