"""For whom an agent lives: its parent process, and the Parsl manager beside it."""

from __future__ import annotations

import os
import re
from pathlib import PurePath
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

_MANAGER = "process_worker_pool"
_BLOCK = re.compile(r"parsl\..*\.block-([^.\s/]+)")
#: Where batch systems and Parsl's providers say what a job is called.
_JOB_NAMES = ("JOBNAME", "SLURM_JOB_NAME", "PBS_JOBNAME", "LSB_JOBNAME", "JOB_NAME")


class ParentWatch:
    """Says when the block of an agent has ended.

    Args:
        parent: process whose end ends the agent, usually the shell that runs the block's script; None for no such
            process: `gone` is then never true.
    """

    def __init__(self, parent: int | None) -> None:
        self._reason = ""
        self._parent: psutil.Process | None = None
        self._managers: list[psutil.Process] = []
        if parent is None:
            return
        try:
            self._parent = psutil.Process(parent)
        except psutil.NoSuchProcess:
            self._reason = f"the block's script (process {parent}) has ended"

    @property
    def managers(self) -> list[int]:
        """Process ids of the managers that were there at the last look."""
        return [process.pid for process in self._managers]

    def gone(self) -> str:
        """Why the agent should end, or an empty string as long as it should go on."""
        if self._parent is None:
            return self._reason
        if not _alive(self._parent):
            return f"the block's script (process {self._parent.pid}) has ended"
        known = bool(self._managers)
        self._managers = [process for process in self._managers if _alive(process)]
        if not self._managers:
            self._managers = list(_managers())
            if known and not self._managers:
                return "the block's manager has ended"
        return ""


def block_name(parent: int | None) -> str:
    """The number of the block this process runs in, as Parsl counts, or an empty string if it is unknown.

    A provider's script runs ``worker_init`` before it sets ``JOBNAME``, so that the name of the script itself, as the
    parent's command line shows it, is the second source.
    """
    texts = [os.environ.get(name, "") for name in _JOB_NAMES]
    if parent is not None:
        try:
            texts += psutil.Process(parent).cmdline()
        except psutil.Error:
            texts += []  # no name to be had there: a block without a number is still a block
    return next((found[1] for text in texts if (found := _BLOCK.search(text))), "")


def _managers() -> Iterator[psutil.Process]:
    """Parsl managers in this process group.

    A manager's workers may look like it and outlive it. The parent distinguishes them: the parent of a manager is a
    shell in the same process group, that of a worker is a manager, and that of an orphan is outside.
    """
    group = os.getpgrp()
    for pid in psutil.pids():
        if _group(pid) != group:
            continue
        try:
            process = psutil.Process(pid)
            parent = process.parent()
            if _is_manager(process) and parent and _group(parent.pid) == group and not _is_manager(parent):
                yield process
        except psutil.Error:
            continue  # ended while it was looked at


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _is_manager(process: psutil.Process) -> bool:
    return any(PurePath(word).name.startswith(_MANAGER) for word in process.cmdline()[:2])


def _alive(process: psutil.Process) -> bool:
    """True if it runs; one that ended but was not waited for yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
