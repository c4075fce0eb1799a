"""Ends a pool with the interpreter, for a script that ends without `parsl.clear()`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

_PERIOD: Final = 0.5


class ExitWatch(threading.Thread):
    """Calls ``end`` when the main thread and all other threads that hold an interpreter up are done.

    Parsl only warns then, and would leave every interchange and every block behind. `atexit` is too late: no thread can
    be started there any more. So this is a thread that is waited for, and that waits for all others of that kind.

    Args:
        name: of the thread.
        end: called once, unless `cancel` comes first.
    """

    def __init__(self, name: str, end: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=False)
        self._end = end
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """There is nothing to end any more."""
        self._cancelled.set()

    def run(self) -> None:
        """Wait for the end."""
        main = threading.main_thread()
        while not self._cancelled.wait(_PERIOD):
            if main.is_alive():
                continue
            if all(
                thread.daemon or isinstance(thread, ExitWatch) for thread in threading.enumerate() if thread is not main
            ):
                self._end()
                return
