"""One thread that does one endpoint's calls, in order, so that none of them can stall anybody else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

logger = logging.getLogger(__name__)


class SerialThread:
    """A thread with a queue of calls. A call that raises is logged; the lane goes on.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, call: Callable[[], None]) -> None:
        """Have it done, after what was asked for before. Never blocks."""
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
            except Exception:
                logger.exception("A call of %s failed", self._thread.name)
            del call  # an idle lane keeps nothing alive
