"""Find threads and processes that a run of Parsl left behind."""

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
#: Packages whose threads belong to a run; threads of the workflow and of other libraries do not.
_OURS: Final = ("parsl", "diaspora_parsl")


def end_what_is_left(
    run_id: str, before: Collection[threading.Thread], more: Callable[[], Iterable[psutil.Process]], limit: float
) -> list[str]:
    """Wait until everything of a run has ended, and kill the processes that have not.

    Args:
        run_id: Id of the run, present in the environment of its blocks.
        before: Threads that existed before the run.
        more: Returns further processes of the run.
        limit: Seconds to wait for threads and processes to end.

    Returns:
        A description of each thread and process that had not ended.
    """
    end = time.monotonic() + limit
    while True:
        threads = [thread for thread in threading.enumerate() if thread not in before and _is_ours(thread)]
        processes = {process.pid: process for process in (*_of_run(run_id), *more())}
        if time.monotonic() > end or not (threads or processes):
            break
        time.sleep(_PAUSE)
    left = [f"thread {thread.name}" for thread in threads] + [_describe(process) for process in processes.values()]
    for process in processes.values():  # they would disturb the next tests
        with contextlib.suppress(psutil.Error):  # the process has ended
            process.kill()
    return left


def _is_ours(thread: threading.Thread) -> bool:
    """Return whether the stack of the thread has a frame of Parsl or of the pool."""
    frame: FrameType | None = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - documented
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
            return thread is not threading.current_thread()
        frame = frame.f_back
    return False


def _of_run(run_id: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # the process has ended, or belongs to another user
            is_marked = process.environ().get(BLOCK_VARIABLE, "").startswith(f"{run_id}/")
            if is_marked and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process)
    return found


def _describe(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} ({process.status()}): {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return f"process {process.pid}"
