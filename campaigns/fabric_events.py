"""The events of a run, read back from its fabric when the run is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from diaspora_parsl import Fabric, open_fabric
from diaspora_parsl.errors import FabricError, FabricURLError
from diaspora_parsl.events import TOPIC_ENDPOINT, TOPIC_TASK, Event

logger = logging.getLogger(__name__)

#: Seconds of quiet after which everything has been read.
_QUIET: Final = 1.0


def events_of_run(executors: Iterable[Any], run_dir: Path, since: float) -> list[Event]:
    """The task and endpoint events of the pools among some executors; nothing for executors that are no pools.

    A fabric that cannot be asked leaves the list shorter, with a warning: a report without reroutes beats none.

    Args:
        executors: the executors of the configuration that ran.
        run_dir: Parsl's own directory of the run, where an embedded fabric has kept its data.
        since: Unix time; older events belong to other runs on the same fabric.
    """
    found: list[Event] = []
    for executor in executors:
        fabric = getattr(executor, "fabric", None)
        if fabric is None:
            continue
        try:
            found += _read(fabric, run_dir)
        except (FabricError, FabricURLError) as error:
            logger.warning("The events of %s cannot be read: %s", getattr(executor, "label", "a pool"), error)
    return [
        event for event in found if event.is_state_change and datetime.fromisoformat(event.time).timestamp() >= since
    ]


def _read(fabric: str | Fabric, run_dir: Path) -> list[Event]:
    ours = isinstance(fabric, str)
    if isinstance(fabric, str):
        fabric = open_fabric(f"embedded://{quote(str(run_dir.resolve()))}" if fabric == "embedded" else fabric)
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
        if ours:
            fabric.close()
