"""Orphans: what a killed controller leaves running on this host, and would leave idle for ever."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

import psutil

logger = logging.getLogger(__name__)

#: Seconds that processes have to end before they are killed.
_GRACE: Final = 3.0


def end_orphans(run_dir: Path) -> int:
    """End the processes of a Parsl run whose controller is dead; returns how many there were.

    Parsl's interchange does not notice that its controller died, and its workers wait for it. With the interchange
    gone, workers on other hosts end by themselves, after the time that Parsl allows for heartbeats.

    Args:
        run_dir: Parsl's own directory of the run.
    """
    folder = f"{run_dir.resolve()}/"
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it ended meanwhile, or belongs to somebody else
            if process.pid != os.getpid() and _belongs(process, folder):
                found.update({child.pid: child for child in [process, *process.children(recursive=True)]})
    for process in found.values():
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(list(found.values()), timeout=_GRACE)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    if found:
        logger.warning("Ended %d processes that the killed controller of %s had left.", len(found), run_dir)
    return len(found)


def _belongs(process: psutil.Process, folder: str) -> bool:
    """It is one of Parsl's own programs, and works in the folder."""
    words = " ".join(process.cmdline())
    if folder in words:
        return "process_worker_pool" in words or "submit_scripts" in words
    # An interchange overwrites its command line.
    return "interchange" in words and any(file.path.startswith(folder) for file in process.open_files())
