"""Finding and ending what a block left on this host."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection

import psutil

from ..parsl.adapter import BLOCK_VARIABLE

logger = logging.getLogger(__name__)


def of_block(mark: str, groups: Collection[int] = (), *, variable: str = BLOCK_VARIABLE) -> list[psutil.Process]:
    """Every process on this host that belongs to a block, stopped ones included.

    Args:
        mark: in the environment of its processes.
        groups: its process groups as far as known. Parsl's helpers overwrite their environment when they set their
            title; those are found by group and title.
        variable: of the environment that holds the mark.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            in_group = bool(groups) and os.getpgid(process.pid) in groups
            has_mark = process.environ().get(variable) == mark
            if has_mark or (in_group and "".join(process.cmdline()).startswith("parsl:")):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it ended meanwhile, or belongs to somebody else
    return found


def groups_of_block(mark: str) -> set[int]:
    """The process groups that carry the mark now, our own aside."""
    groups = set()
    for process in of_block(mark):
        with contextlib.suppress(OSError):  # it ended meanwhile
            groups.add(os.getpgid(process.pid))
    return groups - {os.getpgrp()}


def end_block(mark: str, groups: Collection[int], courtesy: float, *, variable: str = BLOCK_VARIABLE) -> int:
    """End every process that carries the mark; kill a process that does not end by itself.

    Args:
        mark: as in the block's environment.
        groups: its process groups, see `of_block`.
        courtesy: seconds that processes which got SIGTERM already have to end; stopped ones get none.
        variable: as for `of_block`.

    Returns:
        How many were killed.
    """
    psutil.wait_procs([p for p in of_block(mark, groups, variable=variable) if not _is_stopped(p)], timeout=courtesy)
    killed = 0
    for _ in range(5):  # a process may fork while it is being looked at
        left = of_block(mark, groups, variable=variable)
        if not left:
            break
        for process in left:
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                process.kill()
                killed += 1
        psutil.wait_procs(left, timeout=0.2)  # a zombie whose parent does not reap it counts as alive here
    else:
        logger.warning(
            "Processes %s did not end after SIGKILL", [p.pid for p in of_block(mark, groups, variable=variable)]
        )
    return killed


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False
