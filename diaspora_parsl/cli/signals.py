"""Signals that end a program in good order."""

from __future__ import annotations

import select
import signal
import socket
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType


class StopSignals:
    """Waits that a signal to stop cuts short; a second signal ends the process immediately."""

    def __init__(self) -> None:
        self._reason = ""
        self._old: dict[signal.Signals, signal.Handlers | Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        """Take the signals over."""
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # nohup, and a shell that starts a background job, ask for a signal to be ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Give the signals back."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._read.close()
        self._write.close()

    def wait(self, seconds: float) -> str:
        """Sleep for some seconds or until a signal comes; return its name, or an empty string."""
        if not self._reason:
            select.select([self._read], [], [], max(0.0, seconds))
        return self._reason

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self._reason:
            raise SystemExit(0)
        self._reason = signal.Signals(number).name
        self._write.send(b"!")
