"""W3C trace context: which trace a task is, and which span of it an attempt is."""

from __future__ import annotations

import hashlib
from typing import Final

#: Spreads small numbers over 64 bits, one to one, for samplers that look at part of an id.
_SPREAD: Final = 0x9E3779B97F4A7C15
_MASK: Final = 2**64 - 1


class Traces:
    """The ids of all tasks and attempts of one source; whoever knows the source knows them, so that nothing is kept.

    Args:
        source: of the pool's events, unique for each run.
    """

    __slots__ = ("_run", "_spans")

    def __init__(self, source: str) -> None:
        digest = hashlib.blake2b(source.encode("utf-8", "replace"), digest_size=12).digest()
        self._run = (int.from_bytes(digest[:8], "big") | 1) << 64
        self._spans = (int.from_bytes(digest[8:], "big") | 1) << 32

    def trace_id(self, task: int) -> int:
        """Of a task."""
        return self._run | (task * _SPREAD & _MASK)

    def span_id(self, attempt: int = 0) -> int:
        """Of an attempt; 0: of the task itself. Unique in the trace of the task."""
        return self._spans | (attempt & 0xFFFFFFFF)

    def parent(self, task: int, attempt: int = 0) -> str:
        """The ``traceparent`` of an attempt, or of the task (https://www.w3.org/TR/trace-context/#traceparent-header)."""
        return f"00-{self.trace_id(task):032x}-{self.span_id(attempt):016x}-01"
