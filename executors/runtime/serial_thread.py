"""One thread for the calls to one endpoint, so that a blocked call delays no other endpoint."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

logger = logging.getLogger(__name__)


class SerialThread:
    """A thread with a queue of calls. A call that raises is logged, and the next one follows.

    Args:
        name: Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, call: Callable[[], None]) -> None:
        """Queue a call. Never blocks."""
        self._calls.put(call)

    def close(self) -> None:
        """Let the thread end after the calls that are already in the queue."""
        self._calls.put(None)

    def join(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the thread to end; False if it still runs."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException:  # also SystemExit: it must not end the thread
                logger.exception("A call of %s failed", self._thread.name)
            del call  # an idle thread keeps nothing alive
