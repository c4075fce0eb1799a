"""Finding and ending what a block left on this host."""

from __future__ import annotations

import contextlib
import logging

import psutil

from diaspora_parsl.executors.adapter import BLOCK_VARIABLE

logger = logging.getLogger(__name__)


def of_block(mark: str) -> list[psutil.Process]:
    """Every process on this host that carries the mark of a block in its environment, stopped ones included."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(BLOCK_VARIABLE) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it ended meanwhile, or belongs to somebody else
    return found


def end_block(mark: str, courtesy: float) -> int:
    """End every process that carries the mark: those that do not end by themselves are killed.

    Args:
        mark: as in the block's environment.
        courtesy: seconds that processes which got SIGTERM already have to end; stopped ones get none.

    Returns:
        How many were killed.
    """
    psutil.wait_procs([p for p in of_block(mark) if not _is_stopped(p)], timeout=courtesy)
    killed = 0
    for _ in range(5):  # a process may fork while it is being looked at
        left = of_block(mark)
        if not left:
            break
        for process in left:
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                process.kill()
                killed += 1
        psutil.wait_procs(left, timeout=0.2)  # a zombie whose parent does not reap it counts as alive here
    else:
        logger.warning("Processes %s did not end after SIGKILL", [p.pid for p in of_block(mark)])
    return killed


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False
