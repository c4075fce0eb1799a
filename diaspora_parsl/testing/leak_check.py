"""What a run left behind: threads of Parsl and of the pool, processes of its blocks."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
from types import FrameType
from typing import Final

import psutil

from diaspora_parsl.executors.parsl.adapter import BLOCK_VARIABLE

_PAUSE: Final = 0.05
#: Code that belongs to a run; threads of the workflow's own, or of other libraries, are none of its business.
_OURS: Final = ("parsl", "diaspora_parsl")


def end_what_is_left(
    run_id: str, before: Collection[threading.Thread], more: Callable[[], Iterable[psutil.Process]], limit: float
) -> list[str]:
    """Wait until everything of a run has ended, and kill the processes that have not.

    Args:
        run_id: of the run, which is in the environment of all its blocks.
        before: threads that were there before it.
        more: gives further processes that belong to it.
        limit: seconds that its threads and processes have to end by themselves.

    Returns:
        What had not ended by then, in words.
    """
    end = time.monotonic() + limit
    while True:
        threads = [thread for thread in threading.enumerate() if thread not in before and _is_ours(thread)]
        processes = {process.pid: process for process in (*_of_run(run_id), *more())}
        if time.monotonic() > end or not (threads or processes):
            break
        time.sleep(_PAUSE)
    told = [f"thread {thread.name}" for thread in threads] + [_told(process) for process in processes.values()]
    for process in processes.values():  # or the next tests would suffer for them
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            process.kill()
    return told


def _is_ours(thread: threading.Thread) -> bool:
    """Whether code of Parsl or of the pool runs there now: what a thread does tells whose it is."""
    frame: FrameType | None = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - documented
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
            return thread is not threading.current_thread()
        frame = frame.f_back
    return False


def _of_run(run_id: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it ended meanwhile, or belongs to somebody else
            is_marked = process.environ().get(BLOCK_VARIABLE, "").startswith(f"{run_id}/")
            if is_marked and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process)
    return found


def _told(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} ({process.status()}): {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return f"process {process.pid}"
