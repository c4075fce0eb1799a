"""W3C trace context: a task is a trace, an attempt is a span."""

from __future__ import annotations

import hashlib
from typing import Final

_TASKS: Final = 2**64 - 1
_ATTEMPTS: Final = 2**32 - 1


class Traces:
    """Derives the ids of all tasks and attempts from the source, without state.

    Args:
        source: Source of the pool's events; unique per run.
    """

    __slots__ = ("_head", "_middle", "_run", "_spans")

    def __init__(self, source: str) -> None:
        digest = hashlib.blake2b(source.encode("utf-8", "replace"), digest_size=12).digest()
        run, spans = int.from_bytes(digest[:8], "big") | 1, int.from_bytes(digest[8:], "big") | 1
        self._run, self._spans = run << 64, spans << 32
        self._head, self._middle = f"00-{run:016x}", f"-{spans:08x}"

    def trace_id(self, task: int) -> int:
        """Return the trace id of a task."""
        return self._run | (task & _TASKS)

    def span_id(self, attempt: int = 0) -> int:
        """Return the span id of an attempt, or of the task itself for 0; unique in the trace of the task."""
        return self._spans | (attempt & _ATTEMPTS)

    def parent(self, task: int, attempt: int = 0) -> str:
        """Return the ``traceparent`` of an attempt or a task (https://www.w3.org/TR/trace-context/#traceparent-header)."""
        return f"{self._head}{task:016x}{self._middle}{attempt:08x}-01"
