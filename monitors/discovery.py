"""Discovery of the fabric for the commands: by URL, by run directory, or the latest run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from diaspora_parsl.errors import ConfigurationError, FabricError, FabricUnavailableError, FabricURLError
from diaspora_parsl.fabric.base import Fabric, open_fabric, redacted

from .view.event_feed import EventFeed, is_finished_run

if TYPE_CHECKING:
    from collections.abc import Callable


def address(fabric: str | None = None, run_dir: Path | None = None) -> str:
    """The URL of the fabric that is meant.

    Args:
        fabric: a URL, or the path of a run directory or of the ``fabric.json`` in it.
        run_dir: a run directory. With neither, the environment variable ``DIASPORA_PARSL_FABRIC`` and then the newest
            run below the current directory are asked.

    Raises:
        ConfigurationError: both were given, or a fabric that no other process can be on.
        FabricUnavailableError: there is no fabric to be found, now.
    """
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
    from diaspora_parsl.fabric.transports.redis.embedded import find_fabric  # noqa: PLC0415  (an agent with a URL does without it)

    try:
        return find_fabric(run_dir)
    except FabricURLError as error:
        # For a command that waits for a run, a missing fabric may still come.
        raise FabricUnavailableError(str(error)) from error


def open_live(fabric: str | None = None, run_dir: Path | None = None) -> Fabric:
    """Open the fabric that is meant, of a run that is still going on; see `address`.

    Raises:
        FabricUnavailableError: the run is over.
    """
    url = address(fabric, run_dir)
    if is_finished_run(url):
        raise FabricUnavailableError("the run's fabric does not answer, or the run is over")
    return open_fabric(url)


def key(url: str, fabric: str | None = None, run_dir: Path | None = None) -> str:
    """The key for what is asked of pools on a fabric.

    Args:
        url: of the fabric that was opened.
        fabric: as given to `address`.
        run_dir: as given to `address`.

    Raises:
        ConfigurationError: there is none to be found; pools would follow nothing.
    """
    from diaspora_parsl.fabric.address import KEY_VARIABLE, find_key  # noqa: PLC0415  (as above)

    if fabric and "://" not in fabric:
        run_dir = Path(fabric)
    found = find_key(url, run_dir)
    if not found:
        raise ConfigurationError(
            f"Pools follow only who has the key of their run, which stands in its fabric.json. Write --run-dir DIR, or "
            f"set {KEY_VARIABLE} here and where the pools are started."
        )
    return found


def feed(fabric: str | None, run_dir: Path | None, *, wait: float = 0.0, say: Callable[[str], object]) -> EventFeed:
    """Everything that the fabric that is meant holds; see `address`.

    Args:
        fabric: see `address`.
        run_dir: see `address`.
        wait: seconds to wait for a run to start.
        say: Called once if there is something to wait for.

    Raises:
        FabricError: there was no fabric to be found in all that time.
    """
    end = time.monotonic() + wait
    reported = False
    while True:
        try:
            return EventFeed(lambda: address(fabric, run_dir))
        except FabricError as error:
            if time.monotonic() >= end:
                raise
            reported = reported or bool(say(f"waiting up to {wait:.0f} s for a run to start. {error}") or True)
        time.sleep(0.2)
