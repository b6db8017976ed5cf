"""Starting and ending Locust, and what it saw as a draw: it runs beside this process and is never imported into it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clusters.waiting import GiveUp, eventually
from workloads.load import ANYBODY, PERSONA_HEADER, STEADY, LoadProfile, Persona
from workloads.records import CallRecord, Draw

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
# Python, gevent and Locust start in about a second; a busy machine takes several.
STARTS_WITHIN_S = 60.0
# Calls under way when the load ends are waited for: their answers are evidence like the others.
LAST_CALLS_S = 15


class LoadBroken(Exception):  # noqa: N818  # states what happened
    """The load generator ended, or recorded otherwise than it counted: what it drew is no evidence."""


@dataclass
class Load:
    """Load under way; times are milliseconds since it was started, by the clock of the host that records them."""

    profile: LoadProfile
    personas: int
    url: str
    folder: Path
    process: subprocess.Popen[bytes]
    began: float
    _ended: float = 0.0

    def elapsed_ms(self) -> float:
        """Return the milliseconds since the start."""
        return 1000 * (time.time() - self.began)

    def await_calls(self, count: int, *, within: float = STARTS_WITHIN_S) -> None:
        """Return when `count` more calls have ended.

        Raises:
            NeverReached: Locust has ended.
            TimedOut: they did not end within so many seconds.

        """
        before = self._recorded()

        def ended() -> None:
            if self.process.poll() is not None:
                raise GiveUp(f"Locust ended with exit code {self.process.returncode}; its output is in {self._log}")
            more = self._recorded() - before
            assert more >= count, f"{more} calls ended"

        eventually(ended, within=within, every=0.1, subject=f"{count} calls of the load on {self.url} not made")

    def draw(self) -> Draw:
        """Return every call as a record, in the order in which they began; the load must have ended.

        Raises:
            LoadBroken: the generator did not end by itself, or counted another number of calls than it recorded.

        """
        lines = [json.loads(line) for line in self._records.read_text().splitlines()]
        counted = sum(int(each["num_requests"]) for each in json.loads(self._summary.read_text())) if self._summary.exists() else None
        if counted != len(lines):
            raise LoadBroken(f"load on {self.url}: Locust counted {counted} calls and recorded {len(lines)}; its output is in {self._log}")
        records = tuple(_record(index, line, self.began) for index, line in enumerate(sorted(lines, key=lambda line: float(line["started_at"]))))
        began = datetime.fromtimestamp(self.began, UTC).isoformat()
        return Draw(self.url, "GET", len(records), self.profile.users, records, began, self._ended - self.began)

    def end(self) -> None:
        """Let the calls under way end, and Locust with them; it is killed where it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(LAST_CALLS_S + STARTS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._ended = time.time()

    def _recorded(self) -> int:
        return self._records.read_bytes().count(b"\n") if self._records.exists() else 0

    @property
    def _records(self) -> Path:
        return self.folder / "calls.jsonl"

    @property
    def _summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def _log(self) -> Path:
        return self.folder / "locust.log"


@contextmanager
def load(
    url: str, host: str, path: str, *, folder: Path, personas: Sequence[Persona] = (ANYBODY,), profile: LoadProfile = STEADY, keep_seen: Sequence[str] = (),
) -> Iterator[Load]:
    """Put steady load on `path` of `url`, naming `host`, while the block runs; it has begun when the block does.

    Locust's own output and one line a call are kept in `folder`. `keep_seen` names request headers, as the function saw them,
    that records keep, besides whose call it was (PERSONA_HEADER). Raises NeverReached or TimedOut when no call is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = {
        "url": url, "host": host, "path": path, "calls_per_s": profile.calls_per_s, "timeout_s": profile.timeout_s, "records": str(folder / "calls.jsonl"),
        "personas": [{"name": one.name, "headers": dict(one.headers)} for one in personas], "persona_header": PERSONA_HEADER,
        "keep_seen": [PERSONA_HEADER, *keep_seen],
    }
    arguments = [
        sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless", "--users", str(profile.users), "--spawn-rate", str(profile.users),
        "--run-time", f"{profile.longest_s:g}s", "--stop-timeout", str(LAST_CALLS_S), "--only-summary", "--exit-code-on-error", "0",
        "--json-file", str(folder / "summary"),
    ]
    with (folder / "locust.log").open("wb") as log:
        began = time.time()
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "FAASMESH_LOAD": json.dumps(order)})
    running = Load(profile, len(personas), f"{url}{path}", folder, process, began)
    try:
        running.await_calls(profile.users)
        yield running
    finally:
        running.end()


def _record(index: int, line: Mapping[str, Any], began: float) -> CallRecord:
    return CallRecord(
        index=index, status=line["status"], error=line["error"], latency_ms=line["latency_ms"], started_ms=1000 * (line["started_at"] - began),
        version=line["version"], pod=line["pod"], seen=line["seen"],
    )
