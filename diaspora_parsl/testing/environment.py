"""What a workflow under test needs around it: workers that find Parsl's programs, and its code."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """Let processes that are started meanwhile find Parsl's programs, and import what this process can.

    Where a virtual environment is used without being activated the programs are not on the path, and workers know
    nothing of the folders that pytest has added.
    """
    before = {name: os.environ.get(name) for name in ("PATH", "PYTHONPATH")}
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), before["PATH"] or os.defpath])
    os.environ["PYTHONPATH"] = os.pathsep.join(_added_paths())
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _added_paths() -> list[str]:
    """Folders that are imported from here and would not be by a new interpreter."""
    own = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders = [Path(folder).absolute() for folder in sys.path]  # "" is the current one
    return [str(folder) for folder in folders if folder.is_dir() and not own & {folder, folder.parent}]
