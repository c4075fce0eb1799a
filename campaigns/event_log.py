"""Listening to the fabric while a campaign runs, so that its report can tell what happened to the tasks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from diaspora_parsl import Fabric
from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.events import TOPIC_ENDPOINT, TOPIC_TASK, Event

_WAIT: Final = 0.5


@contextmanager
def listening(fabric: Fabric) -> Iterator[list[Event]]:
    """Collect the task and endpoint events that arrive while the block runs, those already kept included.

    The list is complete when the block has been left: end Parsl inside it, then the pool's last events are in.
    A fabric that cannot be reached only leaves the list shorter.
    """
    events: list[Event] = []
    ending = threading.Event()

    def listen() -> None:
        subscription = fabric.subscribe((TOPIC_TASK, TOPIC_ENDPOINT), "earliest")
        try:
            while True:
                last = ending.is_set()
                try:
                    found = subscription.read(_WAIT)
                except FabricUnavailableError:
                    if ending.wait(_WAIT):
                        return
                    continue
                events.extend(event for event in found if event.is_state_change)
                if last and not found:
                    return
        finally:
            subscription.close()

    listener = threading.Thread(target=listen, name="campaign-events", daemon=True)
    listener.start()
    try:
        yield events
    finally:
        ending.set()
        listener.join(timeout=30)
