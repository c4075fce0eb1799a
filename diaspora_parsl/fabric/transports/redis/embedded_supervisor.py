"""Keep one server running while the process that started it lives; run by path, standard library only.

Usage: ``python -I -S embedded_supervisor.py SERVER CONFIG RECORD``; the owner holds standard input, a pipe, open.

Anything that comes through the pipe says that the server answers: from then on it is started again when it dies, on
the same port and with the data it kept. The pipe ends when its owner closes it, exits, or is killed in any way: no
signal, no polling, any operating system. Then the server is asked to save and end, the record (``fabric.json``, may be
"") is marked as ended, and this program ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

NEVER_CAME_UP = 3
_SAVE_SECONDS = 1.5
_SHORT_LIFE = 1.0
_SHORT_LIVES = 6
_PR_SET_PDEATHSIG = 1


def _die_with_supervisor() -> None:
    """On Linux, end the server when SIGKILL ends its supervisor; elsewhere the server is left behind.

    The death signal is tied to the thread that forks; a supervisor has only one. SIGKILL also ends a
    stopped server, and loses no acknowledged data.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start(server: str, config: str) -> subprocess.Popen[bytes]:
    # Use standard input, because the server expands "?", "*" and "[" in a path. Without a match it would start with the
    # default port and no password.
    with open(config, "rb") as content:  # noqa: PTH123 - pathlib costs 10 ms of start time
        return subprocess.Popen(  # noqa: S603 - the program that our own package chose
            [server, "-"],
            stdin=content,
            preexec_fn=_die_with_supervisor if sys.platform == "linux" else None,  # noqa: PLW1509 - one thread only
        )


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_SAVE_SECONDS)
    except subprocess.TimeoutExpired:  # stopped, or stuck on its file system
        child.kill()
        child.wait()


def _mark_ended(record: str) -> None:
    """Remove the address from ``fabric.json`` and record the end."""
    try:
        with open(record, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs 10 ms of start time
            content = json.load(file)
        content.pop("url", None)
        content["ended"] = time.time()
        draft = f"{record}.{os.getpid()}"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(content, file)
        os.replace(draft, record)  # noqa: PTH105
    except (OSError, ValueError) as error:
        sys.stderr.write(f"keeper: cannot mark {record} as ended: {error}\n")


def main(server: str, config: str, record: str) -> int:
    """Run the server until standard input ends; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, whose last events are still to come
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    asked_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked_to_end.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)

    child = _start(server, config)
    born, came_up, short_lives = time.monotonic(), False, 0
    while True:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 512)
        if 0 in ready:
            reported = os.read(0, 512)
            if not reported:
                break
            came_up = True
        if asked_to_end:
            break
        if child.poll() is None:
            continue
        short_lives = 0 if time.monotonic() - born > _SHORT_LIFE else short_lives + 1
        if not came_up:
            return NEVER_CAME_UP  # most likely the port was taken; the owner chooses another
        if short_lives > _SHORT_LIVES:
            sys.stderr.write(f"keeper: the server ended {short_lives} times in a row; giving up\n")
            break
        # Long enough for the owner to leave in the meantime, short enough for nobody to notice.
        select.select([0], [], [], 0.05 * 2**short_lives)
        child, born = _start(server, config), time.monotonic()
    _stop(child)
    if record:
        _mark_ended(record)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
