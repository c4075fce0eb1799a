"""The environment of a workflow under test: its workers find Parsl's programs and its code."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """Let processes started in the block find Parsl's programs and import what this process can.

    An inactive virtual environment is not on ``PATH``, and workers do not inherit the folders that pytest adds.
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
    """Return the import folders that a new interpreter would not have."""
    own = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders = [Path(folder).absolute() for folder in sys.path]  # "" is the current folder
    return [str(folder) for folder in folders if folder.is_dir() and not own & {folder, folder.parent}]
