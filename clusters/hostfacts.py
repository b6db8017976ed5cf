"""What is so on this host: read from the kernel, the engine and the file systems, judged elsewhere."""

import contextlib
import errno
import gzip
import os
import platform
import resource
import shutil
import socket
import struct
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import psutil

from clusters.paths import cache_root

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
DEFAULT_ENGINE_ROOT = Path("/var/lib/docker")
# An engine that is busy with a build answers late; one that hangs must not hang us.
ENGINE_TIMEOUT_S = 10
# dockerd and iptables live here; a person's PATH need not say so.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

# What Istio's init container needs of the kernel: feature -> (kernel option, module, name in /proc/net/ip_tables_*).
REDIRECTION = {
    "nat": ("CONFIG_NF_NAT", "nf_nat", "nat"),
    "REDIRECT": ("CONFIG_NETFILTER_XT_TARGET_REDIRECT", "xt_REDIRECT", "REDIRECT"),
    "owner": ("CONFIG_NETFILTER_XT_MATCH_OWNER", "xt_owner", "owner"),
    "conntrack": ("CONFIG_NF_CONNTRACK", "nf_conntrack", "conntrack"),
}


@dataclass(frozen=True)
class Engine:
    """The container engine as it answered; `bounding` is the engine's own capability mask, None where its process is not visible."""

    present: bool = False
    running: bool = False
    address: str = DEFAULT_SOCKET
    error: str = ""
    version: str = ""
    api: str = ""
    root: str = str(DEFAULT_ENGINE_ROOT)
    runtime: str = ""
    runtime_path: str = ""
    labels: tuple[str, ...] = ()
    containers: int = 0
    cgroup: int | None = None
    pid: int | None = None
    bounding: int | None = None


@dataclass(frozen=True)
class Disk:
    """Free bytes of the file system that will hold `path`, which need not exist yet."""

    purpose: str
    path: str
    free: int


@dataclass(frozen=True)
class TakenPort:
    """A loopback port in use, and by whom where that can be seen."""

    port: int
    holder: str = "unknown process"


@dataclass(frozen=True)
class HostFacts:
    """One look at the host. Sizes in bytes, times in seconds since the epoch, None where this host does not say."""

    system: str
    distribution: str
    debian: bool
    root: bool
    systemd: bool
    engine: Engine
    bounding: int
    capabilities: int
    cgroup: int
    cores: int
    memory_total: int
    memory_available: int
    disks: tuple[Disk, ...]
    redirection: Mapping[str, bool | None]
    inotify_instances: int | None
    inotify_watches: int | None
    open_files: int
    clock: float
    clock_floor: float
    ports_asked: tuple[int, ...] = ()
    ports_taken: tuple[TakenPort, ...] = field(default=())

    @property
    def full_set(self) -> int:
        """The mask of every capability that the kernel knows."""
        return (1 << (self.capabilities + 1)) - 1

    @property
    def reduced(self) -> bool:
        """Whether containers started from here cannot be given every capability."""
        own = self.bounding if self.engine.bounding is None else self.engine.bounding
        return own & self.full_set != self.full_set


def gather(ports: Sequence[int] = ()) -> HostFacts:
    """Look at this host; every look is local, and the engine gets `ENGINE_TIMEOUT_S` to answer."""
    release = _os_release()
    engine = look_at_engine()
    memory = psutil.virtual_memory()
    return HostFacts(
        system=platform.system(),
        distribution=release.get("PRETTY_NAME", platform.platform()),
        debian="debian" in {release.get("ID", ""), *release.get("ID_LIKE", "").split()},
        root=os.geteuid() == 0,
        systemd=Path("/run/systemd/system").is_dir(),
        engine=engine,
        bounding=_bounding_set(os.getpid()) or 0,
        capabilities=_read_int(Path("/proc/sys/kernel/cap_last_cap")) or 0,
        cgroup=engine.cgroup or (2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1),
        cores=len(os.sched_getaffinity(0)),
        memory_total=memory.total,
        memory_available=memory.available,
        disks=(_disk("cache", cache_root()), _disk("container engine", Path(engine.root))),
        redirection=_redirection(platform.release()),
        inotify_instances=_read_int(Path("/proc/sys/fs/inotify/max_user_instances")),
        inotify_watches=_read_int(Path("/proc/sys/fs/inotify/max_user_watches")),
        open_files=_open_files(),
        clock=time.time(),
        clock_floor=Path(__file__).stat().st_mtime,
        ports_asked=tuple(ports),
        ports_taken=tuple(TakenPort(port, _holder(port)) for port in ports if _taken(port)),
    )


def look_at_engine() -> Engine:
    """Ask the engine at DOCKER_HOST or the default socket who it is; an engine that does not answer is a fact, not an error."""
    address = os.environ.get("DOCKER_HOST") or DEFAULT_SOCKET
    present = find_program("dockerd") is not None
    if refused := _refused(address):
        return Engine(present=present, address=address, error=refused)
    try:
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
        try:
            info: dict[str, Any] = client.info()
            version: dict[str, Any] = client.version()
        finally:
            client.close()
    except (docker.errors.DockerException, OSError) as error:
        return Engine(present=present, address=address, error=" ".join(str(error).split()))
    runtime = str(info.get("DefaultRuntime") or "")
    pid = _engine_pid(address)
    return Engine(
        present=True,
        running=True,
        address=address,
        version=str(version.get("Version", "")),
        api=str(version.get("ApiVersion", "")),
        root=str(info.get("DockerRootDir") or DEFAULT_ENGINE_ROOT),
        runtime=runtime,
        runtime_path=str((info.get("Runtimes") or {}).get(runtime, {}).get("path", "")),
        labels=tuple(info.get("Labels") or ()),
        containers=int(info.get("ContainersRunning") or 0),
        cgroup=int(info["CgroupVersion"]) if str(info.get("CgroupVersion", "")).isdigit() else None,
        pid=pid,
        bounding=None if pid is None else _bounding_set(pid),
    )


def find_program(name: str) -> Path | None:
    """Return where a program is, looking in the system's own folders too."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), SYSTEM_PATH)))
    return None if found is None else Path(found)


def _refused(address: str) -> str:
    """Return why nothing listens at a Unix socket, or nothing: the SDK wraps the reason four times and leaves its socket open."""
    if not address.startswith("unix://"):
        return ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address.removeprefix("unix://"))
        except OSError as error:
            return f"{error.strerror or error} ({address})"
    return ""


def _engine_pid(address: str) -> int | None:
    """Return the process that listens at the address, where that is a dockerd of this host that we can see."""
    if not address.startswith("unix://"):
        return None
    candidates = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(address.removeprefix("unix://"))
        candidates.append(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0])
    if address == DEFAULT_SOCKET:
        # Where systemd owns the socket, it and not dockerd is the peer.
        candidates.append(_read_int(Path("/var/run/docker.pid")))
    for pid in candidates:
        with contextlib.suppress(psutil.Error):
            if pid and psutil.Process(pid).name() == "dockerd":
                return int(pid)
    return None


def _bounding_set(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("CapBnd:"):
                return int(line.split()[1], 16)
    return None


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _disk(purpose: str, path: Path) -> Disk:
    # os.path.exists, unlike Path.exists, takes a folder that may not be entered for one that is not there.
    existing = next(folder for folder in (path, *path.parents) if os.path.exists(folder))  # noqa: PTH110
    return Disk(purpose, str(path), psutil.disk_usage(str(existing)).free)


def _open_files() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def _redirection(release: str) -> dict[str, bool | None]:
    config = _kernel_config(release)
    modules = Path("/lib/modules") / release
    shipped = "\n".join(_read_text(modules / name) for name in ("modules.dep", "modules.builtin"))
    in_use = {name for which in ("targets", "matches", "names") for name in _read_text(Path(f"/proc/net/ip_tables_{which}")).split()}
    return {
        feature: _has_feature(
            option=config.get(option), loaded=Path("/sys/module", module).is_dir() or listed in in_use, shipped=f"/{module}.ko" in shipped,
        )
        for feature, (option, module, listed) in REDIRECTION.items()
    }


def _has_feature(*, option: str | None, loaded: bool, shipped: bool) -> bool | None:
    """Tell whether the kernel has the feature; None where neither a kernel configuration nor a module can be read."""
    if loaded or shipped or option == "y":
        return True
    # A kernel whose configuration lacks the option cannot grow it. A module that is not found may be in the host's tree, outside a container.
    return False if option == "n" else None


def _kernel_config(release: str) -> dict[str, str]:
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{release}")):
        try:
            text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        except OSError:
            continue
        return parse_kernel_config(text.splitlines())
    return {}


def parse_kernel_config(lines: Iterable[str]) -> dict[str, str]:
    """Return every option of REDIRECTION as y, m or n; an option that a configuration does not mention is n."""
    values = dict.fromkeys((option for option, _, _ in REDIRECTION.values()), "n")
    for line in lines:
        option, found, value = line.partition("=")
        if found and option in values:
            values[option] = value.strip()
    return values


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        # Connections of an earlier run that linger in TIME_WAIT do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return TakenPort.holder


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _read_int(path: Path) -> int | None:
    text = _read_text(path).strip()
    return int(text) if text.isdigit() else None
