"""W3C trace context: which trace a task is, and which span of it an attempt is."""

from __future__ import annotations

import hashlib
from typing import Final

_TASKS: Final = 2**64 - 1
_ATTEMPTS: Final = 2**32 - 1


class Traces:
    """The ids of all tasks and attempts of one source; whoever knows the source knows them, so that nothing is kept.

    Args:
        source: of the pool's events, unique for each run.
    """

    __slots__ = ("_head", "_middle", "_run", "_spans")

    def __init__(self, source: str) -> None:
        digest = hashlib.blake2b(source.encode("utf-8", "replace"), digest_size=12).digest()
        run, spans = int.from_bytes(digest[:8], "big") | 1, int.from_bytes(digest[8:], "big") | 1
        self._run, self._spans = run << 64, spans << 32
        self._head, self._middle = f"00-{run:016x}", f"-{spans:08x}"

    def trace_id(self, task: int) -> int:
        """Of a task."""
        return self._run | (task & _TASKS)

    def span_id(self, attempt: int = 0) -> int:
        """Of an attempt; 0: of the task itself. Unique in the trace of the task."""
        return self._spans | (attempt & _ATTEMPTS)

    def parent(self, task: int, attempt: int = 0) -> str:
        """The ``traceparent`` of an attempt, or of the task (https://www.w3.org/TR/trace-context/#traceparent-header)."""
        return f"{self._head}{task:016x}{self._middle}{attempt:08x}-01"
