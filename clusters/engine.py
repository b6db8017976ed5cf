"""The container engine where faasmesh brings it itself: installed from Debian, wrapped, started, and stopped after the last run."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from clusters import progress
from clusters.errors import UserError
from clusters.hostfacts import DEFAULT_SOCKET, SYSTEM_PATH, Engine, find_program, look_at_engine
from clusters.paths import cache_root
from clusters.waiting import GiveUp, eventually

__all__ = ["BOUNDED", "DEFAULT_SOCKET", "build_runtime", "install", "is_ours", "lease", "leased", "release", "runtime_path", "start", "stop"]

# The wrapper's name as a runtime of the engine, and of its file.
BOUNDED = "runc-bounded"
SOURCES = Path(__file__).parent / "runtime"
PACKAGES = ("docker.io", "iptables", "ca-certificates")
# dockerd says who started it, in `docker info`: no file of ours can be lost between its start and our note of it.
LABEL = "faasmesh.started-by"
# A cold start creates the network's rules and its containerd; 20 s were seen on a busy machine with two cores.
ENGINE_ANSWERS_S = 60.0
# dockerd gives containers 15 s to end, then ends its containerd.
ENGINE_STOPS_S = 45.0
LOG_LINES = 3


def runtime_path() -> Path:
    """Return where the wrapper is, once `build_runtime` has built it."""
    return _home() / BOUNDED


def is_ours(engine: Engine) -> bool:
    """Tell whether faasmesh, with this cache, started the engine."""
    if f"{LABEL}={cache_root()}" in engine.labels:
        return True
    noted = _read(_systemd_note())
    return engine.running and noted != "" and noted == _read(Path("/proc/sys/kernel/random/boot_id"))


def install(say: Callable[[str], None]) -> None:
    """Install Docker from Debian's own packages.

    Raises:
        UserError: apt answered no; its own words are in the message.

    """
    say(f"host: installing {', '.join(PACKAGES)} from Debian")
    if not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
        _apt("update")
    try:
        _apt("install", "--yes", "--no-install-recommends", *PACKAGES)
    except UserError:
        # The lists may be older than the mirror: what they name is gone from it.
        _apt("update")
        _apt("install", "--yes", "--no-install-recommends", *PACKAGES)
    started = look_at_engine()
    if started.running and not Path("/run/systemd/system").is_dir():
        # The package's init script started it without what we have to tell it.
        _terminate(started)


def build_runtime(say: Callable[[str], None]) -> Path:
    """Build the wrapper around runc from the sources beside this file; nothing is done where the built one is of these sources.

    Raises:
        UserError: Go could not be had, or did not compile it.

    """
    # Only reduced hosts build something before there is an engine; doctor must not depend on what builds images.
    from clusters.images import process  # noqa: PLC0415
    from clusters.images.cache import Cache  # noqa: PLC0415
    from clusters.images.toolchain import Toolchain  # noqa: PLC0415
    from clusters.versions import versions  # noqa: PLC0415

    toolchain = Toolchain(Cache.default(), versions())
    target, key = runtime_path(), _source_key(versions().go)
    note = target.with_suffix(".key")
    if target.exists() and _read(note) == key:
        return target
    say(f"host: building {BOUNDED}, because the capability bounding set is reduced")
    temporary = target.with_suffix(".new")
    argv = [str(toolchain.go_binary()), "build", "-trimpath", "-ldflags", "-s -w", "-o", str(temporary), "."]
    built = process.run(argv, cwd=SOURCES, env=toolchain.go_environment())
    if built.code != 0:
        raise UserError(f"go build of {BOUNDED}", expected="exit 0", seen=f"exit {built.code}: {_tail(built.output)}", hint="is the disk full?")
    # dockerd may be executing the old one: a running program is replaced, not written.
    temporary.replace(target)
    note.write_text(key)
    return target


def start(say: Callable[[str], None], *, bounded: bool, systemd: bool) -> None:
    """Start the engine so that it outlives this process, and wait until it answers.

    Raises:
        UserError: it ended at once or does not answer; the end of its log is in the message.

    """
    with progress.step("start container engine") as step:
        process, log = (None, "journalctl -u docker") if systemd else _spawn(say, bounded=bounded)
        if systemd:
            say("host: systemctl start docker")
            _systemctl("start")
            _systemd_note().write_text(_read(Path("/proc/sys/kernel/random/boot_id")))

        def answers() -> None:
            if process is not None and process.poll() is not None:
                raise GiveUp(f"dockerd ended with exit code {process.returncode}")
            step.update("waiting for its answer")
            if error := look_at_engine().error:
                raise AssertionError(error)

        try:
            eventually(answers, within=ENGINE_ANSWERS_S, subject="container engine")
        except AssertionError as error:
            # What does not answer now must not surprise the next run.
            if process is not None and process.poll() is None:
                process.terminate()
            raise UserError(
                "dockerd", expected=f"an answer within {ENGINE_ANSWERS_S:.0f} s", seen=f"{error}; log: {_tail(_read(_log()))}", hint=f"see {log}",
            ) from error


def stop(say: Callable[[str], None], *, even_if_leased: bool = False) -> bool:
    """Stop the engine that faasmesh started, unless a container runs on it or another run uses it; tell whether it was stopped."""
    running = look_at_engine()
    if not running.running or not is_ours(running):
        return False
    if running.containers:
        say(f"host: the container engine stays: {running.containers} containers run on it")
        return False
    if not even_if_leased and leased():
        say("host: the container engine stays: another run uses it")
        return False
    say("host: stopping the container engine that faasmesh started")
    if _systemd_note().exists():
        _systemctl("stop")
        _systemd_note().unlink()
    else:
        _terminate(running)
    return True


def lease() -> None:
    """Note that this process uses the engine; the note is void when the process is gone."""
    _own_lease().touch()


def release() -> None:
    """Take the note back."""
    _own_lease().unlink(missing_ok=True)


def leased() -> bool:
    """Tell whether a living process uses the engine."""
    return any(_alive(path) for path in list(_leases().glob("*")))


_DETACHED: list["subprocess.Popen[bytes]"] = []


def _spawn(say: Callable[[str], None], *, bounded: bool) -> tuple["subprocess.Popen[bytes]", str]:
    program = find_program("dockerd")
    if program is None:
        raise UserError("host.engine-present", expected="dockerd", seen="none after installation", hint="apt-get install docker.io")
    argv = [str(program), "--label", f"{LABEL}={cache_root()}"]
    if bounded:
        argv += ["--add-runtime", f"{BOUNDED}={runtime_path()}", "--default-runtime", BOUNDED]
    say(f"host: {' '.join(argv)}")
    environment = {**os.environ, "PATH": os.pathsep.join((os.environ.get("PATH", ""), SYSTEM_PATH))}
    with _log().open("wb") as log:
        # A session of its own: Ctrl-C and the end of tox reach this process group, and must not reach the engine.
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd="/", env=environment, start_new_session=True,
        )
    (_home() / "dockerd.pid").write_text(str(process.pid))
    # It outlives this process on purpose; without a reference Python would warn that nobody waits for it.
    _DETACHED.append(process)
    return process, str(_log())


def _terminate(engine: Engine) -> None:
    if engine.pid is None:
        raise UserError("stop container engine", expected="a dockerd that is visible here", seen="none", hint="stop it by hand")
    process = psutil.Process(engine.pid)
    process.terminate()
    try:
        process.wait(ENGINE_STOPS_S)
    except psutil.TimeoutExpired as error:
        raise UserError(
            "stop container engine", expected=f"dockerd (pid {engine.pid}) gone within {ENGINE_STOPS_S:.0f} s of SIGTERM", seen="it runs", hint=f"see {_log()}",
        ) from error
    (_home() / "dockerd.pid").unlink(missing_ok=True)


def _apt(*arguments: str) -> None:
    program = shutil.which("apt-get", path=SYSTEM_PATH)
    if program is None:
        raise UserError("host.engine-present", expected="apt-get", seen="none", hint="install Docker 20.10 or later yourself")
    with progress.step(f"apt-get {arguments[0]}"):
        ran = subprocess.run(
            [program, *arguments], env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": SYSTEM_PATH, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )
        if ran.returncode != 0:
            said = [line for line in ran.stderr.splitlines() if line.startswith("E:")] or ran.stderr.splitlines()
            raise UserError(
                f"apt-get {' '.join(arguments)}", expected="exit 0", seen=f"exit {ran.returncode}: {' | '.join(said[-LOG_LINES:])}",
                hint="is Debian's mirror reachable? install docker.io by hand, or use --prepare-host=never with an engine of yours",
            )


def _systemctl(verb: str) -> None:
    # The socket unit would start the service again at the next question.
    units = ["docker.service"] if verb == "start" else ["docker.socket", "docker.service"]
    ran = subprocess.run(["systemctl", verb, *units], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise UserError(f"systemctl {verb} docker", expected="exit 0", seen=f"exit {ran.returncode}: {_tail(ran.stderr)}", hint="see journalctl -u docker")


def _source_key(go: str) -> str:
    digest = hashlib.sha256(go.encode())
    for path in sorted(path for path in SOURCES.iterdir() if path.suffix in {".go", ".mod"} and not path.name.endswith("_test.go")):
        digest.update(json.dumps([path.name, path.read_text()]).encode())
    return digest.hexdigest()


def _own_lease() -> Path:
    own = psutil.Process()
    return _leases() / f"{own.pid}-{own.create_time():.2f}"


def _alive(lease_path: Path) -> bool:
    pid, _, created = lease_path.name.partition("-")
    try:
        alive = f"{psutil.Process(int(pid)).create_time():.2f}" == created
    except (psutil.Error, ValueError):
        alive = False
    if not alive:
        lease_path.unlink(missing_ok=True)
    return alive


def _home() -> Path:
    path = cache_root() / "host"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _leases() -> Path:
    path = _home() / "leases"
    path.mkdir(exist_ok=True)
    return path


def _log() -> Path:
    return _home() / "dockerd.log"


def _systemd_note() -> Path:
    return _home() / "systemd-boot"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _tail(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-LOG_LINES:])
