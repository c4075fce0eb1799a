"""The events of a run, read back from its fabric while it goes on or when it is over."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from diaspora_parsl import open_fabric
from diaspora_parsl.errors import FabricError, FabricURLError
from diaspora_parsl.events import TOPIC_ENDPOINT, TOPIC_TASK, Event

logger = logging.getLogger(__name__)

#: Seconds of quiet after which everything has been read.
_QUIET: Final = 1.0


def events_of_run(run_dir: Path, since: float, *, running: bool = False) -> list[Event]:
    """The task and endpoint events of a run; none if no pool took part.

    A fabric that cannot be asked gives no events and a warning: a report without reroutes beats none. A ``memory://``
    fabric is gone with the pool.

    Args:
        run_dir: Parsl's own directory of the run, in which a pool says where its fabric is.
        since: Unix time; older events belong to other runs on the same fabric.
        running: the run goes on, as far as is known: its fabric is asked where it says it can be, not opened again.
    """
    try:
        url = _address(run_dir, running=running)
        found = _read(url) if url else []
    except (FabricError, FabricURLError, OSError, ValueError) as error:
        logger.warning("The events of this run cannot be read, so its reroutes are not in the report: %s", error)
        return []
    return [event for event in found if datetime.fromisoformat(event.time).timestamp() >= since]


def _address(run_dir: Path, *, running: bool) -> str | None:
    """What opens the fabric: the data that an embedded one has left, or the address that was written down."""
    if not running and (run_dir / "fabric").is_dir():
        return f"embedded://{quote(str(run_dir.resolve()))}"
    record = run_dir / "fabric.json"
    return str(json.loads(record.read_text(encoding="utf-8"))["url"]) if record.exists() else None


def _read(url: str) -> list[Event]:
    fabric = open_fabric(url)
    try:
        subscription = fabric.subscribe((TOPIC_TASK, TOPIC_ENDPOINT), "earliest")
        try:
            events: list[Event] = []
            while more := subscription.read(_QUIET):
                events += more
            return events
        finally:
            subscription.close()
    finally:
        fabric.close()
