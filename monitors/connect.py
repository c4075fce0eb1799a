"""How the commands find the fabric they are told, or not told, about."""

from __future__ import annotations

import os
from pathlib import Path

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.fabric.base import redacted


def address(fabric: str | None = None, run_dir: Path | None = None) -> str:
    """The URL of the fabric that is meant.

    Args:
        fabric: a URL, or the path of a run directory or of the ``fabric.json`` in it.
        run_dir: a run directory. With neither, the environment variable ``DIASPORA_PARSL_FABRIC`` and then the newest
            run below the current directory are asked.

    Raises:
        ConfigurationError: both were given, or a fabric that no other process can be on.
        FabricError: there is no fabric to be found, now.
    """
    from diaspora_parsl.fabric.embedded import find_fabric  # noqa: PLC0415  (not needed for --help)

    if fabric and run_dir:
        raise ConfigurationError("--fabric and --run-dir say the same thing twice: give one of them.")
    if fabric is None and run_dir is None:
        fabric = os.environ.get("DIASPORA_PARSL_FABRIC") or None
    if fabric and (fabric == "embedded" or fabric.startswith("memory:")):
        raise ConfigurationError(
            f"fabric={redacted(fabric)!r} names a fabric of this process alone. Write --run-dir DIR for a run's own "
            "fabric, or --fabric redis://host:6379/0."
        )
    if fabric and "://" in fabric:
        return fabric
    if fabric:
        path = Path(fabric)
        run_dir = path.parent if path.suffix == ".json" else path
    return find_fabric(run_dir)
